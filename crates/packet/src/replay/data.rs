//! The layers that see data: DATAGRAM_DATA, and STREAM on reassembled data.

use super::pass::{NO_FLAGS, Pass};
use super::stage::Stage;
use super::{Classifier, Outcome};
use crate::flow::{Direction, Lifetime, Slot};
use crate::packet::{Packet, TcpHeader};
use crate::stream::{Arrival, Segment};
use crate::wire::{TcpFlags, UdpDatagram, protocol};

impl<C: Classifier> Pass<'_, '_, C> {
    /// Asks about a datagram. Of UDP the layer sees what follows the header, of other protocols all that IP carries.
    pub(super) fn ask_datagram(&mut self, packet: &Packet<'_>, protocol: u8) -> Result<(), Outcome> {
        let data = match protocol {
            protocol::UDP => UdpDatagram::new_checked(packet.payload).map_or(&[][..], |datagram| datagram.payload()),
            _ => packet.payload,
        };
        self.ask_with(Stage::DatagramData, NO_FLAGS, self.direction, data)
    }

    /// Follows the data of a connection, and asks about those that are now in order.
    ///
    /// An acknowledgment can show that data of the other direction, which waited, were received: they are asked about first, and
    /// what is decided does not touch the packet at hand.
    #[inline]
    pub(super) fn stream(&mut self, slot: Slot, packet: &Packet<'_>, header: &TcpHeader) -> Result<(), Outcome> {
        if header.flags.contains(TcpFlags::RST) || self.replay.flows.flow(slot).lifetime() == Lifetime::Ended {
            return Ok(());
        }
        let mut joined = core::mem::take(&mut self.replay.joined);
        let asked = self.acknowledged(slot, header, &mut joined);
        let asked = asked.and_then(|()| self.arrived(slot, packet, header, &mut joined));
        self.replay.joined = joined;
        asked.and_then(|()| self.ended(slot, header))
    }

    /// Asks at the end of one direction, when all data before it are there.
    #[inline]
    fn ended(&mut self, slot: Slot, header: &TcpHeader) -> Result<(), Outcome> {
        let asks = self.shows && header.flags.contains(TcpFlags::FIN) && self.wants(Stage::Stream);
        if !asks || self.entry.is_some() {
            return Ok(());
        }
        let direction = self.direction;
        let complete = self
            .replay
            .flows
            .with_streams(slot, |streams, _, _| streams.halves[direction as usize].reassembler.waiting() == 0);
        if complete { self.ask_end() } else { Ok(()) }
    }

    #[inline]
    fn acknowledged(&mut self, slot: Slot, header: &TcpHeader, joined: &mut Vec<u8>) -> Result<(), Outcome> {
        // Half-open connections hold nothing, so the answer to a SYN is passed over; the acknowledgment that follows says as much.
        if !header.flags.contains(TcpFlags::ACK) || header.flags.contains(TcpFlags::SYN) {
            return Ok(());
        }
        let received = self.direction.opposite();
        let arrival = self.replay.flows.with_streams(slot, |streams, counts, _| {
            let half = &mut streams.halves[received as usize];
            half.reassembler.begin(header.acknowledgment);
            half.reassembler.acknowledge(header.acknowledgment, counts, joined)
        });
        if let Arrival::Data { data, from, to } = arrival
            && self.ask_range(Stage::Stream, NO_FLAGS, received, data, Some((from, to))).is_err()
        {
            self.block(slot, received, from, to);
        }
        Ok(())
    }

    #[inline]
    fn arrived(
        &mut self,
        slot: Slot,
        packet: &Packet<'_>,
        header: &TcpHeader,
        joined: &mut Vec<u8>,
    ) -> Result<(), Outcome> {
        let segment = data_of(packet, header);
        if segment.length == 0 {
            return Ok(());
        }
        let (settings, direction) = (self.replay.settings.streams, self.direction);
        let (arrival, repeats_blocked) = self.replay.flows.with_streams(slot, |streams, counts, others| {
            let half = &mut streams.halves[direction as usize];
            let repeats_blocked = half.repeats_blocked(segment.sequence, segment.length);
            let room = settings.bytes.min(settings.all_bytes.saturating_sub(others));
            (half.reassembler.arrive(segment, room, counts, joined), repeats_blocked)
        });
        let asked = match arrival {
            _ if repeats_blocked => {
                self.tell_blocked(Stage::Stream);
                Err(Outcome::FlowBlocked)
            }
            Arrival::Data { data, from, to } => {
                self.ask_range(Stage::Stream, NO_FLAGS, direction, data, Some((from, to)))
            }
            Arrival::Waiting | Arrival::Nothing => Ok(()),
        };
        if let (Err(_), Arrival::Data { from, to, .. }) = (&asked, arrival) {
            self.block(slot, direction, from, to);
        }
        asked
    }

    fn block(&mut self, slot: Slot, direction: Direction, from: u32, to: u32) {
        self.replay.flows.with_streams(slot, |streams, _, _| streams.halves[direction as usize].block(from, to));
    }
}

/// The data of a segment. A SYN takes a sequence number of its own.
#[inline]
fn data_of<'a>(packet: &Packet<'a>, header: &TcpHeader) -> Segment<'a> {
    let header_length = usize::from(header.header_length);
    let length = packet.payload_length.saturating_sub(header_length);
    let data = packet.payload.get(header_length..).unwrap_or_default();
    let data = &data[..data.len().min(length)];
    let first = u32::from(header.flags.contains(TcpFlags::SYN));
    // No packet is longer than a capture stores, which is far less than fits.
    Segment { sequence: header.sequence.wrapping_add(first), data, length: u32::try_from(length).unwrap_or(0) }
}
