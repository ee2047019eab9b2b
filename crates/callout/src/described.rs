//! What the bytes of a packet say beside the values.

use openwfp_model::LayerId;
use openwfp_packet::link::LinkType;
use openwfp_packet::packet::{Frame, Packet};
use openwfp_packet::wire::protocol;

use crate::dispatch::sees_frames;
use crate::{FragmentData, Metadata, PacketData};

/// Fills in the sizes of headers, time to live, fragment and echo.
pub(crate) fn describe(metadata: &mut Metadata<'_>, layer: LayerId, packet: &PacketData<'_>) {
    let size = |bytes: usize| u16::try_from(bytes).ok();
    if sees_frames(layer) {
        metadata.mac_header_size = size(packet.transport);
        return;
    }
    metadata.ip_header_size = size(packet.transport);
    metadata.transport_header_size = size(packet.payload - packet.transport).filter(|&size| size > 0);
    let bytes = packet.bytes;
    metadata.ttl = match bytes.first().map(|first| first >> 4) {
        Some(4) => bytes.get(8).copied(),
        _ => bytes.get(7).copied(),
    };
    if let Ok(Frame::Ip(parsed)) = Packet::parse(LinkType::RAW, bytes) {
        metadata.fragment = parsed.fragment.map(|fragment| FragmentData {
            identification: fragment.identification,
            offset: fragment.at,
            more: fragment.more,
        });
        let transport = packet.transport();
        if matches!(parsed.protocol, protocol::ICMP | protocol::ICMPV6) && transport.len() >= 8 {
            let is_echo =
                matches!((parsed.protocol, transport[0]), (protocol::ICMP, 0 | 8) | (protocol::ICMPV6, 128 | 129));
            let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
            metadata.icmp_echo = is_echo.then(|| (word(4), word(6)));
        }
    }
}
