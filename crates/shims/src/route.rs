//! Whether a packet that comes in at a device stays here: what the routes say, which know more local addresses than those of
//! interfaces (broadcasts of networks, multicast groups, whole networks that are local, what was added just now).

use crate::{header::Header, words::zero};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_fib_lookup},
    helpers::generated::bpf_fib_lookup as look_up,
};
use core::mem::MaybeUninit;

/// `AF_INET`, `AF_INET6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`: it is local, or has no route. `BPF_FIB_LKUP_RET_FWD_DISABLED`: nothing is forwarded from
/// this device.
const NOT_FORWARDED: i64 = 4;
const FORWARDING_DISABLED: i64 = 5;

/// Whether a packet that came by `interface` is not forwarded. What cannot be told is not.
///
/// # Safety
/// `packet` is the context of a program, `header` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn stays_here(packet: *mut __sk_buff, header: *const Header, interface: u32) -> u32 {
    if header.is_null() {
        return 1;
    }
    let mut route = MaybeUninit::<bpf_fib_lookup>::uninit();
    // SAFETY: zeros are a request; the unions hold integers. The caller's.
    let answer = unsafe {
        zero(route.as_mut_ptr());
        let (route, header) = (&mut *route.as_mut_ptr(), &*header);
        route.ifindex = interface;
        route.l4_protocol = header.protocol;
        let (source, destination) = (header.source.key(), header.destination.key());
        if header.source.is_v6() {
            route.family = IPV6;
            for word in 0..4 {
                (&raw mut route.__bindgen_anon_3.ipv6_src[word]).write_volatile(source[word].to_be());
                (&raw mut route.__bindgen_anon_4.ipv6_dst[word]).write_volatile(destination[word].to_be());
            }
        } else {
            route.family = IPV4;
            route.__bindgen_anon_3.ipv4_src = source[0].to_be();
            route.__bindgen_anon_4.ipv4_dst = destination[0].to_be();
        }
        look_up(packet.cast(), route, size_of::<bpf_fib_lookup>() as i32, 0)
    };
    (answer < 0 || answer == NOT_FORWARDED || answer == FORWARDING_DISABLED) as u32
}
