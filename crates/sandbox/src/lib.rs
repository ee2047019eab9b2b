//! Runs a command in a control group of its own, and closes the ways around the programs that filter that group.
//!
//! The filters themselves are none of this crate's business: whoever uses it attaches them while the command stands ready.
//!
//! ```no_run
//! use openwfp_sandbox::{Groups, Isolation, Sandbox};
//!
//! # fn attach(group: u64) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::new(&Isolation::default())?; // looks, changes nothing
//! let group = Groups::find()?.create()?;              // /sys/fs/cgroup/openwfp/run-4711-…
//! let held = sandbox.spawn(&group, "curl".as_ref(), &["http://192.0.2.1/".into()], std::env::vars_os())?;
//! attach(group.id());                                 // the process is in the group and executes nothing yet
//! let mut child = held.release()?;                    // now it does
//! let outcome = child.wait()?;                        // or poll child.pidfd(), child.signals() and what else there is
//! group.remove()?;                                    // stays if the command has left daemons behind
//! std::process::exit(outcome.exit_status().into())
//! # }
//! ```
//!
//! # Why each part is needed
//!
//! A program of a control group sees the sockets that were made by processes of that group. So a command gets around it
//! by leaving the group, by using a socket that was made elsewhere, by using something that is no such socket, by taking the
//! programs off, or by having a process outside act for it:
//!
//! | way | closed by |
//! | --- | --- |
//! | writing `cgroup.procs`, or `CLONE_INTO_CGROUP` | own mounts with the cgroup file systems covered; no `clone3`; no cgroup or user namespace |
//! | inherited sockets and other descriptors | all but 0, 1, 2 are closed at exec; those that stay are looked at |
//! | packet, XDP, vsock, … sockets; io_uring; SMC | the system call filter ([`Family`]) |
//! | TUN devices, RDMA | their folders in `/dev` are covered |
//! | taking the programs off, writing their maps | another user, without the capabilities in [`UNDO_FILTERING`], and no new privileges; BPF file systems covered; no `bpf()` |
//! | tracing other processes of the user | a Landlock domain |
//! | typing into the shell's terminal | `TIOCSTI` is refused |
//! | as root: settings of the kernel that start programs | `/proc/sys` and `/sys` are read-only |
//! | holding the lock of runs, so that none starts or ends | its file is for its owner alone, and covered by `/dev/null` |
//!
//! # What is not closed
//!
//! - Services that act on request, which a Unix socket of the user reaches: systemd (`systemd-run --scope` even moves the asking
//!   process itself into another group), D-Bus, a container engine, ssh and its agent, tmux, a database that runs programs.
//! - Files that others execute later: shell start-up files, cron tables, authorized keys. Root can write all of them, and raw
//!   disks besides: run what is not trusted as an ordinary user.
//! - Devices that the user may open: a modem, a network adapter on USB.
//!   (`wfp run --unix` keeps the command from them; where that takes folders and names of its own, [`Isolation::private_sockets`] is
//!   the half that belongs here.)
//! - With `--user-namespaces`, `--keep-cap`, `--family`, `--io-uring`, `--keep-fd`: what was asked for.
//!
//! Everything is inherited by all that the command starts and cannot be taken off from inside. It does not depend on the process
//! that started it: when that is killed, the command goes on, in its group, isolated as before.

use std::path::PathBuf;

mod capability;
mod cgroup;
mod child;
mod descendants;
mod descriptors;
mod error;
mod family;
mod mountinfo;
mod mounts;
mod plan;
mod sandbox;
mod seccomp;
mod signals;
mod spawn;
mod sys;
mod trace;
mod user;

pub use capability::{Capability, UNDO_FILTERING, UnknownCapability};
pub use cgroup::{CgroupError, Groups, PARENT_VARIABLE, RunGroup};
pub use descendants::end_with_descendants;
pub use descriptors::{DescriptorError, DescriptorKind, InheritedDescriptor};
pub use error::{Error, Failure, Shortfall, Step};
pub use family::{Family, UnknownFamily};
pub use mounts::LOCK;
pub use plan::NulError;
pub use sandbox::Sandbox;
pub use signals::{NOT_HANDED_ON, handed_on};
pub use spawn::{Child, Held, Outcome};
pub use user::{Account, RunUser, UserError};

/// How a command is isolated. The default is everything; each field takes something off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// False switches all of it off, whatever the other fields say, and the command runs as the caller (`--no-isolation`). It
    /// is in its control group still.
    pub enabled: bool,
    /// The user that runs the command, as a name or number, with `:GROUP` also another group than the user's own (`--user`).
    /// None: the user who called sudo, else the caller.
    pub user: Option<String>,
    /// Capabilities that the command keeps although they undo filtering (`--keep-cap`). Another user than root gets them as
    /// ambient capabilities.
    pub keep_capabilities: Vec<Capability>,
    /// Socket families besides UNIX, INET, INET6 and NETLINK (`--family`).
    pub families: Vec<Family>,
    /// Allows io_uring (`--io-uring`), through which sockets of every family can be made.
    pub io_uring: bool,
    /// Allows user namespaces (`--user-namespaces`), which browsers and container tools use for their own sandboxes.
    pub user_namespaces: bool,
    /// Descriptors to hand to the command besides 0, 1 and 2 (`--keep-fd`). They must have been handed to this process.
    pub keep_descriptors: Vec<i32>,
    /// Leaves `/dev/net` and `/dev/infiniband` to be seen (`--network-devices`).
    pub network_devices: bool,
    /// Keeps Unix sockets apart from those outside, together with a program that sees paths alone: this folder becomes a file
    /// system of the command's own in which no links are followed, abstract names that were taken outside cannot be connected or
    /// sent to (a Landlock scope: Linux 6.12), and nobody changes his root. Cannot be had together with the right to mount.
    pub private_sockets: Option<PathBuf>,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            enabled: true,
            user: None,
            keep_capabilities: Vec::new(),
            families: Vec::new(),
            io_uring: false,
            user_namespaces: false,
            keep_descriptors: Vec::new(),
            network_devices: false,
            private_sockets: None,
        }
    }
}
