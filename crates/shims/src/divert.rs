//! Packets out of the stack to a callout in user space, and on from where they were when they come back.
//!
//! A walk that meets a callout which is registered stops there ([`Outcome::Diverted`]). The packet is written into a ring
//! buffer, with the suspended walk and everything that is known about it, and taken out of the stack. What user space sends back
//! comes by a device of our own ([`inject`](crate::inject)), with a token that says where it goes on.
//!
//! A packet of a socket that leaves cannot be taken out where it meets its layers: TCP would be told that it was not sent. So it
//! gets a mark there, and is taken out at the device ([`divert_out`](crate::inject::divert_out)), silently. One that arrives is dropped by its hook, which
//! nobody is told.

use crate::{
    counters::count,
    memory::Structure,
    offsets as at,
    refuse::is_dry_run,
    report::About,
    words as record_words,
    work::{CLOSED, MAY_STOP, Outcome, Work},
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MMAPABLE, bpf_dynptr},
    helpers::generated::{
        bpf_dynptr_data, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_loop, bpf_ringbuf_discard_dynptr,
        bpf_ringbuf_query, bpf_ringbuf_reserve_dynptr, bpf_ringbuf_submit_dynptr, bpf_skb_load_bytes,
    },
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use core::{
    ffi::c_void,
    hint::black_box,
    intrinsics::{AtomicOrdering, atomic_xchg},
    mem::MaybeUninit,
};
use openwfp_abi::{
    config::DIVERTS,
    counters::{DIVERT_ABSENT, DIVERT_FULL, DIVERTED as DIVERTED_COUNT},
    divert::{
        BEAT_NANOSECONDS, DRY_RUN, Divert, DivertRecord, LARGE_PIECE, LONGEST_PACKET, SMALL_PACKET, SMALL_PIECE,
        STATE_WORDS, Token, VALUES,
    },
};
use openwfp_engine::State;

/// The packets that wait for a callout. The loader makes it as large as it is asked to.
#[map]
pub static DIVERTED: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What user space says about itself.
#[map]
pub static DIVERT: Array<Divert> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What is true of the packets that user space injects. One entry where nothing is diverted.
#[map]
pub static TOKENS: Array<Token> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The devices at which [`divert_out`](crate::inject::divert_out) is attached, by index.
#[map]
pub static DIVERT_DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(4096, 0);

const _: () = assert!(size_of::<State>() == STATE_WORDS * 8);

const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
const AVAILABLE: u64 = 0;
/// `CHECKSUM_PARTIAL`: the device, or whoever stands for it, computes the checksum.
const PARTIAL: u8 = 3;

/// A flag of [`honour`](crate::inject::honour) and [`meet`]: the packet comes in.
pub const INBOUND: u32 = openwfp_abi::divert::INBOUND as u32;

/// How many bytes the record of a packet has.
#[inline(always)]
fn record_bytes(length: u32) -> u32 {
    let piece = if length <= SMALL_PACKET { SMALL_PIECE } else { LARGE_PIECE };
    size_of::<DivertRecord>() as u32 + (length + piece - 1) / piece * piece
}

/// Lets the walk stop for a callout, where there is somebody to take the packet and a way back for it.
///
/// # Safety
/// `packet` is the context of a program; `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn arm_divert(packet: *mut __sk_buff, work: *mut Work, may: u32) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's; the verifier checks the members.
    let (work, length, interface) = unsafe { (&mut *work, (*packet).len, (*packet).ifindex) };
    work.stop = 0;
    let Some(divert) = DIVERT.get(0) else { return 0 };
    // SAFETY: a valid map value; volatile, because user space changes it. The helpers take a map, or nothing.
    let (beat, room, now, used) = unsafe {
        let (beat, room) = ((&raw const divert.beat).read_volatile(), (&raw const divert.room).read_volatile());
        (beat, room, bpf_ktime_get_coarse_ns(), bpf_ringbuf_query((&raw const DIVERTED).cast_mut().cast(), AVAILABLE))
    };
    let lives = beat != 0 && (now < beat || now - beat < BEAT_NANOSECONDS);
    let back = may != 0 && work.knows(work.compartment) && DIVERT_DEVICES.get_ptr(&interface).is_some();
    if !lives || !back {
        work.stop = DIVERT_ABSENT as u64;
        return 0;
    }
    // each record has a header of eight bytes
    if length > LONGEST_PACKET || used + record_bytes(length) as u64 + 64 > room {
        work.stop = DIVERT_FULL as u64;
        return 0;
    }
    work.stop = MAY_STOP;
    1
}

