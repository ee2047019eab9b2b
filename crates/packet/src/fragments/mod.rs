//! Fragments: datagrams that arrive in pieces, and datagrams that leave in pieces.
//!
//! Arriving fragments are seen one by one at the network layer, and the transport layers see the datagram that they make
//! up. Leaving fragments are seen at no layer: the platform classifies the datagram before it is cut (MS docs: WFP Layer
//! Requirements and Restrictions; Packet Inspection Points).

mod pending;
mod reassembly;
mod sent;

use core::net::IpAddr;
use core::time::Duration;

pub use reassembly::{Arrival, Datagram, FragmentCounts, Reassembly, ReassemblySettings};
pub use sent::SentDatagrams;

use crate::packet::Packet;
use crate::time::Timestamp;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DatagramKey {
    source: IpAddr,
    destination: IpAddr,
    identification: u32,
    /// IPv4 counts identifications for each protocol (RFC 791); IPv6 does not.
    protocol: Option<u8>,
}

impl DatagramKey {
    /// The datagram that a fragment belongs to; `None` when the packet is none.
    fn of(packet: &Packet<'_>) -> Option<Self> {
        let Packet { source, destination, .. } = *packet;
        let identification = packet.fragment?.identification;
        let protocol = source.is_ipv4().then_some(packet.protocol);
        Some(Self { source, destination, identification, protocol })
    }

    /// Until when fragments are waited for: thirty seconds in IPv4, as Linux does, sixty in IPv6 (RFC 8200, 4.5).
    fn deadline(&self, now: Timestamp) -> Timestamp {
        let wait = Duration::from_secs(if self.source.is_ipv4() { 30 } else { 60 });
        let wait = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Timestamp::from_nanoseconds(now.nanoseconds().saturating_add(wait))
    }
}
