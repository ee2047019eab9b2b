//! What the layers of a live policy let through and refuse. Needs root and BPF.

mod support;

use openwfp_model::{Action, Errno, FieldId, LayerId, MatchType, Value};
use std::net::{TcpListener, UdpSocket};
use support::{
    actor,
    live::{Live, address, filter, free_port, local, remote_port},
};

#[test]
fn actor() {
    actor::act();
}

#[test]
fn a_refused_connect_fails_at_once_and_others_pass() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let closed = free_port();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let with_errno = filter(layer, Action::Block)
        .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(4711))
        .errno(Errno::find("EACCES").unwrap())
        .build()
        .unwrap();
    let filters = vec![remote_port(layer, Action::Block, closed), with_errno];
    let Some(mut live) = Live::new(filters, &[layer]) else { return };
    let script = format!("tcp {open}\ntcp {}\ntcp {}\nudp {}\nudp {open}", local(closed), local(4711), local(closed));
    assert_eq!(live.act(&script), ["ok", "EPERM", "EACCES", "EPERM", "ok"]);
    let path = std::env::current_exe().unwrap().canonicalize().unwrap();
    for event in &live.events {
        assert_eq!(*event.program, *path.to_str().unwrap());
        assert_eq!(event.identity.user, 0);
    }
    assert_eq!(live.events.len(), 5);
    let decided: Vec<u64> = live.events.iter().map(|event| event.filter).collect();
    assert_eq!(decided, [0, 1, 2, 1, 0]);
    let totals = live.enforcement.totals().unwrap();
    assert_eq!((totals[0].permitted, totals[0].blocked), (2, 3));
    println!("{:?}\n{:?}", live.enforcement.hooks(), live.enforcement.phases());
}

#[test]
fn a_dry_run_reports_and_blocks_nothing() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let options = openwfp_kernel::options::Options { recorded: vec![layer], dry_run: true, ..Default::default() };
    let Some(mut live) = Live::with(vec![remote_port(layer, Action::Block, open.port())], options) else { return };
    assert_eq!(live.act(&format!("tcp {open}")), ["ok"]);
    assert!(live.events.iter().any(|event| event.blocked && !event.enforced && event.filter == 1));
}

#[test]
fn each_peer_of_an_unconnected_socket_is_authorized() {
    let a = UdpSocket::bind(local(0)).unwrap().local_addr().unwrap();
    let b = UdpSocket::bind(local(0)).unwrap().local_addr().unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let Some(mut live) = Live::new(vec![remote_port(layer, Action::Block, b.port())], &[layer]) else { return };
    let script = format!("send {a}\nsend {b}\nsend {a}\nsend {b}");
    assert_eq!(live.act(&script), ["ok", "EPERM", "ok", "EPERM"]);
    // the second datagram to `a` belongs to the flow of the first
    assert_eq!(live.at(layer).filter(|event| !event.blocked).count(), 1);
    assert_eq!(live.at(layer).filter(|event| event.blocked).count(), 2);
}

#[test]
fn a_mapped_ipv4_endpoint_is_classified_at_the_ipv4_layer() {
    let server = TcpListener::bind(local(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let Some(mut live) = Live::new(vec![remote_port(layer, Action::Block, port)], &[layer]) else { return };
    assert_eq!(live.act(&format!("tcp [::ffff:127.0.0.1]:{port}\ntcp [::1]:{port}")), ["EPERM", "ECONNREFUSED"]);
    assert_eq!(live.at(layer).count(), 1);
}

#[test]
fn a_refused_bind_fails() {
    let (refused, free) = (free_port(), free_port());
    let layer = LayerId::ALE_RESOURCE_ASSIGNMENT_V4;
    let block = filter(layer, Action::Block)
        .when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(refused))
        .build()
        .unwrap();
    let with_errno = filter(layer, Action::Block)
        .when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(4711))
        .errno(Errno::find("EACCES").unwrap())
        .build()
        .unwrap();
    let filters = vec![block, with_errno];
    let Some(mut live) = Live::new(filters, &[layer, LayerId::ALE_RESOURCE_ASSIGNMENT_V6]) else { return };
    let script = format!(
        "bind {}\nbind {}\nlisten {}\nbind [::]:{refused}\nbind [::1]:{refused}\nbind 127.0.0.1:4711\nbind [::]:4711",
        local(refused),
        local(free),
        local(refused)
    );
    // an endpoint on :: serves IPv4 too, one on ::1 does not
    assert_eq!(live.act(&script), ["EPERM", "ok", "EPERM", "EPERM", "ok", "EACCES", "EACCES"]);
    assert_eq!(live.at(layer).count(), 6);
    assert_eq!(live.at(LayerId::ALE_RESOURCE_ASSIGNMENT_V6).count(), 3);
}

