//! Flows that are authorized again because the policy has changed. Needs root and BPF.

mod support;

use openwfp_engine::words;
use openwfp_kernel::{events::EndOfFlow, options::Options};
use openwfp_model::{Action, FieldId, LayerId, MatchType, Value};
use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, UdpSocket},
    thread,
    time::Duration,
};
use support::{
    actor,
    live::{Live, address, filter, remote_port},
    obedient::Obedient,
    odd,
    talk::{
        KINDS, Kind, POLICY_CHANGE, Peer, RECORDED, Talk,
        Way::{In, Out},
        both_versions,
    },
};

/// As the kernel numbers the states of connections.
const TCP_ESTABLISHED: u8 = 1;

#[test]
fn actor() {
    actor::act();
}

#[test]
fn a_change_of_policy_asks_the_next_packet_and_no_other() {
    for kind in both_versions() {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        for (number, way) in [Out, In].into_iter().enumerate() {
            talk.replace(vec![remote_port(talk.layer, Action::Block, 9 + number as u16), talk.about(Action::Permit)]);
            talk.not_asked();
            talk.passes(way);
            let event = talk.asked_for(POLICY_CHANGE);
            assert!(!event.blocked, "{kind:?} {way:?}");
            assert_eq!(event.generation, number as u64 + 2);
            let arrives = event.values.get(words::ARRIVAL_INTERFACE_INDEX) == 1;
            assert_eq!(arrives, way == In, "an interface of arrival has only what arrives");
            for way in [Out, In, Out, In] {
                talk.passes(way);
            }
            talk.not_asked();
        }
        assert!(talk.live.ended().is_empty());
    }
}

#[test]
fn a_flow_that_is_no_longer_permitted_ends_both_ways_and_its_socket_is_told() {
    for kind in both_versions() {
        for way in [Out, In] {
            println!("{kind:?} {way:?}");
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            talk.replace(vec![talk.about(Action::Block)]);
            let stream = matches!(talk.peer, Peer::Stream(_));
            match (way, stream) {
                (Out, true) => assert!(!talk.outward().1),
                (Out, false) => assert_eq!(talk.outward(), ("EPERM".into(), false)),
                (In, true) => assert_eq!(talk.inward(), "ECONNABORTED", "the waiting read is told"),
                (In, false) => assert_eq!(talk.inward(), "timeout"),
            }
            assert!(talk.asked_for(POLICY_CHANGE).blocked);
            // the other way
            match stream {
                true => {
                    if way == Out {
                        assert_eq!(talk.actor.tell(&mut talk.live, "hear"), "ECONNABORTED");
                    }
                    assert_eq!(talk.actor.tell(&mut talk.live, "say"), "EPIPE");
                    let Peer::Stream(stream) = &mut talk.peer else { unreachable!() };
                    let read = stream.read(&mut [0; 5]).unwrap_err().kind();
                    let waits = odd::tcp_state(stream).unwrap() == TCP_ESTABLISHED;
                    match way {
                        // it has sent nothing since, and gets neither RST nor FIN
                        Out => assert_eq!((read, waits), (ErrorKind::WouldBlock, true)),
                        // it sends again what was not acknowledged, and the kernel may say that nobody is there
                        In => assert!(
                            [(ErrorKind::WouldBlock, true), (ErrorKind::ConnectionReset, false)]
                                .contains(&(read, waits))
                        ),
                    }
                }
                false => {
                    assert_eq!(talk.outward(), ("EPERM".into(), false));
                    assert_eq!(talk.inward(), "timeout");
                }
            }
            talk.not_asked();
            talk.has_ended(EndOfFlow::Refused);
        }
    }
}

/// A socket that is connected has one flow, or one that matters most: who waits at it is told.
#[test]
fn who_waits_at_a_connected_socket_of_datagrams_is_told() {
    for v6 in [false, true] {
        let kind = Kind { stream: false, server: false, v6 };
        for way in [Out, In] {
            let options = Options { recorded: RECORDED.to_vec(), replaceable: true, ..Options::default() };
            let Some(mut live) = Live::with(vec![], options) else { return };
            let mut actor = Obedient::start(&live);
            let [peer, other] = [0; 2].map(|port| UdpSocket::bind(kind.local(port)).unwrap());
            let to = peer.local_addr().unwrap();
            assert_eq!(actor.tell(&mut live, &format!("udp-hold {to}")), "ok");
            assert_eq!(actor.tell(&mut live, "send-held"), "ok");
            let (_, from) = peer.recv_from(&mut [0; 16]).unwrap();
            // another flow of the same socket is refused: that is not what it is connected to
            let elsewhere = format!("send {}", other.local_addr().unwrap());
            assert_eq!(actor.tell(&mut live, &elsewhere), "ok");
            let port = other.local_addr().unwrap().port();
            live.replace(vec![remote_port(kind.connects(), Action::Block, port)], &RECORDED);
            assert_eq!(actor.tell(&mut live, &elsewhere), "EPERM");
            peer.send_to(b"hello", from).unwrap();
            assert_eq!(actor.tell(&mut live, "receive"), "ok", "{way:?}");
            live.replace(vec![remote_port(kind.connects(), Action::Block, to.port())], &RECORDED);
            if way == Out {
                assert_eq!(actor.tell(&mut live, "send-held"), "EPERM");
            }
            actor.begin("receive");
            thread::sleep(Duration::from_millis(100));
            peer.send_to(b"hello", from).unwrap();
            assert_eq!(actor.answer(&mut live), "ECONNABORTED", "{way:?}");
            assert_ne!(actor.tell(&mut live, "send-held"), "ok", "{way:?}");
            assert_eq!(live.enforcement.failures(), Default::default());
        }
    }
}

