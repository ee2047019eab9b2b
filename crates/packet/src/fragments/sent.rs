//! Datagrams that leave in pieces.

use super::DatagramKey;
use super::pending::Pending;
use crate::packet::Packet;
use crate::time::Timestamp;

/// How many datagrams are remembered.
const LIMIT: usize = 1024;

/// Remembers what became of datagrams that leave in pieces.
///
/// The platform decides about a datagram before it is cut, so the pieces share what became of the first of them, which
/// alone shows ports.
pub struct SentDatagrams<T> {
    outcomes: Pending<T>,
}

impl<T> Default for SentDatagrams<T> {
    fn default() -> Self {
        Self { outcomes: Pending::new() }
    }
}

impl<T: Copy> SentDatagrams<T> {
    /// Remembers what became of a first fragment.
    pub fn remember(&mut self, packet: &Packet<'_>, outcome: T, now: Timestamp) {
        if let Some(key) = DatagramKey::of(packet) {
            self.outcomes.insert(key, key.deadline(now), outcome);
            if self.outcomes.len() > LIMIT {
                self.outcomes.take_oldest(None);
            }
        }
    }

    /// What became of the first fragment of a later one's datagram; `None` when it was not seen.
    pub fn outcome(&mut self, packet: &Packet<'_>, now: Timestamp) -> Option<T> {
        while self.outcomes.take_oldest(Some(now)).is_some() {}
        self.outcomes.get_mut(&DatagramKey::of(packet)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkInfo;
    use crate::packet::Transport;
    use crate::wire::Fragment;
    use openwfp_model::IpVersion;

    fn fragment(identification: u32, at: u16) -> Packet<'static> {
        Packet {
            header_version: IpVersion::V4,
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            protocol: 17,
            fragment: Some(Fragment { identification, at, more: true }),
            transport: Ok(Transport::LaterFragment),
            payload: &[0; 8],
            payload_length: 8,
            link: LinkInfo::default(),
            bytes: &[],
            begins_at: 0,
        }
    }

    #[test]
    fn later_pieces_share_the_decision_about_the_first() {
        let mut sent = SentDatagrams::default();
        let now = Timestamp::from_nanoseconds(0);
        sent.remember(&fragment(1, 0), true, now);
        sent.remember(&fragment(2, 0), false, now);
        assert_eq!(sent.outcome(&fragment(1, 8), now), Some(true));
        assert_eq!(sent.outcome(&fragment(2, 8), now), Some(false));
        assert_eq!(sent.outcome(&fragment(3, 8), now), None);
        let later = Timestamp::from_nanoseconds(30_000_000_000);
        assert_eq!(sent.outcome(&fragment(1, 8), later), None, "a number is used again for another datagram");
    }

    #[test]
    fn memory_is_bounded() {
        let mut sent = SentDatagrams::default();
        for identification in 0..10_000 {
            sent.remember(&fragment(identification, 0), true, Timestamp::default());
        }
        assert_eq!(sent.outcomes.len(), LIMIT);
    }
}
