//! What a packet of a socket passes once it is known what it belongs to: the authorization that it brings about, and the layers of
//! packets, each way in its order. Functions of their own, verified once: not again for each way to come here.

use crate::{
    divert,
    flows::{self, Standing},
    header::Header,
    icmp::write_embedded,
    inject,
    kept::{Kept, RECALLED},
    layers::{
        AUTH_CONNECT, AUTH_RECV_ACCEPT, INBOUND, INBOUND_ICMP_ERROR, INBOUND_IPPACKET, INBOUND_TRANSPORT,
        IS_REAUTHORIZE, Layers, OUTBOUND, OUTBOUND_ICMP_ERROR, OUTBOUND_IPPACKET, OUTBOUND_TRANSPORT,
        REQUIRES_ALE_CLASSIFY, authorization, authorizes,
    },
    maps::{ENDPOINTS, FLOWS},
    packets::{Packet, data_layer},
    report::About,
    storage::bits,
    work::{self, CLOSED, FAIL_SOCKET, OLD_FLOW, Outcome, Work, next_flow},
};
use aya_ebpf::bindings::__sk_buff;
use core::mem::MaybeUninit;
use openwfp_abi::{
    config::{AT_DEVICES, CHANGED, DIVERTS, DRY_RUN, LATE},
    divert::stage,
    flow::{BY_WAY, CONNECT_LATE, FLOW_REFUSED, FlowKey, PACKET_AUTHORIZED},
};
use openwfp_engine::words;

/// What becomes of a packet before it meets layers of its own.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Need(u32);

impl Need {
    /// It belongs to something that is authorized, or needs no authorization.
    pub const NOTHING: Self = Self(0);
    /// It opens something.
    pub const AUTHORIZE: Self = Self(1);
    /// What it belongs to was authorized before a change.
    pub const REAUTHORIZE: Self = Self(2);
    /// What it belongs to was refused.
    pub const DROP: Self = Self(3);
}

/// Whether a packet goes on: what the hook returns, or neither.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verdict(pub u32);

impl Verdict {
    /// It is dropped.
    pub const DROP: Self = Self(0);
    /// Nothing is asked about it.
    pub const PASS: Self = Self(1);
    /// Something is.
    pub const GO_ON: Self = Self(2);
}

/// What a packet belongs to, and what it still has to pass.
#[repr(C)]
pub struct Passage {
    /// The flow of datagrams.
    pub key: FlowKey,
    /// What is kept with its socket.
    pub kept: Kept,
    /// The id of its flow.
    pub flow: u64,
    pub need: Need,
    /// Whether somebody looks at it at the layers of packets, as 0 or 1.
    pub meets: u32,
    /// Whether it is one of a TCP connection, as 0 or 1.
    pub stream: u32,
    zero: u32,
}

impl Passage {
    /// Takes in what is known of the packet, of which something is asked if it is `routed` whatever else.
    #[inline(always)]
    pub fn goes_on(&mut self, flow: u64, need: Need, meets: bool, stream: bool, routed: bool) -> Verdict {
        (self.flow, self.need, self.meets, self.stream) = (flow, need, meets as u32, stream as u32);
        if need == Need::DROP {
            Verdict::DROP
        } else if need == Need::NOTHING && !meets && !routed {
            Verdict::PASS
        } else {
            Verdict::GO_ON
        }
    }

    #[inline(always)]
    fn is_stream(&self) -> bool {
        self.stream != 0
    }
}

/// What a subprogram here is given, where its pointers are valid.
#[inline(always)]
unsafe fn given<'a>(
    work: *mut Work,
    header: *const Header,
    passage: *mut Passage,
) -> Option<(&'a mut Work, &'a Header, &'a mut Passage)> {
    if work.is_null() || header.is_null() || passage.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe { Some((&mut *work, &*header, &mut *passage)) }
}

