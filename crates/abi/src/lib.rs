//! What the eBPF programs and their loader have in common: the records in their maps, the
//! constants that the loader sets, and the hash under which both know a file.
//!
//! Everything here is `no_std`, without dependencies and without `unsafe`, because it is compiled
//! twice: for the machine, and for `bpfel-unknown-none`. Records are `repr(C)`, consist of whole
//! 8-byte words, and have no padding, so that a record is the same bytes on both sides and a map
//! key has no unset bytes. All numbers are in the machine's byte order unless a field says otherwise.
//!
//! One file per subject:
//! - [`process`]: how a process is named for as long as the machine runs;
//! - [`file`](mod@file): how a program's file is named, and the path to show for it;
//! - [`label`]: which program a process runs, taken when it was executed;
//! - [`identity`]: all that a hook knows about the task that it serves;
//! - [`cgroup`]: how a control group is known;
//! - [`hash`]: the keyed hash behind the name of a file;
//! - [`constants`]: the read-only constants of the object, among them the offsets of kernel members;
//! - [`config`]: what the programs are to do;
//! - [`event`]: what the programs report;
//! - [`drop`](mod@drop): why the kernel drops a packet, and what that says;
//! - [`flow`]: flows, and what is kept with a socket;
//! - [`divert`]: packets on their way to a callout and back;
//! - [`counters`]: what went wrong, counted;
//! - [`unix`]: Unix sockets outside that may be spoken to;
//! - [`measure`]: classifications that are made to be measured.
#![no_std]

pub mod cgroup;
pub mod config;
pub mod constants;
pub mod counters;
pub mod divert;
pub mod drop;
pub mod event;
pub mod file;
pub mod flow;
pub mod hash;
pub mod identity;
pub mod label;
pub mod measure;
pub mod process;
pub mod unix;
