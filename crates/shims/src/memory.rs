//! The kernel's memory, read by its address.
//!
//! A call for each member, where a typed load (see [`crate::offsets`]) is one instruction. But the verifier goes through all names
//! of the kernel's types, several times, whenever a typed load gives it a pointer, which takes it longer than all the rest of a small
//! program. So what every start of a command waits for, and few events meet, is read in this way.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::{ffi::c_void, mem::MaybeUninit};

/// A value made of integers; `None`: it could not be read.
#[inline(always)]
pub fn read<T: Copy>(address: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly the size of `T`, zeros when it cannot read.
    let result =
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void) };
    // SAFETY: the helper has written it.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

/// The address of a kernel structure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Structure(pub u64);

impl Structure {
    /// A member's value.
    #[inline(always)]
    pub fn read<T: Copy>(self, offset: usize) -> Option<T> {
        read(self.0 + offset as u64)
    }

    /// The structure that a member points to; `None` when it is null, or the member could not be read.
    #[inline(always)]
    pub fn follow(self, offset: usize) -> Option<Self> {
        match self.read(offset)? {
            0 => None,
            address => Some(Self(address)),
        }
    }
}
