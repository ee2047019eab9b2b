//! The layers at which a replay classifies.

use openwfp_model::{IpVersion, LayerId};

/// A place on the way of a packet, which has a layer for each version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    InboundFrame,
    OutboundFrame,
    InboundIpPacket,
    OutboundIpPacket,
    Forward,
    InboundTransport,
    OutboundTransport,
    RecvAccept,
    Connect,
    FlowEstablished,
    EndpointClosure,
    DatagramData,
    StreamPacket,
    Stream,
    InboundIcmpError,
    OutboundIcmpError,
}

pub(super) const STAGES: usize = 16;

const ALL: [Stage; STAGES] = [
    Stage::InboundFrame,
    Stage::OutboundFrame,
    Stage::InboundIpPacket,
    Stage::OutboundIpPacket,
    Stage::Forward,
    Stage::InboundTransport,
    Stage::OutboundTransport,
    Stage::RecvAccept,
    Stage::Connect,
    Stage::FlowEstablished,
    Stage::EndpointClosure,
    Stage::DatagramData,
    Stage::StreamPacket,
    Stage::Stream,
    Stage::InboundIcmpError,
    Stage::OutboundIcmpError,
];

pub(super) const LAYERS: [[LayerId; 2]; STAGES] = [
    [LayerId::INBOUND_MAC_FRAME_ETHERNET; 2],
    [LayerId::OUTBOUND_MAC_FRAME_ETHERNET; 2],
    [LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6],
    [LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_IPPACKET_V6],
    [LayerId::IPFORWARD_V4, LayerId::IPFORWARD_V6],
    [LayerId::INBOUND_TRANSPORT_V4, LayerId::INBOUND_TRANSPORT_V6],
    [LayerId::OUTBOUND_TRANSPORT_V4, LayerId::OUTBOUND_TRANSPORT_V6],
    [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6],
    [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6],
    [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6],
    [LayerId::ALE_ENDPOINT_CLOSURE_V4, LayerId::ALE_ENDPOINT_CLOSURE_V6],
    [LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6],
    [LayerId::STREAM_PACKET_V4, LayerId::STREAM_PACKET_V6],
    [LayerId::STREAM_V4, LayerId::STREAM_V6],
    [LayerId::INBOUND_ICMP_ERROR_V4, LayerId::INBOUND_ICMP_ERROR_V6],
    [LayerId::OUTBOUND_ICMP_ERROR_V4, LayerId::OUTBOUND_ICMP_ERROR_V6],
];

/// The layers that see what a stage has blocked. Frames, packets of streams and closures have none.
pub(super) const DISCARDS: [Option<[LayerId; 2]>; STAGES] = [
    None,
    None,
    Some([LayerId::INBOUND_IPPACKET_V4_DISCARD, LayerId::INBOUND_IPPACKET_V6_DISCARD]),
    Some([LayerId::OUTBOUND_IPPACKET_V4_DISCARD, LayerId::OUTBOUND_IPPACKET_V6_DISCARD]),
    Some([LayerId::IPFORWARD_V4_DISCARD, LayerId::IPFORWARD_V6_DISCARD]),
    Some([LayerId::INBOUND_TRANSPORT_V4_DISCARD, LayerId::INBOUND_TRANSPORT_V6_DISCARD]),
    Some([LayerId::OUTBOUND_TRANSPORT_V4_DISCARD, LayerId::OUTBOUND_TRANSPORT_V6_DISCARD]),
    Some([LayerId::ALE_AUTH_RECV_ACCEPT_V4_DISCARD, LayerId::ALE_AUTH_RECV_ACCEPT_V6_DISCARD]),
    Some([LayerId::ALE_AUTH_CONNECT_V4_DISCARD, LayerId::ALE_AUTH_CONNECT_V6_DISCARD]),
    Some([LayerId::ALE_FLOW_ESTABLISHED_V4_DISCARD, LayerId::ALE_FLOW_ESTABLISHED_V6_DISCARD]),
    None,
    Some([LayerId::DATAGRAM_DATA_V4_DISCARD, LayerId::DATAGRAM_DATA_V6_DISCARD]),
    None,
    Some([LayerId::STREAM_V4_DISCARD, LayerId::STREAM_V6_DISCARD]),
    Some([LayerId::INBOUND_ICMP_ERROR_V4_DISCARD, LayerId::INBOUND_ICMP_ERROR_V6_DISCARD]),
    Some([LayerId::OUTBOUND_ICMP_ERROR_V4_DISCARD, LayerId::OUTBOUND_ICMP_ERROR_V6_DISCARD]),
];

