//! Ethernet frames, and packets on their way between two other machines.

use core::net::IpAddr;

use openwfp_model::ConditionFlags;

use super::pass::{NO_FLAGS, Pass};
use super::stage::Stage;
use super::{Bytes, Classifier, Outcome, Shown};
use crate::capture::Record;
use crate::flow::Direction;
use crate::fragments::Arrival;
use crate::link::{LinkDirection, LinkType};
use crate::local::LocalSide;
use crate::packet::Packet;
use crate::wire::{ArpPacket, EtherType, EthernetFrame, MacAddress, VlanTags};

/// So many hardware addresses of the local machine are remembered.
const MAX_STATIONS: usize = 64;

/// The hardware addresses that the local machine was seen to use.
#[derive(Default)]
pub(super) struct Stations {
    local: Vec<MacAddress>,
}

impl Stations {
    /// Learns from a frame with an IP packet that the local machine sent or received.
    #[inline]
    pub(super) fn learn(&mut self, record: &Record<'_>, direction: Direction) {
        let Some(frame) = ethernet(record) else { return };
        let address = match direction {
            Direction::Outbound => frame.source(),
            Direction::Inbound => frame.destination(),
        };
        if self.local.len() < MAX_STATIONS && !EthernetFrame::is_group(address) && !self.local.contains(&address) {
            self.local.push(address);
        }
    }

    /// Which way a frame goes whose packet does not say so: as the capture notes beside it, as the addresses of ARP say, as the
    /// hardware addresses do that were learned; what is for a group arrives. `None` where nothing tells.
    fn direction(&self, record: &Record<'_>, frame: &EthernetFrame<'_>, local: &LocalSide) -> Option<Direction> {
        match record.direction {
            Some(LinkDirection::Incoming) => return Some(Direction::Inbound),
            Some(LinkDirection::Outgoing) => return Some(Direction::Outbound),
            Some(LinkDirection::Elsewhere | LinkDirection::Loopback) => return None,
            None => {}
        }
        self.by_arp(frame, local).or_else(|| match (frame.source(), frame.destination()) {
            (source, _) if self.local.contains(&source) => Some(Direction::Outbound),
            (_, destination) if self.local.contains(&destination) => Some(Direction::Inbound),
            (_, destination) if EthernetFrame::is_group(destination) => Some(Direction::Inbound),
            _ => None,
        })
    }

    fn by_arp(&self, frame: &EthernetFrame<'_>, local: &LocalSide) -> Option<Direction> {
        let tags = VlanTags::new_checked(frame.ether_type(), frame.payload()).ok()?;
        if tags.ether_type() != EtherType::ARP {
            return None;
        }
        let arp = ArpPacket::new_checked(tags.payload()).ok()??;
        if local.is_local(IpAddr::V4(arp.sender())) {
            Some(Direction::Outbound)
        } else {
            local.is_local(IpAddr::V4(arp.target())).then_some(Direction::Inbound)
        }
    }
}

/// The Ethernet frame of a record, if it is one.
#[inline]
fn ethernet<'a>(record: &Record<'a>) -> Option<EthernetFrame<'a>> {
    if record.link_type == LinkType::ETHERNET { EthernetFrame::new_checked(record.data).ok() } else { None }
}

impl<C: Classifier> Pass<'_, '_, C> {
    /// Takes a frame that holds no IP packet, or none that can be read, to the layer of its direction. `outcome` is what becomes of it
    /// when it is permitted there.
    pub(super) fn frame_alone(&mut self, outcome: Outcome) -> Outcome {
        let Some(frame) = ethernet(self.record) else { return outcome };
        let Some(direction) = self.replay.stations.direction(self.record, &frame, &self.replay.local) else {
            return outcome;
        };
        self.begin(direction);
        let malformed = matches!(outcome, Outcome::Malformed(_));
        match self.classify_frame(&frame, malformed) {
            Ok(()) => outcome,
            Err(blocked) => blocked,
        }
    }

    /// Asks about the frame that a packet came in, or goes out in. Only captures of Ethernet show frames, and loopback has none.
    #[inline]
    pub(super) fn ask_frame(&mut self, stage: Stage) -> Result<(), Outcome> {
        if self.loopback || self.record.link_type != LinkType::ETHERNET {
            return Ok(());
        }
        if self.comes_before_entry(stage) {
            return Ok(());
        }
        if !self.wants(stage) {
            if let Some(packet) = self.packet {
                self.replay.counts.permit(stage.layer(packet.version()));
            }
            return Ok(());
        }
        let malformed = self.packet.is_some_and(|packet| packet.transport.is_err());
        ethernet(self.record).map_or(Ok(()), |frame| self.classify_frame(&frame, malformed))
    }

