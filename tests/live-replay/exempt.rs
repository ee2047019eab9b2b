//! What is not compared, and why.

use crate::{compare::Step, world::Met};
use openwfp_engine::{EMPTY, UNKNOWN};
use openwfp_model::{ConditionFlags, FieldId};
use std::collections::BTreeSet;

/// Layers of calls, which no packet shows: a capture cannot meet them.
const CALLS: [&str; 5] =
    ["ALE_BIND_REDIRECT", "ALE_RESOURCE_ASSIGNMENT", "ALE_AUTH_LISTEN", "ALE_RESOURCE_RELEASE", "ALE_CONNECT_REDIRECT"];

const CLOSURE: &str = "ALE_ENDPOINT_CLOSURE";

/// Live classifications without those that are not compared.
///
/// - [`CALLS`];
/// - ALE_ENDPOINT_CLOSURE of what is no established TCP connection: sockets of other protocols, sockets that listen, and attempts that
///   came to nothing. Live it comes with the call that closes the socket, which no packet shows;
/// - at devices, where fragments are met one by one: INBOUND_TRANSPORT of a fragment, which a replay meets when the datagram is whole, and
///   OUTBOUND_IPPACKET of all fragments but the first, which stands for the datagram in a replay.
pub fn live(met: Met, mut steps: Vec<Step>) -> Vec<Step> {
    if met == Met::AtDevices {
        let mut before = String::new();
        steps.retain(|step| {
            let (family, fragment) = (step.family(), has(step, ConditionFlags::IS_FRAGMENT));
            let alone = family == "OUTBOUND_IPPACKET" && before != "OUTBOUND_TRANSPORT";
            before = family;
            !(fragment && (alone || before == "INBOUND_TRANSPORT"))
        });
    }
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
/// - ALE_ENDPOINT_CLOSURE of attempts that came to nothing: here it comes with the packet that shows that, or never;
/// - of fragments that come in: at sockets each of them at INBOUND_IPPACKET, since the kernel has put them together before; at devices
///   the whole datagram at INBOUND_IPPACKET and INBOUND_TRANSPORT, since the kernel puts it together after;
/// - IPFORWARD of a packet as it arrives, where it was permitted: the capture has the packet again as it leaves.
pub fn replayed(met: Met, mut steps: Vec<Step>) -> Vec<Step> {
    let errors: BTreeSet<_> =
        steps.iter().filter(|step| step.family() == "INBOUND_ICMP_ERROR").map(|step| step.packet).collect();
    let arriving: BTreeSet<_> =
        steps.iter().filter(|step| step.family() == "INBOUND_IPPACKET").map(|step| step.packet).collect();
    steps.retain(|step| {
        let family = step.family();
        let of_fragments = match met {
            Met::AtSockets => family == "INBOUND_IPPACKET" && has(step, ConditionFlags::IS_FRAGMENT),
            Met::AtDevices => {
                ["INBOUND_IPPACKET", "INBOUND_TRANSPORT"].contains(&family.as_str())
                    && has(step, ConditionFlags::IS_REASSEMBLED)
            }
        };
        let again = family == "IPFORWARD" && !step.blocked && arriving.contains(&step.packet);
        let of_error = met == Met::AtSockets && errors.contains(&step.packet);
        !["STREAM", "STREAM_DISCARD"].contains(&step.family().as_str())
            && !of_error
            && !of_fragments
            && !again
            && !finds_neighbours(step)
    });
    without_closure_of_attempts(steps)
}

fn flags(step: &Step) -> Option<u64> {
    step.field(FieldId::FLAGS).map(|words| words[0])
}

fn has(step: &Step, flag: ConditionFlags) -> bool {
    flags(step).is_some_and(|flags| flags & u64::from(flag.bits()) != 0)
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
const INTERFACE: [FieldId; 21] = [
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
    FieldId::SOURCE_INTERFACE_INDEX,
    FieldId::SOURCE_SUB_INTERFACE_INDEX,
    FieldId::IP_PHYSICAL_ARRIVAL_INTERFACE,
    FieldId::DESTINATION_INTERFACE_INDEX,
    FieldId::DESTINATION_SUB_INTERFACE_INDEX,
    FieldId::IP_FORWARD_INTERFACE,
    FieldId::IP_PHYSICAL_NEXTHOP_INTERFACE,
];

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
    if field != FieldId::FLAGS {
        return false;
    }
    // The kernel does not say that it has put a datagram together.
    let mut unknown = ConditionFlags::IS_REASSEMBLED;
    if met == Met::AtDevices && family.starts_with("INBOUND_TRANSPORT") {
        // A device does not know which packets belong to an authorized flow.
        unknown |= ConditionFlags::REQUIRES_ALE_CLASSIFY;
    }
    if met == Met::AtDevices && (family.starts_with("OUTBOUND") || family.starts_with("IPFORWARD")) {
        // What leaves in fragments is asked about before it is cut in a replay; and the platform has the flag at INBOUND_IPPACKET alone,
        // while devices show it wherever they meet a fragment.
        unknown |= ConditionFlags::IS_FRAGMENT;
    }
    let known = |step| flags(step).map(|flags| flags & !u64::from(unknown.bits()));
    known(live) == known(replayed)
}