/// A packet that leaves, with its values in `work`, is authorized, and then meets the layer of its data, OUTBOUND_TRANSPORT and
/// OUTBOUND_IPPACKET.
///
/// # Safety
/// `context` is that of a program of packets, `work` claimed memory; the others are valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn pass_out(
    context: *mut __sk_buff,
    work: *mut Work,
    header: *const Header,
    passage: *mut Passage,
) -> u32 {
    // SAFETY: the caller's.
    let Some((work, header, passage)) = (unsafe { given(work, header, passage) }) else { return CLOSED.number() };
    let packet = Packet { context, inbound: false };
    if header.routed {
        // SAFETY: memory that is claimed, and our own.
        let outcome = unsafe { goes_by_way(work, &mut passage.key) };
        if outcome != Outcome::Permitted.number() {
            return outcome;
        }
    }
    let outcome = packet.authorize(work, header, passage);
    if outcome != Outcome::Permitted {
        return outcome.number();
    }
    if passage.meets == 0 {
        return Outcome::Permitted.number();
    }
    let asked = passage.kept.flags & (CONNECT_LATE | PACKET_AUTHORIZED) != 0;
    if passage.flow == 0 && !passage.is_stream() && work.flags & (CHANGED | LATE) == 0 && !asked {
        // it was authorized by its call
        passage.flow = packet.standing(header, &passage.key, work.flags).1;
    }
    let flow = passage.flow;
    let data = data_layer(header, passage.is_stream(), OUTBOUND_ICMP_ERROR);
    let outcome = packet.meets(work, header, &[data], flow, stage::OUT_DATA, 0);
    if outcome != Outcome::Permitted || work.flags & AT_DEVICES != 0 {
        return outcome.number();
    }
    packet.meets(work, header, &[OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET], flow, stage::OUT_TRANSPORT, 0).number()
}

/// A packet that arrives, with its values in `work`, meets INBOUND_IPPACKET and INBOUND_TRANSPORT, then is authorized, and then meets
/// the layer of its data.
///
/// # Safety
/// As [`pass_out`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn pass_in(
    context: *mut __sk_buff,
    work: *mut Work,
    header: *const Header,
    passage: *mut Passage,
) -> u32 {
    // SAFETY: the caller's.
    let Some((work, header, passage)) = (unsafe { given(work, header, passage) }) else { return CLOSED.number() };
    let packet = Packet { context, inbound: true };
    let passed = if work.flags & DIVERTS != 0 { packet.passed(work) } else { 0 };
    if passage.meets != 0 && work.flags & AT_DEVICES == 0 {
        let authorized = passage.need == Need::AUTHORIZE;
        let outcome = packet.enters(work, header, authorized, passage.flow, passed);
        if outcome != Outcome::Permitted {
            return outcome.number();
        }
    }
    let outcome = packet.authorize(work, header, passage);
    if outcome != Outcome::Permitted {
        return outcome.number();
    }
    if passage.meets == 0 {
        return Outcome::Permitted.number();
    }
    if header.is_icmp_error() {
        // SAFETY: the context is valid; memory that is claimed.
        unsafe { write_embedded(context, work, header.transport as u32, header.source.is_v6() as u32) };
    }
    let data = data_layer(header, passage.is_stream(), INBOUND_ICMP_ERROR);
    packet.meets(work, header, &[data], passage.flow, stage::IN_DATA, passed).number()
}

impl Packet {
    /// The authorization that the packet brings about, if any, for the first time or again; where it is permitted, the flow is in
    /// `passage`.
    #[inline(always)]
    fn authorize(&self, work: &mut Work, header: &Header, passage: &mut Passage) -> Outcome {
        if passage.need == Need::NOTHING {
            Outcome::Permitted
        } else if passage.need == Need::REAUTHORIZE {
            self.reauthorize(work, passage)
        } else if self.inbound {
            self.accepts(work, header, passage)
        } else {
            self.connects(work, header, passage)
        }
    }

    /// At which of its layers a packet goes on that was injected.
    #[inline(always)]
    fn passed(&self, work: &mut Work) -> u16 {
        // SAFETY: the context is valid.
        let number = unsafe { inject::honour(self.context, 0, divert::INBOUND) };
        let Some(token) = inject::token(number) else { return 0 };
        // SAFETY: a valid map value.
        unsafe {
            work.injector = (*token).injector as u64;
            (*token).stage
        }
    }

