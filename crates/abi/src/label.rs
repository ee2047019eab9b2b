//! Which program a process runs.

use crate::file::FileKey;

/// How many labelled processes can live at once, over all of the command's groups.
pub const LABELS_ENTRIES: u32 = 32768;

/// What is known about a program's file.
///
/// A number rather than an enum, because it is read from memory that the other side wrote.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelState(pub u32);

impl LabelState {
    /// There is no label: the task was not seen executing a program, and no labelled task forked it.
    pub const NONE: Self = Self(0);
    /// The file has a name: a policy may be about it.
    pub const NAMED: Self = Self(1);
    /// The file was no longer in its folder when it was executed. The path is the one that it had.
    pub const UNLINKED: Self = Self(2);
    /// The file stands in no folder (`memfd_create`); its path is its bare name, `memfd:NAME`.
    pub const DETACHED: Self = Self(3);
    /// The path has more than [`PATH_BYTES`](crate::file::PATH_BYTES) bytes; its last ones are shown.
    pub const TOO_LONG: Self = Self(4);
    /// The file is not known: a kernel structure could not be followed.
    pub const UNREADABLE: Self = Self(5);
    /// The file is not known: every scratch buffer was in use.
    pub const NO_SCRATCH: Self = Self(6);

    /// Whether the program is known. If not, the application is unreadable (never merely empty).
    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.0 >= Self::NAMED.0 && self.0 <= Self::TOO_LONG.0
    }
}

/// The program that a process runs, taken at `execve` and inherited at `fork`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// Hash of the path inside the file system; see [`FileKey::path`].
    pub path: [u64; 2],
    /// Device of the file system; see [`FileKey::device`].
    pub device: u32,
    /// What is known about the file.
    pub state: LabelState,
}

impl Label {
    /// A label that says only why there is none.
    #[inline(always)]
    pub const fn without_file(state: LabelState) -> Self {
        Self { path: [0; 2], device: 0, state }
    }

    /// The key under which `PATHS` may hold a path to show.
    #[inline(always)]
    pub const fn file(&self) -> FileKey {
        FileKey::new(self.device, self.path)
    }

    /// The key to look up among the applications that a policy names; `None` when no policy can
    /// name this file (it is deleted, detached or too deep) or when it is not known.
    #[inline(always)]
    pub const fn application(&self) -> Option<FileKey> {
        if self.state.0 == LabelState::NAMED.0 { Some(self.file()) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_named_file_can_be_an_application() {
        let label = |state| Label { path: [1, 2], device: 3, state };
        let table = [
            // state                   known  application
            (LabelState::NONE, false, false),
            (LabelState::NAMED, true, true),
            (LabelState::UNLINKED, true, false),
            (LabelState::DETACHED, true, false),
            (LabelState::TOO_LONG, true, false),
            (LabelState::UNREADABLE, false, false),
            (LabelState::NO_SCRATCH, false, false),
            (LabelState(99), false, false),
        ];
        for (state, known, application) in table {
            assert_eq!(state.is_known(), known, "{state:?}");
            assert_eq!(label(state).application().is_some(), application, "{state:?}");
        }
        assert_eq!(Label::default().state, LabelState::NONE);
    }
}
