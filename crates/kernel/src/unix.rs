//! Unix sockets: whom the group may speak to besides itself.

use crate::{
    applications::mount_of,
    btf::Btf,
    load::{LoadError, Shims},
    modify_return::Program,
    records::Record,
};
use aya::maps::{HashMap, MapError};
use openwfp_abi::unix::{AbstractName, SocketFile, UNIX_ENTRIES};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::Arc,
};
use thiserror::Error;

/// (program, function of the kernel that it stands before).
const PROGRAMS: [(&str, &str); 2] =
    [("unix_connect", "security_unix_stream_connect"), ("unix_send", "security_unix_may_send")];

/// The Unix sockets that the processes of a group may connect and send to.
#[derive(Clone, Debug, Default)]
pub enum UnixSockets {
    /// All.
    #[default]
    All,
    /// Those that processes of the group have made, and these.
    Run(Vec<NamedSocket>),
}

/// A Unix socket that was made outside.
#[derive(Clone, Debug)]
pub struct NamedSocket {
    key: Key,
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
            return Ok(Self { key: Key::Name(key), _file: None });
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
        Ok(Self { key: Key::File(key), _file: Some(Arc::new(file)) })
    }
}

/// Loads the programs that limit Unix sockets, and tells them who is named.
pub(crate) fn load(shims: &mut Shims, named: &[NamedSocket]) -> Result<Vec<(&'static str, Program)>, LoadError> {
    let (mut files, mut names) = (vec![], vec![]);
    for socket in named {
        match socket.key {
            Key::File(key) => files.push(Record(key)),
            Key::Name(key) => names.push(Record(key)),
        }
    }
    if files.len().max(names.len()) > UNIX_ENTRIES as usize {
        return Err(LoadError::TooManySockets { count: named.len() });
    }
    write(shims, "UNIX_FILES", &files)?;
    write(shims, "UNIX_NAMES", &names)?;
    let types = Btf::of_kernel()?;
    PROGRAMS.iter().map(|(name, function)| Ok((*name, Program::load(shims, name, &types, function)?))).collect()
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
