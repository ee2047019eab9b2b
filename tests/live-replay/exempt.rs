//! What is not compared, and why. Whatever needs an exemption is noted: one that nothing needs would hide a difference to come.

use crate::{compare::Step, world::Met};
use openwfp_engine::{EMPTY, UNKNOWN};
use openwfp_model::{ConditionFlags, FieldId};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Why something is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exemption {
    /// Live: a layer of calls, one of [`CALLS`].
    Call(&'static str),
    /// Live: ALE_ENDPOINT_CLOSURE of what is no established TCP connection: sockets of other protocols, sockets that listen. It comes
    /// with the call that closes the socket, which no packet shows.
    ClosureByCall,
    /// ALE_ENDPOINT_CLOSURE of attempts that came to nothing, or were refused at the end of their handshake: live it comes with the call that closes the socket, in a replay with the
    /// packet that shows that, or never.
    ClosureOfAttempt,
    /// Live, at devices, where fragments are met one by one: INBOUND_TRANSPORT of a fragment, which a replay meets when the datagram
    /// is whole.
    TransportOfFragment,
    /// Live, at devices: OUTBOUND_IPPACKET of all fragments but the first, which stands for the datagram in a replay.
    LaterFragment,
    /// Live, at devices: INBOUND_TRANSPORT of a packet that nobody listens for. A device does not know that.
    TransportUnheard,
    /// Live: the discard layer of such a packet comes after its answer has left; the kernel drops it when it has answered.
    DiscardAfterAnswer,
    /// Live: the answer to such a packet, where a filter blocks at the discard layer. It has left by then.
    AnswerNotHeld,
    /// Replayed, at sockets: all of what nobody listens for, and of its answer. No socket of the group has to do with it.
    UnheardAtSockets,
    /// Replayed: STREAM and its discard layer. Live, data are put together for callouts alone.
    Stream,
    /// Replayed: all that ICMP errors meet, at sockets. An error is handed to no socket of the group, hence met at devices alone.
    ErrorAtSockets,
    /// Replayed: INBOUND_IPPACKET of each fragment, at sockets, since the kernel has put them together before.
    FragmentAtSockets,
    /// Replayed: INBOUND_IPPACKET and INBOUND_TRANSPORT of the whole datagram, at devices, since the kernel puts it together after.
    WholeAtDevices,
    /// Replayed: IPFORWARD of a packet as it arrives, where it was permitted. The capture has the packet again as it leaves.
    ForwardArriving,
    /// What the networks say about themselves and the groups that they listen to, whenever they like; none of it is the scene's.
    Neighbours,
    /// Who acts, and where: a capture knows no processes and no network namespaces.
    Process(FieldId),
    /// Captures of Ethernet do not say which interface they were made at.
    InterfaceAtDevices(FieldId),
    /// What a call does not know yet: where a policy tests it, the first packet is asked instead. A flow that is established by its
    /// authorization is so in that call.
    LateInterface(FieldId),
    /// IP_LOCAL_INTERFACE at ALE_ENDPOINT_CLOSURE: what is closed is remembered without its interface in a replay.
    InterfaceOfClosure,
    /// As [`LateInterface`](Self::LateInterface): the source address of a socket that is bound to nothing.
    LateSource,
    /// Live: the kernel does not say that it has put a datagram together.
    Reassembled,
    /// Live: a device does not know which packets belong to an authorized flow.
    ClassifyAtDevices,
}

static NEEDED: Mutex<BTreeSet<Exemption>> = Mutex::new(BTreeSet::new());

/// Notes that something needs an exemption.
fn needs(exemption: Exemption) -> bool {
    NEEDED.lock().unwrap_or_else(PoisonError::into_inner).insert(exemption);
    true
}

/// The exemptions that nothing has needed so far.
pub fn never_needed() -> Vec<Exemption> {
    use Exemption::*;
    let mut all: BTreeSet<_> = CALLS.map(Call).into();
    all.extend([ClosureByCall, ClosureOfAttempt, TransportOfFragment, LaterFragment, Stream, ErrorAtSockets]);
    all.extend([TransportUnheard, DiscardAfterAnswer, AnswerNotHeld, UnheardAtSockets]);
    all.extend([FragmentAtSockets, WholeAtDevices, ForwardArriving, Neighbours]);
    all.extend([InterfaceOfClosure, LateSource, Reassembled, ClassifyAtDevices]);
    all.extend(PROCESS.map(Process));
    all.extend(INTERFACE.map(InterfaceAtDevices));
    all.extend(LATE.map(LateInterface));
    all.difference(&NEEDED.lock().unwrap_or_else(PoisonError::into_inner)).copied().collect()
}

/// Layers of calls, which no packet shows: a capture cannot meet them.
const CALLS: [&str; 5] =
    ["ALE_BIND_REDIRECT", "ALE_RESOURCE_ASSIGNMENT", "ALE_AUTH_LISTEN", "ALE_RESOURCE_RELEASE", "ALE_CONNECT_REDIRECT"];

const CLOSURE: &str = "ALE_ENDPOINT_CLOSURE";

/// Live classifications without those that are not compared.
pub fn live(met: Met, mut steps: Vec<Step>) -> Vec<Step> {
    if let Some(place) = steps.iter().position(|step| step.unheard) {
        unheard(&mut steps, place);
    }
    if met == Met::AtDevices {
        // a packet meets these one after the other; what has no transport header meets the second alone
        let (mut before, mut of_fragment) = (String::new(), false);
        steps.retain(|step| {
            let family = step.family();
            let alone = family == "OUTBOUND_IPPACKET" && before != "OUTBOUND_TRANSPORT";
            let at_once = family == "INBOUND_TRANSPORT" && of_fragment;
            of_fragment = family == "INBOUND_IPPACKET" && has(step, ConditionFlags::IS_FRAGMENT);
            before = family;
            !(alone && needs(Exemption::LaterFragment) || at_once && needs(Exemption::TransportOfFragment))
        });
    }
    steps.retain(|step| {
        let family = step.family();
        let remote = FieldId::IP_REMOTE_ADDRESS;
        let connected = step.is(FieldId::IP_PROTOCOL, TCP) && step.field(remote) != all_empty(step, remote);
        let call = CALLS.into_iter().find(|call| family == *call);
        !(call.is_some_and(|call| needs(Exemption::Call(call)))
            || family == CLOSURE && !connected && needs(Exemption::ClosureByCall)
            || finds_neighbours(step) && needs(Exemption::Neighbours))
    });
    without_closure_of_attempts(steps)
}

/// Replayed classifications without those that are not compared.
pub fn replayed(met: Met, mut steps: Vec<Step>) -> Vec<Step> {
    let packets = |family: &str| -> BTreeSet<_> {
        steps.iter().filter(|step| step.family() == family).map(|step| step.packet).collect()
    };
    let (errors, arriving) = (packets("INBOUND_ICMP_ERROR"), packets("INBOUND_IPPACKET"));
    let unheard = |pair: &[Step]| pair[1].family().ends_with("_DISCARD") && !pair[0].blocked;
    if met == Met::AtSockets && steps.windows(2).any(unheard) && needs(Exemption::UnheardAtSockets) {
        return vec![];
    }
    steps.retain(|step| {
        let family = step.family();
        let fragment = family == "INBOUND_IPPACKET" && has(step, ConditionFlags::IS_FRAGMENT);
        let whole = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT"].contains(&family.as_str())
            && has(step, ConditionFlags::IS_REASSEMBLED);
        let again = family == "IPFORWARD" && !step.blocked && arriving.contains(&step.packet);
        let at_sockets = met == Met::AtSockets;
        !(["STREAM", "STREAM_DISCARD"].contains(&family.as_str()) && needs(Exemption::Stream)
            || at_sockets && errors.contains(&step.packet) && needs(Exemption::ErrorAtSockets)
            || at_sockets && fragment && needs(Exemption::FragmentAtSockets)
            || !at_sockets && whole && needs(Exemption::WholeAtDevices)
            || again && needs(Exemption::ForwardArriving)
            || finds_neighbours(step) && needs(Exemption::Neighbours))
    });
    without_closure_of_attempts(steps)
}

/// What was met live by a packet that nobody listened for, and by its answer: in the order of a replay. Its discard layer is at `place`.
fn unheard(steps: &mut Vec<Step>, place: usize) {
    let discard = steps.remove(place);
    let remote = |step: &Step| step.field(FieldId::IP_REMOTE_ADDRESS);
    let is_it = |step: &Step| step.family() == "INBOUND_TRANSPORT" && remote(step) == remote(&discard);
    let Some(first) = steps.iter().position(is_it) else { return steps.insert(place, discard) };
    steps.remove(first);
    needs(Exemption::TransportUnheard);
    let answers = |step: &Step| step.family().starts_with("OUTBOUND");
    if place > first + 1 && steps[first..place - 1].iter().all(answers) {
        needs(Exemption::DiscardAfterAnswer);
        if discard.blocked {
            needs(Exemption::AnswerNotHeld);
            steps.drain(first..place - 1);
        }
        steps.insert(first, discard);
    } else {
        steps.insert(place - 1, discard);
    }
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
        established |= step.family() == "ALE_FLOW_ESTABLISHED" && !step.blocked;
        !(!established && step.family() == CLOSURE && needs(Exemption::ClosureOfAttempt))
    });
    steps
}

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

