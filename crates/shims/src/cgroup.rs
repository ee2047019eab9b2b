//! The control group of whoever acts: which of the paths, units and containers that the policy names it is.
//!
//! A group is known by its names, which are read in the kernel, from the group of the calling task up to the root, once for each
//! group. So one that is made after the policy was loaded is known like any other, and no time passes until it is.
//!
//! None of this is verified where the policy asks for nothing of it: the loader says so in a constant.

use crate::{
    counters::count,
    offsets::{self as at, Pointer, load, pointer},
    scratch::{self, Scratch},
    task::Task,
    work::Work,
};
use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_probe_read_kernel_str},
    macros::map,
    maps::{HashMap, LruHashMap},
};
use core::{ffi::c_void, hint::black_box};
use openwfp_abi::{
    cgroup::{
        CLASSES_ENTRIES, GroupKey, GroupNames, LEVELS, NAMES_ENTRIES, NAMESPACES_ENTRIES, ROOT, kind, step as path_step,
    },
    counters::WALK_FAILED,
    file::{NAME_BYTES, PATH_BYTES, PATH_SHOWN},
    hash::SipHash,
};
use openwfp_engine::words;

/// What the names of groups come to, by the group's id.
#[map]
static GROUP_NAMES: LruHashMap<u64, GroupNames> = LruHashMap::with_max_entries(NAMES_ENTRIES, 0);

/// What the policy names, and its class numbers in images of an even and of an odd generation.
#[map]
static GROUP_CLASSES: HashMap<GroupKey, [u32; 2]> = HashMap::with_max_entries(CLASSES_ENTRIES, 0);

/// The network namespaces that the policy names: cookie → inode number.
#[map]
static NAMESPACES: HashMap<u64, u32> = HashMap::with_max_entries(NAMESPACES_ENTRIES, 0);

/// The name is that of a slice.
const SLICE: u64 = 1;
/// There is a dot in the name.
const DOTTED: u64 = 2;
/// The name is that of a container's group.
const CONTAINER: u64 = 4;

const NAME_WORDS: usize = NAME_BYTES / 8 + 3;

/// Working memory, in the place of a path. Stacks are short where this is called.
#[repr(C)]
struct Room {
    /// One name, and what was there before it.
    name: [u64; NAME_WORDS],
    /// How long it is.
    length: u64,
    /// Its hash under way, then the hash.
    hashing: SipHash,
    hash: u64,
    dots: u64,
    /// The hashes of names, the group's own first.
    names: [u64; LEVELS],
    /// Bits such as [`SLICE`], likewise.
    kinds: [u64; LEVELS],
    /// How many names were read; `ended`: up to the root.
    depth: u64,
    ended: u64,
    /// All bits as long as every name from the root on was that of a slice.
    unit_sought: u64,
    path: u64,
    record: GroupNames,
}

const _: () = assert!(size_of::<Room>() <= PATH_BYTES - PATH_SHOWN);

/// What `bpf_loop` hands to each step.
#[repr(C)]
struct Step {
    room: *mut Room,
    group: Pointer,
}

/// The id of the calling task's group; 0: unreadable. Not by the helper, which Linux 6.1 has not in all hooks.
#[inline(always)]
pub fn current(task: Task) -> u64 {
    task.group_id().unwrap_or(0)
}

/// Names the calling task's group, which has this id, if that was not done before.
#[inline(always)]
pub fn know(id: u64) {
    if at::CGROUPS_ASKED() != 0 && GROUP_NAMES.get_ptr(&id).is_none() {
        // SAFETY: it takes a number.
        unsafe { name_group(id) };
    }
}

/// Reads the names of the calling task's group, which has this id, and keeps what they come to.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn name_group(wanted: u64) -> u32 {
    if at::CGROUPS_ASKED() == 0 {
        return 0;
    }
    let Some(group) = Task::current().cgroup() else { return 0 };
    // the task may have been moved meanwhile: then it is unreadable this time
    if pointer(group, at::GROUP_NODE()).map_or(0, |node| load(node, at::NODE_ID())) != wanted {
        return 0;
    }
    let named = scratch::with(|scratch| read_names(group, wanted, Scratch::path(scratch).cast()).is_some());
    if named != Some(true) {
        count(WALK_FAILED);
    }
    1
}

