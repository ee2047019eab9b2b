//! What is known of the packet at hand, a word each.

use core::net::IpAddr;

use openwfp_engine::EMPTY;
use openwfp_model::{ConditionFlags, FieldId, IpVersion, L2Flags, LayerId};

use super::stage::REPLAY_LAYERS;

use crate::flow::{Direction, FlowTuple, Selector, request_of};
use crate::link::LinkInfo;
use crate::packet::{AddressType, Original, OriginalTransport, Packet, Transport};
use crate::wire::{EthernetFrame, MacAddress, VlanTags};

/// Where each fact stands in [`Facts`].
pub(super) mod fact {
    pub const PROTOCOL: usize = 0;
    pub const LOCAL_PORT: usize = 1;
    pub const REMOTE_PORT: usize = 2;
    pub const FLAGS: usize = 3;
    pub const LOCAL_ADDRESS: usize = 4;
    pub const REMOTE_ADDRESS: usize = 8;
    pub const LOCAL_ADDRESS_TYPE: usize = 12;
    pub const DESTINATION_ADDRESS_TYPE: usize = 13;
    /// Index, type, tunnel type, and the two words of the identifier.
    pub const INTERFACE: usize = 14;
    /// The same of the interface that a packet arrived on.
    pub const ARRIVAL: usize = 19;
    /// The same of the interface that it leaves by.
    pub const NEXT_HOP: usize = 24;
    pub const DIRECTION: usize = 29;
    pub const ICMP_TYPE: usize = 30;
    pub const EMBEDDED_PROTOCOL: usize = 31;
    pub const EMBEDDED_LOCAL_PORT: usize = 32;
    pub const EMBEDDED_REMOTE_PORT: usize = 33;
    pub const EMBEDDED_LOCAL_ADDRESS_TYPE: usize = 34;
    pub const EMBEDDED_REMOTE_ADDRESS: usize = 35;
    pub const LOCAL_STATION: usize = 39;
    pub const REMOTE_STATION: usize = 41;
    pub const INTERFACE_STATION: usize = 43;
    pub const LOCAL_STATION_TYPE: usize = 45;
    pub const REMOTE_STATION_TYPE: usize = 46;
    pub const ETHER_TYPE: usize = 47;
    pub const VLAN: usize = 48;
    pub const L2_FLAGS: usize = 49;
    pub const NDIS_PORT: usize = 50;
    /// 0: a capture shows no change of policy, so nothing is authorized again.
    pub const REAUTHORIZE_REASON: usize = 51;
    pub const COUNT: usize = 52;

    pub const INDEX: usize = 0;
    pub const TYPE: usize = 1;
    pub const TUNNEL: usize = 2;
    pub const LUID: usize = 3;
}

use fact::{ARRIVAL, INDEX, INTERFACE, LUID, NEXT_HOP, TUNNEL, TYPE};