/// A packet meets a layer at which it may be diverted. Apart from [`Work::decide`], this costs a test where no policy diverts.
#[inline(always)]
pub fn meet(packet: *mut __sk_buff, work: &mut Work, about: &About, place: u16, flags: u16, may: bool) -> Outcome {
    if at::DIVERTS_ASKED() == 0 {
        return work.decide(about);
    }
    if work.flags & DIVERTS != 0 {
        // SAFETY: the caller's context; memory that is claimed.
        unsafe { arm_divert(packet, work, may as u32) };
    }
    let outcome = work.decide(about);
    work.stop = 0;
    if outcome != Outcome::Diverted {
        return outcome;
    }
    let what = about.layer as u64 | (place as u64) << 16 | (flags as u64) << 32;
    // SAFETY: as above.
    Outcome::of_number(unsafe { take_packet(packet, work, what, about.flow, about.socket) })
}

/// Writes a packet into the ring buffer: [`Outcome::Absorbed`], or closed where that fails. In `what`: the layer, the stage and
/// the flags, 16 bits each.
///
/// # Safety
/// `packet` is the context of a program; `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn take_packet(
    packet: *mut __sk_buff,
    work: *mut Work,
    what: u64,
    flow: u64,
    socket: u64,
) -> u32 {
    if work.is_null() {
        return CLOSED.number();
    }
    // SAFETY: the caller's; the verifier checks the member.
    let (work, length) = unsafe { (&*work, black_box((*packet).len)) };
    if length == 0 || length > LONGEST_PACKET {
        return CLOSED.number();
    }
    let mut memory = MaybeUninit::<bpf_dynptr>::uninit();
    let entry = memory.as_mut_ptr();
    // SAFETY: the map is this one, the pointer our own memory. Whatever comes of it has to be given back.
    let reserved =
        unsafe { bpf_ringbuf_reserve_dynptr((&raw const DIVERTED).cast_mut().cast(), record_bytes(length), 0, entry) };
    // SAFETY: as above; the record is reserved memory of this size.
    unsafe {
        let record: *mut DivertRecord = bpf_dynptr_data(entry, 0, size_of::<DivertRecord>() as u32).cast();
        if reserved != 0 || record.is_null() {
            bpf_ringbuf_discard_dynptr(entry, 0);
            count(DIVERT_FULL);
            return CLOSED.number();
        }
        (*record).length = length;
        (*record).layer = what as u16;
        (*record).stage = (what >> 16) as u16;
        (*record).flags =
            (what >> 32) as u16 | if work.flags & openwfp_abi::config::DRY_RUN != 0 { DRY_RUN } else { 0 };
        (*record).flow = flow;
        (*record).socket = socket;
        describe(packet, work, record);
        let mut walk = Pieces { packet, entry, at: 0, length, failed: 0 };
        let pieces = (length + LARGE_PIECE - 1) / LARGE_PIECE;
        if length <= SMALL_PACKET {
            let pieces = (length + SMALL_PIECE - 1) / SMALL_PIECE;
            bpf_loop(pieces, one_piece::<SMALL_PIECE> as *mut c_void, (&raw mut walk).cast(), 0);
        } else {
            bpf_loop(pieces, one_piece::<LARGE_PIECE> as *mut c_void, (&raw mut walk).cast(), 0);
        }
        if walk.failed != 0 {
            bpf_ringbuf_discard_dynptr(entry, 0);
            count(DIVERT_FULL);
            return CLOSED.number();
        }
        // whoever finds it asleep wakes it, alone
        let awake = DIVERT.get_ptr_mut(0).is_some_and(|divert| {
            let awake = &raw mut (*divert).awake;
            awake.read_volatile() != 0 || atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(awake, 1) != 0
        });
        bpf_ringbuf_submit_dynptr(entry, if awake { NO_WAKEUP } else { FORCE_WAKEUP });
    }
    count(DIVERTED_COUNT);
    Outcome::Absorbed.number()
}

