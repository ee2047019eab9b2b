//! What must hold for any bytes that are given to the packet parsers. Run by the fuzzer and, over the seeds, by a test.
//!
//! The first byte chooses the link type, the second the seconds between packets and what is blocked; then come packets, each
//! after its length in two bytes, most significant first.

use crate::replay::Audit;
use openwfp_packet::capture::Record;
use openwfp_packet::link::{LinkDirection, LinkType};
use openwfp_packet::local::{Inference, LocalSide};
use openwfp_packet::packet::{Frame, Packet};
use openwfp_packet::time::Timestamp;
use openwfp_packet::unheard::Unheard;

const LINK_TYPES: [LinkType; 10] = [
    LinkType::ETHERNET,
    LinkType::RAW,
    LinkType::LINUX_SLL,
    LinkType::LINUX_SLL2,
    LinkType::NULL,
    LinkType::LOOP,
    LinkType::IPV4,
    LinkType::IPV6,
    LinkType::DLT_RAW,
    LinkType::DLT_RAW_OPENBSD,
];

/// Panics where a promise of the parsers or of a replay is broken.
pub fn check(bytes: &[u8]) {
    let [choice, settings, rest @ ..] = bytes else { return };
    let link_type = LINK_TYPES[usize::from(*choice) % LINK_TYPES.len()];
    let packets = split(rest);
    let (mut inference, mut unheard) = (Inference::new(), Unheard::new());
    for packet in &packets {
        parse(link_type, packet, &mut inference, &mut unheard);
    }
    let inferred = inference.conclude();
    assert!(!inferred.to_string().is_empty());
    let given = LocalSide::Given(["192.0.2.0/25", "2001:db8::/64"].map(|prefix| prefix.parse().unwrap()).into());
    for local in [LocalSide::Inferred(inferred), given] {
        let mut audit = Audit::new(local, u64::from(settings >> 4)).expecting(unheard.clone());
        for (data, frame) in packets.iter().zip(1..) {
            let seconds = frame * u64::from(settings & 15);
            audit.packet(&Record {
                frame,
                time: Timestamp::from_nanoseconds(seconds * 1_000_000_000),
                link_type,
                interface: (frame % 3 == 0).then_some(0),
                direction: (frame % 5 == 0).then_some(LinkDirection::Incoming),
                data,
                original_length: data.len() as u32,
            });
        }
        audit.finish();
    }
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let [high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (packet, after) = rest.split_at(length);
        packets.push(packet);
        bytes = after;
    }
    packets
}

fn parse(link_type: LinkType, bytes: &[u8], inference: &mut Inference, unheard: &mut Unheard) {
    match Packet::parse(link_type, bytes) {
        Ok(Frame::Ip(packet)) => {
            let (frame, payload) = (bytes.as_ptr_range(), packet.payload.as_ptr_range());
            assert!(frame.start <= payload.start && payload.end <= frame.end);
            assert!(packet.payload.len() <= packet.payload_length);
            if let Err(error) = packet.transport {
                assert!(error.offset <= bytes.len(), "{error}");
            }
            assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
            let original = packet.original();
            assert!(original.is_none_or(|original| original.source.is_ipv4() == original.destination.is_ipv4()));
            inference.observe(&packet, None);
            unheard.observe(&packet);
        }
        Ok(Frame::Other(_)) => {}
        Ok(Frame::UnsupportedLinkType) => panic!("{link_type} is supported"),
        Err(error) => assert!(error.offset <= bytes.len(), "{error}"),
    }
}
