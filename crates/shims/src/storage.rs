//! Memory that lives and dies with a socket.
//!
//! Declared by hand: aya-ebpf's own declaration takes the context of one kind of hook only.

use crate::counters::count;
use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
};
use openwfp_abi::counters::NO_STORAGE;

/// A map with one `T` for each socket that was given one. A socket that a listening socket accepts
/// inherits its value.
///
/// The fields are never read: their *types*, pointers in BTF, are the map's definition.
#[repr(C)]
pub struct SocketStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the map is the kernel's, which takes care of concurrent use; the pointers are null.
unsafe impl<T> Sync for SocketStorage<T> {}

#[allow(dead_code)]
impl<T> SocketStorage<T> {
    /// The declaration; goes into a static with `#[btf_map]`.
    pub const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    #[inline(always)]
    fn lookup(&self, socket: *mut bpf_sock, flags: u64) -> Option<*mut T> {
        let map = (&raw const *self).cast_mut().cast();
        // SAFETY: the map is this one; the verifier checks that `socket` is a socket and not null.
        let value = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), flags) };
        if value.is_null() { None } else { Some(value.cast()) }
    }

    /// The socket's value, if it has one. Other programs may change it at any time.
    #[inline(always)]
    pub fn get(&self, socket: *mut bpf_sock) -> Option<*mut T> {
        self.lookup(socket, 0)
    }

    /// The socket's value, all zero if it had none; `None` (and counted) when there is no memory for it. That can be
    /// brought about by whoever has the socket: its options have a bound in common, and he sets options. So whatever
    /// needs the value has to be closed without.
    #[inline(always)]
    pub fn get_or_insert(&self, socket: *mut bpf_sock) -> Option<*mut T> {
        let value = self.lookup(socket, BPF_LOCAL_STORAGE_GET_F_CREATE as u64);
        if value.is_none() {
            count(NO_STORAGE);
        }
        value
    }

    /// Takes the socket's value away.
    #[inline(always)]
    pub fn remove(&self, socket: *mut bpf_sock) {
        let map = (&raw const *self).cast_mut().cast();
        // SAFETY: as in `lookup`.
        unsafe { bpf_sk_storage_delete(map, socket.cast()) };
    }
}

/// Sets and clears bits of a word that other programs may change at the same time: none of theirs is lost.
pub mod bits {
    use core::intrinsics::{AtomicOrdering, atomic_and, atomic_or};

    /// Sets bits.
    ///
    /// # Safety
    /// `word` is a valid, aligned map value.
    #[inline(always)]
    pub unsafe fn set(word: *mut u64, bits: u64) {
        // SAFETY: the caller's.
        unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(word, bits) };
    }

    /// Clears bits.
    ///
    /// # Safety
    /// `word` is a valid, aligned map value.
    #[inline(always)]
    pub unsafe fn clear(word: *mut u64, bits: u64) {
        // SAFETY: the caller's.
        unsafe { atomic_and::<u64, u64, { AtomicOrdering::SeqCst }>(word, !bits) };
    }
}
