//! A run, worked out before any process exists: as whom, with what rights, what it sees.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::Isolation;
use crate::capability::{self, Capability};
use crate::descriptors::{self, InheritedDescriptor};
use crate::error::{Error, Shortfall, system};
use crate::mountinfo;
use crate::mounts::{self, LOCK, MountPlan};
use crate::plan::{Identity, IsolationPlan};
use crate::seccomp;
use crate::trace;
use crate::user::{Caller, RunUser};

/// All that is known about a run before a process exists: made once, changes nothing.
pub struct Sandbox {
    pub(crate) user: RunUser,
    pub(crate) isolation: Option<IsolationPlan>,
    descriptors: Vec<InheritedDescriptor>,
    shortfalls: Vec<Shortfall>,
}

impl Sandbox {
    /// Looks up the user, the mounts, the descriptors and the rights of this process, and says what is wrong with them. A signal
    /// mask, descriptors or mounts that change afterwards are not noticed.
    pub fn new(isolation: &Isolation) -> Result<Self, Error> {
        let caller = Caller::of_this_process().map_err(system("read the groups of this process"))?;
        if !isolation.enabled {
            if isolation.private_sockets.is_some() {
                return Err(Error::PrivateSockets("without isolation (--no-isolation)".into()));
            }
            let user = RunUser::find(None, &Caller { sudo_uid: None, ..caller })?;
            return Ok(Self { user, isolation: None, descriptors: Vec::new(), shortfalls: Vec::new() });
        }
        let user = RunUser::find(isolation.user.as_deref(), &caller)?;
        let descriptors = descriptors::examine(&isolation.keep_descriptors)?;
        let mut shortfalls = Vec::new();
        let plan = IsolationPlan::new(isolation, &user, &mut shortfalls)?;
        Ok(Self { user, isolation: Some(plan), descriptors, shortfalls })
    }

    /// As whom the command will run.
    pub fn user(&self) -> &RunUser {
        &self.user
    }

    /// The descriptors that the command inherits and that no filter sees, to warn about: sockets above all.
    pub fn descriptors(&self) -> &[InheritedDescriptor] {
        &self.descriptors
    }

    /// What isolation does not cover on this machine, to warn about.
    pub fn shortfalls(&self) -> &[Shortfall] {
        &self.shortfalls
    }
}

impl IsolationPlan {
    fn new(isolation: &Isolation, user: &RunUser, shortfalls: &mut Vec<Shortfall>) -> Result<Self, Error> {
        let keep = &isolation.keep_capabilities;
        let held = capabilities(None).map_err(|errno| system("read the capabilities of this process")(errno.into()))?;
        let has = |capability: Capability| held.effective.contains(capability.as_set());
        let need = |capability, purpose| {
            if has(capability) { Ok(()) } else { Err(Error::MissingCapability { capability, purpose }) }
        };
        if let Some(&missing) = keep.iter().find(|capability| !held.permitted.contains(capability.as_set())) {
            return Err(Error::NothingToKeep(missing));
        }
        let purpose = "hide the cgroup and BPF file systems from it";
        need(Capability::SYS_ADMIN, purpose)?;
        if user.changes {
            need(Capability::SETGID, "set the groups of the user that runs it")?;
            need(Capability::SETUID, "become the user that runs it")?;
        }
        let identity = user.changes.then(|| Identity {
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            groups: user.groups.iter().copied().map(Gid::from_raw).collect(),
        });

        let mut refused = capability::refused(keep, last_capability()?);
        let private = isolation.private_sockets.is_some();
        if private {
            if let Some(&kept) = keep.iter().find(|kept| [Capability::SYS_ADMIN, Capability::SYS_CHROOT].contains(kept))
            {
                return Err(Error::PrivateSockets(format!("while {kept} is kept (--keep-cap)")));
            }
            if isolation.user_namespaces {
                return Err(Error::PrivateSockets("with user namespaces (--user-namespaces)".into()));
            }
            refused.push(Capability::SYS_CHROOT);
        }
        let taken = refused.iter().fold(CapabilitySet::empty(), |set, capability| set | capability.as_set());
        let kept = keep.iter().fold(CapabilitySet::empty(), |set, capability| set | capability.as_set());
        // Root has all that is left; others what was asked for, and that only if it is ambient.
        let root = user.uid == 0;
        let permitted = if root { held.permitted - taken } else { held.permitted & kept };
        // Without the right to lower it, the bounding set stays: "no new privileges" alone keeps files and users from giving
        // capabilities to anyone then.
        let bounding = if has(Capability::SETPCAP) { refused } else { Vec::new() };

        let may_mount = isolation.user_namespaces || keep.contains(&Capability::SYS_ADMIN);
        let trace = match trace::rules(may_mount, private) {
            Ok(rules) => Some(rules),
            Err(reason) if private => return Err(Error::PrivateSockets(format!("here: {reason}"))),
            Err(reason) => {
                // Yama stops taking over another process, but not looking through `/proc/PID/root` as uid 0 could.
                if root || !trace::yama_limits_tracing() {
                    shortfalls.push(Shortfall::Tracing(reason));
                }
                None
            }
        };
        Ok(Self {
            close: descriptors::ranges_to_close(&isolation.keep_descriptors),
            mounts: mount_plan(isolation, root)?,
            bounding,
            identity,
            permitted: permitted.bits(),
            ambient: if root { Vec::new() } else { keep.clone() },
            trace,
            filter: seccomp::filter(isolation).ok_or(Error::Architecture)?,
        })
    }
}

fn mount_plan(isolation: &Isolation, root: bool) -> Result<MountPlan, Error> {
    let keeps = |capability| isolation.keep_capabilities.contains(&capability);
    let list = mountinfo::read().map_err(system("read /proc/self/mountinfo"))?;
    if let Ok(folder) = std::env::current_dir() {
        let hidden = mounts::is_hidden(&list, &folder).map_err(system("look at the mounts"))?;
        let magic = rustix::fs::statfs(c".").map(|system| system.f_type as u64);
        if hidden || magic.is_ok_and(mounts::is_hidden_type) {
            return Err(Error::WorkingFolder(folder));
        }
    }
    let settings = root && !keeps(Capability::SYS_ADMIN);
    let devices = isolation.network_devices || keeps(Capability::NET_ADMIN);
    let mut plan = MountPlan::new(&list, settings, devices).map_err(system("look at the mounts"))?;
    if Path::new(LOCK).is_file() {
        plan.hide(Path::new(LOCK)).map_err(system("name the lock of runs"))?;
    }
    if let Some(folder) = &isolation.private_sockets {
        // the last, over all that lies there
        plan.own(folder).map_err(system("name the folder for its sockets"))?;
    }
    Ok(plan)
}

/// The highest capability that the kernel knows.
fn last_capability() -> Result<u8, Error> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is not a number");
    fs::read_to_string(path)
        .and_then(|text| text.trim().parse().map_err(|_| wrong()))
        .map_err(system("read /proc/sys/kernel/cap_last_cap"))
}