#[inline(always)]
fn read_names(group: Pointer, wanted: u64, room: *mut Room) -> Option<()> {
    let mut step = Step { room, group };
    // SAFETY: the room is ours; the callbacks take what the context points to.
    unsafe {
        (&raw mut (*room).record.id).write_volatile(wanted);
        (&raw mut (*room).depth).write_volatile(0);
        (&raw mut (*room).ended).write_volatile(0);
        (&raw mut (*room).unit_sought).write_volatile(u64::MAX);
        (&raw mut (*room).path).write_volatile(ROOT);
        (&raw mut (*room).record.unit).write_volatile(0);
        (&raw mut (*room).record.container).write_volatile(0);
        (&raw mut (*room).record.paths).cast::<u64>().write_volatile(ROOT);
        bpf_loop(LEVELS as u32, one_group as *mut c_void, (&raw mut step).cast(), 0);
        if (&raw const (*room).ended).read_volatile() == 0 {
            return None;
        }
        let depth = (&raw const (*room).depth).read_volatile();
        (&raw mut (*room).record.depth).write_volatile(depth);
        bpf_loop(depth as u32, one_level as *mut c_void, (&raw mut step).cast(), 0);
        GROUP_NAMES.insert(&wanted, &(*room).record, 0).ok()
    }
}

/// One group on the way back from the root. Never ends the loop early.
extern "C" fn one_level(level: u32, step: *mut c_void) -> i64 {
    // SAFETY: the caller hands its own `Step`, which nobody else knows.
    let room = unsafe { (*step.cast::<Step>()).room };
    // SAFETY: the room is ours; each index is below LEVELS.
    unsafe {
        let depth = (&raw const (*room).depth).read_volatile() as u32;
        let place = black_box(depth.wrapping_sub(level + 1)) as usize & (LEVELS - 1);
        let name = (&raw const (*room).names).cast::<u64>().add(place).read_volatile();
        let kinds = (&raw const (*room).kinds).cast::<u64>().add(place).read_volatile();
        let path = path_step([at::HASH_KEY_LOW(), at::HASH_KEY_HIGH()], (*room).path, name);
        (&raw mut (*room).path).write_volatile(path);
        let place = black_box(level + 1) as usize & (LEVELS - 1);
        (&raw mut (*room).record.paths).cast::<u64>().add(place).write_volatile(path);
        // the first that is no slice is the unit, if it has a type
        let is_unit = !all(kinds & SLICE) & (*room).unit_sought;
        let (unit, container) = (&raw mut (*room).record.unit, &raw mut (*room).record.container);
        unit.write_volatile(*unit | is_unit & all(kinds >> 1 & 1) & name);
        (&raw mut (*room).unit_sought).write_volatile((*room).unit_sought & !is_unit);
        container.write_volatile(*container | all(is_zero(*container)) & all(kinds >> 2 & 1) & name);
    }
    0
}

/// All bits for 1, none for 0. Here and below without branches, each of which would double what the verifier follows.
#[inline(always)]
fn all(bit: u64) -> u64 {
    black_box(bit).wrapping_neg()
}

/// 1 for 0, 0 for everything else.
#[inline(always)]
fn is_zero(word: u64) -> u64 {
    let word = black_box(word);
    1 - ((word | word.wrapping_neg()) >> 63)
}

/// Takes in the name of one group. 1: the root is reached, or the group cannot be followed.
extern "C" fn one_group(_: u32, step: *mut c_void) -> i64 {
    // SAFETY: the caller hands its own `Step`, which nobody else knows.
    let step = unsafe { &mut *step.cast::<Step>() };
    let Some(above) = pointer(step.group, at::GROUP_PARENT()) else {
        // SAFETY: the room is ours.
        unsafe { (&raw mut (*step.room).ended).write_volatile(1) };
        return 1;
    };
    if take_name(step).is_none() {
        return 1;
    }
    match pointer(above, at::STATE_GROUP()) {
        Some(group) => step.group = group,
        None => return 1,
    }
    0
}

