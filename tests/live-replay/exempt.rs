//! What is not compared, and why.

use crate::{compare::Step, world::Met};
use openwfp_engine::UNKNOWN;
use openwfp_model::FieldId;

/// Layers of calls, which no packet shows: a capture cannot meet them.
const CALLS: [&str; 5] =
    ["ALE_BIND_REDIRECT", "ALE_RESOURCE_ASSIGNMENT", "ALE_AUTH_LISTEN", "ALE_RESOURCE_RELEASE", "ALE_CONNECT_REDIRECT"];

/// Whether a live classification is not compared.
pub fn live(_: Met, step: &Step) -> bool {
    let family = step.family();
    let closes = family == "ALE_ENDPOINT_CLOSURE";
    CALLS.contains(&family.as_str())
        // nothing is sent when a socket of another protocol is closed
        || closes && !step.is(FieldId::IP_PROTOCOL, TCP)
        || finds_neighbours(step)
}

/// Whether a replayed classification is not compared.
pub fn replayed(_: Met, step: &Step) -> bool {
    // the data of streams are seen live by callouts alone
    step.family().starts_with("STREAM") && !step.family().starts_with("STREAM_PACKET") || finds_neighbours(step)
}

const TCP: u64 = 6;

/// What the networks say about themselves and the groups that they listen to, whenever they like; none of it is the scene's.
fn finds_neighbours(step: &Step) -> bool {
    let group = |field| step.field(field).is_some_and(|words| words.len() == 4 && words[0] >> 24 == 0xff);
    let frame = |field| step.field(field).is_some_and(|words| words[0] >> 8 & 1 == 1);
    group(FieldId::IP_LOCAL_ADDRESS)
        || group(FieldId::IP_REMOTE_ADDRESS)
        || frame(FieldId::MAC_LOCAL_ADDRESS)
        || frame(FieldId::MAC_REMOTE_ADDRESS)
}

/// Who acts, and where: a capture knows no processes and no network namespaces.
const PROCESS: [FieldId; 4] =
    [FieldId::ALE_APP_ID, FieldId::ALE_ORIGINAL_APP_ID, FieldId::ALE_USER_ID, FieldId::COMPARTMENT_ID];

/// Whether a field of a live classification may differ from the replayed one.
pub fn field(_met: Met, live: &Step, field: FieldId) -> bool {
    if PROCESS.contains(&field) {
        return true;
    }
    // What a call does not know yet: the first packet shows it, and is asked instead where a policy tests it.
    let late = live.family().starts_with("ALE_AUTH_CONNECT");
    late && live.field(field).is_some_and(|words| words.contains(&UNKNOWN))
}
