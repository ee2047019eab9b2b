//! The eBPF programs of openwfp: compiled once, loaded on kernels that they were not built on.
//!
//! - [`offsets`]: where kernel members are (constants that the loader sets), and typed loads;
//! - [`task`]: kernel structures as far as the programs follow them;
//! - [`scratch`]: working memory, claimed and given back;
//! - [`path`]: from an open file to its key, by the folders inside its file system;
//! - [`label`]: the tracepoints that label each process with the program that it executes;
//! - [`identity`]: who the calling task is, for the hooks;
//! - [`storage`]: memory that lives and dies with a socket;
//! - [`words`]: records moved word by word;
//! - [`counters`]: what went wrong;
//! - [`work`]: one classification: its memory, the walk over the image;
//! - [`bind`], [`connect`], [`stream`], [`packets`], [`release`]: the hooks, each with the layers that it serves;
//! - [`device`]: the frames and packets of a network namespace;
//! - [`resource`]: a local endpoint is asked for; [`endpoint`]: what is kept with a socket;
//! - [`drops`]: what the kernel drops by itself;
//! - [`unix`]: Unix sockets, which the group may use among itself;
//! - [`flows`]: what was authorized, until when, and by which policy;
//! - [`address`], [`bytes`], [`header`], [`socket`], [`layers`], [`protocol`]: what the hooks read and name;
//! - [`divert`], [`inject`]: packets to callouts in user space, and back;
//! - [`report`], [`refuse`]: what comes of it: an event, an errno, a dropped packet;
//! - [`maps`]: the maps that the hooks share;
//! - [`measure`]: a program that is attached nowhere, and classifies what it is given.
#![no_std]
#![no_main]
// The target has no atomic types, though BPF has the instructions.
#![feature(core_intrinsics)]
#![allow(internal_features)]
#![allow(clippy::needless_borrows_for_generic_args, reason = "a key of a map stays where it lies on the stack")]
#![allow(clippy::manual_div_ceil, reason = "lengths are bounded, so the sum cannot overflow, and it has no branches")]

mod address;
mod bind;
mod bytes;
mod cgroup;
mod connect;
mod counters;
mod device;
mod divert;
mod drops;
mod endpoint;
mod flows;
mod header;
mod icmp;
mod identity;
mod inject;
mod kept;
mod label;
mod layers;
mod maps;
mod measure;
mod memory;
mod offsets;
mod packet_values;
mod packets;
mod passage;
mod path;
mod protocol;
mod refuse;
mod release;
mod report;
mod resource;
mod route;
mod scratch;
mod socket;
mod storage;
mod stream;
mod task;
mod unix;
mod words;
mod work;

/// Nothing here panics; the target wants a handler all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel gives the helpers that read kernel structures to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
