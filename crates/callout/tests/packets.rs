//! Callouts over packets that come in frames, in pieces, and over loopback.

mod common;

use std::sync::{Arc, Mutex};

use common::{Scripted, policy, terminating};
use openwfp_callout::replay::{CalloutClassifier, ReplayCallouts};
use openwfp_callout::{PacketBuilder, Registry, mend};
use openwfp_model::LayerId;
use openwfp_packet::capture::Record;
use openwfp_packet::link::LinkType;
use openwfp_packet::local::LocalSide;
use openwfp_packet::replay::{Replay, ReplaySettings};
use openwfp_packet::time::Timestamp;

fn datagram(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    PacketBuilder::between(from.parse().unwrap(), to.parse().unwrap()).identification(7).udp(payload).unwrap()
}

fn sent(payload: &[u8]) -> Vec<u8> {
    datagram("192.0.2.1:4000", "192.0.2.80:7000", payload)
}

fn received(payload: &[u8]) -> Vec<u8> {
    datagram("192.0.2.80:7000", "192.0.2.1:4000", payload)
}

fn frame(packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 1, 8, 0][..], packet].concat()
}

/// The packets that pass, where a callout at a layer puts `x` before their payloads.
fn passed(layer: LayerId, link_type: LinkType, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let registry = Registry::new();
    let callout = Scripted::new(1, |event, out| {
        if event.injection_state().is_own() {
            return out.permit();
        }
        let packet = event.packet().unwrap();
        // A frame's payload begins with the IP header.
        let skipped = if event.metadata.ip_header_size.is_none() { 28 } else { 0 };
        let (header, payload) = packet.payload().split_at(skipped);
        out.replace_payload(&packet, &[header, b"x", payload].concat());
    });
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, layer, &[terminating(1)]);
    let all: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let told = all.clone();
    let callouts = ReplayCallouts::new(registry.clone());
    let mut classifier = CalloutClassifier::new(&policy, callouts).on_passed(Box::new(move |_, bytes, _| {
        told.lock().unwrap().push(bytes.to_vec());
    }));
    let mut replay = Replay::new(LocalSide::Given(vec!["192.0.2.1/32".parse().unwrap()]), ReplaySettings::default());
    for (number, data) in packets.iter().enumerate() {
        let record = Record {
            frame: number as u64 + 1,
            time: Timestamp::default(),
            link_type,
            interface: None,
            direction: None,
            data,
            original_length: data.len() as u32,
        };
        replay.packet(&record, &mut classifier);
    }
    assert_eq!(registry.counts().panics, 0);
    let all = all.lock().unwrap();
    all.clone()
}

#[test]
fn a_changed_packet_keeps_its_frame() {
    for layer in [LayerId::DATAGRAM_DATA_V4, LayerId::OUTBOUND_IPPACKET_V4] {
        assert_eq!(passed(layer, LinkType::ETHERNET, &[frame(&sent(b"abc"))]), [frame(&sent(b"xabc"))], "{layer}");
    }
    // What fills a short frame up is no part of the packet.
    let mut short = frame(&sent(b"abc"));
    short.resize(60, 0xee);
    assert_eq!(passed(LayerId::DATAGRAM_DATA_V4, LinkType::ETHERNET, &[short]), [frame(&sent(b"xabc"))]);
}

#[test]
fn a_frame_is_changed_too() {
    let long = b"long enough to need nothing that fills the frame up";
    let changed = [b"x", &long[..]].concat();
    let layer = LayerId::OUTBOUND_MAC_FRAME_ETHERNET;
    assert_eq!(passed(layer, LinkType::ETHERNET, &[frame(&sent(long))]), [frame(&sent(&changed))]);
}

/// A packet in two fragments, the first with so many bytes of IP payload.
fn fragments(packet: &[u8], first: usize) -> [Vec<u8>; 2] {
    let piece = |at: usize, payload: &[u8], more: bool| {
        let mut piece = [&packet[..20], payload].concat();
        piece[6..8].copy_from_slice(&((at / 8) as u16 | u16::from(more) << 13).to_be_bytes());
        mend(false, &mut piece).unwrap();
        piece
    };
    [piece(0, &packet[20..20 + first], true), piece(first, &packet[20 + first..], false)]
}

#[test]
fn a_datagram_that_arrives_in_pieces_is_changed_as_a_whole() {
    let pieces = fragments(&received(&[b'a'; 100]), 64);
    let changed = received(&[b"x", &[b'a'; 100][..]].concat());
    for layer in [LayerId::INBOUND_TRANSPORT_V4, LayerId::DATAGRAM_DATA_V4] {
        assert_eq!(passed(layer, LinkType::RAW, &pieces), std::slice::from_ref(&changed), "{layer}");
    }
}

#[test]
fn a_packet_over_loopback_is_changed_once() {
    let (from, to) = ("127.0.0.1:4000", "127.0.0.1:7000");
    let came = passed(LayerId::DATAGRAM_DATA_V4, LinkType::RAW, &[datagram(from, to, b"abc")]);
    assert_eq!(came, [datagram(from, to, b"xabc")]);
}

#[test]
fn what_is_forwarded_is_changed_at_the_layer_of_forwarding() {
    for (from, to, layer) in [
        ("[2001:db8::1]:4000", "[2001:db8::80]:7000", LayerId::IPFORWARD_V6),
        ("203.0.113.1:4000", "203.0.113.2:7000", LayerId::IPFORWARD_V4),
    ] {
        let came = passed(layer, LinkType::RAW, &[datagram(from, to, b"abc")]);
        assert_eq!(came, [datagram(from, to, b"xabc")], "{layer}");
    }
}
