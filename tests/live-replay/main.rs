//! The kernel and a replay fill in the same: what live traffic meets, and what its capture meets.
//!
//! Each scene is played between two networks: by a process of a filtered group in one of them, while the cable is
//! captured, and by a peer. What the group met is compared with what a replay of the capture meets under the same policy: the same
//! layers in the same order, the same filters with the same outcome, the same values, and the same flows (by their place, not
//! by number).
//!
//! What a policy stops on its way out is in no capture. Those scenes are played twice: without a policy for the capture, of which
//! the part counts that comes before the block, and under the policy for what is live.
//!
//! As root on a kernel with BPF; elsewhere each test says why it is skipped.

mod actor;
mod compare;
mod exempt;
mod tagged;
mod world;

use actor::Scene;
use compare::{Step, text};
use openwfp_engine::{CompiledPolicy, Schema, compile};
use openwfp_model::{Action, FieldId, Filter, FilterBuilder, LayerId, MatchType, Policy, Value};
use std::collections::BTreeMap;
use world::{Met, Recorded, cannot_run, record};

/// No test: what the tests start.
#[test]
fn actor() {
    actor::act();
}

/// A policy without filters: everything is permitted.
fn nothing_blocked() -> CompiledPolicy {
    compile(&[&Policy::builder().build().unwrap()]).unwrap()
}

/// Compares live steps with replayed ones. `live` and `replayed` have what is compared alone.
#[track_caller]
fn assert_same(what: &str, met: Met, live: &[Step], replayed: &[Step]) {
    let names = |steps: &[Step]| steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>();
    let (live_names, replayed_names) = (names(live), names(replayed));
    let same = live_names.iter().zip(&replayed_names).take_while(|(live, replayed)| live == replayed).count();
    assert!(
        same == live_names.len() && same == replayed_names.len(),
        "{what}, {met:?}: after {:?}\nlive {:?}\nreplayed {:?}",
        &live_names[..same],
        &live_names[same..],
        &replayed_names[same..]
    );
    let mut differences = Vec::new();
    let mut flows = BTreeMap::new();
    for (number, (live, replayed)) in live.iter().zip(replayed).enumerate() {
        let layer = live.layer.name();
        if (live.filter, live.reason) != (replayed.filter, replayed.reason) {
            let (live, replayed) = ((live.filter, live.reason), (replayed.filter, replayed.reason));
            differences.push(format!("{number} {layer}: decided by {live:?} live, by {replayed:?} replayed"));
        }
        for field in Schema::of(live.layer).fields() {
            let (a, b) = (live.field(field.field).unwrap(), replayed.field(field.field).unwrap());
            if a != b && !exempt::field(met, live, replayed, field.field) {
                let name = field.field.name();
                differences.push(format!("{number} {layer} {name}: {} live, {} replayed", text(&a), text(&b)));
            }
        }
        if let (Some(a), Some(b)) = (live.flow, replayed.flow) {
            let known = *flows.entry(b).or_insert(a);
            if known != a {
                differences.push(format!("{number} {layer}: flow {a} live, which was {known} before"));
            }
        }
    }
    assert!(differences.is_empty(), "{what}, {met:?}:\n{}", differences.join("\n"));
}

/// Compares a scene with the replay of its own capture.
#[track_caller]
fn assert_scene(scene: Scene, met: Met, policy: &CompiledPolicy, layers: &[&str]) {
    if cannot_run(met) {
        return;
    }
    let only_v4 = [Scene::UdpMulticast, Scene::UdpBroadcast].contains(&scene);
    for v6 in [false, true].into_iter().filter(|v6| !(*v6 && only_v4)) {
        let Recorded { live, capture, said } = record(scene, v6, met, policy);
        assert!(capture.any(|header| scene.shows(header)), "{scene:?}: no packet is what the scene is about: {said}");
        compare(scene, v6, met, layers, live, capture.replay(v6, policy), &said);
    }
}

/// Compares a scene that the policy stops with the first packets of what there is without it.
#[track_caller]
fn assert_stopped(scene: Scene, met: Met, policy: &CompiledPolicy, packets: usize, layers: &[&str]) {
    if cannot_run(met) {
        return;
    }
    for v6 in [false, true] {
        let Recorded { capture, .. } = record(scene, v6, met, &nothing_blocked());
        let Recorded { live, said, .. } = record(scene, v6, met, policy);
        compare(scene, v6, met, layers, live, capture.first(packets).replay(v6, policy), &said);
    }
}

#[track_caller]
fn compare(scene: Scene, v6: bool, met: Met, layers: &[&str], live: Vec<Step>, replayed: Vec<Step>, said: &str) {
    let what = format!("{scene:?} of version {} ({said})", if v6 { 6 } else { 4 });
    let (live, replayed) = (exempt::live(met, live), exempt::replayed(met, replayed));
    assert_same(&what, met, &live, &replayed);
    for layer in layers {
        assert!(live.iter().any(|step| step.family() == *layer), "{what}: {layer} was not met: {live:?}");
    }
}

