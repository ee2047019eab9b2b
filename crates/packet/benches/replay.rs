//! Packets a second: reading and parsing alone; a replay that is asked at no layer, and at every layer; one with the engine and
//! a hundred filters at the ALE layers, alone and as `wfp replay` does it, which reads the capture once before to see which
//! side is local; and one with a hundred filters that look at every packet.
//!
//! The captures are made in memory: TCP connections from a client to a server, interleaved, each from handshake to end; and
//! UDP datagrams that each open a flow, which is the worst that can come.

#![allow(missing_docs, reason = "the macros of criterion make functions without")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use openwfp_engine::{CompiledPolicy, compile};
use openwfp_model::policy_file;
use openwfp_packet::capture::CaptureReader;
use openwfp_packet::link::LinkType;
use openwfp_packet::local::{Inference, LocalSide};
use openwfp_packet::packet::{Frame, Packet};
use openwfp_packet::replay::{Classifier, Decision, LayerSet, REPLAY_LAYERS, Replay, ReplaySettings, Step};
use openwfp_packet::unheard::Unheard;

const CONNECTIONS: u32 = 1000;
const PACKETS: u32 = 100;
const PAYLOAD: usize = 512;

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;

struct Writer {
    file: Vec<u8>,
    written: u32,
}

impl Writer {
    fn new() -> Self {
        let mut file = Vec::new();
        for number in [0xa1b2_3c4du32, 0x0004_0002, 0, 0, 262_144, LinkType::ETHERNET.0.into()] {
            file.extend(number.to_le_bytes());
        }
        Self { file, written: 0 }
    }

    /// Writes an Ethernet frame with an IPv4 packet.
    fn packet(&mut self, source: u32, destination: u32, protocol: u8, payload: &[u8]) {
        let length = 34 + payload.len() as u32;
        for number in [self.written / 1000, self.written % 1000, length, length] {
            self.file.extend(number.to_le_bytes());
        }
        self.file.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0]);
        self.file.extend((20 + payload.len() as u16).to_be_bytes());
        self.file.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        self.file.extend(source.to_be_bytes());
        self.file.extend(destination.to_be_bytes());
        self.file.extend(payload);
        self.written += 1;
    }
}

const CLIENT: u32 = 0xc000_0201;
const SERVER: u32 = 0xc633_6401;

fn tcp_capture() -> Vec<u8> {
    let mut writer = Writer::new();
    for number in 0..PACKETS {
        for connection in 0..CONNECTIONS {
            let (from_client, flags, payload) = match number {
                0 => (true, SYN, 0),
                1 => (false, SYN_ACK, 0),
                2 => (true, ACK, 0),
                number if number == PACKETS - 3 => (true, FIN_ACK, 0),
                number if number == PACKETS - 2 => (false, FIN_ACK, 0),
                number if number == PACKETS - 1 => (true, ACK, 0),
                number => (number % 2 == 0, ACK, PAYLOAD),
            };
            let (client, server) = (10_000 + connection as u16, 443u16);
            let (source, destination) = if from_client { (client, server) } else { (server, client) };
            let mut segment = Vec::new();
            segment.extend(source.to_be_bytes());
            segment.extend(destination.to_be_bytes());
            segment.extend(number.to_be_bytes());
            segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            segment.resize(20 + payload, 0);
            let (from, to) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
            writer.packet(from, to, 6, &segment);
        }
    }
    writer.file
}

fn udp_capture() -> Vec<u8> {
    let mut writer = Writer::new();
    for number in 0..CONNECTIONS * PACKETS {
        let mut datagram = Vec::new();
        datagram.extend((number as u16 | 1024).to_be_bytes());
        datagram.extend([0x01, 0xbb, 0, 8, 0, 0]);
        writer.packet(CLIENT, SERVER + number / 1024, 17, &datagram);
    }
    writer.file
}

fn parse(file: &[u8]) -> u64 {
    let mut reader = CaptureReader::new(file).expect("the capture was made here");
    let mut packets = 0;
    while let Some(Ok(record)) = reader.next_record() {
        if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
            packets += u64::from(black_box(packet).transport.is_ok());
        }
    }
    packets
}

