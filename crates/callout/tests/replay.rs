//! Callouts over packets: what they change goes on changed, what they inject is classified by everybody, streams wait for them.

mod common;

use std::sync::{Arc, Mutex};

use common::{Says, Scripted, policy, terminating};
use openwfp_callout::replay::{CalloutClassifier, ReplayCallouts};
use openwfp_callout::{Direction, Injector, PacketBuilder, Registry, StreamAction};
use openwfp_engine::CompiledPolicy;
use openwfp_model::{CalloutKind, FilterFlags, LayerId};
use openwfp_packet::capture::Record;
use openwfp_packet::link::LinkType;
use openwfp_packet::local::LocalSide;
use openwfp_packet::replay::{Classifier, Decision, Injected, Outcome, Replay, ReplaySettings, Step, Summary};
use openwfp_packet::time::Timestamp;
use openwfp_packet::wire::TcpFlags;

const CLIENT: &str = "192.0.2.1:4000";
const SERVER: &str = "192.0.2.80:7000";
const UNKNOWN: FilterFlags = FilterFlags::empty();

fn between(from: &str, to: &str) -> PacketBuilder {
    PacketBuilder::between(from.parse().unwrap(), to.parse().unwrap())
}

fn sent(payload: &[u8]) -> Vec<u8> {
    between(CLIENT, SERVER).udp(payload).unwrap()
}

fn received(payload: &[u8]) -> Vec<u8> {
    between(SERVER, CLIENT).udp(payload).unwrap()
}

/// What came of a replay.
#[derive(Debug)]
struct Came {
    outcomes: Vec<Outcome>,
    /// The packets that passed.
    passed: Vec<Vec<u8>>,
    /// What was delivered of streams: direction and bytes.
    delivered: Vec<(Direction, String)>,
    summary: Summary,
}

fn replay(registry: &Registry, policy: &CompiledPolicy, packets: &[Vec<u8>]) -> Came {
    let passed: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let delivered: Arc<Mutex<Vec<(Direction, String)>>> = Arc::default();
    let (told, said) = (passed.clone(), delivered.clone());
    let callouts = ReplayCallouts::new(registry.clone()).on_delivered(Box::new(move |_, direction, bytes| {
        said.lock().unwrap().push((direction, String::from_utf8_lossy(bytes).into_owned()));
    }));
    let mut classifier = CalloutClassifier::new(policy, callouts).on_passed(Box::new(move |_, bytes, _| {
        told.lock().unwrap().push(bytes.to_vec());
    }));
    let local = LocalSide::Given(vec!["192.0.2.1/32".parse().unwrap()]);
    let mut replay = Replay::new(local, ReplaySettings::default());
    let outcomes = packets.iter().enumerate().map(|(number, data)| {
        let record = Record {
            frame: number as u64 + 1,
            time: Timestamp::from_nanoseconds(1_000_000 * number as u64),
            link_type: LinkType::RAW,
            interface: None,
            direction: None,
            data,
            original_length: data.len() as u32,
        };
        replay.packet(&record, &mut classifier)
    });
    let outcomes = outcomes.collect();
    replay.finish(&mut classifier);
    classifier.callouts().finish();
    let (passed, delivered) = (passed.lock().unwrap().clone(), delivered.lock().unwrap().clone());
    Came { outcomes, passed, delivered, summary: replay.summary() }
}

/// Puts a prefix before what was not injected by itself.
fn prefixing(number: u128, prefix: &'static str) -> Scripted {
    Scripted::new(number, move |event, out| {
        if event.injection_state().is_own() {
            return out.permit();
        }
        let packet = event.packet().unwrap();
        out.replace_payload(&packet, &[prefix.as_bytes(), packet.payload()].concat());
    })
}

#[test]
fn a_changed_packet_goes_on_changed_at_every_layer_of_its_way() {
    let layers = [
        LayerId::ALE_AUTH_CONNECT_V4,
        LayerId::DATAGRAM_DATA_V4,
        LayerId::OUTBOUND_TRANSPORT_V4,
        LayerId::OUTBOUND_IPPACKET_V4,
    ];
    for layer in layers {
        let registry = Registry::new();
        registry.register(Arc::new(prefixing(1, "x"))).unwrap();
        let policy = policy(&registry, layer, &[terminating(1)]);
        let came = replay(&registry, &policy, &[sent(b"abc")]);
        assert_eq!(came.outcomes, [Outcome::Absorbed { layer }]);
        assert_eq!(came.passed, [sent(b"xabc")], "{layer}");
        let summary = came.summary;
        assert_eq!((summary.absorbed, summary.injected, summary.injected_permitted), (1, 1, 1), "{layer}");
        assert_eq!(registry.counts().panics, 0);
    }
    for layer in [LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_TRANSPORT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V4] {
        let registry = Registry::new();
        registry.register(Arc::new(prefixing(1, "x"))).unwrap();
        let policy = policy(&registry, layer, &[terminating(1)]);
        assert_eq!(replay(&registry, &policy, &[received(b"abc")]).passed, [received(b"xabc")], "{layer}");
    }
}