/// A policy that blocks all at a layer of both versions.
fn no(v4: LayerId, v6: LayerId) -> CompiledPolicy {
    no_when(v4, v6, |filter| filter)
}

/// The same under a condition.
fn no_when(v4: LayerId, v6: LayerId, when: impl Fn(FilterBuilder) -> FilterBuilder) -> CompiledPolicy {
    let filter = |layer| when(Filter::builder("no", layer).action(Action::Block)).build().unwrap();
    compile(&[&Policy::builder().filter(filter(v4)).filter(filter(v6)).build().unwrap()]).unwrap()
}

const BOTH: [Met; 2] = [Met::AtSockets, Met::AtDevices];

#[test]
fn a_tcp_client() {
    for met in BOTH {
        let layers = ["ALE_AUTH_CONNECT", "ALE_FLOW_ESTABLISHED", "STREAM_PACKET", "ALE_ENDPOINT_CLOSURE"];
        assert_scene(Scene::TcpClient, met, &nothing_blocked(), &layers);
    }
}

#[test]
fn a_tcp_server() {
    for met in BOTH {
        let layers = ["ALE_AUTH_RECV_ACCEPT", "ALE_FLOW_ESTABLISHED", "STREAM_PACKET", "ALE_ENDPOINT_CLOSURE"];
        assert_scene(Scene::TcpServer, met, &nothing_blocked(), &layers);
    }
}

#[test]
fn a_connection_that_is_reset() {
    for met in BOTH {
        assert_scene(Scene::TcpReset, met, &nothing_blocked(), &["ALE_ENDPOINT_CLOSURE"]);
    }
}

#[test]
fn a_connection_that_nobody_listens_for() {
    for met in BOTH {
        assert_scene(Scene::TcpRefused, met, &nothing_blocked(), &["ALE_AUTH_CONNECT"]);
    }
}

#[test]
fn what_nobody_listens_for() {
    for (scene, v4, v6) in [
        (Scene::TcpUnheard, LayerId::INBOUND_TRANSPORT_V4_DISCARD, LayerId::INBOUND_TRANSPORT_V6_DISCARD),
        (Scene::UdpUnheard, LayerId::INBOUND_IPPACKET_V4_DISCARD, LayerId::INBOUND_IPPACKET_V6_DISCARD),
    ] {
        let family = v4.name().replace("_V4", "");
        for policy in [nothing_blocked(), no(v4, v6)] {
            assert_scene(scene, Met::AtDevices, &policy, &["INBOUND_IPPACKET", &family]);
            assert_scene(scene, Met::AtSockets, &policy, &[]);
        }
    }
}

#[test]
fn a_udp_client_and_its_answer() {
    for met in BOTH {
        let layers = ["ALE_AUTH_CONNECT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA", "INBOUND_TRANSPORT"];
        assert_scene(Scene::UdpClient, met, &nothing_blocked(), &layers);
    }
}

#[test]
fn a_udp_client_that_is_bound_to_nothing() {
    for met in BOTH {
        assert_scene(Scene::UdpUnbound, met, &nothing_blocked(), &["ALE_AUTH_CONNECT", "DATAGRAM_DATA"]);
    }
}

#[test]
fn datagrams_to_a_group_and_to_all() {
    for met in BOTH {
        for scene in [Scene::UdpMulticast, Scene::UdpBroadcast] {
            assert_scene(scene, met, &nothing_blocked(), &["ALE_AUTH_RECV_ACCEPT", "DATAGRAM_DATA"]);
        }
    }
}

#[test]
fn a_connect_that_its_first_packet_decides() {
    // no call knows by which interface it will go
    let policy = no_when(LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6, |filter| {
        filter.when(FieldId::INTERFACE_TYPE, MatchType::Equal, Value::Uint32(6))
    });
    for scene in [Scene::TcpAttempt, Scene::UdpClient, Scene::Ping] {
        assert_stopped(scene, Met::AtSockets, &policy, 1, &["ALE_AUTH_CONNECT_DISCARD"]);
    }
}

#[test]
fn a_udp_server() {
    for met in BOTH {
        let layers = ["ALE_AUTH_RECV_ACCEPT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA", "OUTBOUND_TRANSPORT"];
        assert_scene(Scene::UdpServer, met, &nothing_blocked(), &layers);
    }
}

#[test]
fn an_echo_request_and_its_reply() {
    for met in BOTH {
        let layers = ["ALE_AUTH_CONNECT", "ALE_FLOW_ESTABLISHED", "DATAGRAM_DATA", "INBOUND_TRANSPORT"];
        assert_scene(Scene::Ping, met, &nothing_blocked(), &layers);
    }
}