const PROCESS: [FieldId; 4] =
    [FieldId::ALE_APP_ID, FieldId::ALE_ORIGINAL_APP_ID, FieldId::ALE_USER_ID, FieldId::COMPARTMENT_ID];

/// The interface, as far as a connect would know it.
const LATE: [FieldId; 10] = [
    FieldId::INTERFACE_INDEX,
    FieldId::INTERFACE_TYPE,
    FieldId::TUNNEL_TYPE,
    FieldId::IP_LOCAL_INTERFACE,
    FieldId::SUB_INTERFACE_INDEX,
    FieldId::NEXTHOP_INTERFACE_INDEX,
    FieldId::NEXTHOP_INTERFACE_TYPE,
    FieldId::NEXTHOP_TUNNEL_TYPE,
    FieldId::IP_NEXTHOP_INTERFACE,
    FieldId::NEXTHOP_SUB_INTERFACE_INDEX,
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
    let late = || in_a_call && live.field(field).is_some_and(|words| words.contains(&UNKNOWN));
    if PROCESS.contains(&field) {
        return needs(Exemption::Process(field));
    }
    if met == Met::AtDevices && INTERFACE.contains(&field) {
        return needs(Exemption::InterfaceAtDevices(field));
    }
    if family == CLOSURE && field == FieldId::IP_LOCAL_INTERFACE {
        return needs(Exemption::InterfaceOfClosure);
    }
    if LATE.contains(&field) {
        return late() && needs(Exemption::LateInterface(field));
    }
    if field == FieldId::IP_LOCAL_ADDRESS {
        return late() && needs(Exemption::LateSource);
    }
    if field != FieldId::FLAGS {
        return false;
    }
    let (Some(live), Some(replayed)) = (flags(live), flags(replayed)) else { return false };
    let arrives = met == Met::AtDevices && family.starts_with("INBOUND_TRANSPORT");
    let differs = live ^ replayed;
    [
        (ConditionFlags::IS_REASSEMBLED, live & differs == 0, Exemption::Reassembled),
        (ConditionFlags::REQUIRES_ALE_CLASSIFY, arrives, Exemption::ClassifyAtDevices),
    ]
    .into_iter()
    .fold(differs, |differs, (flag, exempt, exemption)| {
        let flag = u64::from(flag.bits());
        if differs & flag != 0 && exempt && needs(exemption) { differs & !flag } else { differs }
    }) == 0
}
