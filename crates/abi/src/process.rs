//! How a process is named.

/// Names one process for as long as the machine runs.
///
/// Process numbers are used again; together with the time at which the group leader started they
/// are not. Threads share the key of their process, and `execve` keeps it: a thread that executes
/// a program takes over number and start time of its leader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Nanoseconds from boot to the start of the group leader (`task_struct.start_boottime`).
    pub started: u64,
    /// The process number (`tgid`) in the initial pid namespace.
    pub tgid: u32,
    /// Always zero: keys are compared byte by byte.
    pub zero: u32,
}

impl ProcessKey {
    /// The key of the process whose leader has this start time and number.
    #[inline(always)]
    pub const fn new(started: u64, tgid: u32) -> Self {
        Self { started, tgid, zero: 0 }
    }
}
