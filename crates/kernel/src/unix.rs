//! Unix sockets: whom the group may speak to besides itself.

use crate::{
    applications::mount_of,
    attach::{self, Place, Program},
    btf::Btf,
    load::{LoadError, Shims},
    records::Record,
};
use aya::maps::{HashMap, MapError};
use openwfp_abi::unix::{AbstractName, SocketFile, SocketPath, UNIX_ENTRIES};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;

const CONNECT: &str = "security_unix_stream_connect";
const SEND: &str = "security_unix_may_send";

/// (program, the name of its link, its place), where the peer's socket can be looked at.
const BY_PEER: [(&str, &str, Place); 2] =
    [("unix_connect", "unix_connect", Place::Before(CONNECT)), ("unix_send", "unix_send", Place::Before(SEND))];
/// The same where only the path can.
const BY_PATH: [(&str, &str, Place); 2] =
    [("unix_path", "unix_path_connect", Place::Connect), ("unix_path", "unix_path_send", Place::Send)];

/// The folder that has to be the run's own with [`UnixSockets::Paths`].
pub const PRIVATE_FOLDER: &str = openwfp_abi::unix::PRIVATE_FOLDER;

/// The Unix sockets that the processes of a group may connect and send to.
#[derive(Clone, Debug, Default)]
pub enum UnixSockets {
    /// All.
    #[default]
    All,
    /// Those that processes of the group have made, and these. Takes a machine that [`peers_are_seen`].
    Run(Vec<NamedSocket>),
    /// By the path that is asked for: those below [`PRIVATE_FOLDER`], and these; and every abstract name (Linux 6.7). This holds
    /// only together with what the caller does: the folder is a file system of the group's own in which no links are
    /// followed, the group can neither mount nor change its root, a Landlock scope keeps it to its own abstract names, and
    /// [`NamedSocket::is_fixed`] for each named one.
    Paths(Vec<NamedSocket>),
}

/// Whether this machine lets programs look at the socket that a process is about to speak to. Some forbid it.
pub fn peers_are_seen() -> Result<bool, LoadError> {
    let types = Btf::of_kernel()?;
    Ok([CONNECT, SEND].iter().all(|function| attach::stand_before(&types, function)))
}

/// A Unix socket that was made outside.
#[derive(Clone, Debug)]
pub struct NamedSocket {
    key: Key,
    /// As it was named.
    place: PathBuf,
    /// With symbolic links resolved; of a file.
    resolved: Option<PathBuf>,
    /// Keeps the file: the number of one that is deleted may be given to another.
    _file: Option<Arc<File>>,
}

#[derive(Clone, Copy, Debug)]
enum Key {
    File(SocketFile),
    Name(AbstractName),
}

/// Why a socket cannot be named.
#[derive(Debug, Error)]
pub enum NamedSocketError {
    /// It could not be looked at.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The path.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is something else at the path.
    #[error("{path} is not a socket")]
    NotASocket {
        /// The path.
        path: String,
    },
    /// The file is in no mount that this process can see.
    #[error("{path} is in no mount of this process's namespace")]
    NoMount {
        /// The path.
        path: String,
    },
    /// An abstract name that no socket can have.
    #[error("an abstract name has 1 to 107 bytes, and this one {length}")]
    Name {
        /// Its length in bytes.
        length: usize,
    },
}

impl NamedSocket {
    /// The socket whose file is at this path, symbolic links resolved; or, of `@` and a name, whatever has this abstract name in
    /// the network namespace of the process that asks for it.
    ///
    /// A file is known by its number in its file system and not by its path, since whoever may write in a folder can put another
    /// socket at the path. A service that makes its socket anew makes another file.
    pub fn find(place: &Path) -> Result<Self, NamedSocketError> {
        if let Some(name) = place.as_os_str().as_bytes().strip_prefix(b"@") {
            let key = AbstractName::new(name).filter(|_| !name.is_empty());
            let key = key.ok_or(NamedSocketError::Name { length: name.len() })?;
            return Ok(Self { key: Key::Name(key), place: place.to_owned(), resolved: None, _file: None });
        }
        let shown = || place.display().to_string();
        let open = |source| NamedSocketError::Open { path: shown(), source };
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(place).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        if !metadata.file_type().is_socket() {
            return Err(NamedSocketError::NotASocket { path: shown() });
        }
        let mount = mount_of(&file).map_err(open)?.ok_or_else(|| NamedSocketError::NoMount { path: shown() })?;
        let key = SocketFile { inode: metadata.ino(), device: mount.device, zero: 0 };
        let resolved = Some(fs::canonicalize(place).map_err(open)?);
        Ok(Self { key: Key::File(key), place: place.to_owned(), resolved, _file: Some(Arc::new(file)) })
    }