/// The facts that the fields of a layer are filled from. A forwarded packet has its source where others have the local address.
pub(super) const FIELDS: [(FieldId, usize); 48] = [
    (FieldId::IP_PROTOCOL, fact::PROTOCOL),
    (FieldId::IP_LOCAL_PORT, fact::LOCAL_PORT),
    (FieldId::IP_REMOTE_PORT, fact::REMOTE_PORT),
    (FieldId::FLAGS, fact::FLAGS),
    (FieldId::IP_LOCAL_ADDRESS, fact::LOCAL_ADDRESS),
    (FieldId::IP_SOURCE_ADDRESS, fact::LOCAL_ADDRESS),
    (FieldId::IP_REMOTE_ADDRESS, fact::REMOTE_ADDRESS),
    (FieldId::IP_DESTINATION_ADDRESS, fact::REMOTE_ADDRESS),
    (FieldId::IP_LOCAL_ADDRESS_TYPE, fact::LOCAL_ADDRESS_TYPE),
    (FieldId::IP_DESTINATION_ADDRESS_TYPE, fact::DESTINATION_ADDRESS_TYPE),
    (FieldId::INTERFACE_INDEX, INTERFACE + INDEX),
    // Linux has no interfaces below interfaces.
    (FieldId::SUB_INTERFACE_INDEX, INTERFACE + INDEX),
    (FieldId::INTERFACE_TYPE, INTERFACE + TYPE),
    (FieldId::TUNNEL_TYPE, INTERFACE + TUNNEL),
    (FieldId::IP_LOCAL_INTERFACE, INTERFACE + LUID),
    (FieldId::ARRIVAL_INTERFACE_INDEX, ARRIVAL + INDEX),
    (FieldId::ARRIVAL_INTERFACE_TYPE, ARRIVAL + TYPE),
    (FieldId::ARRIVAL_TUNNEL_TYPE, ARRIVAL + TUNNEL),
    (FieldId::IP_ARRIVAL_INTERFACE, ARRIVAL + LUID),
    (FieldId::SOURCE_INTERFACE_INDEX, ARRIVAL + INDEX),
    (FieldId::SOURCE_SUB_INTERFACE_INDEX, ARRIVAL + INDEX),
    (FieldId::IP_PHYSICAL_ARRIVAL_INTERFACE, ARRIVAL + LUID),
    (FieldId::NEXTHOP_INTERFACE_INDEX, NEXT_HOP + INDEX),
    (FieldId::NEXTHOP_SUB_INTERFACE_INDEX, NEXT_HOP + INDEX),
    (FieldId::NEXTHOP_INTERFACE_TYPE, NEXT_HOP + TYPE),
    (FieldId::NEXTHOP_TUNNEL_TYPE, NEXT_HOP + TUNNEL),
    (FieldId::IP_NEXTHOP_INTERFACE, NEXT_HOP + LUID),
    (FieldId::DESTINATION_INTERFACE_INDEX, NEXT_HOP + INDEX),
    (FieldId::DESTINATION_SUB_INTERFACE_INDEX, NEXT_HOP + INDEX),
    (FieldId::IP_FORWARD_INTERFACE, NEXT_HOP + LUID),
    (FieldId::IP_PHYSICAL_NEXTHOP_INTERFACE, NEXT_HOP + LUID),
    (FieldId::DIRECTION, fact::DIRECTION),
    (FieldId::ORIGINAL_ICMP_TYPE, fact::ICMP_TYPE),
    (FieldId::EMBEDDED_PROTOCOL, fact::EMBEDDED_PROTOCOL),
    (FieldId::EMBEDDED_LOCAL_PORT, fact::EMBEDDED_LOCAL_PORT),
    (FieldId::EMBEDDED_REMOTE_PORT, fact::EMBEDDED_REMOTE_PORT),
    (FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE, fact::EMBEDDED_LOCAL_ADDRESS_TYPE),
    (FieldId::EMBEDDED_REMOTE_ADDRESS, fact::EMBEDDED_REMOTE_ADDRESS),
    (FieldId::MAC_LOCAL_ADDRESS, fact::LOCAL_STATION),
    (FieldId::MAC_REMOTE_ADDRESS, fact::REMOTE_STATION),
    (FieldId::INTERFACE_MAC_ADDRESS, fact::INTERFACE_STATION),
    (FieldId::MAC_LOCAL_ADDRESS_TYPE, fact::LOCAL_STATION_TYPE),
    (FieldId::MAC_REMOTE_ADDRESS_TYPE, fact::REMOTE_STATION_TYPE),
    (FieldId::ETHER_TYPE, fact::ETHER_TYPE),
    (FieldId::VLAN_ID, fact::VLAN),
    (FieldId::L2_FLAGS, fact::L2_FLAGS),
    (FieldId::NDIS_PORT, fact::NDIS_PORT),
    (FieldId::REAUTHORIZE_REASON, fact::REAUTHORIZE_REASON),
];

/// Whether a replay can fill in a field of a layer, when the packet or the capture shows it.
#[must_use]
pub fn fills(layer: LayerId, field: FieldId) -> bool {
    // Nothing is known of the interface where no packet is at hand, and its identifier needs a type, which Ethernet does not tell.
    let without_interface = [
        LayerId::ALE_ENDPOINT_CLOSURE_V4,
        LayerId::ALE_ENDPOINT_CLOSURE_V6,
        LayerId::INBOUND_MAC_FRAME_ETHERNET,
        LayerId::OUTBOUND_MAC_FRAME_ETHERNET,
    ];
    REPLAY_LAYERS.contains(&layer)
        && layer.layer().field(field).is_some()
        && FIELDS.iter().any(|&(filled, _)| filled == field)
        && !(field == FieldId::IP_LOCAL_INTERFACE && without_interface.contains(&layer))
}

/// A packet, as it is seen from the local machine.
pub(super) struct Sight<'p> {
    pub(super) packet: &'p Packet<'p>,
    /// Protocol and transport header, where they could be read.
    pub(super) transport: Option<(u8, Transport)>,
    pub(super) direction: Direction,
    pub(super) loopback: bool,
    pub(super) reassembled: bool,
    /// The number of the interface that the capture gives, where the link gives none.
    pub(super) interface: Option<u32>,
}

/// What is known, [`EMPTY`] where there is no such thing.
pub(super) struct Facts {
    pub(super) words: [u64; fact::COUNT],
    pub(super) flags: ConditionFlags,
    pub(super) version: IpVersion,
}

impl Facts {
    pub(super) const fn new() -> Self {
        Self { words: [EMPTY; fact::COUNT], flags: ConditionFlags::empty(), version: IpVersion::V4 }
    }