#[test]
fn datagrams_in_fragments_both_ways() {
    for met in BOTH {
        for scene in [Scene::UdpLong, Scene::UdpLongServer] {
            assert_scene(scene, met, &nothing_blocked(), &["DATAGRAM_DATA", "INBOUND_IPPACKET", "OUTBOUND_IPPACKET"]);
        }
    }
}

#[test]
fn headers_with_options() {
    for met in BOTH {
        assert_scene(Scene::UdpOptions, met, &nothing_blocked(), &["ALE_AUTH_CONNECT", "DATAGRAM_DATA"]);
        assert_scene(Scene::TcpOptions, met, &nothing_blocked(), &["ALE_FLOW_ESTABLISHED", "ALE_ENDPOINT_CLOSURE"]);
    }
}

#[test]
fn what_is_forwarded() {
    let layers = ["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET", "IPFORWARD", "OUTBOUND_MAC_FRAME_ETHERNET"];
    for scene in [Scene::Forwarded, Scene::ForwardedLong] {
        assert_scene(scene, Met::AtDevices, &nothing_blocked(), &layers);
    }
}

#[test]
fn what_may_not_be_forwarded() {
    let policy = no(LayerId::IPFORWARD_V4, LayerId::IPFORWARD_V6);
    for scene in [Scene::Forwarded, Scene::ForwardedLong] {
        assert_scene(scene, Met::AtDevices, &policy, &["IPFORWARD_DISCARD"]);
    }
}

#[test]
fn an_icmp_error_about_a_datagram() {
    // errors have no socket: they are met at devices alone
    assert_scene(Scene::UdpRefused, Met::AtSockets, &nothing_blocked(), &["OUTBOUND_TRANSPORT"]);
    assert_scene(Scene::UdpRefused, Met::AtDevices, &nothing_blocked(), &["INBOUND_ICMP_ERROR"]);
}

#[test]
fn a_blocked_connect() {
    for met in BOTH {
        let policy = no(LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6);
        for scene in [Scene::TcpAttempt, Scene::UdpClient, Scene::Ping] {
            assert_stopped(scene, met, &policy, 1, &["ALE_AUTH_CONNECT_DISCARD"]);
        }
    }
}

#[test]
fn a_block_at_the_transport_layer_on_the_way_out() {
    for met in BOTH {
        let policy = no(LayerId::OUTBOUND_TRANSPORT_V4, LayerId::OUTBOUND_TRANSPORT_V6);
        for scene in [Scene::TcpAttempt, Scene::UdpClient, Scene::Ping] {
            assert_stopped(scene, met, &policy, 1, &["OUTBOUND_TRANSPORT_DISCARD"]);
        }
    }
}

#[test]
fn a_block_at_the_transport_layer_on_the_way_in() {
    for met in BOTH {
        let policy = no(LayerId::INBOUND_TRANSPORT_V4, LayerId::INBOUND_TRANSPORT_V6);
        for scene in [Scene::TcpAttempt, Scene::TcpUnanswered, Scene::UdpClient, Scene::UdpServer, Scene::Ping] {
            assert_scene(scene, met, &policy, &["INBOUND_TRANSPORT_DISCARD"]);
        }
    }
}

#[test]
fn an_accept_that_is_refused() {
    for met in BOTH {
        let policy = no(LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6);
        for scene in [Scene::TcpUnanswered, Scene::UdpServer] {
            assert_scene(scene, met, &policy, &["ALE_AUTH_RECV_ACCEPT_DISCARD"]);
        }
    }
}

#[test]
fn a_block_at_the_network_layer() {
    for met in BOTH {
        let policy = no(LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_IPPACKET_V6);
        for scene in [Scene::TcpAttempt, Scene::UdpClient] {
            assert_stopped(scene, met, &policy, 1, &["OUTBOUND_IPPACKET_DISCARD"]);
        }
        let policy = no(LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6);
        for scene in [Scene::TcpUnanswered, Scene::UdpServer, Scene::Ping] {
            assert_scene(scene, met, &policy, &["INBOUND_IPPACKET_DISCARD"]);
        }
    }
}

