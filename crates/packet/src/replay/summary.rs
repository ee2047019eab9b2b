//! What a replay came to.

use openwfp_model::LayerId;

use crate::fragments::FragmentCounts;
use crate::link::LinkType;
use crate::wire::{EtherType, WireError};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every layer that it met permitted it.
    Permitted,
    /// A layer blocked it.
    Blocked {
        /// The layer.
        layer: LayerId,
    },
    /// Its flow had been refused before.
    FlowBlocked,
    /// It is a fragment that was permitted and waits for the rest of its datagram.
    Waiting,
    /// It is a fragment that contradicts another of its datagram, or a leaving one whose first was not seen.
    StrayFragment,
    /// It is malformed. When its IP header is in order, it was classified at the IPPACKET layer before.
    Malformed(WireError),
    /// It is between two other machines.
    Elsewhere,
    /// It is no IP packet.
    NotIp(EtherType),
    /// Frames of this link type cannot be read.
    UnsupportedLinkType(LinkType),
}

impl Outcome {
    /// Whether the packet reached its end, or goes on to wait for the rest of its datagram.
    #[must_use]
    pub const fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted | Self::Waiting)
    }
}

/// What a replay came to so far. Each packet counts once, by its [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All packets.
    pub packets: u64,
    /// Packets that were permitted, fragments included.
    pub permitted: u64,
    /// Packets that were blocked, those of refused flows included.
    pub blocked: u64,
    /// Of the blocked packets, those whose flow had been refused before.
    pub flow_blocked: u64,
    /// Fragments that fit to no datagram.
    pub stray_fragments: u64,
    /// Packets that are malformed.
    pub malformed: u64,
    /// Packets between two other machines.
    pub elsewhere: u64,
    /// Frames that hold no IP packet.
    pub not_ip: u64,
    /// Frames of a link type that cannot be read.
    pub unsupported: u64,
    /// Classifications, at all layers together.
    pub classifications: u64,
    /// Flows that were opened, refused ones included.
    pub flows: u64,
    /// Flows that were given up because the table was full.
    pub flows_evicted: u64,
    /// What became of fragmented datagrams that arrived.
    pub fragments: FragmentCounts,
}

impl Summary {
    #[inline]
    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.packets += 1;
        let counter = match outcome {
            Outcome::Permitted | Outcome::Waiting => &mut self.permitted,
            Outcome::Blocked { .. } => &mut self.blocked,
            Outcome::FlowBlocked => {
                self.blocked += 1;
                &mut self.flow_blocked
            }
            Outcome::StrayFragment => &mut self.stray_fragments,
            Outcome::Malformed(_) => &mut self.malformed,
            Outcome::Elsewhere => &mut self.elsewhere,
            Outcome::NotIp(_) => &mut self.not_ip,
            Outcome::UnsupportedLinkType(_) => &mut self.unsupported,
        };
        *counter += 1;
    }
}