    pub(super) fn classify_frame(&mut self, frame: &EthernetFrame<'_>, malformed: bool) -> Result<(), Outcome> {
        let stage = match self.direction {
            Direction::Outbound => Stage::OutboundFrame,
            Direction::Inbound => Stage::InboundFrame,
        };
        let layer = stage.layer(self.replay.incoming.version());
        if !self.layers().contains(layer) {
            self.replay.counts.permit(layer);
            return Ok(());
        }
        let tags = VlanTags::new_checked(frame.ether_type(), frame.payload()).ok();
        let (interface, direction) = (self.record.interface, self.direction);
        self.replay.incoming.facts.see_frame(frame, tags.as_ref(), malformed, interface, direction);
        let (moment, layers) = (self.moment(), self.layers());
        let header = tags.as_ref().map_or(frame.payload().len(), |tags| tags.payload().len());
        let header = self.record.data.len() - header.min(self.record.data.len());
        let shown = Shown {
            bytes: if self.shows { self.record.data } else { &[] },
            transport: header,
            payload: header,
            link_type: self.record.link_type,
            interface: self.record.interface,
            mark: self.mark,
            ..Shown::default()
        };
        let bytes = Bytes { shown, ..Bytes::default() };
        let asked = self.replay.ask(self.classifier, layers, stage, NO_FLAGS, &moment, direction, bytes);
        self.drop_flow();
        asked
    }

    /// Takes a packet between two other machines through the local one. A capture shows it where it arrives or where it leaves; what does
    /// not say which, is taken to arrive.
    pub(super) fn forward(&mut self, packet: &Packet<'_>) -> Outcome {
        let by_station = || {
            let frame = ethernet(self.record)?;
            self.replay.stations.direction(self.record, &frame, &self.replay.local)
        };
        let direction = match packet.link.direction.or(self.record.direction) {
            Some(LinkDirection::Outgoing) => Direction::Outbound,
            Some(_) => Direction::Inbound,
            None => by_station().unwrap_or(Direction::Inbound),
        };
        self.begin(direction);
        let asked = match direction {
            Direction::Inbound => self.arrive_to_be_forwarded(packet),
            Direction::Outbound => self.ask_forward(packet).and_then(|()| self.ask_frame(Stage::OutboundFrame)),
        };
        match (asked, packet.transport) {
            (Err(stopped), _) => stopped,
            (Ok(()), Err(error)) => Outcome::Malformed(error),
            (Ok(()), Ok(_)) => Outcome::Permitted,
        }
    }

    /// At the network layer nothing is known yet of where a packet that arrives is going.
    fn arrive_to_be_forwarded(&mut self, packet: &Packet<'_>) -> Result<(), Outcome> {
        self.ask_frame(Stage::InboundFrame)?;
        let mut flags = NO_FLAGS;
        flags.set(ConditionFlags::IS_FRAGMENT, packet.fragment.is_some());
        self.ask(Stage::InboundIpPacket, flags)?;
        self.ask_forward(packet)
    }

    /// Asks about a packet; about a fragment, where they are grouped, once more when its group is whole.
    fn ask_forward(&mut self, packet: &Packet<'_>) -> Result<(), Outcome> {
        self.ask_forward_once(packet, NO_FLAGS)?;
        match packet.fragment {
            Some(fragment)
                if self.replay.settings.group_forwarded_fragments && fragment.check(packet.payload_length).is_ok() =>
            {
                match self.replay.groups.arrive(packet, self.replay.now) {
                    Arrival::Waiting => Err(Outcome::Waiting),
                    Arrival::Contradiction => Err(Outcome::StrayFragment),
                    Arrival::Complete(_) => self.ask_forward_once(packet, ConditionFlags::IS_FRAGMENT_GROUP),
                }
            }
            _ => Ok(()),
        }
    }

    fn ask_forward_once(&mut self, packet: &Packet<'_>, flags: ConditionFlags) -> Result<(), Outcome> {
        let (interface, direction) = (self.record.interface, self.direction);
        if self.wants(Stage::Forward) {
            self.replay.incoming.facts.see_forwarded(packet, interface, direction);
            self.seen = true;
        }
        self.ask(Stage::Forward, flags)
    }
}