#[test]
fn two_callouts_that_change_see_what_the_other_made() {
    let registry = Registry::new();
    registry.register(Arc::new(prefixing(1, "a"))).unwrap();
    registry.register(Arc::new(prefixing(2, "b"))).unwrap();
    let layer = LayerId::DATAGRAM_DATA_V4;
    let policy = policy(&registry, layer, &[terminating(1), terminating(2)]);
    let came = replay(&registry, &policy, &[sent(b"-")]);
    assert_eq!(came.passed, [sent(b"ba-")]);
    assert_eq!((came.summary.injected, registry.counts().injected_too_often), (2, 0));
}

#[test]
fn what_is_injected_is_classified_by_every_filter_from_its_point_on() {
    // The first callout answers each question itself; another one, or a filter, may still refuse that.
    let answering = || {
        Scripted::new(1, |event, out| {
            if event.injection_state().is_own() || event.metadata.direction == Some(Direction::Inbound) {
                return out.permit();
            }
            event.platform.network_receive(received(b"answer")).unwrap();
            out.absorb();
        })
    };
    let registry = Registry::new();
    registry.register(Arc::new(answering())).unwrap();
    let layer = LayerId::DATAGRAM_DATA_V4;
    let free = policy(&registry, layer, &[terminating(1)]);
    let came = replay(&registry, &free, &[sent(b"question")]);
    assert_eq!(came.passed, [received(b"answer")]);
    let registry = Registry::new();
    registry.register(Arc::new(answering())).unwrap();
    let states: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = states.clone();
    registry
        .register(Arc::new(Scripted::new(2, move |event, out| {
            seen.lock().unwrap().push(format!("{:?}", event.injection_state()));
            match event.metadata.direction {
                Some(Direction::Inbound) => out.block(),
                _ => out.permit(),
            }
        })))
        .unwrap();
    let refusing = policy(&registry, layer, &[terminating(1), terminating(2)]);
    let came = replay(&registry, &refusing, &[sent(b"question")]);
    assert!(came.passed.is_empty(), "{came:?}");
    assert_eq!((came.summary.injected, came.summary.injected_permitted), (1, 0));
    assert_eq!(*states.lock().unwrap(), ["NotInjected", "InjectedByOther"]);
}

#[test]
fn a_callout_that_injects_without_end_is_stopped() {
    let registry = Registry::new();
    registry
        .register(Arc::new(Scripted::new(1, |event, out| {
            // It never looks whether the packet is its own.
            let clone = openwfp_callout::Injection::new(
                openwfp_callout::InjectionPoint::TransportSend,
                event.packet().unwrap().bytes.to_vec(),
            );
            for _ in 0..2 {
                let _ = event.platform.inject(clone.clone().cloned_from(event.history));
            }
            out.absorb();
        })))
        .unwrap();
    let policy = policy(&registry, LayerId::DATAGRAM_DATA_V4, &[terminating(1)]);
    let came = replay(&registry, &policy, &[sent(b"abc")]);
    assert!(came.passed.is_empty());
    // Twice as many each time, until the eighth.
    assert_eq!(came.summary.injected, 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256);
    assert_eq!(registry.counts().injections_refused, 512);
}

#[test]
fn what_is_injected_after_authorization_opens_no_flow() {
    let registry = Registry::new();
    let callout = Scripted::new(1, |_, out| out.permit());
    let platform = callout.platform.clone();
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LayerId::ALE_AUTH_CONNECT_V4, &[Says::Block]);
    let platform = platform.lock().unwrap().clone().unwrap();
    platform.network_send(sent(b"injected")).unwrap();
    // After the first packet, which belongs to another flow, comes what was injected; then the application's own.
    let other = between("203.0.113.1:1", "192.0.2.1:2").udp(b"other").unwrap();
    let came = replay(&registry, &policy, &[other.clone(), sent(b"own")]);
    assert_eq!(came.passed, [other, sent(b"injected")]);
    assert_eq!(came.outcomes, [Outcome::Permitted, Outcome::Blocked { layer: LayerId::ALE_AUTH_CONNECT_V4 }]);
}