#[test]
fn a_block_of_data() {
    let inbound = |filter: FilterBuilder| filter.when(FieldId::DIRECTION, MatchType::Equal, Value::Uint32(1));
    for met in BOTH {
        let policy = no(LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6);
        for scene in [Scene::UdpClient, Scene::Ping] {
            assert_stopped(scene, met, &policy, 1, &["DATAGRAM_DATA_DISCARD"]);
        }
        assert_scene(Scene::UdpServer, met, &policy, &["DATAGRAM_DATA_DISCARD"]);
        let policy = no_when(LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6, inbound);
        for scene in [Scene::UdpClient, Scene::UdpServer, Scene::Ping] {
            assert_scene(scene, met, &policy, &["DATAGRAM_DATA_DISCARD"]);
        }
        // that layer has no discard layer
        let policy = no(LayerId::STREAM_PACKET_V4, LayerId::STREAM_PACKET_V6);
        assert_stopped(Scene::TcpAttempt, met, &policy, 1, &["STREAM_PACKET"]);
        let policy = no_when(LayerId::STREAM_PACKET_V4, LayerId::STREAM_PACKET_V6, inbound);
        for scene in [Scene::TcpAttempt, Scene::TcpUnanswered] {
            assert_scene(scene, met, &policy, &["STREAM_PACKET"]);
        }
    }
}

#[test]
fn a_flow_that_may_not_be_established() {
    let policy = no(LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6);
    for met in BOTH {
        for scene in [Scene::UdpClient, Scene::Ping] {
            assert_stopped(scene, met, &policy, 1, &["ALE_FLOW_ESTABLISHED_DISCARD"]);
        }
        for scene in [Scene::UdpServer, Scene::TcpAttempt] {
            assert_scene(scene, met, &policy, &["ALE_FLOW_ESTABLISHED_DISCARD"]);
        }
    }
    // at devices nobody knows that what comes in later belongs to it
    assert_scene(Scene::TcpUnanswered, Met::AtSockets, &policy, &["ALE_FLOW_ESTABLISHED_DISCARD"]);
}

#[test]
fn an_icmp_error_that_is_blocked() {
    let policy = no(LayerId::INBOUND_ICMP_ERROR_V4, LayerId::INBOUND_ICMP_ERROR_V6);
    assert_scene(Scene::UdpRefused, Met::AtDevices, &policy, &["INBOUND_ICMP_ERROR_DISCARD"]);
    let policy = no(LayerId::OUTBOUND_ICMP_ERROR_V4, LayerId::OUTBOUND_ICMP_ERROR_V6);
    assert_stopped(Scene::UdpUnheard, Met::AtDevices, &policy, 2, &["OUTBOUND_ICMP_ERROR_DISCARD"]);
}

#[test]
fn a_frame_with_a_priority() {
    let layers = ["INBOUND_MAC_FRAME_ETHERNET", "ALE_AUTH_RECV_ACCEPT", "DATAGRAM_DATA"];
    assert_scene(Scene::UdpPriority, Met::AtDevices, &nothing_blocked(), &layers);
    assert_scene(Scene::UdpPriority, Met::AtSockets, &nothing_blocked(), &layers[1..]);
    // all sixteen bits of the tag
    let policy = Filter::builder("no", LayerId::INBOUND_MAC_FRAME_ETHERNET).action(Action::Block);
    let filter = policy.when(FieldId::VLAN_ID, MatchType::Equal, Value::Uint16(0x6000)).build().unwrap();
    let policy = compile(&[&Policy::builder().filter(filter).build().unwrap()]).unwrap();
    assert_scene(Scene::UdpPriority, Met::AtDevices, &policy, &["INBOUND_MAC_FRAME_ETHERNET"]);
    if !cannot_run(Met::AtDevices) {
        let Recorded { live, .. } = record(Scene::UdpPriority, false, Met::AtDevices, &policy);
        let blocked: Vec<&Step> = live.iter().filter(|step| step.blocked).collect();
        assert!(blocked.len() == 1 && blocked[0].is(FieldId::VLAN_ID, 0x6000), "{blocked:?}");
    }
}

#[test]
fn every_exemption_is_needed() {
    let nothing = nothing_blocked();
    for (scene, met) in [
        (Scene::TcpClient, Met::AtSockets),
        (Scene::TcpServer, Met::AtDevices),
        (Scene::TcpRefused, Met::AtSockets),
        (Scene::UdpUnbound, Met::AtSockets),
        (Scene::UdpRefused, Met::AtSockets),
        (Scene::UdpRefused, Met::AtDevices),
        (Scene::UdpUnheard, Met::AtSockets),
        (Scene::UdpLong, Met::AtSockets),
        (Scene::UdpLong, Met::AtDevices),
        (Scene::Forwarded, Met::AtDevices),
    ] {
        assert_scene(scene, met, &nothing, &[]);
    }
    let silence = no(LayerId::INBOUND_TRANSPORT_V4_DISCARD, LayerId::INBOUND_TRANSPORT_V6_DISCARD);
    assert_scene(Scene::TcpUnheard, Met::AtDevices, &silence, &[]);
    if !cannot_run(Met::AtSockets) && !cannot_run(Met::AtDevices) {
        assert_eq!(exempt::never_needed(), [], "these exemptions hide nothing");
    }
}
