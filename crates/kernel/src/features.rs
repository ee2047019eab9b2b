//! What this machine or this user lacks, said before anything is tried.

use crate::{attach, btf, grace::smallest_map, group};
use std::{
    fs::{self, File},
    io,
    path::Path,
};
use thiserror::Error;

/// The oldest kernel that is known to work. (`bpf_loop` came with 5.17 and `bpf_set_retval` with 5.18, but nothing older
/// than 6.1 has been tried.)
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// One thing that is missing, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Missing {
    /// The caller lacks capabilities.
    #[error("missing {}: run as root, or give the program these capabilities", .names.join(", "))]
    Capabilities {
        /// `CAP_BPF` and the like.
        names: Vec<&'static str>,
    },
    /// The kernel is too old.
    #[error("Linux {found} is too old: {}.{} or later is needed", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    Kernel {
        /// Its release.
        found: String,
    },
    /// The kernel has no BTF.
    #[error(
        "this kernel publishes no type information ({}): it must be built with CONFIG_DEBUG_INFO_BTF",
        btf::VMLINUX
    )]
    Btf,
    /// No cgroup v2.
    #[error("{0}")]
    ControlGroups(String),
    /// The kernel has no BPF system call.
    #[error("this kernel has no bpf system call: it must be built with CONFIG_BPF_SYSCALL")]
    NoBpf,
    /// The kernel has no programs of control groups.
    #[error("this kernel runs no programs for control groups: it must be built with CONFIG_CGROUP_BPF")]
    NoGroupPrograms,
    /// The system call is refused although the capabilities are there.
    #[error("the bpf system call is refused{}", reason(.lockdown))]
    Refused {
        /// Kernel lockdown is set to `confidentiality`, which forbids BPF to read kernel memory.
        lockdown: bool,
    },
}

fn reason(lockdown: &bool) -> &'static str {
    if *lockdown {
        " by kernel lockdown (/sys/kernel/security/lockdown is at `confidentiality`): boot with lockdown=integrity or none"
    } else {
        ", though the capabilities are there: a seccomp filter or a security module forbids it; in a container, let it through"
    }
}

/// (number, name): what loading and attaching needs. `CAP_SYS_ADMIN` stands for all but
/// `CAP_NET_ADMIN`; it is also what pinning into a BPF file system of our own takes.
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// Everything that is missing; nothing means that loading can be tried.
pub fn missing() -> Vec<Missing> {
    let mut all = Vec::new();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if too_old(&release) {
        all.push(Missing::Kernel { found: release.trim().into() });
    }
    if !Path::new(btf::VMLINUX).exists() {
        all.push(Missing::Btf);
    }
    let hierarchy = group::hierarchy();
    if let Err(error) = &hierarchy {
        all.push(Missing::ControlGroups(error.to_string()));
    }
    let names = missing_capabilities(&status());
    if names.is_empty() {
        let no_group_programs = || {
            let asked = File::open(hierarchy.ok()?).and_then(|group| attach::query(&group));
            is_unknown(&asked).then_some(Missing::NoGroupPrograms)
        };
        all.extend(refused().or_else(no_group_programs));
    } else {
        all.push(Missing::Capabilities { names });
    }
    all
}

/// Whether the caller obeys the modes of files and folders, as root does too without CAP_DAC_OVERRIDE: then the folders that are
/// needed must be its own.
pub fn obeys_modes() -> bool {
    const DAC_OVERRIDE: u32 = 1;
    held(&status()) >> DAC_OVERRIDE & 1 == 0
}

fn status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// The bits of the line `CapEff:` of `/proc/self/status`.
fn held(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0)
}

/// The oldest kernel that diverts packets to callouts: tcx came with it.
pub const OLDEST_DIVERTING: (u32, u32) = (6, 6);

/// Whether this kernel can divert packets to callouts, as far as its number tells.
pub fn diverts() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    !older(&release, OLDEST_DIVERTING)
}

/// Whether a release such as `6.1.0-56-amd64` is older than [`OLDEST_KERNEL`]. An unreadable one is not.
fn too_old(release: &str) -> bool {
    older(release, OLDEST_KERNEL)
}

fn older(release: &str, oldest: (u32, u32)) -> bool {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < oldest,
        _ => false,
    }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let held = held(status);
    let has = |number: u32| held >> number & 1 == 1;
    // CAP_SYS_ADMIN includes the two that were split from it
    let includes = |number: u32| has(number) || (matches!(number, 38 | 39) && has(21));
    CAPABILITIES.iter().filter(|(number, _)| !includes(*number)).map(|(_, name)| *name).collect()
}

/// Makes the smallest map, to see whether the system call is let through.
fn refused() -> Option<Missing> {
    match smallest_map().map_err(|error| error.raw_os_error()) {
        Ok(_) => {
            // Under this lockdown maps can be made, but no program may read kernel structures.
            let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
            lockdown.contains("[confidentiality]").then_some(Missing::Refused { lockdown: true })
        }
        Err(Some(libc::ENOSYS)) => Some(Missing::NoBpf),
        Err(_) => Some(Missing::Refused { lockdown: false }),
    }
}

/// Whether a kernel that was asked which programs a group has knows of no such programs. One that does says EBADF of what is no
/// group, and EPERM of who may not ask.
fn is_unknown(asked: &io::Result<()>) -> bool {
    asked.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_programs_of_groups_is_told_by_its_answer() {
        assert!(is_unknown(&Err(io::Error::from_raw_os_error(libc::EINVAL))));
        assert!(!is_unknown(&Ok(())));
        for errno in [libc::EBADF, libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOENT, libc::ENOMEM] {
            assert!(!is_unknown(&Err(io::Error::from_raw_os_error(errno))), "{errno}");
        }
        let text = Missing::NoGroupPrograms.to_string();
        assert!(text.contains("CONFIG_CGROUP_BPF"), "{text}");
    }

    #[test]
    fn this_kernel_says_which_programs_a_group_has() {
        if let Some(first) = missing().first() {
            return crate::skips::skipped(first);
        }
        let group = File::open(group::hierarchy().unwrap()).unwrap();
        attach::query(&group).unwrap();
        let folder = File::open("/proc").unwrap();
        assert_eq!(attach::query(&folder).unwrap_err().raw_os_error(), Some(libc::EBADF), "it is no group");
    }

    #[test]
    fn kernels_are_told_apart_by_number() {
        let table = [
            ("5.16.9-generic\n", true),
            ("4.19.0", true),
            ("6.0.19", true),
            ("6.1.0-56-amd64", false),
            ("6.12.117+deb12-cloud-amd64", false),
            ("10.0", false),
            ("", false),
        ];
        for (release, expected) in table {
            assert_eq!(too_old(release), expected, "{release}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let table = [
            ("CapEff:\t000001ffffffffff\n", vec![]),
            ("CapEff:\t0000000000000000\n", vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]),
            ("CapEff:\t0000000000201000\n", vec![]),
            ("CapEff:\t0000000000200000\n", vec!["CAP_NET_ADMIN"]),
            ("CapEff:\t000000c000001000\n", vec!["CAP_SYS_ADMIN"]),
        ];
        for (status, expected) in table {
            assert_eq!(missing_capabilities(status), expected, "{status}");
        }
    }
}
