//! From an open file to its key: the device of its file system and the hash of the path inside it.
//!
//! The walk goes from the file's own folder entry (dentry) to the root of the *file system* and
//! crosses no mount, so it cannot be led astray by mounts that a user made for himself.
//!
//! `rename_lock` cannot be taken here. A rename during the walk can give a path of which one name
//! is old and another new; each of these names stood in that folder, put there by someone who may
//! write in it, so nobody comes by a path in folders that are not his.

use crate::counters::count;
use crate::memory::Structure;
use crate::offsets as at;
use crate::scratch::Scratch;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use core::ffi::c_void;
use openwfp_abi::{
    counters::WALK_FAILED,
    file::{NAME_BYTES, PATH_BYTES},
    hash::SipHash,
    label::{Label, LabelState},
};

/// A path has at most this many components: one byte of name and one `/` each.
const COMPONENTS: u32 = PATH_BYTES as u32 / 2;

/// The walk under way. `bpf_loop` hands a pointer to it to each step.
#[repr(C)]
struct Walk {
    dentry: Structure,
    scratch: *mut Scratch,
    /// Where the path begins in the buffer.
    start: u32,
    state: LabelState,
}

impl Walk {
    #[inline(always)]
    fn end(&mut self, state: LabelState) -> i64 {
        self.state = state;
        1
    }

    /// Puts a name in front of the path, and a `/` in front of the name.
    #[inline(always)]
    fn prepend(&mut self, separator: bool) -> Result<(), LabelState> {
        let length: u32 = self.dentry.read(at::DENTRY_NAME_LENGTH()).unwrap_or(0);
        let name: u64 = self.dentry.read(at::DENTRY_NAME()).unwrap_or(0);
        if length == 0 || name == 0 {
            return Err(LabelState::UNREADABLE);
        }
        if length > NAME_BYTES as u32 || self.start < length + separator as u32 {
            return Err(LabelState::TOO_LONG);
        }
        // Masks that change nothing: they show the verifier what the comparisons have established.
        let length = length & NAME_BYTES as u32;
        let mut start = (self.start - length) & (PATH_BYTES as u32 - 1);
        let path = Scratch::path(self.scratch);
        // SAFETY: `start` is below PATH_BYTES, and `length` bytes after it are still in the value
        // (there are spare ones behind the path). The source is checked by the helper.
        let failed = unsafe { bpf_probe_read_kernel(path.add(start as usize).cast(), length, name as *const c_void) };
        if failed != 0 {
            return Err(LabelState::UNREADABLE);
        }
        if separator {
            start = (start - 1) & (PATH_BYTES as u32 - 1);
            // SAFETY: `start` is below PATH_BYTES.
            unsafe { path.add(start as usize).write(b'/') };
        }
        self.start = start;
        Ok(())
    }
}

/// One component. 0: go on, 1: the walk has ended.
extern "C" fn path_component(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: the caller hands its own `Walk`, which nobody else knows.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let Some(parent) = walk.dentry.follow(at::DENTRY_PARENT()) else {
        return walk.end(LabelState::UNREADABLE);
    };
    if parent == walk.dentry {
        return walk.end(LabelState::NAMED);
    }
    if let Err(state) = walk.prepend(true) {
        return walk.end(state);
    }
    walk.dentry = parent;
    0
}

/// Fills the label of a program that was executed from this `struct file`, all but its state, which
/// is returned. Leaves the path in `scratch`.
#[inline(always)]
pub fn label(file: Structure, scratch: *mut Scratch, label: &mut Label) -> LabelState {
    let state = walk(file, scratch, label).unwrap_or(LabelState::UNREADABLE);
    if state == LabelState::UNREADABLE {
        count(WALK_FAILED);
    }
    state
}

#[inline(always)]
fn walk(file: Structure, scratch: *mut Scratch, label: &mut Label) -> Option<LabelState> {
    let dentry = file.follow(at::FILE_PATH_DENTRY())?;
    let file_system = dentry.follow(at::DENTRY_SB())?;
    let device: u32 = file_system.read(at::SB_DEV())?;
    // The root of the file system, or, where a file system (NFS) keeps several trees, of the tree
    // that is mounted.
    let root = file_system.follow(at::SB_ROOT())?;
    let mounted = file.follow(at::FILE_PATH_MNT())?.follow(at::VFSMOUNT_ROOT())?;
    let unlinked = dentry.read::<u64>(at::DENTRY_HASH_PPREV())? == 0;

    let mut walk = Walk { dentry, scratch, start: PATH_BYTES as u32, state: LabelState::TOO_LONG };
    let state = if dentry.follow(at::DENTRY_PARENT())? == dentry {
        // A root that is executed is no folder's file: `memfd_create`, or a file opened by handle.
        match walk.prepend(false) {
            Ok(()) => LabelState::DETACHED,
            Err(state) => state,
        }
    } else {
        let context = (&raw mut walk).cast::<c_void>();
        // SAFETY: the callback takes what `context` points to.
        unsafe { bpf_loop(COMPONENTS, path_component as *mut c_void, context, 0) };
        let at_a_root = walk.dentry == root || walk.dentry == mounted;
        match walk.state {
            LabelState::NAMED if !at_a_root => LabelState::DETACHED,
            LabelState::NAMED if unlinked => LabelState::UNLINKED,
            state => state,
        }
    };
    let length = PATH_BYTES as u32 - (walk.start & (2 * PATH_BYTES as u32 - 1));
    // SAFETY: the scratch is ours.
    unsafe { (&raw mut (*scratch).record.length).write_volatile(length) };
    label.device = device;
    label.path = hash(scratch, length);
    Some(state)
}

/// The hash under way, for `bpf_loop`.
#[repr(C)]
struct Hashing {
    hash: SipHash,
    scratch: *mut Scratch,
}

impl Hashing {
    /// The word with this index from the end of the path, its last byte lowest.
    #[inline(always)]
    fn word_at(&self, index: u32) -> u64 {
        let offset = (PATH_BYTES as u32 - 8).wrapping_sub(8 * index) & (PATH_BYTES as u32 - 8);
        let path = Scratch::path(self.scratch);
        // SAFETY: the masked offset and the 8 bytes after it are in the path's buffer, aligned.
        unsafe { path.add(offset as usize).cast::<u64>().read_volatile() }.swap_bytes()
    }
}

/// One word. Never ends the loop early.
extern "C" fn path_hash_word(index: u32, hashing: *mut c_void) -> i64 {
    // SAFETY: the caller hands its own `Hashing`, which nobody else knows.
    let hashing = unsafe { &mut *hashing.cast::<Hashing>() };
    let word = hashing.word_at(index);
    hashing.hash.word(word);
    0
}

/// [`openwfp_abi::hash::path_hash`] of the last `length` bytes of the buffer.
#[inline(always)]
fn hash(scratch: *mut Scratch, length: u32) -> [u64; 2] {
    let mut hashing = Hashing { hash: SipHash::new([at::HASH_KEY_LOW(), at::HASH_KEY_HIGH()]), scratch };
    let words = length / 8;
    let context = (&raw mut hashing).cast::<c_void>();
    // SAFETY: the callback takes what `context` points to.
    unsafe { bpf_loop(words, path_hash_word as *mut c_void, context, 0) };
    let rest = hashing.word_at(words);
    hashing.hash.finish(rest, length as u64)
}
