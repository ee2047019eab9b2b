//! What callouts are shown of a packet in a replay, and where what they inject begins its way.

use std::net::IpAddr;

use openwfp_engine::words;
use openwfp_model::{ConditionFlags, IpVersion, LayerId};
use openwfp_packet::flow::Direction;
use openwfp_packet::link::LinkType;
use openwfp_packet::packet::{Frame, Packet, Transport};
use openwfp_packet::replay::Step;
use openwfp_packet::wire::protocol;

use crate::described::describe;
use crate::dispatch::sees_frames;
use crate::{FlowHandle, InjectionPoint, LayerData, Metadata, PacketData};

/// Layers about flows rather than about a packet show none.
pub(super) fn packet_data<'a>(step: &Step<'a>) -> LayerData<'a> {
    let about_flows = [
        LayerId::ALE_FLOW_ESTABLISHED_V4,
        LayerId::ALE_FLOW_ESTABLISHED_V6,
        LayerId::ALE_ENDPOINT_CLOSURE_V4,
        LayerId::ALE_ENDPOINT_CLOSURE_V6,
    ];
    let shown = &step.shown;
    if shown.bytes.is_empty() || about_flows.contains(&step.layer) {
        return LayerData::None;
    }
    LayerData::Packet(PacketData::new(shown.bytes, shown.transport, shown.payload))
}

pub(super) fn metadata<'a>(step: &Step<'a>, data: &LayerData<'_>) -> Metadata<'a> {
    let mut metadata = Metadata {
        flow: step.flow.map(|flow| FlowHandle::new(flow.get())),
        direction: Some(step.direction),
        time: step.time,
        frame: Some(step.packet),
        ..Metadata::default()
    };
    let flags = u32::try_from(step.values.get(words::FLAGS)).unwrap_or(0);
    metadata.ale_classify_required =
        ConditionFlags::from_bits_retain(flags).contains(ConditionFlags::REQUIRES_ALE_CLASSIFY);
    let interface = u32::try_from(step.values.get(words::INTERFACE_INDEX)).ok();
    match step.direction {
        Direction::Inbound => metadata.source_interface = interface,
        Direction::Outbound => metadata.destination_interface = interface,
    }
    let LayerData::Packet(packet) = data else { return metadata };
    describe(&mut metadata, step.layer, packet);
    if step.shown.link_type == LinkType::ETHERNET && !sees_frames(step.layer) {
        metadata.mac_header_size = u16::try_from(step.shown.link_header.len()).ok();
    }
    metadata
}

/// The layer and direction where something begins its way, and whether it comes back by itself.
pub(super) fn entry(point: InjectionPoint, bytes: &[u8]) -> Option<(LayerId, Direction, bool)> {
    match point {
        InjectionPoint::MacSend => {
            return Some((LayerId::OUTBOUND_MAC_FRAME_ETHERNET, Direction::Outbound, false));
        }
        InjectionPoint::MacReceive => {
            return Some((LayerId::INBOUND_MAC_FRAME_ETHERNET, Direction::Inbound, false));
        }
        _ => {}
    }
    let Ok(Frame::Ip(packet)) = Packet::parse(LinkType::RAW, bytes) else { return None };
    let of = |v4: LayerId, v6: LayerId| if packet.version() == IpVersion::V4 { v4 } else { v6 };
    let loopback = match packet.destination {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback(),
    };
    Some(match point {
        InjectionPoint::TransportSend if packet.protocol == protocol::TCP => {
            let layer = of(LayerId::OUTBOUND_TRANSPORT_V4, LayerId::OUTBOUND_TRANSPORT_V6);
            (layer, Direction::Outbound, loopback)
        }
        InjectionPoint::TransportSend => {
            let is_error = packet
                .transport
                .is_ok_and(|transport| matches!(transport, Transport::Icmp(message) if message.is_error));
            let layer = match is_error {
                true => of(LayerId::OUTBOUND_ICMP_ERROR_V4, LayerId::OUTBOUND_ICMP_ERROR_V6),
                false => of(LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6),
            };
            (layer, Direction::Outbound, loopback)
        }
        InjectionPoint::TransportReceive => {
            (of(LayerId::INBOUND_TRANSPORT_V4, LayerId::INBOUND_TRANSPORT_V6), Direction::Inbound, false)
        }
        InjectionPoint::NetworkSend => {
            (of(LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_IPPACKET_V6), Direction::Outbound, loopback)
        }
        InjectionPoint::NetworkReceive => {
            (of(LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6), Direction::Inbound, false)
        }
        InjectionPoint::Forward => (of(LayerId::IPFORWARD_V4, LayerId::IPFORWARD_V6), Direction::Outbound, false),
        InjectionPoint::MacSend | InjectionPoint::MacReceive | InjectionPoint::Stream { .. } => return None,
    })
}