    /// INBOUND_IPPACKET and INBOUND_TRANSPORT, which is told when ALE_AUTH_RECV_ACCEPT comes next.
    #[inline(always)]
    fn enters(&self, work: &mut Work, header: &Header, authorized: bool, flow: u64, passed: u16) -> Outcome {
        let outcome = self.meets(work, header, &[INBOUND_IPPACKET], flow, stage::IN_IPPACKET, passed);
        if outcome != Outcome::Permitted {
            return outcome;
        }
        let flags = work.values.get(words::FLAGS) as u32;
        work.values.set(words::FLAGS, if authorized { flags | REQUIRES_ALE_CLASSIFY } else { flags });
        let outcome = self.meets(work, header, &[INBOUND_TRANSPORT], flow, stage::IN_TRANSPORT, passed);
        work.values.set(words::FLAGS, flags);
        outcome
    }

    /// The packet meets layers, one after the other, until one blocks it; `first` is the stage of the first, and those before
    /// the stage `from` are behind it.
    #[inline(always)]
    fn meets(&self, work: &mut Work, header: &Header, layers: &[Layers], flow: u64, first: u16, from: u16) -> Outcome {
        let v6 = header.source.is_v6();
        let direction = if self.inbound { INBOUND } else { OUTBOUND };
        work.values.set(words::DIRECTION, direction);
        let socket = self.cookie();
        // what goes to many is looped back, and cannot be sent again to all of them
        let (may, way) = match self.inbound {
            true => (true, divert::INBOUND),
            false => (header.destination.is_unicast(), 0),
        };
        for (stage, layer) in (first..).zip(layers) {
            if stage < from {
                continue;
            }
            let about = About { layer: layer.of(v6), socket, flow, flags: OLD_FLOW };
            let outcome = divert::meet(self.context, work, &about, stage, way as u16, may);
            if outcome != Outcome::Permitted {
                return outcome;
            }
        }
        Outcome::Permitted
    }