/// Writes down at which layers injected packets are asked about.
struct Recording<'p>(CalloutClassifier<'p>, Vec<&'static str>);

impl Classifier for Recording<'_> {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        if step.shown.mark.is_some() {
            self.1.push(step.layer.name());
        }
        self.0.classify(step)
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn next_injected(&mut self) -> Option<Injected> {
        self.0.next_injected()
    }
}

#[test]
fn each_point_of_injection_has_its_layers() {
    let frame = |bytes: Vec<u8>| [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &bytes].concat();
    let syn = between(CLIENT, SERVER).tcp(TcpFlags::SYN, 1, 0, 9, b"").unwrap();
    type Inject = Box<dyn Fn(&openwfp_callout::Platform) -> Result<(), openwfp_callout::InjectError>>;
    let (a, b, c) = (sent(b"x"), sent(b"x"), syn);
    let (d, e) = (received(b"x"), received(b"x"));
    let (f, g, h) = (sent(b"x"), frame(sent(b"x")), frame(received(b"x")));
    let arrival = ["INBOUND_TRANSPORT_V4", "ALE_AUTH_RECV_ACCEPT_V4", "ALE_FLOW_ESTABLISHED_V4", "DATAGRAM_DATA_V4"];
    let cases: [(Inject, Vec<&str>); 8] = [
        (
            Box::new(move |platform| platform.transport_send(a.clone())),
            vec!["DATAGRAM_DATA_V4", "OUTBOUND_TRANSPORT_V4", "OUTBOUND_IPPACKET_V4"],
        ),
        (Box::new(move |platform| platform.network_send(b.clone())), vec!["OUTBOUND_IPPACKET_V4"]),
        (
            Box::new(move |platform| platform.transport_send(c.clone())),
            vec!["OUTBOUND_TRANSPORT_V4", "OUTBOUND_IPPACKET_V4"],
        ),
        (Box::new(move |platform| platform.transport_receive(d.clone())), arrival.to_vec()),
        (
            Box::new(move |platform| platform.network_receive(e.clone())),
            [&["INBOUND_IPPACKET_V4"][..], &arrival].concat(),
        ),
        (Box::new(move |platform| platform.forward(f.clone())), vec!["IPFORWARD_V4"]),
        (Box::new(move |platform| platform.mac_send(g.clone())), vec!["OUTBOUND_MAC_FRAME_ETHERNET"]),
        (
            Box::new(move |platform| platform.mac_receive(h.clone())),
            [&["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET_V4"][..], &arrival].concat(),
        ),
    ];
    for (number, (inject, layers)) in cases.into_iter().enumerate() {
        let registry = Registry::new();
        let callout = Scripted::new(1, |_, out| out.permit());
        let platform = callout.platform.clone();
        registry.register(Arc::new(callout)).unwrap();
        let policy = policy(&registry, LayerId::STREAM_V4, &[]);
        inject(platform.lock().unwrap().as_ref().unwrap()).unwrap();
        let mut recording = Recording(CalloutClassifier::new(&policy, ReplayCallouts::new(registry)), vec![]);
        let local = LocalSide::Given(vec!["192.0.2.1/32".parse().unwrap()]);
        let mut replay = Replay::new(local, ReplaySettings::default());
        let other = between("203.0.113.1:1", "192.0.2.1:2").udp(b"").unwrap();
        let record = Record {
            frame: 1,
            time: Timestamp::default(),
            link_type: LinkType::RAW,
            interface: None,
            direction: None,
            data: &other,
            original_length: other.len() as u32,
        };
        replay.packet(&record, &mut recording);
        assert_eq!(recording.1, layers, "case {number}");
    }
}

/// A connection whose client sends these parts, each in its segment.
fn connection(parts: &[&str]) -> Vec<Vec<u8>> {
    let (client, server) = (between(CLIENT, SERVER), between(SERVER, CLIENT));
    let ack = TcpFlags::ACK;
    let mut packets = vec![
        client.tcp(TcpFlags::SYN, 1000, 0, 9999, b"").unwrap(),
        server.tcp(TcpFlags::SYN.union(ack), 5000, 1001, 9999, b"").unwrap(),
        client.tcp(ack, 1001, 5001, 9999, b"").unwrap(),
    ];
    let mut next = 1001;
    for part in parts {
        packets.push(client.tcp(ack, next, 5001, 9999, part.as_bytes()).unwrap());
        next += part.len() as u32;
        packets.push(server.tcp(ack, 5001, next, 9999, b"").unwrap());
    }
    packets.push(client.tcp(ack.union(TcpFlags::FIN), next, 5001, 9999, b"").unwrap());
    packets.push(server.tcp(ack.union(TcpFlags::FIN), 5001, next + 1, 9999, b"").unwrap());
    packets.push(client.tcp(ack, next + 1, 5002, 9999, b"").unwrap());
    packets
}

