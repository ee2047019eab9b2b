//! Folders of pinned objects that tests make.

use openwfp_kernel::bpffs;
use std::{fs, io, path::Path, path::PathBuf};

/// A folder in the BPF file system, named by the test and the process; what is pinned in it is taken away when it goes out of scope.
pub struct Pins(pub PathBuf);

impl Pins {
    /// Makes the folder: as long as it is there, no other test takes away what it is in. What processes that were killed have left
    /// under such names is taken away.
    pub fn new(name: &str) -> io::Result<Self> {
        let name = format!("{PREFIX}{name}-{}", std::process::id());
        for _ in 0..10 {
            let folder = bpffs::folder()?;
            remove_stale(&folder);
            // another test may just have taken away what was empty
            if fs::create_dir(folder.join(&name)).is_ok() && bpffs::find()?.as_ref() == Some(&folder) {
                return Ok(Self(folder.join(name)));
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = bpffs::unpin(&self.0);
        let _ = bpffs::release();
    }
}

/// No run has such a name, so nobody else takes these away.
const PREFIX: &str = "test-";

fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.rsplit('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // another test may do so at the same time
            let _ = bpffs::unpin(&entry.path());
        }
    }
}
