//! Files that are watched for changes.
//!
//! Editors and package tools put a new file in the place of the old one, so it is the folder that is watched, and the
//! folder of each symbolic link on the way to the file. A file that is being written is not looked at before whoever
//! writes it has closed it, and a moment has passed in which nothing happened.

use crate::policies::is_standard_input;
use openwfp_sandbox::RunUser;
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

/// Changes are taken together when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(100);
/// As many links lead on as the kernel follows.
const LINKS: usize = 40;

/// Watched files.
pub(super) struct Files {
    inotify: OwnedFd,
    /// The names to look for in each watched folder.
    names: HashMap<i32, HashSet<OsString>>,
    /// Names that somebody has written to and not closed.
    open: HashSet<(i32, OsString)>,
    /// When the last change was seen.
    changed: Option<Instant>,
}

impl Files {
    /// Watches files, which need not exist; their folders must.
    pub fn watch(paths: &[PathBuf]) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut names: HashMap<i32, HashSet<OsString>> = HashMap::new();
        let flags = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for path in paths {
            for (folder, name) in places(path)? {
                let watch = inotify::add_watch(&inotify, &folder, flags)?;
                names.entry(watch).or_default().insert(name);
            }
        }
        Ok(Self { inotify, names, open: HashSet::new(), changed: None })
    }

    /// Readable when [`Self::look`] has something to see.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Takes in what has happened.
    pub fn look(&mut self, now: Instant) {
        let mut memory = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut memory);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let (watch, flags) = (event.wd(), event.events());
            // events that found no room, or a folder that has gone: everything may have changed
            if flags.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                self.open.clear();
                self.changed = Some(now);
                continue;
            }
            let Some(name) = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())) else { continue };
            if !self.names.get(&watch).is_some_and(|names| names.contains(name)) {
                continue;
            }
            self.changed = Some(now);
            let place = (watch, name.to_os_string());
            if flags.contains(ReadFlags::MODIFY) {
                self.open.insert(place);
            } else {
                // closed, or another file has this name now
                self.open.remove(&place);
            }
        }
    }

    /// Has the files looked at again when this time comes, whether something happens to them or not.
    pub fn look_again(&mut self, at: Instant) {
        self.changed = Some(at);
    }

    /// Whether something has happened since these files were first watched.
    pub fn has_changed(&self) -> bool {
        self.changed.is_some()
    }

    /// Whether the files have changed and lie still.
    pub fn is_due(&self, now: Instant) -> bool {
        self.open.is_empty() && self.changed.is_some_and(|changed| now.saturating_duration_since(changed) >= QUIET)
    }
}

/// The folders and names that a path depends on: the file's, and that of each link on the way.
fn places(path: &Path) -> io::Result<Vec<(PathBuf, OsString)>> {
    let path = std::path::absolute(path)?;
    let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    let (mut at, mut found) = (PathBuf::from("/"), vec![]);
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::Normal(_)) => {
                let next = at.join(&part);
                match fs::read_link(&next) {
                    Ok(target) => {
                        found.push((at.clone(), part));
                        if found.len() > LINKS {
                            return Err(Errno::LOOP.into());
                        }
                        target.components().rev().for_each(|part| rest.push_front(part.as_os_str().to_owned()));
                    }
                    Err(_) if rest.is_empty() => found.push((at.clone(), part)),
                    Err(_) => at = next,
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Something on the way to the files that a user may write, so that he can change what they say.
pub(super) fn writable(paths: &[PathBuf], user: &RunUser) -> Option<PathBuf> {
    let files = paths.iter().filter(|path| !is_standard_input(path) && path.is_file());
    let all = files.filter_map(|path| places(path).ok()).flatten();
    let all = all.flat_map(|(folder, name)| [folder.join(name), folder]);
    // a link itself has no mode: its folder counts
    all.into_iter()
        .find(|path| path.symlink_metadata().is_ok_and(|found| !found.is_symlink() && may_write(&found, user)))
}

fn may_write(found: &fs::Metadata, user: &RunUser) -> bool {
    let mode = found.mode();
    let in_group = found.gid() == user.gid || user.groups.contains(&found.gid());
    // an owner can give itself the right to write; in a sticky folder, such as /tmp, one replaces one's own files only
    let by_others = mode & 0o002 != 0 || mode & 0o020 != 0 && in_group;
    user.uid == 0 || found.uid() == user.uid || by_others && !(found.is_dir() && mode & 0o1000 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::symlink, thread::sleep};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wfp-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path.canonicalize().unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn changed(files: &mut Files) -> bool {
        files.look(Instant::now());
        let changed = files.has_changed() && files.open.is_empty();
        files.changed = None;
        changed
    }

    #[test]
    fn a_file_changes_when_it_is_written_and_closed_or_another_takes_its_place() {
        let folder = Folder::new("changes");
        let (path, other) = (folder.0.join("policy.toml"), folder.0.join("other"));
        fs::write(&path, "a").unwrap();
        let mut files = Files::watch(std::slice::from_ref(&path)).unwrap();
        assert!(!changed(&mut files));
        fs::write(&other, "b").unwrap();
        assert!(!changed(&mut files), "another file");
        fs::rename(&other, &path).unwrap();
        assert!(changed(&mut files));
        let mut file = fs::File::create(&path).unwrap();
        assert!(!changed(&mut files), "cut off, and not written yet");
        io::Write::write_all(&mut file, b"c").unwrap();
        assert!(!changed(&mut files), "not closed yet");
        drop(file);
        assert!(changed(&mut files));
    }

    #[test]
    fn changes_are_taken_when_the_files_lie_still() {
        let folder = Folder::new("still");
        let path = folder.0.join("policy.toml");
        let mut files = Files::watch(std::slice::from_ref(&path)).unwrap();
        fs::write(&path, "a").unwrap();
        let now = Instant::now();
        files.look(now);
        assert!(!files.is_due(now));
        assert!(files.is_due(now + QUIET));
        sleep(Duration::from_millis(1));
        fs::write(&path, "b").unwrap();
        files.look(now + QUIET);
        assert!(!files.is_due(now + QUIET));
    }

    #[test]
    fn links_on_the_way_are_watched() {
        // as container platforms swap whole folders of settings
        let folder = Folder::new("links");
        for version in ["1", "2"] {
            fs::create_dir(folder.0.join(version)).unwrap();
            fs::write(folder.0.join(version).join("policy.toml"), version).unwrap();
        }
        let path = folder.0.join("policy.toml");
        symlink("data/policy.toml", &path).unwrap();
        symlink("1", folder.0.join("data")).unwrap();
        let found = places(&path).unwrap();
        let expected =
            [(folder.0.clone(), "policy.toml"), (folder.0.clone(), "data"), (folder.0.join("1"), "policy.toml")];
        assert_eq!(found, expected.map(|(folder, name)| (folder, OsString::from(name))));
        let mut files = Files::watch(std::slice::from_ref(&path)).unwrap();
        symlink("2", folder.0.join("new")).unwrap();
        assert!(!changed(&mut files));
        fs::rename(folder.0.join("new"), folder.0.join("data")).unwrap();
        assert!(changed(&mut files));
        symlink("loop", folder.0.join("loop")).unwrap();
        assert!(places(&folder.0.join("loop")).is_err());
    }
}
