//! Replaying captures in tests, and building the packets that no capture holds.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::path::PathBuf;

use openwfp_model::LayerId;
use openwfp_packet::capture::{CaptureReader, Record};
use openwfp_packet::flow::{FlowChange, FlowEvent};
use openwfp_packet::link::LinkType;
use openwfp_packet::local::{Inference, LocalSide};
use openwfp_packet::packet::{Frame, Packet};
use openwfp_packet::replay::{Classifier, Decision, Outcome, Replay, ReplaySettings, Step, Summary};
use openwfp_packet::time::Timestamp;
use openwfp_packet::unheard::Unheard;

pub const SECOND: u64 = 1_000_000_000;

/// Where the captures are.
pub fn capture_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../captures").join(name)
}

/// A packet that a test has in hand.
#[derive(Clone, Debug)]
pub struct Owned {
    pub time: Timestamp,
    pub link_type: LinkType,
    pub data: Vec<u8>,
}

impl Owned {
    /// An IP packet at a time in seconds.
    pub fn ip(seconds: u64, data: Vec<u8>) -> Self {
        Self { time: Timestamp::from_nanoseconds(seconds * SECOND), link_type: LinkType::RAW, data }
    }

    /// The same packet in an Ethernet frame.
    pub fn frame(data: Vec<u8>) -> Self {
        Self { link_type: LinkType::ETHERNET, ..Self::ip(0, data) }
    }

    pub fn record(&self, frame: u64) -> Record<'_> {
        Record {
            frame,
            time: self.time,
            link_type: self.link_type,
            interface: None,
            direction: None,
            data: &self.data,
            original_length: self.data.len() as u32,
        }
    }
}

/// All packets of a capture.
pub fn packets(name: &str) -> Vec<Owned> {
    let mut reader = CaptureReader::new(File::open(capture_path(name)).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(Ok(record)) = reader.next_record() {
        packets.push(Owned { time: record.time, link_type: record.link_type, data: record.data.to_vec() });
    }
    packets
}

/// What can be inferred about the local side of a capture.
pub fn infer(name: &str) -> LocalSide {
    let mut reader = CaptureReader::new(File::open(capture_path(name)).unwrap()).unwrap();
    LocalSide::Inferred(Inference::of_capture(&mut reader))
}

/// The local side that a user gives.
pub fn local(prefixes: &[&str]) -> LocalSide {
    LocalSide::Given(prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect())
}

/// Writes down what it is asked and told, and blocks at the layers that it is told to.
#[derive(Default)]
pub struct Recorder {
    pub blocks: Vec<LayerId>,
    pub lines: Vec<String>,
    pub data: Vec<(LayerId, Vec<u8>)>,
}

impl Classifier for Recorder {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        let blocked = self.blocks.contains(&step.layer);
        self.data.push((step.layer, step.data.to_vec()));
        let flow = step.flow.map(|flow| format!(" #{flow}")).unwrap_or_default();
        self.lines.push(format!("{}{flow}{}", step.layer, if blocked { " blocked" } else { "" }));
        if blocked { Decision::Block } else { Decision::Permit }
    }

    fn flow_blocked(&mut self, step: &Step<'_>) {
        let flow = step.flow.map(|flow| format!(" #{flow}")).unwrap_or_default();
        self.lines.push(format!("flow-blocked by {}{flow}", step.layer));
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        let what = match event.change {
            FlowChange::Established => "flow-established".to_owned(),
            FlowChange::Deleted(reason) => format!("flow-deleted ({})", reason.name()),
        };
        self.lines.push(format!("{what} #{}", event.flow));
    }
}

/// What a replay did: for each packet its number, what it met, and what became of it unless it was permitted.
pub struct Replayed {
    pub lines: Vec<String>,
    /// What is told at the end of the capture.
    pub end: Vec<String>,
    /// The data that layers were shown, those of each step.
    pub data: Vec<(LayerId, Vec<u8>)>,
    pub summary: Summary,
}

impl Replayed {
    /// The data that STREAM was shown, each time.
    pub fn stream(&self) -> Vec<String> {
        let of_stream = self.data.iter().filter(|(layer, _)| ["STREAM_V4", "STREAM_V6"].contains(&layer.name()));
        of_stream.map(|(_, data)| String::from_utf8_lossy(data).into_owned()).collect()
    }
}

pub fn replay(packets: &[Owned], local: LocalSide, blocks: &[LayerId]) -> Replayed {
    replay_with(packets, local, blocks, ReplaySettings::default())
}

pub fn replay_with(packets: &[Owned], local: LocalSide, blocks: &[LayerId], settings: ReplaySettings) -> Replayed {
    let mut unheard = Unheard::new();
    for packet in packets {
        if let Ok(Frame::Ip(packet)) = Packet::parse(packet.link_type, &packet.data) {
            unheard.observe(&packet);
        }
    }
    let mut replay = Replay::new(local, settings).expecting(unheard);
    let mut recorder = Recorder { blocks: blocks.to_vec(), ..Recorder::default() };
    let mut lines = Vec::new();
    for (packet, frame) in packets.iter().zip(1..) {
        let outcome = replay.packet(&packet.record(frame), &mut recorder);
        let mut parts: Vec<_> = recorder.lines.drain(..).map(|line| short(&line)).collect();
        match outcome {
            Outcome::Permitted | Outcome::Blocked { .. } | Outcome::FlowBlocked => {}
            Outcome::Waiting => parts.push("waiting".to_owned()),
            Outcome::Malformed(error) => parts.push(format!("malformed ({error})")),
            other => parts.push(format!("{other:?}")),
        }
        if parts.is_empty() {
            parts.push("no layer".to_owned());
        }
        lines.push(format!("{frame} {}", parts.join(", ")));
    }
    replay.finish(&mut recorder);
    Replayed { lines, end: recorder.lines, data: recorder.data, summary: replay.summary() }
}