#[test]
fn it_is_the_same_flow_where_a_policy_looks_at_its_local_side() {
    for kind in both_versions() {
        for way in [Out, In] {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            let elsewhere =
                |field, value| filter(talk.layer, Action::Block).when(field, MatchType::Equal, value).build().unwrap();
            let nobody: IpAddr = if kind.v6 { [0xfd00; 8].into() } else { [10, 0, 0, 1].into() };
            let address = elsewhere(FieldId::IP_LOCAL_ADDRESS, address(nobody));
            let interface = elsewhere(FieldId::INTERFACE_INDEX, Value::Uint32(4321));
            for filters in [vec![address.clone()], vec![address, interface.clone()], vec![interface]] {
                talk.replace(filters);
                talk.passes(way);
                talk.asked_for(POLICY_CHANGE);
                talk.passes(Out);
                talk.passes(In);
                talk.not_asked();
            }
        }
    }
}

#[test]
fn a_refused_flow_of_datagrams_may_begin_anew_under_a_later_policy() {
    for kind in both_versions().filter(|kind| !kind.stream) {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        talk.replace(vec![talk.about(Action::Block)]);
        assert_eq!(talk.inward(), "timeout");
        talk.asked_again();
        talk.replace(vec![]);
        talk.passes(Out);
        let events = talk.live.classified();
        assert_eq!(events.iter().map(|event| event.layer).collect::<Vec<_>>(), [kind.connects(), kind.establishes()]);
        assert_ne!(events[1].flow, talk.flow, "another flow");
        assert_eq!(talk.live.ended(), [(talk.flow, EndOfFlow::Refused)]);
    }
}

#[test]
fn the_owner_of_the_socket_is_judged() {
    let this = std::env::current_exe().unwrap().canonicalize().unwrap();
    let application = |path: &str| (FieldId::ALE_APP_ID, Value::Application(path.into()));
    // (condition, whether it holds for the actor)
    let table = [
        (application(this.to_str().unwrap()), true),
        (application("/bin/cat"), false),
        ((FieldId::ALE_USER_ID, Value::User(0)), true),
        ((FieldId::ALE_USER_ID, Value::User(4321)), false),
    ];
    for kind in KINDS {
        // a packet that arrives is nobody's call
        for ((field, value), holds) in table.clone() {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            let block = filter(talk.layer, Action::Block).when(field, MatchType::Equal, value).build().unwrap();
            talk.replace(vec![block]);
            let heard = talk.inward();
            let event = talk.asked_for(POLICY_CHANGE);
            assert_eq!((event.blocked, heard == "ok"), (holds, !holds), "{kind:?} {field:?}");
            assert_eq!(*event.program, *this.to_str().unwrap());
        }
    }
}

#[test]
fn flows_of_layers_whose_filters_are_the_same_are_not_asked() {
    for kind in both_versions() {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        let other = if kind.server { kind.connects() } else { kind.accepts() };
        let elsewhere = filter(LayerId::ALE_RESOURCE_ASSIGNMENT_V4, Action::Permit).build().unwrap();
        let unlike = remote_port(other, Action::Block, 9);
        let version = if kind.v6 { LayerId::ALE_AUTH_CONNECT_V4 } else { LayerId::ALE_AUTH_CONNECT_V6 };
        let version = remote_port(version, Action::Block, 9);
        let own = remote_port(talk.layer, Action::Block, 9);
        for filters in [vec![], vec![elsewhere.clone()], vec![unlike.clone(), version], vec![unlike]] {
            talk.replace(filters);
            talk.passes(Out);
            talk.passes(In);
            talk.not_asked();
        }
        talk.replace(vec![own.clone()]);
        talk.passes(Out);
        talk.asked_for(POLICY_CHANGE);
        talk.replace(vec![elsewhere, own]);
        talk.passes(Out);
        talk.not_asked();
    }
}

#[test]
fn a_dry_run_asks_once_and_lets_the_flow_go_on() {
    for kind in both_versions() {
        let Some(mut talk) = Talk::begin(kind, Options { dry_run: true, ..Options::default() }) else { return };
        talk.replace(vec![talk.about(Action::Block)]);
        talk.passes(Out);
        assert!(talk.asked_again().blocked);
        talk.passes(In);
        talk.passes(Out);
        talk.not_asked();
        assert!(talk.live.ended().is_empty());
    }
}