/// What `wfp replay` finds out before.
fn look_before(file: &[u8]) -> (LocalSide, Unheard) {
    let mut reader = CaptureReader::new(file).expect("the capture was made here");
    let (mut inference, mut unheard) = (Inference::new(), Unheard::new());
    while let Some(Ok(record)) = reader.next_record() {
        if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
            inference.observe(&packet, record.direction);
            unheard.observe(&packet);
        }
    }
    (LocalSide::Inferred(inference.conclude()), unheard)
}

fn replay<C: Classifier>(file: &[u8], local: &LocalSide, classifier: C) -> u64 {
    replay_expecting(file, local, Unheard::new(), classifier)
}

fn replay_expecting<C: Classifier>(file: &[u8], local: &LocalSide, unheard: Unheard, mut classifier: C) -> u64 {
    let mut reader = CaptureReader::new(file).expect("the capture was made here");
    let mut replay = Replay::new(local.clone(), ReplaySettings::default()).expecting(unheard);
    while let Some(Ok(record)) = reader.next_record() {
        replay.packet(&record, &mut classifier);
    }
    replay.summary().permitted
}

fn permit(step: &Step<'_>) -> Decision {
    black_box(step);
    Decision::Permit
}

/// A classifier that is asked where its policy has filters.
struct Judge<'p> {
    policy: Option<&'p CompiledPolicy>,
    layers: LayerSet,
}

impl<'p> Judge<'p> {
    fn new(policy: &'p CompiledPolicy) -> Self {
        let filtered = REPLAY_LAYERS.into_iter().filter(|&layer| !policy.layer_of(layer).places.is_empty());
        Self { policy: Some(policy), layers: filtered.collect() }
    }
}

impl Classifier for Judge<'_> {
    fn layers(&self) -> LayerSet {
        self.layers
    }

    fn classify(&mut self, step: &Step<'_>) -> Decision {
        match self.policy {
            Some(policy) => Decision::from(policy.classify_values(step.layer, step.values).action),
            None => Decision::Permit,
        }
    }
}

/// Filters that look at all that comes to some layers and block none of it.
fn policy(layers: [&str; 2]) -> CompiledPolicy {
    let mut text = String::new();
    for number in 0..100 {
        text.push_str(&format!(
            "[[filter]]\nname = \"{number}\"\nlayer = {layers:?}\naction = \"block\"\n\
             [filter.when]\nIP_PROTOCOL = \"tcp\"\nIP_REMOTE_PORT = {}\nIP_REMOTE_ADDRESS = \"198.51.{number}.0/24\"\n",
            1000 + number
        ));
    }
    let policy = policy_file::read("bench", &text, &policy_file::NoMachine).expect("the policy is well formed").policy;
    compile(&[&policy]).expect("the policy compiles")
}

fn benches(criterion: &mut Criterion) {
    let packets = u64::from(CONNECTIONS * PACKETS);
    let ale = policy(["ALE_AUTH_CONNECT", "ALE_AUTH_RECV_ACCEPT"]);
    let transport = policy(["INBOUND_TRANSPORT", "OUTBOUND_TRANSPORT"]);
    let local = LocalSide::Given(vec!["192.0.2.1".parse().expect("an address")]);
    for (name, file) in [("tcp", tcp_capture()), ("udp-new-flows", udp_capture())] {
        assert_eq!((parse(&file), replay(&file, &local, permit)), (packets, packets));
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(packets)).sample_size(20);
        group.bench_function("parse", |bencher| bencher.iter(|| parse(&file)));
        group.bench_function("asked-nowhere", |bencher| {
            bencher.iter(|| replay(&file, &local, Judge { policy: None, layers: LayerSet::NONE }));
        });
        group.bench_function("asked-everywhere", |bencher| bencher.iter(|| replay(&file, &local, permit)));
        group.bench_function("ale-100-filters", |bencher| bencher.iter(|| replay(&file, &local, Judge::new(&ale))));
        group.bench_function("ale-100-filters-two-passes", |bencher| {
            bencher.iter(|| {
                let (local, unheard) = look_before(&file);
                replay_expecting(&file, &local, unheard, Judge::new(&ale))
            });
        });
        group.bench_function("transport-100-filters", |bencher| {
            bencher.iter(|| replay(&file, &local, Judge::new(&transport)));
        });
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
