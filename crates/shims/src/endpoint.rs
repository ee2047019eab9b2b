//! What is kept with a socket: who owns it, and the flow that it carries.

use crate::{storage::bits, words, work::Work};
use openwfp_abi::flow::{Endpoint, OWNED};

/// Keeps the identity in `work` with an endpoint, unless its owner is known already or this one is nobody's. Sets flags.
#[inline(always)]
pub fn keep(work: &Work, endpoint: *mut Endpoint, flow: u64, compartment: u64, flags: u64) {
    let mut flags = flags;
    // SAFETY: a valid map value. Programs of one socket may race here; the last one stands, and all of them are callers
    // of the same socket. No flag is lost.
    unsafe {
        if (*endpoint).flags & OWNED == 0 && work.identity.process.started != 0 {
            words::copy(&raw const work.identity, &raw mut (*endpoint).owner);
            flags |= OWNED;
        }
        (*endpoint).flow = flow;
        (*endpoint).compartment = compartment;
        bits::set(&raw mut (*endpoint).flags, flags);
    }
}
