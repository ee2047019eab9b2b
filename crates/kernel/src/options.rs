//! How a policy is to be enforced.

use crate::{flows::FlowLimits, unix::UnixSockets};
use openwfp_model::LayerId;
use std::path::PathBuf;

/// How a policy is enforced.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The layers at which classifications are reported as events.
    pub recorded: Vec<LayerId>,
    /// Decide and report, but block nothing.
    pub dry_run: bool,
    /// Where everything is pinned, so that it outlives this process.
    pub pins: Option<PathBuf>,
    /// The layers of frames, IP packets and transport are met at every device of the caller's network namespace, by whoever
    /// is in it, and not at the sockets of the group alone (Linux 6.6).
    pub devices: bool,
    /// Other policies will take the place of this one: every program is attached, and the owners of all sockets with what Linux
    /// has beside (control groups, network namespaces) are kept from the start, so that sockets of before mean the same to a later
    /// policy as those that are made under it. Without, TCP connections keep nothing where the first policy looks at none of what
    /// would be kept: a later one does not know who made them.
    pub replaceable: bool,
    /// The Unix sockets that the group may connect and send to. This is no matter of policies, and stays as it is when
    /// another policy takes the place of the first.
    pub unix: UnixSockets,
    /// How flows of datagrams are remembered.
    pub flows: FlowLimits,
    /// Packets go to callouts in user space (see [`divert`](crate::divert)): how many bytes the ring buffer has in which they
    /// wait, a power of two of at least a page. 0: none do, and callouts count as not registered. (Linux 6.6.)
    pub diverted: u32,
}
