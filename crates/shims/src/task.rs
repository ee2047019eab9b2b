//! Kernel structures as far as the programs follow them.

use crate::memory::Structure;
use crate::offsets::{self as at, Pointer, load, pointer};
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_task_btf};
use openwfp_abi::process::ProcessKey;

/// `struct task_struct`: a thread.
#[derive(Clone, Copy)]
pub struct Task(pub Pointer);

/// `struct cred`: as whom a thread acts.
#[derive(Clone, Copy)]
pub struct Credentials(Structure);

impl Task {
    /// The thread that runs now. In a hook of a packet that is whoever was interrupted; believe it
    /// only where a system call is being served.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no arguments and always gives a task.
        Self(unsafe { bpf_get_current_task_btf() } as Pointer)
    }

    /// The thread's number in the initial pid namespace.
    #[inline(always)]
    pub fn thread(self) -> u32 {
        load(self.0, at::TASK_PID())
    }

    /// The process's number in the initial pid namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        load(self.0, at::TASK_TGID())
    }

    #[inline(always)]
    fn structure(self) -> Structure {
        Structure(self.0 as u64)
    }

    /// The name of the process, for which its first thread stands.
    #[inline(always)]
    pub fn process(self) -> Option<ProcessKey> {
        let leader = self.structure().follow(at::TASK_GROUP_LEADER())?;
        Some(ProcessKey::new(leader.read(at::TASK_START_BOOTTIME())?, self.tgid()))
    }

    /// The thread's name, as two words.
    #[inline(always)]
    pub fn comm(self) -> [u64; 2] {
        let comm = at::TASK_COMM();
        [load(self.0, comm), load(self.0, comm + 8)]
    }

    /// As whom the thread acts (its effective, not its real credentials).
    #[inline(always)]
    pub fn credentials(self) -> Option<Credentials> {
        self.structure().follow(at::TASK_CRED()).map(Credentials)
    }

    /// `struct cgroup`: its control group in the hierarchy of version 2.
    #[inline(always)]
    pub fn cgroup(self) -> Option<Pointer> {
        pointer(pointer(self.0, at::TASK_GROUPS())?, at::GROUPS_DEFAULT())
    }

    /// The id of that group.
    #[inline(always)]
    pub fn group_id(self) -> Option<u64> {
        let group = self.structure().follow(at::TASK_GROUPS())?.follow(at::GROUPS_DEFAULT())?;
        group.follow(at::GROUP_NODE())?.read(at::NODE_ID())
    }

    /// How many threads of the process have not begun to exit.
    #[inline(always)]
    pub fn live_threads(self) -> Option<u32> {
        self.structure().follow(at::TASK_SIGNAL())?.read(at::SIGNAL_LIVE())
    }
}

impl Credentials {
    /// Effective user, in the initial user namespace.
    #[inline(always)]
    pub fn user(self) -> Option<u32> {
        self.0.read(at::CRED_EUID())
    }

    /// Effective group, in the initial user namespace.
    #[inline(always)]
    pub fn group(self) -> Option<u32> {
        self.0.read(at::CRED_EGID())
    }

    /// `struct group_info`: the supplementary groups.
    #[inline(always)]
    pub fn supplementary(self) -> Option<Supplementary> {
        self.0.follow(at::CRED_GROUP_INFO()).map(Supplementary)
    }
}

/// `struct group_info`.
#[derive(Clone, Copy)]
pub struct Supplementary(Structure);

impl Supplementary {
    /// How many groups there are.
    #[inline(always)]
    pub fn count(self) -> Option<u32> {
        self.0.read(at::GROUP_INFO_NGROUPS())
    }

    /// The group with this index.
    #[inline(always)]
    pub fn group(self, index: u32) -> Option<u32> {
        self.0.read(at::GROUP_INFO_GID() + 4 * index as usize)
    }
}

/// Whether the running task is in the command's group or in one below it.
#[inline(always)]
pub fn current_is_ours() -> bool {
    // SAFETY: takes a number; a level that the task does not have gives 0, which is no group's id.
    let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(at::GROUP_LEVEL() as i32) };
    ancestor == at::GROUP_ID()
}