#[inline(always)]
fn take_name(step: &mut Step) -> Option<()> {
    let room = step.room;
    let name: u64 = load(pointer(step.group, at::GROUP_NODE())?, at::NODE_NAME());
    // SAFETY: the room is ours, with place for the longest name and a zero; the helper checks the source.
    let length = unsafe {
        bpf_probe_read_kernel_str((&raw mut (*room).name).cast(), NAME_BYTES as u32 + 1, name as *const c_void)
    };
    if length < 2 {
        return None;
    }
    let length = black_box(length as u32 - 1) & NAME_BYTES as u32;
    // SAFETY: the room is ours; the callback takes what the context points to; the index is below LEVELS.
    unsafe {
        (&raw mut (*room).length).write_volatile(u64::from(length));
        (&raw mut (*room).dots).write_volatile(0);
        (*room).hashing = SipHash::new([at::HASH_KEY_LOW(), at::HASH_KEY_HIGH()]);
        bpf_loop(length / 8 + 1, one_word as *mut c_void, core::ptr::from_mut(step).cast(), 0);
        let kinds = (ends_with_slice(room, length) * SLICE)
            | ((1 - is_zero((&raw const (*room).dots).read_volatile())) * DOTTED)
            | (is_container(room, length) * CONTAINER);
        let depth = (&raw const (*room).depth).read_volatile();
        let place = black_box(depth) as usize & (LEVELS - 1);
        let hash = (&raw const (*room).hash).read_volatile();
        (&raw mut (*room).names).cast::<u64>().add(place).write_volatile(hash);
        (&raw mut (*room).kinds).cast::<u64>().add(place).write_volatile(kinds);
        (&raw mut (*room).depth).write_volatile(depth + 1);
    }
    Some(())
}

/// One word of a name, or what is left of it. Never ends the loop early.
extern "C" fn one_word(index: u32, step: *mut c_void) -> i64 {
    // SAFETY: the caller hands its own `Step`, which nobody else knows.
    let room = unsafe { (*step.cast::<Step>()).room };
    // SAFETY: the room is ours; a name has more words than the index can be.
    unsafe {
        let place = black_box(index) as usize & 31;
        let mut word = (&raw const (*room).name).cast::<u64>().add(place).read_volatile();
        let length = (&raw const (*room).length).read_volatile();
        if u64::from(index) < length / 8 {
            (*room).hashing.word(word);
        } else {
            word &= (1u64 << (8 * (length & 7))) - 1;
            let hash = (*room).hashing.finish(word, length)[0];
            (&raw mut (*room).hash).write_volatile(hash);
        }
        let seen = (&raw const (*room).dots).read_volatile();
        (&raw mut (*room).dots).write_volatile(seen | dots(word));
    }
    0
}

/// A bit for some byte that is a dot; 0: none is.
#[inline(always)]
fn dots(word: u64) -> u64 {
    let others = word ^ u64::from_ne_bytes([b'.'; 8]);
    others.wrapping_sub(0x0101_0101_0101_0101) & !others & 0x8080_8080_8080_8080
}

/// 1 or 0.
#[inline(always)]
fn ends_with_slice(room: *mut Room, length: u32) -> u64 {
    const ENDING: &[u8; 6] = b".slice";
    let before = u64::from(length).wrapping_sub(ENDING.len() as u64);
    let at = black_box(before) as usize & NAME_BYTES;
    // SAFETY: the room is ours; behind the longest name there are spare words.
    let end = unsafe { (&raw const (*room).name).cast::<u8>().add(at).cast::<u64>().read_unaligned() };
    let is_long_enough = 1 - (before >> 63);
    is_long_enough & is_zero(end & bytes(ENDING.len()) ^ word(ENDING))
}

