//! `/proc/self/mountinfo`: which file system is mounted where. Source: proc_pid_mountinfo(5).

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's number.
    pub id: u64,
    /// The kernel's device number of the file system, `major << 20 | minor`.
    pub device: u32,
    /// Which folder of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The mount is read-only.
    pub read_only: bool,
    /// Type of the file system: `ext4`, `bpf`, `cgroup2`.
    pub kind: String,
}

/// The mounts of the caller's namespace, in their order. Lines of another form are passed over.
pub fn read() -> io::Result<Vec<Mount>> {
    let text = fs::read(Path::new("/proc/self/mountinfo"))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// Where a file can be seen, by device and path inside its file system: through the mount that
/// shows most of the file system, if any shows the file.
pub fn visible(mounts: &[Mount], device: u32, inner: &Path) -> Option<PathBuf> {
    let candidates = mounts.iter().filter(|mount| mount.device == device && inner.starts_with(&mount.root));
    let mount = candidates.min_by_key(|mount| mount.root.as_os_str().len())?;
    Some(mount.point.join(inner.strip_prefix(&mount.root).ok()?))
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let (major, minor) = text(fields.nth(1)?)?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    if major >= 1 << 12 || minor >= 1 << 20 {
        return None;
    }
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let read_only = text(fields.next()?)?.split(',').any(|option| option == "ro");
    let kind = text(fields.skip_while(|field| *field != b"-").nth(1)?)?.into();
    Some(Mount { id, device: major << 20 | minor, root, point, read_only, kind })
}

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

/// A path in which space, tab, newline and backslash are written as three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digit: u8| matches!(digit, b'0'..=b'7').then(|| u32::from(digit - b'0'));
        let code = match (first, after) {
            (b'\\', [a, b, c, ..]) => octal(*a).zip(octal(*b)).zip(octal(*c)),
            _ => None,
        };
        match code.map(|((a, b), c)| u8::try_from(a << 6 | b << 3 | c)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_manual_has_them() {
        let line =
            br"36 35 98:5 /mnt1 /mnt2/a\040b\134 ro,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let expected = Mount {
            id: 36,
            device: 98 << 20 | 5,
            root: "/mnt1".into(),
            point: r"/mnt2/a b\".into(),
            read_only: true,
            kind: "ext3".into(),
        };
        assert_eq!(parse(line), Some(expected));
        let plain = parse(b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard").unwrap();
        assert_eq!((plain.read_only, plain.kind.as_str()), (false, "ext4"));
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in
            [&b""[..], b"x 1 254:0 / / rw - ext4", b"27 1 254 / / rw - ext4", b"27 1 254:0 / / rw", b"1 1 1:1 / /"]
        {
            assert_eq!(parse(line), None);
        }
        assert_eq!(path(br"a\04"), Path::new(r"a\04"));
        assert_eq!(path(br"a\777"), Path::new(r"a\777"));
    }

    #[test]
    fn a_file_is_shown_where_most_of_its_file_system_is() {
        let mounts: Vec<_> = [
            &b"1 0 8:1 /data/bin /opt rw - ext4 /dev/sda1 rw"[..],
            b"2 0 8:1 / /home rw - ext4 /dev/sda1 rw",
            b"3 0 8:2 /@ / rw - btrfs /dev/sda2 rw",
        ]
        .iter()
        .filter_map(|line| parse(line))
        .collect();
        let table = [
            (8 << 20 | 1, "/data/bin/x", Some("/home/data/bin/x")),
            (8 << 20 | 2, "/@/usr/bin/x", Some("/usr/bin/x")),
            (8 << 20 | 2, "/@home/x", None),
            (8 << 20 | 3, "/x", None),
            (8 << 20 | 1, "memfd:x", None),
        ];
        for (device, inner, expected) in table {
            assert_eq!(visible(&mounts, device, Path::new(inner)).as_deref(), expected.map(Path::new));
        }
    }

    #[test]
    fn this_machine_has_a_proc() {
        assert!(read().unwrap().iter().any(|mount| mount.kind == "proc"));
    }
}
