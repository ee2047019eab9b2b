//! Everything that the new process will do, worked out before it exists.
//!
//! Between its start and exec the process may only make system calls: another thread may have held the allocator's lock when
//! it was copied. So each list, string and descriptor that it needs stands ready here.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::process::{Gid, Uid};

use crate::capability::Capability;
use crate::mounts::MountPlan;
use crate::sys::{SignalSet, Vector};

/// What the process does, in this order; see [`crate::child`].
pub(crate) struct Plan<'a> {
    pub(crate) signals: SignalSet,
    pub(crate) isolation: Option<&'a IsolationPlan>,
    pub(crate) program: Program<'a>,
}

/// The part of it that isolates.
pub(crate) struct IsolationPlan {
    pub(crate) close: Vec<(u32, u32)>,
    pub(crate) mounts: MountPlan,
    /// Capabilities to take out of the bounding set.
    pub(crate) bounding: Vec<Capability>,
    /// Another user to become.
    pub(crate) identity: Option<Identity>,
    /// The capabilities that stay permitted, as a set of bits.
    pub(crate) permitted: u64,
    /// Those among them that a program gets although its user is not root.
    pub(crate) ambient: Vec<Capability>,
    pub(crate) trace: Option<OwnedFd>,
    pub(crate) filter: Vec<libc::sock_filter>,
}

pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
}

/// A command, as strings that end with NUL.
pub(crate) struct Command {
    /// The paths at which the program may be, in order.
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// A string that cannot be handed to a program.
#[derive(Debug, thiserror::Error)]
#[error("{what} has a NUL byte, which no argument or variable can have")]
pub struct NulError {
    what: String,
}

const SHELL: &CStr = c"/bin/sh";
/// Where programs are looked for when the environment has no PATH (as in the C library).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

impl Command {
    pub(crate) fn new(
        program: &OsStr,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
    ) -> Result<Self, NulError> {
        let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let candidates = candidates(program, path.unwrap_or(OsStr::new(DEFAULT_PATH)));
        let all = std::iter::once(program).chain(arguments.iter().map(OsString::as_os_str));
        let variables = environment.iter().map(|(name, value)| {
            let mut variable = name.clone();
            variable.push("=");
            variable.push(value);
            variable
        });
        Ok(Self {
            candidates: candidates.into_iter().map(string).collect::<Result<_, _>>()?,
            arguments: all.map(|argument| string(argument.to_owned())).collect::<Result<_, _>>()?,
            environment: variables.map(string).collect::<Result<_, _>>()?,
        })
    }

    /// The program as it was named.
    pub(crate) fn name(&self) -> String {
        self.arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The paths at which it may be, to speak about them.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Path> {
        self.candidates.iter().map(|path| Path::new(OsStr::from_bytes(path.to_bytes())))
    }

    pub(crate) fn program(&self) -> Program<'_> {
        let script = |path| {
            let arguments = self.arguments.iter().skip(1).map(CString::as_c_str);
            Vector::new([SHELL, path].into_iter().chain(arguments))
        };
        let candidates = self.candidates.iter().map(CString::as_c_str);
        Program {
            candidates: candidates.map(|path| (path, script(path))).collect(),
            arguments: Vector::new(self.arguments.iter().map(CString::as_c_str)),
            environment: Vector::new(self.environment.iter().map(CString::as_c_str)),
            shell: SHELL,
        }
    }
}

/// A command, ready for exec.
pub(crate) struct Program<'a> {
    /// Each path with the arguments for the shell, if the file there turns out to be a script without `#!`.
    pub(crate) candidates: Vec<(&'a CStr, Vector<'a>)>,
    pub(crate) arguments: Vector<'a>,
    pub(crate) environment: Vector<'a>,
    pub(crate) shell: &'a CStr,
}

/// A name without a slash is looked for in the folders of PATH, of which an empty one is the current folder.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.is_empty() || program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    let folders = path.as_bytes().split(|&byte| byte == b':').map(|folder| Path::new(OsStr::from_bytes(folder)));
    folders.map(|folder| folder.join(program).into_os_string()).collect()
}

fn string(text: OsString) -> Result<CString, NulError> {
    CString::new(text.into_vec())
        .map_err(|error| NulError { what: format!("`{}`", String::from_utf8_lossy(&error.into_vec()).escape_debug()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_every_folder_of_path() {
        let found = candidates(OsStr::new("curl"), OsStr::new("/usr/bin::/bin"));
        assert_eq!(found, ["/usr/bin/curl", "curl", "/bin/curl"]);
    }

    #[test]
    fn a_path_is_taken_as_it_stands() {
        for program in ["./curl", "/usr/bin/curl", "a/b", ""] {
            assert_eq!(candidates(OsStr::new(program), OsStr::new("/usr/bin:/bin")), [program]);
        }
    }

    #[test]
    fn the_path_is_that_of_the_command() {
        let environment = [("PATH".into(), "/a".into()), ("PATH".into(), "/b".into())];
        let command = Command::new(OsStr::new("x"), &[], &environment).unwrap();
        assert_eq!(command.candidates, [c"/b/x".to_owned()]);
        let command = Command::new(OsStr::new("x"), &[], &[]).unwrap();
        assert_eq!(command.candidates, [c"/bin/x".to_owned(), c"/usr/bin/x".to_owned()]);
    }

    #[test]
    fn a_nul_byte_is_an_error_that_shows_where() {
        let error = Command::new(OsStr::new("x"), &["a\0b".into()], &[]).err().unwrap();
        assert!(error.to_string().contains("a\\0b"), "{error}");
    }
}
