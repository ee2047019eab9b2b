//! A packet as a layer shows it to a classifier that wants to see bytes.

use super::Shown;
use super::pass::Pass;
use crate::capture::Record;
use crate::link::LinkType;
use crate::packet::{Frame, Packet, Transport};

/// What a packet is shown with.
pub(super) struct Context {
    loopback: bool,
    reassembled: bool,
    mark: Option<u64>,
}

impl Context {
    pub(super) fn of<C>(pass: &Pass<'_, '_, C>) -> Self {
        Self { loopback: pass.loopback, reassembled: pass.reassembled, mark: pass.mark }
    }
}

/// The packet at hand, for a classifier that wants to see it.
pub(super) fn show<'a>(
    record: &'a Record<'_>,
    packet: &'a Packet<'_>,
    whole: &'a [u8],
    transport: Option<(u8, Transport)>,
    context: &Context,
) -> Shown<'a> {
    let bytes = if whole.is_empty() { packet.bytes } else { whole };
    let header = match Packet::parse(LinkType::RAW, bytes) {
        Ok(Frame::Ip(packet)) => packet.bytes.len() - packet.payload.len(),
        _ => bytes.len(),
    };
    let (length, tcp) = match transport.map(|(_, transport)| transport).or(packet.transport.ok()) {
        Some(Transport::Tcp(segment)) => (usize::from(segment.header_length), Some(segment)),
        // SCTP and DCCP have longer ones, which nobody looks behind.
        Some(Transport::Ports { .. } | Transport::Icmp(_)) => (8, None),
        Some(Transport::Other | Transport::LaterFragment) | None => (0, None),
    };
    Shown {
        bytes,
        transport: header,
        payload: (header + length).min(bytes.len()),
        link_header: record.data.get(..packet.begins_at).unwrap_or_default(),
        link_type: record.link_type,
        tcp,
        interface: record.interface,
        loopback: context.loopback,
        reassembled: context.reassembled,
        mark: context.mark,
    }
}