#[test]
fn a_ping_socket_and_a_raw_socket_meet_the_layer_with_their_first_packet() {
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let icmp =
        filter(layer, Action::Block).when(FieldId::IP_PROTOCOL, MatchType::Equal, Value::Uint8(1)).build().unwrap();
    let Some(mut live) = Live::new(vec![icmp], &[layer]) else { return };
    assert_eq!(live.act("raw\nown-network\nping"), ["EPERM", "ok", "EPERM"]);
    assert_eq!(live.at(layer).filter(|event| event.blocked && event.filter == 1).count(), 2);
}

#[test]
fn what_depends_on_the_local_address_is_decided_by_the_first_packet() {
    let server = TcpListener::bind(local(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    for (source, expected) in [("127.0.0.1", "ECONNABORTED"), ("127.0.0.2", "ok")] {
        let block = filter(layer, Action::Block)
            .when(FieldId::IP_LOCAL_ADDRESS, MatchType::Equal, address(source.parse().unwrap()))
            .build()
            .unwrap();
        let Some(mut live) = Live::new(vec![block], &[layer]) else { return };
        assert_eq!(live.act(&format!("tcp {}\ntcp-waiting {}", local(port), local(port))), [expected, expected]);
        assert_eq!(live.enforcement.failures(), Default::default());
        assert_eq!(live.at(layer).count(), 2);
    }
}

#[test]
fn a_datagram_that_depends_on_the_local_address_is_decided_when_it_leaves() {
    let peer = UdpSocket::bind(local(0)).unwrap();
    let to = peer.local_addr().unwrap();
    peer.set_nonblocking(true).unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    for (source, expected) in [("127.0.0.1", "EPERM"), ("127.0.0.2", "ok")] {
        let block = filter(layer, Action::Block)
            .when(FieldId::IP_LOCAL_ADDRESS, MatchType::Equal, address(source.parse().unwrap()))
            .build()
            .unwrap();
        let Some(mut live) = Live::new(vec![block], &[layer]) else { return };
        assert_eq!(live.act(&format!("send {to}\nsend {to}")), [expected, expected]);
        assert_eq!(peer.recv(&mut [0; 64]).is_ok(), expected == "ok");
    }
}

#[test]
fn a_program_is_told_by_its_file() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let path = std::env::current_exe().unwrap().canonicalize().unwrap();
    for (path, expected) in [(path.to_str().unwrap(), "EPERM"), ("/bin/true", "ok"), ("/no/such/program", "ok")] {
        let block = filter(layer, Action::Block)
            .when(FieldId::ALE_APP_ID, MatchType::Equal, Value::Application(path.into()))
            .build()
            .unwrap();
        let Some(mut live) = Live::new(vec![block], &[]) else { return };
        assert_eq!(live.act(&format!("tcp {open}")), [expected], "{path}");
        assert_eq!(live.enforcement.warnings().len(), usize::from(path.starts_with("/no")));
    }
}

#[test]
fn a_user_is_the_effective_one_and_groups_count() {
    use std::os::unix::process::CommandExt;
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let block =
        |value| filter(layer, Action::Block).when(FieldId::ALE_USER_ID, MatchType::Equal, value).build().unwrap();
    {
        let Some(mut live) = Live::new(vec![block(Value::User(1234))], &[]) else { return };
        let script = format!("tcp {open}\neuid 1234\ntcp {open}\neuid 0\ntcp {open}");
        assert_eq!(live.act(&script), ["ok", "ok", "EPERM", "ok", "ok"]);
    }
    let Some(mut live) = Live::new(vec![block(Value::Group(4321))], &[]) else { return };
    assert_eq!(live.act(&format!("tcp {open}")), ["ok"]);
    let mut command = actor::command(&format!("tcp {open}"));
    let output = live.run(command.gid(4321));
    assert_eq!(actor::results(&output), ["EPERM"]);
}

#[test]
fn events_that_find_no_room_are_counted_and_nothing_else_suffers() {
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let closed = free_port();
    let Some(mut live) = Live::new(vec![remote_port(layer, Action::Block, closed)], &[layer]) else { return };
    let mut command = actor::command(&format!("udp-often {} 30000\nudp {}", local(9), local(closed)));
    live.group.enter(&mut command, "");
    // nobody reads meanwhile
    let output = command.output().unwrap();
    assert_eq!(actor::results(&output.stdout), ["ok", "EPERM"]);
    live.drain();
    let lost = live.enforcement.failures().events_lost;
    assert!(lost > 0);
    assert_eq!(live.events.len() as u64 + lost, 30_001);
    let totals = live.enforcement.totals().unwrap();
    assert_eq!((totals[0].permitted, totals[0].blocked), (30_000, 1));
}
