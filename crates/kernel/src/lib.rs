//! Loads the eBPF programs of openwfp, and works with their maps.
//!
//! - [`features`]: what this machine or this user lacks for it, said before anything is tried;
//! - [`btf`], [`offsets`]: where the running kernel keeps what the programs read;
//! - [`group`]: the control group whose processes the programs see;
//! - [`load`]: the object file into the kernel, its programs to their places, all of it pinned;
//! - [`labels`]: which program each process runs, as the kernel has it;
//! - [`applications`]: the programs that a policy names, in the same terms;
//! - [`enforcement`]: a compiled policy, enforced for a group;
//! - [`replace`]: another policy in its place, while programs decide;
//! - [`hooks`], [`image`], [`interfaces`]: the programs that it needs, and what they are told;
//! - [`unix`]: the Unix sockets that the group may speak to;
//! - [`links`]: the interfaces and addresses that the network namespace has;
//! - [`events`], [`sockets`], [`totals`]: what comes back: events, sockets that have to be told, sums;
//! - [`divert`]: packets to callouts in user space, and back;
//! - [`measure`]: the classifier in the kernel over given values, without any process to filter;
//! - [`bpffs`], [`mounts`]: the file system that keeps what is pinned, and what else is mounted.

pub mod applications;
mod attach;
mod authorizing;
pub mod bpffs;
pub mod btf;
mod config;
pub mod divert;
mod drops;
pub mod enforcement;
pub mod events;
pub mod features;
pub mod flows;
mod grace;
pub mod group;
pub mod hooks;
pub mod image;
pub mod interfaces;
mod known;
pub mod labels;
pub mod links;
pub mod load;
pub mod measure;
mod merge;
pub mod mounts;
pub mod namespaces;
mod netlink;
mod network;
pub mod offsets;
pub mod options;
mod records;
pub mod replace;
#[cfg(test)]
#[path = "../tests/support/skips.rs"]
mod skips;
pub mod sockets;
mod telling;
pub mod totals;
pub mod unix;