/// Whether this is the name of a container's group, 1 or 0: what `container_of` of the model says.
#[inline(always)]
fn is_container(room: *mut Room, length: u32) -> u64 {
    // SAFETY: the room is ours.
    let [first, second] = unsafe { (&raw const (*room).name).cast::<[u64; 2]>().read_volatile() };
    let begins = |name: &[u8]| {
        let (low, high) = name.split_at(if name.len() < 8 { name.len() } else { 8 });
        is_zero(first & bytes(low.len()) ^ word(low)) & is_zero(second & bytes(high.len()) ^ word(high))
    };
    is_zero(u64::from(length) ^ 64)
        | begins(b"docker-")
        | begins(b"libpod-")
        | begins(b"crio-")
        | begins(b"cri-containerd-")
        | begins(b"lxc.payload.")
        | begins(b"machine-")
        | begins(b"systemd-nspawn@")
}

/// Up to eight bytes as a word, the first lowest.
#[inline(always)]
const fn word(bytes: &[u8]) -> u64 {
    let (mut word, mut index) = (0, 0);
    while index < bytes.len() {
        word |= (bytes[index] as u64) << (8 * index);
        index += 1;
    }
    word
}

/// As many of the lowest bytes.
#[inline(always)]
const fn bytes(count: usize) -> u64 {
    if count >= 8 { u64::MAX } else { (1 << (8 * count)) - 1 }
}

/// Writes path, unit and container of the identity's group into the values.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn write_group(work: *mut Work) -> u32 {
    if work.is_null() || at::CGROUPS_ASKED() == 0 {
        return 0;
    }
    // SAFETY: the caller's.
    let work = unsafe { &mut *work };
    let id = work.identity.cgroup;
    let names = if work.identity.process.started == 0 { None } else { GROUP_NAMES.get_ptr(&id) };
    let Some(names) = names else {
        unknown_group(work);
        return 1;
    };
    let generation = work.generation();
    // SAFETY: a valid map value.
    let (depth, unit, container) = unsafe {
        let [depth, unit, container] =
            [&raw const (*names).depth, &raw const (*names).unit, &raw const (*names).container];
        (depth.read_volatile(), unit.read_volatile(), container.read_volatile())
    };
    let mut path = 0;
    for level in (0..LEVELS).rev() {
        if level as u64 > depth {
            continue;
        }
        let kind = if level as u64 == depth { kind::PATH } else { kind::BELOW };
        // SAFETY: as above; the index is below LEVELS.
        let hash = unsafe { (&raw const (*names).paths).cast::<u64>().add(level).read_volatile() };
        if let Some(class) = class(kind, hash, generation) {
            path = class;
            break;
        }
    }
    work.values.set(words::LINUX_CGROUP, path);
    if unit != 0 {
        work.values.set(words::LINUX_SYSTEMD_UNIT, class(kind::UNIT, unit, generation).unwrap_or(0));
    }
    if container != 0 {
        work.values.set(words::LINUX_CONTAINER, class(kind::CONTAINER, container, generation).unwrap_or(0));
    }
    // the memory of a group that had to make room may have been given to another one while it was read
    // SAFETY: a valid map value.
    if unsafe { (&raw const (*names).id).read_volatile() } != id {
        unknown_group(work);
    }
    1
}

#[inline(always)]
fn unknown_group(work: &mut Work) {
    for word in [words::LINUX_CGROUP, words::LINUX_SYSTEMD_UNIT, words::LINUX_CONTAINER] {
        work.values.set_unknown(word);
    }
}

#[inline(always)]
fn class(kind: u64, hash: u64, generation: u32) -> Option<u32> {
    let classes = GROUP_CLASSES.get_ptr(&GroupKey { kind, hash })?;
    // SAFETY: a valid map value.
    let [even, odd] = unsafe { *classes };
    Some(if generation & 1 == 0 { even } else { odd })
}

/// Writes the inode number of the network namespace with this cookie: 0 where the policy names it not.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn write_namespace(work: *mut Work, cookie: u64) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let values = unsafe { &mut (*work).values };
    if cookie == 0 {
        values.set_unknown(words::LINUX_NETWORK_NAMESPACE);
        return 1;
    }
    // SAFETY: a valid map value.
    let inode = NAMESPACES.get_ptr(&cookie).map_or(0, |inode| unsafe { *inode });
    values.set(words::LINUX_NETWORK_NAMESPACE, inode);
    1
}
