//! What an ICMP error that comes in quotes: the beginning of a packet that this machine is said to have sent.

use crate::{
    bytes::{Bytes, Linear},
    header::{self, Header},
    layers::embedded::{EMBEDDED_PROTOCOL, EMBEDDED_REMOTE_ADDRESS, behind_address},
    protocol::{DCCP, SCTP, TCP, UDP, UDPLITE},
    words::zero,
    work::Work,
};
use aya_ebpf::bindings::__sk_buff;
use core::mem::MaybeUninit;

/// The header of an ICMP error; what it quotes follows.
const ICMP_HEADER: u32 = 8;

/// Fills in the EMBEDDED fields of INBOUND_ICMP_ERROR. What the error does not quote, or quotes of another version of IP,
/// stays empty. Answers whether there was a header to read.
///
/// # Safety
/// `packet` is the context of a program; `work` is claimed memory; `transport` is where the ICMP header begins.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn write_embedded(packet: *mut __sk_buff, work: *mut Work, transport: u32, v6: u32) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    quoted(packet, unsafe { &mut *work }, (transport & 0xffff) + ICMP_HEADER, v6 != 0).is_some() as u32
}

/// [`write_embedded`] from what lies in one piece.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn write_embedded_linear(
    start: u64,
    length: u32,
    work: *mut Work,
    transport: u32,
    v6: u32,
) -> u32 {
    if work.is_null() {
        return 0;
    }
    let packet = Linear { start, length };
    // SAFETY: the caller's.
    quoted(packet, unsafe { &mut *work }, (transport & 0xffff) + ICMP_HEADER, v6 != 0).is_some() as u32
}

#[inline(always)]
fn quoted(packet: impl Bytes, work: &mut Work, at: u32, v6: bool) -> Option<()> {
    let mut original = MaybeUninit::<Header>::uninit();
    // SAFETY: zeros are a header.
    let original = unsafe {
        zero(original.as_mut_ptr());
        original.assume_init_mut()
    };
    // 0 for none: of an `Option` the verifier would see a register that was never written
    let transport = if v6 { header::v6(packet, at, original) } else { header::v4(packet, at, original) }.unwrap_or(0);
    if original.destination.is_unspecified() {
        return None;
    }
    original.destination.write(work, EMBEDDED_REMOTE_ADDRESS);
    let behind = behind_address(v6);
    work.values.set(behind, original.source.kind());
    // without it the extension headers are not quoted to their end
    if transport == 0 {
        return None;
    }
    work.values.set(EMBEDDED_PROTOCOL, original.protocol as u32);
    if original.first
        && matches!(original.protocol, TCP | UDP | UDPLITE | SCTP | DCCP)
        && let Some([local, remote]) = packet.load::<[u16; 2]>(transport)
    {
        work.values.set(behind + 1, u16::from_be(local) as u32);
        work.values.set(behind + 2, u16::from_be(remote) as u32);
    }
    Some(())
}
