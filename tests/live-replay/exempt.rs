//! What is not compared, and why.

use crate::{compare::Step, world::Met};
use openwfp_engine::{EMPTY, UNKNOWN};
use openwfp_model::FieldId;
use std::collections::BTreeSet;

/// Layers of calls, which no packet shows: a capture cannot meet them.
const CALLS: [&str; 5] =
    ["ALE_BIND_REDIRECT", "ALE_RESOURCE_ASSIGNMENT", "ALE_AUTH_LISTEN", "ALE_RESOURCE_RELEASE", "ALE_CONNECT_REDIRECT"];

const CLOSURE: &str = "ALE_ENDPOINT_CLOSURE";

/// Live classifications without those that are not compared.
///
/// - [`CALLS`];
/// - ALE_ENDPOINT_CLOSURE of what is no established TCP connection: sockets of other protocols, sockets that listen, and attempts that
///   came to nothing. Live it comes with the call that closes the socket, which no packet shows.
pub fn live(mut steps: Vec<Step>) -> Vec<Step> {
    steps.retain(|step| {
        let family = step.family();
        let remote = FieldId::IP_REMOTE_ADDRESS;
        let connected = step.is(FieldId::IP_PROTOCOL, TCP) && step.field(remote) != all_empty(step, remote);
        !CALLS.contains(&family.as_str()) && (family != CLOSURE || connected) && !finds_neighbours(step)
    });
    without_closure_of_attempts(steps)
}

/// Replayed classifications without those that are not compared.
///
/// - STREAM and its discard layer: live, data are put together for callouts alone;
/// - all that ICMP errors meet, at sockets: an error is handed to no socket of the group, hence met at devices alone;
/// - ALE_ENDPOINT_CLOSURE of attempts that came to nothing: here it comes with the packet that shows that, or never.
pub fn replayed(met: Met, mut steps: Vec<Step>) -> Vec<Step> {
    let errors: BTreeSet<_> =
        steps.iter().filter(|step| step.family() == "INBOUND_ICMP_ERROR").map(|step| step.packet).collect();
    steps.retain(|step| {
        let of_error = met == Met::AtSockets && errors.contains(&step.packet);
        !["STREAM", "STREAM_DISCARD"].contains(&step.family().as_str()) && !of_error && !finds_neighbours(step)
    });
    without_closure_of_attempts(steps)
}

const TCP: u64 = 6;

fn all_empty(step: &Step, field: FieldId) -> Option<Vec<u64>> {
    step.field(field).map(|words| vec![EMPTY; words.len()])
}

fn without_closure_of_attempts(mut steps: Vec<Step>) -> Vec<Step> {
    let mut established = false;
    steps.retain(|step| {
        established |= step.family() == "ALE_FLOW_ESTABLISHED";
        established || step.family() != CLOSURE
    });
    steps
}

/// What the networks say about themselves and the groups that they listen to, whenever they like; none of it is the scene's.
fn finds_neighbours(step: &Step) -> bool {
    let group = |field| {
        step.field(field).is_some_and(|words| match words[..] {
            // 224.0.0.0/24
            [v4] => v4 >> 8 == 0xe0_0000,
            _ => words[0] >> 24 == 0xff,
        })
    };
    let frame = |field| step.field(field).is_some_and(|words| words[0] >> 8 & 1 == 1);
    group(FieldId::IP_LOCAL_ADDRESS)
        || group(FieldId::IP_REMOTE_ADDRESS)
        || frame(FieldId::MAC_LOCAL_ADDRESS)
        || frame(FieldId::MAC_REMOTE_ADDRESS)
}

/// Who acts, and where: a capture knows no processes and no network namespaces.
const PROCESS: [FieldId; 4] =
    [FieldId::ALE_APP_ID, FieldId::ALE_ORIGINAL_APP_ID, FieldId::ALE_USER_ID, FieldId::COMPARTMENT_ID];

/// What an ICMP error quotes: the programs read the error alone, and `wfp run` says so where a policy tests it.
const EMBEDDED: [FieldId; 5] = [
    FieldId::EMBEDDED_PROTOCOL,
    FieldId::EMBEDDED_REMOTE_ADDRESS,
    FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE,
    FieldId::EMBEDDED_LOCAL_PORT,
    FieldId::EMBEDDED_REMOTE_PORT,
];

/// The interface in all its parts.
const INTERFACE: [FieldId; 14] = [
    FieldId::INTERFACE_INDEX,
    FieldId::INTERFACE_TYPE,
    FieldId::TUNNEL_TYPE,
    FieldId::IP_LOCAL_INTERFACE,
    FieldId::SUB_INTERFACE_INDEX,
    FieldId::ARRIVAL_INTERFACE_INDEX,
    FieldId::ARRIVAL_INTERFACE_TYPE,
    FieldId::ARRIVAL_TUNNEL_TYPE,
    FieldId::IP_ARRIVAL_INTERFACE,
    FieldId::NEXTHOP_INTERFACE_INDEX,
    FieldId::NEXTHOP_INTERFACE_TYPE,
    FieldId::NEXTHOP_TUNNEL_TYPE,
    FieldId::IP_NEXTHOP_INTERFACE,
    FieldId::NEXTHOP_SUB_INTERFACE_INDEX,
];

/// `FWP_CONDITION_FLAG_REQUIRES_ALE_CLASSIFY`.
const REQUIRES_ALE_CLASSIFY: u64 = 256;

/// Whether a field of a live classification may differ from the replayed one.
pub fn field(met: Met, live: &Step, replayed: &Step, field: FieldId) -> bool {
    let family = live.family();
    let in_a_call = family.starts_with("ALE_AUTH_CONNECT") || family.starts_with("ALE_FLOW_ESTABLISHED");
    if PROCESS.contains(&field) || EMBEDDED.contains(&field) && live.field(field) == all_empty(live, field) {
        return true;
    }
    if INTERFACE.contains(&field) {
        let unknown = live.field(field).is_some_and(|words| words.contains(&UNKNOWN));
        return match met {
            // Captures of Ethernet do not say which interface they were made at.
            Met::AtDevices => true,
            // What a call does not know yet: where a policy tests it, the first packet is asked instead. A flow that is
            // established by its authorization is so in that call. What is closed is remembered without its interface in a replay.
            Met::AtSockets => in_a_call && unknown || family == CLOSURE,
        };
    }
    // So is the source of a socket that is bound to nothing.
    let local = [FieldId::IP_LOCAL_ADDRESS, FieldId::IP_LOCAL_PORT].contains(&field);
    if local && in_a_call {
        return live.field(field).is_some_and(|words| words.contains(&UNKNOWN));
    }
    // A device does not know which packets belong to an authorized flow.
    let flags = |step: &Step| step.field(FieldId::FLAGS).map(|words| words[0] & !REQUIRES_ALE_CLASSIFY);
    met == Met::AtDevices
        && field == FieldId::FLAGS
        && family.starts_with("INBOUND_TRANSPORT")
        && flags(live) == flags(replayed)
}