/// What the record says of the packet besides its bytes.
///
/// # Safety
/// `record` is valid; `packet` is the context of a program.
#[inline(always)]
unsafe fn describe(packet: *mut __sk_buff, work: &Work, record: *mut DivertRecord) {
    // SAFETY: the caller's; the verifier checks the members. The helper takes no arguments.
    unsafe {
        (*record).time = bpf_ktime_get_ns();
        (*record).compartment = work.compartment;
        (*record).kept = work.kept;
        (*record).injector = work.injector as u32;
        (*record).generation = work.generation();
        (*record).interface = (*packet).ifindex;
        (*record).arrival = (*packet).ingress_ifindex;
        (*record).mark = (*packet).mark;
        (*record).priority = (*packet).priority;
        (*record).protocol = u16::from_be((*packet).protocol as u16);
        let tagged = (*packet).vlan_present != 0;
        (*record).vlan = (*packet).vlan_tci as u16;
        (*record).vlan_protocol = if tagged { u16::from_be((*packet).vlan_proto as u16) } else { 0 };
        (*record).kind = (*packet).pkt_type as u8;
        (*record).gso_size = (*packet).gso_size as u16;
        (*record).zero = 0;
        offloads(packet, record);
        record_words::copy(&raw const work.identity, &raw mut (*record).identity);
        let state = (&raw const work.state).cast::<u64>();
        for word in 0..STATE_WORDS {
            (&raw mut (*record).state[word]).write_volatile(state.add(word).read_volatile());
        }
        for word in 0..VALUES {
            (&raw mut (*record).values[word]).write_volatile(work.values.get(word));
        }
    }
}

/// What the device still has to do to the packet. The context of a program *is* the kernel's `sk_buff`, whose other members can
/// only be read as any memory of the kernel.
///
/// # Safety
/// As [`describe`].
#[inline(always)]
unsafe fn offloads(packet: *mut __sk_buff, record: *mut DivertRecord) {
    let buffer = Structure(packet as u64);
    // SAFETY: the caller's; what cannot be read fails.
    unsafe {
        let place = at::PACKET_SUMMED_PLACE();
        let summed = buffer.read::<u8>((place / 8) as usize).unwrap_or(0) >> (place % 8) & 3;
        (*record).summed = summed;
        (*record).sum_start = 0;
        (*record).sum_offset = 0;
        (*record).gso_type = 0;
        if summed != PARTIAL && (*record).gso_size == 0 {
            return;
        }
        let head: u64 = buffer.read(at::PACKET_HEAD()).unwrap_or(0);
        if summed == PARTIAL {
            let data: u64 = buffer.read(at::PACKET_DATA()).unwrap_or(0);
            let start: u16 = buffer.read(at::PACKET_SUM_START()).unwrap_or(0);
            (*record).sum_start = (start as u64).wrapping_sub(data.wrapping_sub(head)) as u16;
            (*record).sum_offset = buffer.read(at::PACKET_SUM_OFFSET()).unwrap_or(0);
        }
        if (*record).gso_size != 0 {
            let end: u32 = buffer.read(at::PACKET_END()).unwrap_or(0);
            let shared = Structure(head + end as u64);
            (*record).gso_type = shared.read(at::SHARED_GSO_TYPE()).unwrap_or(0);
        }
    }
}

/// A walk along the pieces of a packet.
struct Pieces {
    packet: *mut __sk_buff,
    entry: *mut bpf_dynptr,
    at: u32,
    length: u32,
    failed: u32,
}

/// One piece: 1 ends the walk.
extern "C" fn one_piece<const PIECE: u32>(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: `take_packet` hands over a valid walk. The helpers write at most as many bytes as the piece has.
    unsafe {
        let walk = &mut *walk.cast::<Pieces>();
        let left = walk.length.wrapping_sub(walk.at);
        let size = if left > PIECE { PIECE } else { left };
        // from 1 to a piece, in a form in which Linux 6.1 sees it too; of nothing it makes too much, which fails
        let size = (black_box(size.wrapping_sub(1)) & (PIECE - 1)) + 1;
        let place = bpf_dynptr_data(walk.entry, size_of::<DivertRecord>() as u32 + walk.at, PIECE);
        if place.is_null() || bpf_skb_load_bytes(walk.packet.cast(), walk.at, place, size) != 0 {
            walk.failed = 1;
            return 1;
        }
        walk.at += PIECE;
        0
    }
}

/// What a hook of a socket's packets returns.
#[inline(always)]
pub fn answer(packet: *mut __sk_buff, outcome: Outcome, inbound: bool) -> i32 {
    match outcome {
        Outcome::Absorbed if inbound => 0,
        Outcome::Absorbed => {
            // SAFETY: the context is valid; the verifier checks the member.
            unsafe { (*packet).mark = at::DIVERT_MARK() };
            1
        }
        Outcome::Blocked(_) if !is_dry_run() => 0,
        _ => 1,
    }
}
