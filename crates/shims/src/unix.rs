//! Unix sockets: the group may connect and send to those that were made in it, and to those that are named.
//!
//! The two functions of the kernel at which these programs stand are called once the kernel has found the peer's socket,
//! and with it locked. So nothing is looked up twice: no path that changes meanwhile, no other name of the same socket, and no
//! file that is put in its place. A socket carries the group of the task that made it; it cannot be moved to another.
//!
//! Their sections say `lsm`, and the loader attaches them in front of the security modules instead, which needs none of
//! them to be enabled: a result other than 0 is the caller's error.

use crate::{
    offsets::{self as at, Pointer, load, pointer},
    refuse::is_dry_run,
    task::current_is_ours,
    words,
};
use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_unix_sock},
    macros::{lsm, map},
    maps::HashMap,
    programs::LsmContext,
};
use core::mem::MaybeUninit;
use openwfp_abi::unix::{AbstractName, NAME_BYTES, SocketFile, UNIX_ENTRIES};

/// Files of sockets outside that may be spoken to.
#[map]
static UNIX_FILES: HashMap<SocketFile, u64> = HashMap::with_max_entries(UNIX_ENTRIES, 0);

/// Abstract names of sockets outside that may be spoken to.
#[map]
static UNIX_NAMES: HashMap<AbstractName, u64> = HashMap::with_max_entries(UNIX_ENTRIES, 0);

/// What a refused call says.
const EPERM: i32 = 1;

/// Groups nest less deep below the command's than this; what is deeper counts as outside.
const DEPTH: u32 = 16;

/// `connect()` of a stream or of packets in sequence: `(struct sock *, struct sock *listening, struct sock *new)`.
#[lsm(hook = "unix_stream_connect")]
pub fn unix_connect(context: LsmContext) -> i32 {
    if !current_is_ours() {
        return 0;
    }
    judge(context.arg(1))
}

/// A datagram, and `connect()` of a socket of datagrams: `(struct socket *, struct socket *peer)`.
#[lsm(hook = "unix_may_send")]
pub fn unix_send(context: LsmContext) -> i32 {
    if !current_is_ours() {
        return 0;
    }
    match pointer(context.arg(1), at::SOCKET_SOCK()) {
        Some(peer) => judge(peer),
        None => -EPERM,
    }
}

/// 0 when the peer's `struct sock` may be spoken to.
#[inline(always)]
fn judge(peer: Pointer) -> i32 {
    let permitted = is_of_group(peer).unwrap_or(false) || is_named(peer).unwrap_or(false) || is_dry_run();
    if permitted { 0 } else { -EPERM }
}

/// Whether a socket was made in the command's group or in one below it.
#[inline(always)]
fn is_of_group(socket: Pointer) -> Option<bool> {
    let mut group = pointer(socket, at::SOCK_GROUP())?;
    for _ in 0..DEPTH {
        let id: u64 = load(pointer(group, at::GROUP_NODE())?, at::NODE_ID());
        if id == at::GROUP_ID() {
            return Some(true);
        }
        group = pointer(pointer(group, at::GROUP_PARENT())?, at::STATE_GROUP())?;
    }
    Some(false)
}

#[inline(always)]
fn is_named(socket: Pointer) -> Option<bool> {
    // SAFETY: the verifier checks that it is a socket; the helper gives null for one of another family.
    let socket = unsafe { bpf_skc_to_unix_sock(socket.cast_mut().cast()) } as Pointer;
    if socket.is_null() {
        return None;
    }
    match pointer(socket, at::UNIX_DENTRY()) {
        Some(dentry) => has_named_file(dentry),
        None => has_named_address(socket),
    }
}

#[inline(always)]
fn has_named_file(dentry: Pointer) -> Option<bool> {
    let device: u32 = load(pointer(dentry, at::DENTRY_SB())?, at::SB_DEV());
    let inode: u64 = load(pointer(dentry, at::DENTRY_INODE())?, at::INODE_NUMBER());
    let file = SocketFile { inode, device, zero: 0 };
    Some(UNIX_FILES.get_ptr(&file).is_some())
}

#[inline(always)]
fn has_named_address(socket: Pointer) -> Option<bool> {
    const FAMILY_BYTES: u32 = 2;
    let address = pointer(socket, at::UNIX_ADDRESS())?;
    let length = load::<u32>(address, at::UNIX_ADDRESS_LENGTH()).wrapping_sub(FAMILY_BYTES);
    if length == 0 || length > NAME_BYTES as u32 + 1 {
        return None;
    }
    // a mask that changes nothing: it shows the verifier what the comparison has established
    let length = length & 127;
    let mut name = MaybeUninit::<AbstractName>::uninit();
    // SAFETY: zeros are a name.
    let name = unsafe {
        words::zero(name.as_mut_ptr());
        name.assume_init_mut()
    };
    name.length = u64::from(length);
    let from = address.wrapping_add(at::UNIX_ADDRESS_NAME() + FAMILY_BYTES as usize);
    // SAFETY: the bytes have room for `length` of them; the helper checks the source.
    let failed = unsafe { bpf_probe_read_kernel(name.bytes.as_mut_ptr().cast(), length, from.cast()) };
    // a path begins with another byte
    if failed != 0 || name.bytes[0].to_ne_bytes()[0] != 0 {
        return None;
    }
    Some(UNIX_NAMES.get_ptr(&*name).is_some())
}
