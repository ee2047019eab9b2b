//! Unix sockets: the group may connect and send to those that were made in it, and to those that are named.
//!
//! The two functions of the kernel at which these programs stand are called once the kernel has found the peer's socket,
//! and with it locked. So nothing is looked up twice: no path that changes meanwhile, no other name of the same socket, and no
//! file that is put in its place. A socket carries the group of the task that made it; it cannot be moved to another.
//!
//! Where the machine lets no program stand there, [`unix_path`] sees what is asked for instead, before the kernel looks for
//! it. It lets through paths that can lead nowhere else: into the folder that is the run's own, in whose file system no link is
//! followed, and the named ones, which the loader has found to be out of the command's hands. Abstract names are left to
//! Landlock, which knows who made a socket.
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
    macros::{cgroup_sock_addr, lsm, map},
    maps::HashMap,
    programs::{LsmContext, SockAddrContext},
};
use core::mem::MaybeUninit;
use openwfp_abi::unix::{AbstractName, NAME_BYTES, PRIVATE_FOLDER, SocketFile, SocketPath, UNIX_ENTRIES};

/// Files of sockets outside that may be spoken to.
#[map]
static UNIX_FILES: HashMap<SocketFile, u64> = HashMap::with_max_entries(UNIX_ENTRIES, 0);

/// Abstract names of sockets outside that may be spoken to.
#[map]
static UNIX_NAMES: HashMap<AbstractName, u64> = HashMap::with_max_entries(UNIX_ENTRIES, 0);

/// Paths that may be asked for, where only the path is known.
#[map]
static UNIX_PATHS: HashMap<SocketPath, u64> = HashMap::with_max_entries(UNIX_ENTRIES, 0);

/// What a refused call says.
const EPERM: i32 = 1;

/// Groups nest less deep below the command's than this; what is deeper counts as outside.
pub const DEPTH: u32 = 16;

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
pub fn is_of_group(socket: Pointer) -> Option<bool> {
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

/// `connect()` and datagrams with an address, of Unix sockets: `cgroup/connect_unix` and `cgroup/sendmsg_unix` (Linux 6.7). aya
/// knows neither; the loader says which one it is.
#[cgroup_sock_addr(connect4)]
pub fn unix_path(context: SockAddrContext) -> i32 {
    let permitted = path_is_permitted(context.sock_addr as usize).unwrap_or(false) || is_dry_run();
    permitted as i32
}

#[inline(always)]
fn path_is_permitted(call: usize) -> Option<bool> {
    const FAMILY_BYTES: usize = 2;
    const WORDS: usize = (NAME_BYTES + 1).div_ceil(8);
    let mut address = 0usize;
    let from = call + at::CALL_ADDRESS();
    // SAFETY: eight bytes of our own; the helper checks the source, the kernel's side of the context.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut address).cast(), 8, from as *const _) };
    if failed != 0 || address == 0 {
        return None;
    }
    let mut path = MaybeUninit::<SocketPath>::uninit();
    // SAFETY: zeros are a path.
    let path = unsafe {
        words::zero(path.as_mut_ptr());
        path.assume_init_mut()
    };
    let mut length = 0u32;
    let from = call + at::CALL_ADDRESS_LENGTH();
    // SAFETY: four bytes of our own; as above.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut length).cast(), 4, from as *const _) };
    let length = length.wrapping_sub(FAMILY_BYTES as u32);
    if failed != 0 || length == 0 || length > NAME_BYTES as u32 + 1 {
        return None;
    }
    let from = (address + FAMILY_BYTES) as *const _;
    // in a box that LLVM does not look into: it would leave out the mask, which older kernels' verifiers need
    let length = core::hint::black_box(length) & 127;
    // SAFETY: the key has room for as many bytes. The address is the kernel's copy, which no user changes.
    let failed = unsafe { bpf_probe_read_kernel(path.bytes.as_mut_ptr().cast(), length, from) };
    if failed != 0 {
        return None;
    }
    // Landlock asks for these
    if path.bytes[0] & 0xff == 0 {
        return Some(true);
    }
    // The path ends at the first zero; what comes after it means nothing. Without branches, which the verifier would follow
    // one by one.
    let (mut ended, mut length, mut dots, mut last) = (0u64, 0u64, 0u64, 0u64);
    for index in 0..WORDS {
        // SAFETY: the words of the key.
        let word = unsafe { path.bytes.as_mut_ptr().add(index) };
        // SAFETY: as above; volatile keeps the loop as it is.
        let bytes = unsafe { word.read_volatile() };
        let mut kept = 0u64;
        for place in 0..8 {
            let byte = bytes >> (8 * place) & 0xff;
            // 1 for a byte that is not zero
            let is_some = (byte + 0xff) >> 8;
            ended |= 1 - is_some;
            let is_path = 1 - ended;
            // 0 for a dot alone
            let differs = ((byte ^ u64::from(b'.')) + 0xff) >> 8;
            let dot = (1 - differs) & is_path;
            dots |= dot & last;
            last = dot;
            length += is_path;
            kept |= (byte * is_path) << (8 * place);
        }
        // SAFETY: as above.
        unsafe { word.write_volatile(kept) };
    }
    path.length = length;
    if UNIX_PATHS.get_ptr(&*path).is_some() {
        return Some(true);
    }
    const FOLDER: &[u8; 9] = b"/run/wfp/";
    const { assert!(matches!(PRIVATE_FOLDER.as_bytes(), b"/run/wfp/")) };
    let first = u64::from_ne_bytes(*FOLDER.first_chunk().unwrap_or(&[0; 8]));
    let begins = path.bytes[0] == first && path.bytes[1] & 0xff == u64::from(FOLDER[8]);
    Some(begins && dots == 0)
}