fn sent_data(came: &Came) -> String {
    came.delivered.iter().filter(|(direction, _)| *direction == Direction::Outbound).map(|(_, text)| &**text).collect()
}

type OnStream = fn(&mut openwfp_callout::Classification<'_>, &mut openwfp_callout::ClassifyOut);

fn with_stream(parts: &[&str], classify: OnStream) -> (Registry, Came) {
    let registry = Registry::new();
    registry.register(Arc::new(Scripted::new(1, classify))).unwrap();
    let policy = policy(&registry, LayerId::STREAM_V4, &[Says::Callout(1, CalloutKind::Unknown, UNKNOWN)]);
    let came = replay(&registry, &policy, &connection(parts));
    assert_eq!(registry.counts().panics, 0);
    (registry, came)
}

/// Decides line by line: needs more until there is a whole one.
fn line(event: &openwfp_callout::Classification<'_>, out: &mut openwfp_callout::ClassifyOut) -> Option<(u64, String)> {
    let stream = event.stream()?;
    if stream.direction == Direction::Inbound || stream.bytes.is_empty() {
        out.permit();
        return None;
    }
    match stream.bytes.iter().position(|&byte| byte == b'\n') {
        Some(end) => Some((stream.offset, String::from_utf8_lossy(&stream.bytes[..=end]).into_owned())),
        None => {
            out.stream(StreamAction::NeedMoreData(1));
            None
        }
    }
}

#[test]
fn a_stream_waits_until_a_callout_has_seen_enough() {
    let parts = ["one\ntw", "o", "\nthree\nfo", "ur\n"];
    let (_, came) = with_stream(&parts, |event, out| {
        if let Some((_, line)) = line(event, out) {
            out.permit();
            out.enforce(line.len());
        }
    });
    let lines: Vec<&str> = came.delivered.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(lines, ["one\n", "two\n", "three\n", "four\n"]);
}

#[test]
fn bytes_are_taken_out_of_a_stream_and_others_put_in() {
    let parts = ["one\ntw", "o\nthree\n"];
    let (_, came) = with_stream(&parts, |event, out| {
        // What it put in comes by again.
        if event.injection_state().is_own() {
            return out.permit();
        }
        match line(event, out) {
            Some((0, line)) => {
                out.absorb();
                out.enforce(line.len());
            }
            Some((4, line)) => {
                out.enforce(line.len());
                assert!(out.replace_data(b"zwei und mehr\n".to_vec()));
            }
            Some((offset, line)) => {
                assert_eq!((offset, line.as_str()), (8, "three\n"));
                out.permit();
            }
            None => {}
        }
    });
    assert_eq!(sent_data(&came), "zwei und mehr\nthree\n");
}

#[test]
fn data_are_injected_into_a_stream() {
    let (_, came) = with_stream(&["a", "b"], |event, out| {
        let stream = event.stream().unwrap();
        if !event.injection_state().is_own() && stream.offset == 1 && stream.direction == Direction::Outbound {
            event.platform.stream(event.metadata.flow.unwrap(), Direction::Outbound, b"!".to_vec()).unwrap();
        }
        out.permit();
    });
    assert_eq!(sent_data(&came), "ab!");
}

#[test]
fn a_connection_that_is_dropped_is_over_in_both_directions() {
    let (registry, came) = with_stream(&["good", "bad", "good"], |event, out| {
        out.permit();
        if event.stream().unwrap().bytes == b"bad" {
            out.stream(StreamAction::DropConnection);
        }
    });
    assert_eq!(sent_data(&came), "good");
    let stopped = |outcome: &Outcome| matches!(outcome, Outcome::FlowBlocked | Outcome::Blocked { .. });
    assert!(came.outcomes[..5].iter().all(|outcome| *outcome == Outcome::Permitted));
    assert!(came.outcomes[5..].iter().all(stopped), "{:?}", came.outcomes);
    assert_eq!(registry.counts().nonsense, 0);
}

#[test]
fn a_callout_that_allows_a_connection_sees_no_more_of_it() {
    let (registry, came) = with_stream(&["a", "b", "c"], |event, out| {
        assert_eq!(event.stream().unwrap().offset, 0);
        out.stream(StreamAction::AllowConnection);
    });
    assert_eq!((sent_data(&came).as_str(), registry.counts().classified), ("abc", 1));
}

#[test]
fn received_data_are_deferred_until_the_callout_goes_on() {
    let registry = Registry::new();
    let callout = Scripted::new(1, |event, out| {
        let stream = event.stream().unwrap();
        out.permit();
        match (stream.direction, stream.bytes) {
            // Goes on when the client speaks.
            (Direction::Outbound, bytes) if !bytes.is_empty() => {
                event.platform.continue_stream(event.metadata.flow.unwrap(), Direction::Inbound);
            }
            (Direction::Inbound, b"early") => out.stream(StreamAction::Defer),
            _ => {}
        }
    });
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LayerId::STREAM_V4, &[Says::Callout(1, CalloutKind::Unknown, UNKNOWN)]);
    let mut packets = connection(&[]);
    packets.truncate(3);
    let (client, server) = (between(CLIENT, SERVER), between(SERVER, CLIENT));
    packets.push(server.tcp(TcpFlags::ACK, 5001, 1001, 9999, b"early").unwrap());
    packets.push(server.tcp(TcpFlags::ACK, 5006, 1001, 9999, b" data").unwrap());
    packets.push(client.tcp(TcpFlags::ACK, 1001, 5011, 9999, b"go").unwrap());
    let came = replay(&registry, &policy, &packets);
    let told: Vec<(Direction, &str)> = came.delivered.iter().map(|(way, text)| (*way, text.as_str())).collect();
    assert_eq!(told, [(Direction::Outbound, "go"), (Direction::Inbound, "early data")]);
}