    /// ALE_AUTH_CONNECT, with everything known.
    #[inline(always)]
    fn connects(&self, work: &mut Work, header: &Header, passage: &mut Passage) -> Outcome {
        let v6 = header.destination.is_v6();
        let flow = next_flow();
        let flags = if passage.is_stream() { FAIL_SOCKET } else { 0 };
        let outcome = work.decide(&About { layer: AUTH_CONNECT.of(v6), socket: passage.key.socket, flow, flags });
        if outcome != Outcome::Permitted {
            return outcome;
        }
        passage.flow = flow;
        if !passage.is_stream() {
            return flows::establish(work, &passage.key, flow, authorization(false, v6), header.first);
        }
        if let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value; packets of a connecting socket leave one at a time.
            unsafe {
                (*endpoint).flow = flow;
                (*endpoint).generation = work.generation();
                (*endpoint).network = work.network();
                (*endpoint).authorization = authorization(false, v6);
                self.keep_interface(endpoint);
                bits::clear(&raw mut (*endpoint).flags, CONNECT_LATE);
            }
        }
        outcome
    }

    /// ALE_AUTH_RECV_ACCEPT.
    #[inline(always)]
    fn accepts(&self, work: &mut Work, header: &Header, passage: &mut Passage) -> Outcome {
        let v6 = header.source.is_v6();
        let flow = if passage.is_stream() { 0 } else { next_flow() };
        let about = About { layer: AUTH_RECV_ACCEPT.of(v6), socket: passage.key.socket, flow, flags: 0 };
        let outcome = work.decide(&about);
        if passage.is_stream() || outcome != Outcome::Permitted {
            passage.flow = 0;
            return outcome;
        }
        passage.flow = flow;
        flows::establish(work, &passage.key, flow, authorization(true, v6), header.first)
    }

    /// Asks again, at the layer that authorized the flow, whichever way the packet goes.
    #[inline(always)]
    fn reauthorize(&self, work: &mut Work, passage: &mut Passage) -> Outcome {
        let (key, kept, flow) = (&passage.key, &passage.kept, passage.flow);
        let (authorization, changes) = if passage.is_stream() {
            match flows::changes(kept.generation, kept.network, kept.authorization) {
                0 => (kept.authorization, flows::NETWORK),
                changes => (kept.authorization, changes),
            }
        } else {
            // SAFETY: our own memory.
            let old = unsafe { flow_changes(key) };
            if old == UNKNOWN {
                // it had to make room a moment ago: the next packet opens it
                return CLOSED;
            }
            (old as u32, (old >> 32) as u32)
        };
        let before = work.values.get(words::FLAGS) as u32;
        work.values.set(words::FLAGS, before | IS_REAUTHORIZE);
        work.values.set(words::REAUTHORIZE_REASON, flows::reasons(changes, self.inbound));
        let flags = OLD_FLOW | if passage.is_stream() || self.is_connected() { FAIL_SOCKET } else { 0 };
        let about = About { layer: authorizes(authorization), socket: key.socket, flow, flags };
        let outcome = work.decide(&about);
        work.values.set(words::FLAGS, before);
        work.values.set(words::REAUTHORIZE_REASON, 0);
        // a dry run tells once what it would have refused
        let goes_on = outcome == Outcome::Permitted || work.flags & DRY_RUN != 0;
        if !passage.is_stream() {
            if goes_on {
                flows::remember(work, key, flow, authorization);
            } else {
                flows::remember_refused(work, key, flow, authorization);
            }
            return outcome;
        }
        let socket = self.socket();
        let endpoint = match kept.flags & RECALLED {
            0 => socket.and_then(|socket| ENDPOINTS.get(socket)),
            _ => socket.and_then(|socket| ENDPOINTS.get_or_insert(socket)),
        };
        if let Some(endpoint) = endpoint {
            // SAFETY: a valid map value.
            unsafe {
                if kept.flags & RECALLED != 0 {
                    (*endpoint).flow = flow;
                    (*endpoint).compartment = kept.compartment;
                    (*endpoint).authorization = authorization;
                }
                if goes_on {
                    (*endpoint).generation = work.generation();
                    (*endpoint).network = work.network();
                    self.keep_interface(endpoint);
                } else {
                    bits::set(&raw mut (*endpoint).flags, FLOW_REFUSED);
                }
            }
        }
        outcome
    }
}

/// No flow.
const UNKNOWN: u64 = u64::MAX;

/// By which layer a flow of datagrams was authorized, and what has changed since in the high 32 bits; all ones: it is not known.
///
/// # Safety
/// `key` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn flow_changes(key: *const FlowKey) -> u64 {
    if key.is_null() {
        return UNKNOWN;
    }
    let mut copy = MaybeUninit::uninit();
    // SAFETY: the caller's.
    let key = unsafe { flows::copy_key(key, &mut copy) };
    let Some(flow) = FLOWS.get_ptr(&*key) else { return UNKNOWN };
    // SAFETY: a valid map value.
    let (generation, network, authorization) = unsafe { ((*flow).generation, (*flow).network, (*flow).authorization) };
    authorization as u64 | (flows::changes(generation, network, authorization) as u64) << 32
}

/// ALE_AUTH_CONNECT of a hop by way of which a packet goes somewhere else. That was, or will be, asked for by itself.
///
/// # Safety
/// `work` is claimed memory, with the values of the packet; `key` is valid, and as before when this returns.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn goes_by_way(work: *mut Work, key: *mut FlowKey) -> u32 {
    if work.is_null() || key.is_null() {
        return work::CLOSED.number();
    }
    // SAFETY: the caller's.
    let (work, hop) = unsafe { (&mut *work, &mut *key) };
    let kind = hop.kind;
    hop.kind = BY_WAY;
    let mut outcome = Outcome::Permitted;
    if flows::standing(hop, &mut 0) != Standing::CURRENT {
        let v6 = hop.version == 6;
        outcome = work.decide(&About { layer: AUTH_CONNECT.of(v6), socket: hop.socket, flow: 0, flags: 0 });
        if outcome == Outcome::Permitted {
            flows::remember(work, hop, 0, authorization(false, v6));
        }
    }
    hop.kind = kind;
    outcome.number()
}
