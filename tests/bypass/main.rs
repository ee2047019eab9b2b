//! Ways around a policy: each first succeeds without one, as the peer sees it, and then does not.
//!
//! Every test has two networks of its own, joined by one cable: in one the attacks are made, by this program started once
//! more ([`openwfp_attacks`]), in the other is the peer, which belongs to no filtered group. An attack has succeeded when
//! a frame with its token has arrived at the peer. Under a policy nothing at all may arrive but what is permitted.
//!
//! What cannot be prevented is shown too, and has to be a row of `docs/security.md`.
//!
//! As root on a kernel with BPF; elsewhere each test says why it is skipped. What a kernel lacks (SCTP, DCCP, vsock between
//! its own processes …) is skipped with a line.

mod harness;

mod datagrams;
mod escapes;
mod handed;
mod helpers;
mod inbound;
mod links;
mod marks;
mod paths;
mod raw;
mod rings;
mod streams;

/// No test: what the tests start.
#[test]
fn attacker() {
    openwfp_attacks::act();
}

/// No test: the host of a callout, which the runs of tests start.
#[test]
fn host() {
    marks::serve();
}
