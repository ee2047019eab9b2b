//! The BPF file system, in which links and maps outlive the process that made them.

use crate::mounts;
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

/// Our own mount, made when the machine has none.
const OWN_MOUNT: &str = "/run/wfp/bpf";
const OWN_MOUNT_C: &CStr = c"/run/wfp/bpf";
/// How often a mount is looked for that others take away at the same time.
const ATTEMPTS: u32 = 8;
/// Our folder in either. (The top of a BPF file system can hold files of the kernel's own.)
const FOLDER: &str = "wfp";

/// The folder for everything that is pinned; made when it is not there.
///
/// It is `wfp` in the BPF file system that the machine has mounted (systemd mounts one at
/// `/sys/fs/bpf`). A machine that has none gets one at `/run/wfp/bpf`, for root alone.
pub fn folder() -> io::Result<PathBuf> {
    for _ in 0..ATTEMPTS {
        if let Some(folder) = find()? {
            create(&folder)?;
            // another process may have taken the mount away meanwhile: then this is a folder of what was under it
            if is_bpf(&folder)? {
                return Ok(folder);
            }
            let _ = fs::remove_dir(&folder);
            continue;
        }
        break;
    }
    create(Path::new(OWN_MOUNT))?;
    // SAFETY: four strings that end with zero.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            OWN_MOUNT_C.as_ptr(),
            c"bpf".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let folder = Path::new(OWN_MOUNT).join(FOLDER);
    create(&folder)?;
    Ok(folder)
}

/// Whether a folder is in a BPF file system.
fn is_bpf(folder: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let path = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: zeros are a valid structure of integers.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends with zero, and a structure of our own.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(about.f_type as i64 & 0xffff_ffff == BPF_FS_MAGIC)
}

/// The folder for everything that is pinned, if there is a mounted BPF file system. The folder
/// itself may be missing.
pub fn find() -> io::Result<Option<PathBuf>> {
    let mounts = mounts::read()?;
    let usable = mounts.iter().filter(|mount| mount.kind == "bpf" && !mount.read_only);
    let points: Vec<&Path> = usable.map(|mount| mount.point.as_path()).collect();
    let own = points.iter().find(|point| **point == Path::new(OWN_MOUNT));
    let first = points.iter().find(|point| **point == Path::new("/sys/fs/bpf"));
    Ok(own.or(first).or(points.first()).map(|point| point.join(FOLDER)))
}

/// Takes the folder away when nothing is pinned in it any more, and the mount if it is ours.
/// Whether it did.
pub fn release() -> io::Result<bool> {
    let Some(folder) = find()? else {
        return Ok(false);
    };
    match fs::remove_dir(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if folder.parent() == Some(Path::new(OWN_MOUNT)) {
        // SAFETY: a string that ends with zero.
        if unsafe { libc::umount2(OWN_MOUNT_C.as_ptr(), 0) } != 0 {
            return match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
                error => Err(error),
            };
        }
        // the folder stays: to remove it would unmount what other mount namespaces have there, with all that is pinned in it
    }
    Ok(true)
}

/// Takes away a folder of pinned objects. What nothing else holds is detached and freed.
pub fn unpin(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn create(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
