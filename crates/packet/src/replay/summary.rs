//! What a replay came to.

use openwfp_model::{Layer, LayerId};

use crate::fragments::FragmentCounts;
use crate::link::LinkType;
use crate::stream::StreamCounts;
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
    /// A layer took it away in silence; another packet may go on in its place.
    Absorbed {
        /// The layer.
        layer: LayerId,
    },
    /// It arrived for an endpoint that does not exist, and no layer blocked it.
    Unheard,
    /// Its flow had been refused before, or it repeats data that STREAM has blocked, or it answers what was silenced.
    FlowBlocked,
    /// It is a fragment that was permitted and waits for the rest of its datagram.
    Waiting,
    /// It is a fragment that contradicts another of its datagram, or a leaving one whose first was not seen.
    StrayFragment,
    /// It is malformed. It was classified at the layers of those headers that are in order: the frame's, the IP header's.
    Malformed(WireError),
    /// It is between two other machines, and nothing says that the local one forwards it.
    Elsewhere,
    /// It is no IP packet. Frames of Ethernet were classified before.
    NotIp(EtherType),
    /// Frames of this link type cannot be read.
    UnsupportedLinkType(LinkType),
}

impl Outcome {
    /// Whether the packet reached its end, or goes on to wait for the rest of its datagram.
    #[must_use]
    pub const fn is_permitted(&self) -> bool {
        matches!(self, Self::Permitted | Self::Waiting | Self::Unheard)
    }
}

/// What a replay came to so far. Each packet counts once, by its [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All packets.
    pub packets: u64,
    /// Packets that were permitted, fragments included.
    pub permitted: u64,
    /// Of the permitted packets, those that nobody listened to.
    pub unheard: u64,
    /// Packets that were blocked, those of refused flows included.
    pub blocked: u64,
    /// Of the blocked packets, those whose flow had been refused before.
    pub flow_blocked: u64,
    /// Packets that a layer took away in silence.
    pub absorbed: u64,
    /// Packets that the classifier brought in. They count nowhere else.
    pub injected: u64,
    /// Of those, the ones that passed every layer on their way.
    pub injected_permitted: u64,
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
    /// Classifications, at all layers together, those of discard layers included.
    pub classifications: u64,
    /// Flows that were opened, refused ones included.
    pub flows: u64,
    /// Flows that were given up because the table was full.
    pub flows_evicted: u64,
    /// What became of fragmented datagrams that arrived, and of groups of forwarded fragments.
    pub fragments: FragmentCounts,
    /// What became of the data of TCP connections.
    pub streams: StreamCounts,
}

impl Summary {
    #[inline]
    pub(super) fn count(&mut self, outcome: &Outcome) {
        self.packets += 1;
        let counter = match outcome {
            Outcome::Permitted | Outcome::Waiting => &mut self.permitted,
            Outcome::Unheard => {
                self.permitted += 1;
                &mut self.unheard
            }
            Outcome::Blocked { .. } => &mut self.blocked,
            Outcome::Absorbed { .. } => &mut self.absorbed,
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

/// How often a layer was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerCount {
    /// What it permitted, or let pass without being asked.
    pub permitted: u64,
    /// What it blocked.
    pub blocked: u64,
    /// What it took away in silence.
    pub absorbed: u64,
}

/// How often each layer was met.
pub(super) struct LayerCounts(Vec<LayerCount>);

impl LayerCounts {
    pub(super) fn new() -> Self {
        Self(vec![LayerCount::default(); Layer::all().len()])
    }

    #[inline]
    pub(super) fn permit(&mut self, layer: LayerId) {
        if let Some(count) = self.0.get_mut(usize::from(layer.get())) {
            count.permitted += 1;
        }
    }

    #[inline]
    pub(super) fn block(&mut self, layer: LayerId) {
        if let Some(count) = self.0.get_mut(usize::from(layer.get())) {
            count.blocked += 1;
        }
    }

    #[inline]
    pub(super) fn absorb(&mut self, layer: LayerId) {
        if let Some(count) = self.0.get_mut(usize::from(layer.get())) {
            count.absorbed += 1;
        }
    }

    /// Those that were met, in the order of their numbers.
    pub(super) fn met(&self) -> impl Iterator<Item = (LayerId, LayerCount)> {
        let met = |count: &LayerCount| *count != LayerCount::default();
        Layer::all().iter().map(|layer| layer.id).zip(self.0.iter().copied()).filter(move |(_, count)| met(count))
    }
}