/// How many layers a replay can classify at.
const COUNT: usize = 2 + 2 * (STAGES - 2) + 2 * 12;

/// Every layer at which a replay classifies.
pub const REPLAY_LAYERS: [LayerId; COUNT] = {
    let mut all = [LayerId::INBOUND_MAC_FRAME_ETHERNET; COUNT];
    let (mut stage, mut number) = (0, 0);
    while stage < STAGES {
        all[number] = LAYERS[stage][0];
        number += 1;
        // Frames have one layer for both versions.
        if stage >= 2 {
            all[number] = LAYERS[stage][1];
            number += 1;
        }
        if let Some([v4, v6]) = DISCARDS[stage] {
            (all[number], all[number + 1]) = (v4, v6);
            number += 2;
        }
        stage += 1;
    }
    assert!(number == COUNT, "a layer is missing");
    all
};

impl Stage {
    /// The stage of a layer; none where a replay does not ask at it.
    pub(super) fn of(layer: LayerId) -> Option<Self> {
        ALL.into_iter().find(|&stage| LAYERS[stage as usize].contains(&layer))
    }

    #[inline]
    pub(super) const fn layer(self, version: IpVersion) -> LayerId {
        LAYERS[self as usize][number(version)]
    }

    #[inline]
    pub(super) const fn discard(self, version: IpVersion) -> Option<LayerId> {
        match DISCARDS[self as usize] {
            Some(versions) => Some(versions[number(version)]),
            None => None,
        }
    }
}

#[inline]
pub(super) const fn number(version: IpVersion) -> usize {
    match version {
        IpVersion::V4 => 0,
        IpVersion::V6 => 1,
    }
}

/// A set of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSet(u128);

impl LayerSet {
    /// Every layer.
    pub const ALL: Self = Self(u128::MAX);
    /// No layer.
    pub const NONE: Self = Self(0);

    /// The same set with one layer more.
    #[must_use]
    pub const fn with(self, layer: LayerId) -> Self {
        Self(self.0 | 1 << (layer.get() & 127))
    }

    /// Whether a layer is in it.
    #[inline]
    #[must_use]
    pub const fn contains(self, layer: LayerId) -> bool {
        self.0 >> (layer.get() & 127) & 1 != 0
    }
}

impl FromIterator<LayerId> for LayerSet {
    fn from_iter<I: IntoIterator<Item = LayerId>>(layers: I) -> Self {
        layers.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_model::Layer;

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let set: LayerSet = [LayerId::STREAM_V4, LayerId::INBOUND_IPPACKET_V4].into_iter().collect();
        let held: Vec<_> = Layer::all().iter().map(|layer| layer.id).filter(|&layer| set.contains(layer)).collect();
        assert_eq!(held, [LayerId::INBOUND_IPPACKET_V4, LayerId::STREAM_V4]);
        assert!(Layer::all().iter().all(|layer| layer.id.get() < 128 && LayerSet::ALL.contains(layer.id)));
    }

    #[test]
    fn each_layer_stands_once_and_belongs_to_its_version() {
        let mut all = REPLAY_LAYERS.map(LayerId::get);
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        for (layers, discards) in LAYERS.iter().zip(DISCARDS).skip(2) {
            for (number, version) in [IpVersion::V4, IpVersion::V6].into_iter().enumerate() {
                assert_eq!(layers[number].layer().ip_version(), Some(version));
                if let Some(discards) = discards {
                    assert_eq!(discards[number].name(), format!("{}_DISCARD", layers[number].name()));
                }
            }
        }
    }

    #[test]
    fn every_stage_with_a_discard_layer_knows_it() {
        for (layers, discards) in LAYERS.iter().zip(DISCARDS) {
            let name = format!("{}_DISCARD", layers[0].name());
            assert_eq!(Layer::find(&name).is_some(), discards.is_some(), "{name}");
        }
    }
}