    /// Whether only root can put something else at its path: every folder that leads there, links resolved, belongs to
    /// root, and others may not write in it, or only add to it (`t`).
    pub fn is_fixed(&self) -> bool {
        let belongs_to_root = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.uid() == 0);
        let is_fixed = |path: &Path| {
            path.is_absolute()
                && path.ancestors().skip(1).zip(path.ancestors()).all(|(folder, entry)| {
                    let mode = fs::symlink_metadata(folder).map_or(0o777, |metadata| metadata.mode());
                    let kept = mode & 0o022 == 0 || mode & 0o1000 != 0 && belongs_to_root(entry);
                    belongs_to_root(folder) && kept
                })
        };
        self.resolved.as_deref().is_some_and(is_fixed)
    }

    /// As it is shown.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

/// Loads the programs that limit Unix sockets, and tells them who is named; `by_path`: they see no more than a path.
pub(crate) fn load(
    shims: &mut Shims,
    named: &[NamedSocket],
    by_path: bool,
) -> Result<Vec<(&'static str, Program)>, LoadError> {
    let (mut files, mut names, mut paths) = (vec![], vec![], vec![]);
    for socket in named {
        match socket.key {
            Key::File(key) => files.push(Record(key)),
            Key::Name(key) => names.push(Record(key)),
        }
        // links on the way that is not resolved may be anyone's
        let resolved = socket.resolved.as_ref().and_then(|path| SocketPath::path(path.as_os_str().as_bytes()));
        paths.extend(resolved.map(Record));
    }
    if named.len() > UNIX_ENTRIES as usize {
        return Err(LoadError::TooManySockets { count: named.len() });
    }
    write(shims, "UNIX_FILES", &files)?;
    write(shims, "UNIX_NAMES", &names)?;
    write(shims, "UNIX_PATHS", &paths)?;
    let types = Btf::of_kernel()?;
    let programs = if by_path { BY_PATH } else { BY_PEER };
    let load = |(name, link, place)| Ok((link, Program::load(shims, name, &types, place)?));
    programs.into_iter().map(load).collect()
}

fn write<K: aya::Pod>(shims: &mut Shims, name: &'static str, keys: &[K]) -> Result<(), LoadError> {
    let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
    let map = shims.ebpf().map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = HashMap::<_, K, u64>::try_from(map).map_err(failed)?;
    keys.iter().try_for_each(|key| map.insert(key, 1, 0)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_is_known_by_its_file() {
        let folder = std::env::temp_dir().join(format!("wfp-unix-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, moved) = (folder.join("socket"), folder.join("moved"));
        let _listener = UnixListener::bind(&path).unwrap();
        let key = |path: &Path| match NamedSocket::find(path).unwrap().key {
            Key::File(key) => key,
            Key::Name(_) => unreachable!("a path"),
        };
        let before = key(&path);
        std::fs::rename(&path, &moved).unwrap();
        assert!(before.inode != 0 && before.device != 0);
        assert_eq!(key(&moved), before);
        let _another = UnixListener::bind(&path).unwrap();
        assert_ne!(key(&path), before);
        let error = NamedSocket::find(&folder).unwrap_err();
        assert!(matches!(error, NamedSocketError::NotASocket { .. }));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(NamedSocket::find(&path), Err(NamedSocketError::Open { .. })));
    }

    #[test]
    fn abstract_names_have_the_length_of_addresses() {
        assert!(NamedSocket::find(Path::new("@name")).is_ok());
        let long = format!("@{}", "x".repeat(108));
        for name in ["@", &long] {
            assert!(matches!(NamedSocket::find(Path::new(name)), Err(NamedSocketError::Name { .. })), "{name}");
        }
    }
}
