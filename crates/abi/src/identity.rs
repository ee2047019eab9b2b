//! All that a hook knows about the task that it serves.

use crate::label::Label;
use crate::process::ProcessKey;

/// How many groups a policy may name: one bit of [`Identity::groups`] each.
pub const GROUPS_NAMED: u32 = 64;

/// How many supplementary groups of a task are looked at. A task with more has
/// [`GroupsState::TOO_MANY`]: its groups are unreadable.
pub const GROUPS_READ: u32 = 64;

/// Whether [`Identity::groups`] can be believed.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupsState(pub u32);

impl GroupsState {
    /// Not looked at, because the policy names no group.
    pub const NOT_ASKED: Self = Self(0);
    /// Every group of the task has been looked up.
    pub const READ: Self = Self(1);
    /// The task has more than [`GROUPS_READ`] supplementary groups.
    pub const TOO_MANY: Self = Self(2);
    /// The credentials could not be followed.
    pub const UNREADABLE: Self = Self(3);
}

/// Who acts: taken in the calling task, in the kernel, while the call is made.
///
/// User and group numbers are those of the initial user namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The process.
    pub process: ProcessKey,
    /// The program that it runs.
    pub label: Label,
    /// The thread's number (`pid` of the kernel's `task_struct`) in the initial pid namespace.
    pub thread: u32,
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
    /// Whether `groups` can be believed.
    pub groups_state: GroupsState,
    /// Bit n of word n / 32: the task is in the group with number n in the `GROUPS` map, by its
    /// effective or a supplementary group.
    pub groups: [u32; 2],
    /// The id of the task's control group (cgroup v2), its folder's inode number; 0: unreadable.
    pub cgroup: u64,
    /// The thread's name, padded with zeros.
    pub comm: [u8; 16],
}