    /// Notes what a packet shows to the local machine.
    pub(super) fn see(&mut self, sight: &Sight<'_>) {
        let Sight { packet, direction, .. } = *sight;
        let (local, remote) = match direction {
            Direction::Outbound => (packet.source, packet.destination),
            Direction::Inbound => (packet.destination, packet.source),
        };
        self.set_address(fact::LOCAL_ADDRESS, local);
        self.set_address(fact::REMOTE_ADDRESS, remote);
        // The link's broadcast tells about the address that a packet is sent to, not about its sender.
        let to_local = direction == Direction::Inbound && packet.link.broadcast;
        self.words[fact::LOCAL_ADDRESS_TYPE] = AddressType::of(local, to_local) as u64;
        let destination = AddressType::of(packet.destination, packet.link.broadcast);
        self.words[fact::DESTINATION_ADDRESS_TYPE] = destination as u64;
        self.see_interface(&packet.link, sight.interface, direction);
        self.see_transport(sight);
        self.words[fact::REAUTHORIZE_REASON] = 0;
        self.flags = ConditionFlags::empty();
        self.flags.set(ConditionFlags::IS_LOOPBACK, sight.loopback);
        self.flags.set(ConditionFlags::IS_REASSEMBLED, sight.reassembled);
        self.version = packet.version();
    }

    fn see_transport(&mut self, sight: &Sight<'_>) {
        let words = &mut self.words;
        let (protocol, source, destination) = match sight.transport {
            Some((protocol, Transport::Tcp(segment))) => {
                (protocol.into(), segment.source.into(), segment.destination.into())
            }
            Some((protocol, Transport::Ports { source, destination })) => {
                (protocol.into(), source.into(), destination.into())
            }
            Some((protocol, _)) => (protocol.into(), EMPTY, EMPTY),
            None => (EMPTY, EMPTY, EMPTY),
        };
        words[fact::PROTOCOL] = protocol;
        (words[fact::LOCAL_PORT], words[fact::REMOTE_PORT]) = match sight.direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        words[fact::ICMP_TYPE] = EMPTY;
        if let Some((protocol, Transport::Icmp(message))) = sight.transport {
            words[fact::LOCAL_PORT] = message.message_type.into();
            words[fact::REMOTE_PORT] = message.code.into();
            // An answer belongs to the flow that its request has begun.
            let began = request_of(protocol, message.message_type).unwrap_or(message.message_type);
            words[fact::ICMP_TYPE] = began.into();
        }
    }

    /// Notes the interface of a frame.
    fn see_interface(&mut self, link: &LinkInfo, number: Option<u32>, direction: Direction) {
        let known = |value: Option<u32>| value.map_or(EMPTY, u64::from);
        let [high, low] = match (link.interface_index, link.interface_type) {
            // The identifier that live traffic shows: the type in the top 16 bits, the index in the next 24.
            (Some(index), Some(kind)) => {
                let luid = u64::from(kind) << 48 | u64::from(index & 0xff_ffff) << 24;
                [luid >> 32, luid & 0xffff_ffff]
            }
            _ => [EMPTY; 2],
        };
        let index = known(link.interface_index.or(number));
        let interface = [index, known(link.interface_type), known(link.tunnel_type), high, low];
        let (arrival, next_hop) = match direction {
            Direction::Outbound => ([EMPTY; 5], interface),
            Direction::Inbound => (interface, [EMPTY; 5]),
        };
        self.words[INTERFACE..INTERFACE + 5].copy_from_slice(&interface);
        self.words[ARRIVAL..ARRIVAL + 5].copy_from_slice(&arrival);
        self.words[NEXT_HOP..NEXT_HOP + 5].copy_from_slice(&next_hop);
    }

    /// Notes a packet on its way between two other machines: the direction is that of the frame.
    pub(super) fn see_forwarded(&mut self, packet: &Packet<'_>, interface: Option<u32>, direction: Direction) {
        self.set_address(fact::LOCAL_ADDRESS, packet.source);
        self.set_address(fact::REMOTE_ADDRESS, packet.destination);
        self.words[fact::DESTINATION_ADDRESS_TYPE] = AddressType::of(packet.destination, packet.link.broadcast) as u64;
        self.see_interface(&packet.link, interface, direction);
        // The interface that forwards is the one that it came by.
        self.words.copy_within(ARRIVAL + LUID..ARRIVAL + LUID + 2, INTERFACE + LUID);
        self.flags = ConditionFlags::empty();
        self.version = packet.version();
    }

