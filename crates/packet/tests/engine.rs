//! A capture, a policy and the engine together: the same classifier that the kernel runs decides over packets.

mod common;

use common::{infer, packets};
use openwfp_engine::{CompiledPolicy, compile};
use openwfp_model::policy_file::{NoMachine, read};
use openwfp_packet::replay::{Decision, Replay, ReplaySettings, Step, Summary};

fn compiled(filters: &str) -> CompiledPolicy {
    let policy = read("test", filters, &NoMachine).unwrap_or_else(|wrong| panic!("{wrong}")).policy;
    compile(&[&policy]).unwrap()
}

/// Replays a capture; each refusal as the frame, the layer and the id of the filter that decided.
fn replay(name: &str, filters: &str) -> (Vec<(u64, String, u64)>, Summary) {
    let policy = compiled(filters);
    let mut replay = Replay::new(infer(name), ReplaySettings::default());
    let mut refused = Vec::new();
    for (packet, frame) in packets(name).iter().zip(1..) {
        replay.packet(&packet.record(frame), &mut |step: &Step<'_>| {
            let verdict = policy.classify_values(step.layer, step.values);
            let decision = Decision::from(verdict.action);
            if decision == Decision::Block {
                refused.push((step.packet, step.layer.to_string(), verdict.filter));
            }
            decision
        });
    }
    (refused, replay.summary())
}

#[test]
fn a_connection_is_refused_by_its_remote_port() {
    let filters = r#"
        [[filter]]
        name = "no plain HTTP"
        layer = "ALE_AUTH_CONNECT"
        action = "block"
        [filter.when]
        IP_PROTOCOL = "tcp"
        IP_REMOTE_PORT = 80
        IP_REMOTE_ADDRESS = "192.0.2.0/24"
    "#;
    let (refused, summary) = replay("http.pcap", filters);
    assert_eq!(refused, [(1, "ALE_AUTH_CONNECT_V4".to_owned(), 1)]);
    assert_eq!((summary.blocked, summary.flow_blocked), (12, 11));
    let (refused, summary) = replay("dns.pcapng", filters);
    assert_eq!((refused.len(), summary.permitted), (0, 4));
}

#[test]
fn echoes_are_refused_by_type_and_version() {
    let filters = r#"
        [[filter]]
        name = "no echo requests"
        layer = "OUTBOUND_TRANSPORT_V6"
        action = "block"
        [filter.when]
        IP_PROTOCOL = 58
        ICMP_TYPE = 128
        IP_REMOTE_ADDRESS = "2001:db8::80"
    "#;
    let (refused, _) = replay("ping.pcap", filters);
    let frames: Vec<_> = refused.iter().map(|(frame, layer, _)| (*frame, layer.as_str())).collect();
    assert_eq!(frames, [(5, "OUTBOUND_TRANSPORT_V6"), (7, "OUTBOUND_TRANSPORT_V6")]);
}

#[test]
fn fragments_and_datagrams_are_told_apart_by_flags() {
    let by_flag = |flag: &str| {
        format!(
            r#"
            [[filter]]
            name = "by flag"
            layer = "INBOUND_IPPACKET"
            action = "block"
            [filter.when]
            FLAGS = {{ any = ["{flag}"] }}
            "#
        )
    };
    let frames =
        |flag| replay("fragments.pcap", &by_flag(flag)).0.into_iter().map(|(frame, ..)| frame).collect::<Vec<_>>();
    assert_eq!(frames("IS_FRAGMENT"), [4, 5, 6, 10, 11, 12]);
    assert_eq!(frames("IS_REASSEMBLED"), [6, 12]);
    assert!(frames("IS_LOOPBACK").is_empty());
}

#[test]
fn the_interface_and_the_direction_are_what_the_capture_shows() {
    let filters = r#"
        [[filter]]
        name = "established inward"
        layer = "ALE_FLOW_ESTABLISHED_V4"
        action = "block"
        [filter.when]
        DIRECTION = 1
        INTERFACE_TYPE = 6
    "#;
    assert_eq!(replay("sll2.pcap", filters).0, [(3, "ALE_FLOW_ESTABLISHED_V4".to_owned(), 1)]);
    assert_eq!(replay("http.pcap", filters).0, [], "Ethernet headers do not tell what kind of interface it was");
}

#[test]
fn what_a_packet_cannot_show_matches_no_filter() {
    let filters = r#"
        [[filter]]
        name = "by user"
        layer = ["ALE_AUTH_CONNECT", "ALE_AUTH_RECV_ACCEPT"]
        action = "block"
        [filter.when]
        COMPARTMENT_ID = { not = 7 }
    "#;
    assert_eq!(replay("http.pcap", filters).1.blocked, 0);
}
