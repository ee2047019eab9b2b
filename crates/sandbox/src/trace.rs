//! Keeps the command from tracing processes outside the run.
//!
//! Whoever may trace a process can make it act: connect, send, hand over its sockets. The kernel lets every process trace those of
//! the same user, so a command that runs as the user who called sudo could take over that user's shell. A Landlock domain
//! (landlock(7), "Ptrace restrictions") stops that: inside it, ptrace and all that asks for the same right (`/proc/PID/mem`,
//! `root`, `fd`, `ns`; process_vm_writev, pidfd_getfd) reach only processes of the same domain. Debuggers inside the run keep
//! working. A domain that says anything about files cannot mount either; where the command may mount (`--user-namespaces`), the
//! domain is made of the scope of signals instead (Linux 6.12): the command can then send signals to its own run only.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;

use crate::sys::{self, LandlockRuleset};

// Landlock always refuses to move files between folders (REFER) unless it is told otherwise, and a domain must say something
// about something. So the domain handles that right alone, and grants it everywhere.
const REFER: u64 = 1 << 13;
const SCOPE_SIGNAL: u64 = 1 << 1;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const VERSION_WITH_REFER: i64 = 2;
const VERSION_WITH_SCOPES: i64 = 6;

/// The rules, or why there are none. `own_names`: abstract names of Unix sockets that were taken outside are out of reach too.
pub(crate) fn rules(may_mount: bool, own_names: bool) -> Result<OwnedFd, String> {
    let version = sys::landlock_version().map_err(|errno| match errno {
        Errno::NOSYS => "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK)".to_owned(),
        Errno::OPNOTSUPP => "Landlock is switched off (add landlock to the boot parameter lsm=)".to_owned(),
        other => format!("Landlock does not answer: {other}"),
    })?;
    let needed = if may_mount || own_names { VERSION_WITH_SCOPES } else { VERSION_WITH_REFER };
    if version < needed {
        return Err(format!("this kernel's Landlock has version {version}, where {needed} is needed"));
    }
    let make = || -> Result<OwnedFd, std::io::Error> {
        if may_mount {
            let scope = LandlockRuleset { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_SIGNAL };
            return Ok(sys::landlock_create(&scope, size_of::<LandlockRuleset>())?);
        }
        let scoped = if own_names { SCOPE_ABSTRACT_UNIX_SOCKET } else { 0 };
        let files = LandlockRuleset { handled_access_fs: REFER, handled_access_net: 0, scoped };
        let length = if own_names { size_of_val(&files) } else { size_of_val(&files.handled_access_fs) };
        let rules = sys::landlock_create(&files, length)?;
        sys::landlock_allow(&rules, REFER, File::open("/")?.as_fd())?;
        Ok(rules)
    };
    make().map_err(|error| format!("Landlock refuses its rules: {error}"))
}

/// What Yama allows (`kernel.yama.ptrace_scope`): from 1 on a process traces its own descendants only.
pub(crate) fn yama_limits_tracing() -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    scope.is_ok_and(|scope| scope.trim().parse::<u32>().is_ok_and(|scope| scope >= 1))
}
