//! The mounts that this process sees, as `/proc/self/mountinfo` lists them (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where the kernel lists the mounts of this process.
pub(crate) const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Major and minor number of the mounted file system, as `stat` reports them below the mount point.
    pub(crate) device: (u32, u32),
    /// The folder of the file system that is its top here: `/` unless a part of it is mounted.
    pub(crate) root: PathBuf,
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// The file system's type, such as `cgroup2`.
    pub(crate) file_system: String,
}

impl Mount {
    /// Whether its mount point leads to this mount, and whether to a folder; `None` where another mount lies over it, or
    /// over a folder on the way to it, so that nobody reaches it by this path.
    pub(crate) fn reached_as(&self) -> io::Result<Option<Reached>> {
        let metadata = match fs::metadata(&self.mount_point) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        if device != self.device {
            return Ok(None);
        }
        Ok(Some(if metadata.is_dir() { Reached::Folder } else { Reached::File }))
    }
}

/// What stands at a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reached {
    Folder,
    File,
}

/// All mounts, in the kernel's order.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    parse(&fs::read(MOUNTINFO)?)
}

fn parse(text: &[u8]) -> io::Result<Vec<Mount>> {
    text.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                io::Error::new(io::ErrorKind::InvalidData, format!("not a line of mountinfo: `{line}`"))
            })
        })
        .collect()
}

/// `36 35 98:0 /root /mount/point options optional… - type source super-options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let root = unescape(fields.next()?);
    let mount_point = unescape(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let file_system = String::from_utf8_lossy(fields.next()?).into_owned();
    Some(Mount { device: (major.parse().ok()?, minor.parse().ok()?), root, mount_point, file_system })
}

/// Space, tab, newline and backslash stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| first == b'\\').and_then(octal);
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

/// How many folders a path goes down: 0 for `/`.
pub(crate) fn depth(path: &Path) -> u32 {
    let folders = path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).count();
    u32::try_from(folders).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_whatever_stands_between() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:3 - ext3 /dev/root rw,errors=continue\n\
            40 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            41 24 0:29 / /with\\040space\\134and\\011more rw - tmpfs none rw\n";
        let mounts = parse(text).unwrap();
        assert_eq!(
            mounts[0],
            Mount { device: (98, 0), root: "/mnt1".into(), mount_point: "/mnt2".into(), file_system: "ext3".into() }
        );
        assert_eq!(mounts[1].file_system, "cgroup2");
        assert_eq!(mounts[2].mount_point, Path::new("/with space\\and\tmore"));
    }

    #[test]
    fn a_broken_line_is_an_error_that_shows_it() {
        for line in ["36 35 98:0 /mnt1", "36 35 980 / / rw - ext4 x rw", "36 35 98:0 / / rw ext4 x rw", "x"] {
            let error = parse(line.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
    }

    #[test]
    fn an_escape_that_is_none_stays_as_it_stands() {
        assert_eq!(unescape(b"a\\9bc\\04"), Path::new("a\\9bc\\04"));
        assert_eq!(unescape(b"\\777"), Path::new("\\777"));
    }

    #[test]
    fn the_running_kernel_s_list_can_be_read() {
        let mounts = read().unwrap();
        let proc = mounts.iter().find(|mount| mount.file_system == "proc").unwrap();
        assert_eq!(proc.reached_as().unwrap(), Some(Reached::Folder));
    }

    #[test]
    fn depth_counts_folders() {
        assert_eq!(depth(Path::new("/")), 0);
        assert_eq!(depth(Path::new("/a/b")), 2);
        assert_eq!(depth(Path::new("a//b/./c")), 3);
    }
}
