//! Bytes of a packet, wherever a program may read them from.

use crate::memory;
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes_relative};
use core::mem::MaybeUninit;

/// `BPF_HDR_START_NET`: offsets count from the network header, whatever stands before it.
const FROM_NETWORK_HEADER: u32 = 1;

/// Where bytes of a packet are read from; offsets count from the network header.
pub trait Bytes: Copy {
    /// Reads as many bytes as `T` has, which is made of integers. `None`: they are not there.
    fn load<T: Copy>(self, offset: u32) -> Option<T>;
}

/// The context of a program of packets.
impl Bytes for *mut __sk_buff {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes exactly the size of `T`, or fails.
        let result = unsafe {
            bpf_skb_load_bytes_relative(
                self.cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                FROM_NETWORK_HEADER,
            )
        };
        // SAFETY: the helper has written it.
        if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }
}

/// What lies in one piece from the network header on, for programs that are shown the kernel's own packet.
#[derive(Clone, Copy)]
pub struct Linear {
    /// The address of the network header.
    pub start: u64,
    /// How many bytes there are.
    pub length: u32,
}

impl Bytes for Linear {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        let size = size_of::<T>() as u32;
        if offset > self.length || size > self.length - offset {
            return None;
        }
        memory::read(self.start + offset as u64)
    }
}
