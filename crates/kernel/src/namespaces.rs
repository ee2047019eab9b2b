//! The network namespaces that policies name: the `NAMESPACES` map; and what of Linux's own a policy asks for.
//!
//! A policy has the inode number of a namespace, and the programs its cookie. Namespaces that are named are held open, so that
//! their numbers are not given out again.

use crate::{
    interfaces,
    load::{LoadError, Shims},
};
use aya::maps::{HashMap as Map, MapError};
use openwfp_engine::CompiledPolicy;
use openwfp_model::{FieldId, MatchType, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

const NAME: &str = "NAMESPACES";

/// What the programs are to find out of Linux's own: the fields of [`extension`](openwfp_model::extension).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Control groups, units and containers.
    pub groups: bool,
    /// Network namespaces.
    pub namespaces: bool,
}

impl Asked {
    /// All of it.
    pub const ALL: Self = Self { groups: true, namespaces: true };

    /// What a policy tests.
    #[must_use]
    pub fn by(policy: &CompiledPolicy) -> Self {
        let conditions = policy.filters().iter().flat_map(|filter| &filter.filter.conditions);
        conditions.fold(Self::default(), |asked, condition| match condition.field {
            FieldId::LINUX_NETWORK_NAMESPACE => Self { namespaces: true, ..asked },
            field if field.is_extension() => Self { groups: true, ..asked },
            _ => asked,
        })
    }

    /// A field of this that is not among those of another.
    pub(crate) fn beyond(self, other: Self) -> Option<FieldId> {
        match self {
            Self { groups: true, .. } if !other.groups => Some(FieldId::LINUX_CGROUP),
            Self { namespaces: true, .. } if !other.namespaces => Some(FieldId::LINUX_NETWORK_NAMESPACE),
            _ => None,
        }
    }
}

/// The namespaces that the programs know.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// By inode number.
    held: BTreeMap<u32, Held>,
}

#[derive(Debug)]
struct Held {
    cookie: u64,
    _file: File,
}

impl Namespaces {
    /// Adds those that a policy names; the numbers of which there is no namespace.
    pub(crate) fn write(&mut self, shims: &mut Shims, policy: &CompiledPolicy) -> Result<Vec<u32>, LoadError> {
        let conditions = policy.filters().iter().flat_map(|filter| &filter.filter.conditions);
        let named: BTreeSet<u32> = conditions
            .filter(|condition| condition.field == FieldId::LINUX_NETWORK_NAMESPACE)
            .filter(|condition| matches!(condition.match_type, MatchType::Equal | MatchType::NotEqual))
            .filter_map(|condition| if let Value::Uint32(inode) = condition.value { Some(inode) } else { None })
            .collect();
        let new: Vec<u32> = named.into_iter().filter(|inode| !self.held.contains_key(inode)).collect();
        if new.is_empty() {
            return Ok(vec![]);
        }
        let failed = |source: MapError| LoadError::Map { name: NAME, source: Box::new(source) };
        let map = shims.ebpf().map_mut(NAME).ok_or(LoadError::ObjectLacks { name: NAME })?;
        let mut map = Map::<_, u64, u32>::try_from(map).map_err(failed)?;
        let mut missing = vec![];
        for inode in new {
            let Some(file) = find(inode) else {
                missing.push(inode);
                continue;
            };
            let cookie = cookie(&file)?;
            map.insert(cookie, inode, 0).map_err(failed)?;
            self.held.insert(inode, Held { cookie, _file: file });
        }
        Ok(missing)
    }

    /// The inode number of the namespace with these 32 bits of its cookie, if a policy names it.
    pub(crate) fn inode(&self, cookie: u32) -> Option<u32> {
        // the programs tell the lower half alone
        let is_it = |held: &&Held| held.cookie as u32 == cookie;
        let mut found = self.held.iter().filter(|(_, held)| is_it(held));
        match (found.next(), found.next()) {
            (Some((inode, _)), None) => Some(*inode),
            _ => None,
        }
    }
}

/// The network namespace of this number: that of a name, of a process or of a thread.
fn find(inode: u32) -> Option<File> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let threads = entries(Path::new("/proc")).flat_map(|process| entries(&process.join("task")));
    let threads = threads.map(|thread| thread.join("ns/net"));
    let own = [PathBuf::from("/proc/self/ns/net")];
    let all = own.into_iter().chain(entries(Path::new("/run/netns"))).chain(threads);
    all.filter_map(|path| open(&path)).find(|file| is_numbered(file, inode))
}

fn is_numbered(file: &File, inode: u32) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.ino() == u64::from(inode))
}

/// Opens a file if it is a network namespace. Nothing else is opened, which might wait for somebody.
fn open(path: &Path) -> Option<File> {
    // the file system of namespaces has one device
    let device = fs::metadata("/proc/self/ns/net").ok()?.dev();
    (fs::metadata(path).ok()?.dev() == device).then(|| File::open(path).ok()).flatten()
}

/// The cookie of a namespace, by a thread that goes there.
fn cookie(namespace: &File) -> Result<u64, LoadError> {
    let system = |source| LoadError::System { what: "cannot look into a network namespace", source };
    let told = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: moves this thread alone; the descriptor is open.
            match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
                0 => interfaces::namespace(),
                _ => Err(system(io::Error::last_os_error())),
            }
        });
        inside.join()
    });
    told.unwrap_or_else(|_| Err(system(io::Error::other("the thread has ended"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_found_by_its_number() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let file = find(u32::try_from(own).unwrap()).expect("it is there");
        assert_eq!(file.metadata().unwrap().ino(), own);
        assert!(find(1).is_none());
    }
}