    /// Notes a flow, of which no packet is at hand.
    pub(super) fn see_flow(&mut self, tuple: &FlowTuple, loopback: bool) {
        self.words = [EMPTY; fact::COUNT];
        self.set_address(fact::LOCAL_ADDRESS, tuple.local);
        self.set_address(fact::REMOTE_ADDRESS, tuple.remote);
        self.words[fact::LOCAL_ADDRESS_TYPE] = AddressType::of(tuple.local, false) as u64;
        self.words[fact::DESTINATION_ADDRESS_TYPE] = AddressType::of(tuple.remote, false) as u64;
        self.words[fact::PROTOCOL] = tuple.protocol.into();
        if let Selector::Ports { local, remote } = tuple.selector {
            self.words[fact::LOCAL_PORT] = local.into();
            self.words[fact::REMOTE_PORT] = remote.into();
        }
        self.flags = ConditionFlags::empty();
        self.flags.set(ConditionFlags::IS_LOOPBACK, loopback);
        self.version = if tuple.local.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    }

    /// Notes what an ICMP error quotes; `we_sent` says that the local machine sent what is quoted.
    pub(super) fn see_embedded(&mut self, original: Option<&Original>, we_sent: bool) {
        self.words[fact::EMBEDDED_PROTOCOL..fact::LOCAL_STATION].fill(EMPTY);
        let Some(original) = original else { return };
        let (local, remote) = match we_sent {
            true => (original.source, original.destination),
            false => (original.destination, original.source),
        };
        self.words[fact::EMBEDDED_PROTOCOL] = original.protocol.into();
        self.words[fact::EMBEDDED_LOCAL_ADDRESS_TYPE] = AddressType::of(local, false) as u64;
        // A packet of the other version inside an error is no address of this layer.
        if remote.is_ipv4() == (self.version == IpVersion::V4) {
            self.set_address(fact::EMBEDDED_REMOTE_ADDRESS, remote);
        }
        if let OriginalTransport::Ports { source, destination } = original.transport {
            let (local, remote) = if we_sent { (source, destination) } else { (destination, source) };
            self.words[fact::EMBEDDED_LOCAL_PORT] = local.into();
            self.words[fact::EMBEDDED_REMOTE_PORT] = remote.into();
        }
    }

    /// Notes an Ethernet frame. `tags` are none when they could not be read.
    pub(super) fn see_frame(
        &mut self,
        frame: &EthernetFrame<'_>,
        tags: Option<&VlanTags<'_>>,
        malformed: bool,
        interface: Option<u32>,
        direction: Direction,
    ) {
        let (local, remote) = match direction {
            Direction::Outbound => (frame.source(), frame.destination()),
            Direction::Inbound => (frame.destination(), frame.source()),
        };
        self.set_station(fact::LOCAL_STATION, Some(local));
        self.set_station(fact::REMOTE_STATION, Some(remote));
        self.set_station(fact::INTERFACE_STATION, Some(local).filter(|address| !EthernetFrame::is_group(*address)));
        self.words[fact::LOCAL_STATION_TYPE] = station_type(local);
        self.words[fact::REMOTE_STATION_TYPE] = station_type(remote);
        let ether_type = tags.map_or(frame.ether_type(), VlanTags::ether_type);
        self.words[fact::ETHER_TYPE] = if ether_type.is_length() { EMPTY } else { ether_type.0.into() };
        self.words[fact::VLAN] = tags.and_then(VlanTags::outer).map_or(EMPTY, |tag| tag.bits().into());
        let mut flags = L2Flags::IS_NATIVE_ETHERNET;
        flags.set(L2Flags::IS_MALFORMED_PACKET, malformed);
        self.words[fact::L2_FLAGS] = flags.bits().into();
        // The default one; Linux has no others.
        self.words[fact::NDIS_PORT] = 0;
        self.see_interface(&LinkInfo::default(), interface, direction);
    }

    fn set_address(&mut self, first: usize, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.words[first] = u32::from(address).into();
                self.words[first + 1..first + 4].fill(EMPTY);
            }
            IpAddr::V6(address) => {
                let number = u128::from(address);
                for word in 0..4 {
                    self.words[first + word] = u64::from((number >> (96 - 32 * word)) as u32);
                }
            }
        }
    }

    fn set_station(&mut self, first: usize, address: Option<MacAddress>) {
        let words = match address {
            Some([a, b, c, d, e, f]) => {
                [u64::from(u16::from_be_bytes([a, b])), u64::from(u32::from_be_bytes([c, d, e, f]))]
            }
            None => [EMPTY; 2],
        };
        self.words[first..first + 2].copy_from_slice(&words);
    }
}

/// The kind of a hardware address, as `DL_ADDRESS_TYPE` numbers it: unicast, multicast, broadcast.
fn station_type(address: MacAddress) -> u64 {
    match address {
        EthernetFrame::BROADCAST => 2,
        address if EthernetFrame::is_group(address) => 1,
        _ => 0,
    }
}
