//! What the new process does between its start and exec.
//!
//! The order matters. Mounts, the bounding set and the change of user need capabilities, so they come first; "no new
//! privileges" allows the two filters of access and of system calls to be set without any; the filter of system calls comes last,
//! because it refuses some of what comes before. Then the process waits: the parent attaches its programs to the control
//! group, and says go. If the parent is gone instead, nothing is executed.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::capability::Capability;
use crate::error::{Failure, Step};
use crate::mounts;
use crate::plan::{Identity, IsolationPlan, Plan, Program};
use crate::sys;

/// Becomes the command, or reports why not and ends. Makes system calls only.
pub(crate) fn run(plan: &Plan<'_>, go: BorrowedFd<'_>, report: BorrowedFd<'_>) -> ! {
    let Err(failure) = prepare_and_exec(plan, go);
    // Nobody reads it any more when the parent has ended.
    let _ = retry_on_intr(|| write(report, &failure.to_bytes()));
    sys::exit(125)
}

/// Nothing comes back from success.
enum Never {}

fn prepare_and_exec(plan: &Plan<'_>, go: BorrowedFd<'_>) -> Result<Never, Failure> {
    sys::reset_signal(libc::SIGPIPE);
    plan.signals.restore();
    if let Some(isolation) = plan.isolation {
        isolate(isolation)?;
    }
    let mut byte = [0];
    match retry_on_intr(|| read(go, &mut byte)) {
        Ok(1) => exec(&plan.program),
        Ok(_) => Err(Failure::new(Step::Go, Errno::PIPE)),
        Err(errno) => Err(Failure::new(Step::Go, errno)),
    }
}

fn isolate(plan: &IsolationPlan) -> Result<(), Failure> {
    let at = |step| move |errno| Failure::new(step, errno);
    for &(first, last) in &plan.close {
        sys::close_at_exec(first, last).map_err(at(Step::Descriptors))?;
    }
    mounts::detach().map_err(at(Step::Mounts))?;
    plan.mounts.apply().map_err(|(index, errno)| Failure::new(Step::Mount, errno).about(index))?;
    for &capability in &plan.bounding {
        remove_capability_from_bounding_set(capability.as_set())
            .map_err(|errno| Failure::new(Step::BoundingSet, errno).about(usize::from(capability.number())))?;
    }
    if let Some(identity) = &plan.identity {
        become_user(identity, !plan.ambient.is_empty())?;
    }
    limit_capabilities(plan.permitted, &plan.ambient).map_err(at(Step::Capabilities))?;
    set_no_new_privs(true).map_err(at(Step::NoNewPrivileges))?;
    if let Some(trace) = &plan.trace {
        sys::landlock_restrict(trace).map_err(at(Step::Tracing))?;
    }
    sys::set_system_call_filter(&plan.filter).map_err(at(Step::SystemCalls))
}

/// The groups and the group first: afterwards the right to change them is gone.
fn become_user(identity: &Identity, keep_capabilities: bool) -> Result<(), Failure> {
    let Identity { uid, gid, groups } = identity;
    set_thread_groups(groups).map_err(|errno| Failure::new(Step::Groups, errno))?;
    set_thread_res_gid(*gid, *gid, *gid)
        .map_err(|errno| Failure::new(Step::Group, errno).about(gid.as_raw() as usize))?;
    let user = |errno| Failure::new(Step::User, errno).about(uid.as_raw() as usize);
    if keep_capabilities {
        set_keep_capabilities(true).map_err(user)?;
    }
    set_thread_res_uid(*uid, *uid, *uid).map_err(user)
}

/// Leaves what stays permitted, and nothing that a program would inherit but the ambient ones.
fn limit_capabilities(permitted: u64, ambient: &[Capability]) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    // After a change of user fewer may be permitted than were before.
    let permitted = rustix::thread::capabilities(None)?.permitted & CapabilitySet::from_bits_retain(permitted);
    let inheritable = ambient.iter().fold(CapabilitySet::empty(), |set, capability| set | capability.as_set());
    set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })?;
    for capability in ambient {
        configure_capability_in_ambient_set(capability.as_set(), true)?;
    }
    Ok(())
}

/// Tries each place where the program may be; the reasons are those of execvp(3).
fn exec(program: &Program<'_>) -> Result<Never, Failure> {
    let mut refused = None;
    for (index, (path, script)) in program.candidates.iter().enumerate() {
        let mut errno = sys::exec(path, &program.arguments, &program.environment);
        if errno == Errno::NOEXEC {
            // A script without `#!` belongs to the shell.
            errno = sys::exec(program.shell, script, &program.environment);
        }
        match errno {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => refused = refused.or(Some(Failure::new(Step::Exec, errno).about(index))),
            _ => return Err(Failure::new(Step::Exec, errno).about(index)),
        }
    }
    Err(refused.unwrap_or(Failure::new(Step::Exec, Errno::NOENT)))
}
