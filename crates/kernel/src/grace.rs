//! Waiting until every program that was running has ended.
//!
//! The kernel does that for whoever changes a map of maps (`maybe_wait_bpf_programs`): when the call returns, every program
//! that could have seen the old inner map has ended, and with it every other program that does not sleep, which none of ours
//! does. `membarrier(MEMBARRIER_CMD_GLOBAL)` would wait for the same on most machines, but not at all on one with a
//! single processor, where programs are preempted too, and is refused under `nohz_full`.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// The first fields of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
}

/// The fields of `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map of maps that is there to be changed.
#[derive(Debug)]
pub(crate) struct Grace {
    inner: OwnedFd,
    outer: OwnedFd,
}

impl Grace {
    /// Makes the maps.
    pub(crate) fn new() -> io::Result<Self> {
        let inner = smallest_map()?;
        let inner_map = number(inner.as_raw_fd());
        let outer = create(&MapCreate { kind: BPF_MAP_TYPE_ARRAY_OF_MAPS, inner_map, ..SMALLEST })?;
        Ok(Self { inner, outer })
    }

    /// Returns when every program that was running when it was called has ended: some milliseconds.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0u32, number(self.inner.as_raw_fd()));
        let update = MapUpdate {
            map: number(self.outer.as_raw_fd()),
            zero: 0,
            key: ptr::from_ref(&key) as u64,
            value: ptr::from_ref(&value) as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads the structure, and one key and one value of four bytes each, all of which live until
        // the call returns.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const update, size_of::<MapUpdate>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A descriptor as the kernel's structures have it.
fn number(descriptor: RawFd) -> u32 {
    descriptor.cast_unsigned()
}

const SMALLEST: MapCreate =
    MapCreate { kind: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1, flags: 0, inner_map: 0 };

/// Makes the smallest map that there is.
pub(crate) fn smallest_map() -> io::Result<OwnedFd> {
    create(&SMALLEST)
}

fn create(map: &MapCreate) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told from our own structure.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, ptr::from_ref(map), size_of::<MapCreate>()) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}