#[test]
fn who_wants_more_than_there_is_ends_the_connection() {
    let (registry, came) = with_stream(&["never ending"], |event, out| {
        if event.stream().unwrap().direction == Direction::Outbound {
            out.stream(StreamAction::NeedMoreData(1000));
        } else {
            out.permit();
        }
    });
    assert_eq!(sent_data(&came), "", "{came:?}");
    assert_eq!(registry.counts().nonsense, 1, "there is nothing more to come at the end");
}

#[test]
fn a_flood_that_a_callout_waits_for_is_bounded() {
    let registry = Registry::new();
    registry.register(Arc::new(Scripted::new(1, |_, out| out.stream(StreamAction::NeedMoreData(usize::MAX))))).unwrap();
    let policy = policy(&registry, LayerId::STREAM_V4, &[Says::Callout(1, CalloutKind::Unknown, UNKNOWN)]);
    let part = "x".repeat(32 << 10);
    let came = replay(&registry, &policy, &connection(&vec![part.as_str(); 40]));
    assert_eq!((sent_data(&came).as_str(), registry.counts().streams_too_long), ("", 1));
}

#[test]
fn a_pended_connect_goes_on_when_it_is_answered() {
    for (permit, passed) in [(true, 1), (false, 0)] {
        let registry = Registry::new();
        let callout = Scripted::new(1, move |_, out| {
            let operation = out.pend().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                operation.complete(match permit {
                    true => openwfp_callout::Answer::permit(),
                    false => openwfp_callout::Answer::block(),
                });
            });
        });
        registry.register(Arc::new(callout)).unwrap();
        let policy = policy(&registry, LayerId::ALE_AUTH_CONNECT_V4, &[terminating(1)]);
        assert_eq!(replay(&registry, &policy, &[sent(b"abc")]).passed.len(), passed);
    }
}

#[test]
fn a_flow_that_a_callout_aborts_is_over() {
    let registry = Registry::new();
    let callout = Scripted::new(1, |event, out| {
        if event.packet().unwrap().payload() == b"stop" {
            event.platform.abort_flow(event.metadata.flow.unwrap());
        }
        let _ = event.associate(1u32);
        out.permit();
    });
    let log = callout.log.clone();
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LayerId::DATAGRAM_DATA_V4, &[terminating(1)]);
    let came = replay(&registry, &policy, &[sent(b"go"), sent(b"stop"), sent(b"more"), received(b"more")]);
    assert_eq!(came.outcomes[2..], [Outcome::FlowBlocked; 2]);
    assert_eq!(log.lock().unwrap()[1..], ["flow 1 at DATAGRAM_DATA_V4: 1"], "the context came back once");
}
