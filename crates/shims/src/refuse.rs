//! How a hook says no.

use crate::work::{Outcome, config};
use aya_ebpf::helpers::generated::bpf_set_retval;
use openwfp_abi::config::DRY_RUN;

/// What a hook of a system call returns. A refused call fails with the errno of the filter that refused it, else EPERM.
#[inline(always)]
pub fn refused(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Blocked(errno) if !is_dry_run() => {
            if errno != 0 {
                // SAFETY: the helper takes a number.
                unsafe { bpf_set_retval(-(errno as i32)) };
            }
            0
        }
        _ => 1,
    }
}

/// Whether nothing is to be blocked.
#[inline(always)]
pub fn is_dry_run() -> bool {
    config().is_some_and(|config| config.flags & DRY_RUN != 0)
}