/// Layers without their version, which each test states once, and in short where they are long.
fn short(line: &str) -> String {
    line.replace("_V4", "").replace("_V6", "").replace("_MAC_FRAME_ETHERNET", "_MAC")
}

/// Compares line by line; the expected text may be indented.
pub fn assert_lines(actual: &[String], expected: &str) {
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(actual, expected, "\n{}", actual.join("\n"));
}

/// Replays steps of the documentation: what each is called, its packet, and the layers that it meets, in order. Flows
/// are left out.
pub fn assert_steps(local_side: &[&str], steps: &[(&str, Vec<u8>, &str)]) {
    let packets: Vec<_> = steps.iter().map(|(_, packet, _)| Owned::ip(0, packet.clone())).collect();
    let replayed = replay(&packets, local(local_side), &[]);
    for (line, (step, _, expected)) in replayed.lines.iter().zip(steps) {
        let (_, met) = line.split_once(' ').unwrap();
        let met: Vec<_> = met.split(", ").map(|layer| layer.split(" #").next().unwrap()).collect();
        assert_eq!(met.join(", "), *expected, "{step}");
    }
}

/// Building packets.
pub mod build {
    /// A version of IP, for tables that hold for both.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Version {
        V4,
        V6,
    }

    pub const BOTH: [Version; 2] = [Version::V4, Version::V6];

    impl Version {
        /// A packet between two hosts, by the end of their addresses.
        pub fn packet(self, from: u8, to: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
            match self {
                Self::V4 => ipv4(from, to, protocol, payload),
                Self::V6 => ipv6(from, to, protocol, payload),
            }
        }

        /// An echo request or its reply.
        pub fn echo(self, from: u8, to: u8, is_reply: bool) -> Vec<u8> {
            let (protocol, types) = match self {
                Self::V4 => (1, [8, 0]),
                Self::V6 => (58, [128, 129]),
            };
            self.packet(from, to, protocol, &[types[usize::from(is_reply)], 0, 0, 0, 0, 7, 0, 1])
        }

        /// The error that a port cannot be reached, about a packet.
        pub fn port_unreachable(self, from: u8, to: u8, about: &[u8]) -> Vec<u8> {
            let (protocol, kind, code) = match self {
                Self::V4 => (1, 3, 3),
                Self::V6 => (58, 1, 4),
            };
            self.packet(from, to, protocol, &[&[kind, code, 0, 0, 0, 0, 0, 0][..], about].concat())
        }
    }

    /// An IPv6 packet between addresses of 2001:db8::/64.
    pub fn ipv6(from: u8, to: u8, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((payload.len() as u16).to_be_bytes());
        packet.extend([next_header, 64]);
        for host in [from, to] {
            packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        packet.extend(payload);
        packet
    }

    /// An Ethernet frame between two stations, by the end of their addresses.
    pub fn ethernet(from: u8, to: u8, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// An IPv4 packet from 192.0.2.1 or another address that ends in `from`, to one that ends in `to`.
    pub fn ipv4(from: u8, to: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ipv4_word(from, to, protocol, 0x4000, 0, payload)
    }

    /// A fragment: where it begins, and whether others follow.
    pub fn ipv4_fragment(from: u8, to: u8, identification: u16, at: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        let word = (at / 8) | if more { 0x2000 } else { 0 };
        ipv4_word(from, to, 17, word, identification, payload)
    }

    fn ipv4_word(from: u8, to: u8, protocol: u8, word: u16, identification: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend((20 + payload.len() as u16).to_be_bytes());
        packet.extend(identification.to_be_bytes());
        packet.extend(word.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 192, 0, 2, from, 192, 0, 2, to]);
        packet.extend(payload);
        packet
    }

    /// A TCP segment.
    pub fn tcp(source: u16, destination: u16, flags: u8, sequence: u32) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(source.to_be_bytes());
        segment.extend(destination.to_be_bytes());
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment
    }

    /// A TCP segment with data.
    pub fn tcp_data(source: u16, destination: u16, flags: u8, numbers: [u32; 2], data: &[u8]) -> Vec<u8> {
        let mut segment = tcp(source, destination, flags, numbers[0]);
        segment[8..12].copy_from_slice(&numbers[1].to_be_bytes());
        segment.extend(data);
        segment
    }

    /// A UDP datagram.
    pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        datagram.extend(source.to_be_bytes());
        datagram.extend(destination.to_be_bytes());
        datagram.extend((8 + payload.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    pub const SYN: u8 = 0x02;
    pub const SYN_ACK: u8 = 0x12;
    pub const ACK: u8 = 0x10;
    pub const FIN_ACK: u8 = 0x11;
    pub const RST: u8 = 0x04;
    pub const RST_ACK: u8 = 0x14;
}
