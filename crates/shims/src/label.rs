//! Labels each process of the command's group with the program that it executes.
//!
//! The tracepoints fire for the whole machine; tasks of other groups leave at the first test. A
//! label is taken from the file that `execve` has just opened (`bprm->file`), never from
//! `mm->exe_file`, which the process itself may change (`PR_SET_MM_EXE_FILE`).

use crate::counters::count;
use crate::memory::Structure;
use crate::offsets as at;
use crate::path;
use crate::scratch::{self, Scratch};
use crate::task::{Task, current_is_ours};
use crate::words;
use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::{btf_tracepoint, map},
    maps::{HashMap, LruHashMap},
    programs::BtfTracePointContext,
};
use core::mem::MaybeUninit;
use openwfp_abi::{
    counters::{LABELS_FULL, PATHS_REFUSED},
    file::{FileKey, PATHS_ENTRIES, PathRecord},
    label::{LABELS_ENTRIES, Label, LabelState},
    process::ProcessKey,
};

/// The program of each process of the group. A process that is not here is unreadable. Room is taken as processes come: all of
/// it at once is three megabytes to clear at every start.
#[map]
static LABELS: HashMap<ProcessKey, Label> = HashMap::with_max_entries(LABELS_ENTRIES, BPF_F_NO_PREALLOC);

/// Paths to show, also of processes that are gone.
#[map]
static PATHS: LruHashMap<FileKey, PathRecord> = LruHashMap::with_max_entries(PATHS_ENTRIES, 0);

/// Fills in the label of a process; leaves it as it is when the process has none.
#[inline(always)]
pub fn read(process: &ProcessKey, to: &mut Label) {
    if let Some(label) = LABELS.get_ptr(process) {
        // SAFETY: a valid map value. It is written only while its process is inside `execve` or
        // before it first runs, so a hook that serves the process reads it whole.
        unsafe { words::copy(label, to) };
    }
}

/// A process has executed a program: `(struct task_struct *, pid_t old, struct linux_binprm *)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(context: BtfTracePointContext) -> i32 {
    if current_is_ours() {
        executed(Task(context.arg(0)), Structure(context.arg(2)));
    }
    0
}

#[inline(always)]
fn executed(task: Task, bprm: Structure) -> Option<()> {
    let process = task.process()?;
    let mut label = MaybeUninit::<Label>::uninit();
    // SAFETY: zeros are a label.
    let label = unsafe {
        words::zero(label.as_mut_ptr());
        label.assume_init_mut()
    };
    label.state = match bprm.follow(at::BPRM_FILE()) {
        Some(file) => scratch::with(|scratch| {
            let state = path::label(file, scratch, label);
            if state.is_known() {
                keep_path(&label.file(), scratch);
            }
            state
        })
        .unwrap_or(LabelState::NO_SCRATCH),
        None => LabelState::UNREADABLE,
    };
    if LABELS.insert(&process, label, 0).is_err() {
        count(LABELS_FULL);
        // Better none than that of the program before.
        let _ = LABELS.remove(&process);
    }
    Some(())
}

#[inline(always)]
fn keep_path(file: &FileKey, scratch: *mut Scratch) {
    if PATHS.get_ptr(file).is_some() {
        return;
    }
    // SAFETY: the scratch is ours, and its record follows the path's first bytes.
    let record = unsafe { &(*scratch).record };
    if PATHS.insert(file, record, BPF_NOEXIST as u64).is_err() && PATHS.get_ptr(file).is_none() {
        count(PATHS_REFUSED);
    }
}

/// A task has been made, and has not run yet: `(struct task_struct *parent, struct task_struct *child)`.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(context: BtfTracePointContext) -> i32 {
    if current_is_ours() {
        forked(Task(context.arg(0)), Task(context.arg(1)));
    }
    0
}

#[inline(always)]
fn forked(parent: Task, child: Task) -> Option<()> {
    if child.tgid() == parent.tgid() {
        return None; // a thread: it shares the label of its process
    }
    let label = LABELS.get_ptr(&parent.process()?)?;
    // SAFETY: a valid map value; the parent is inside `fork`, so it is not executing a program.
    if LABELS.insert(&child.process()?, unsafe { &*label }, 0).is_err() {
        count(LABELS_FULL);
    }
    Some(())
}

/// A thread exits: `(struct task_struct *)`, and more on later kernels.
///
/// Without a test for the group: a process that has been moved out of it must lose its label too.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(context: BtfTracePointContext) -> i32 {
    exited(Task(context.arg(0)));
    0
}

#[inline(always)]
fn exited(task: Task) -> Option<()> {
    // The first thread may end before the others do; the process goes on with its label.
    if task.live_threads()? != 0 {
        return None;
    }
    LABELS.remove(&task.process()?).ok()
}
