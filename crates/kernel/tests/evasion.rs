//! Ways around a policy, each of them closed. Needs root and BPF.

mod support;

use openwfp_engine::{Reason, UNKNOWN, words};
use openwfp_kernel::enforcement::Failures;
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Stdio},
};
use support::{
    actor,
    live::{Live, address, filter, free_port, local},
    nesting, odd,
};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const CONNECT6: LayerId = LayerId::ALE_AUTH_CONNECT_V6;

#[test]
fn actor() {
    actor::act();
}

fn to(layer: LayerId, remote: &str) -> Filter {
    let value = address(remote.parse().unwrap());
    filter(layer, Action::Block).when(FieldId::IP_REMOTE_ADDRESS, MatchType::Equal, value).build().unwrap()
}

fn by(layer: LayerId, local: &str) -> Filter {
    let value = address(local.parse().unwrap());
    filter(layer, Action::Block).when(FieldId::IP_LOCAL_ADDRESS, MatchType::Equal, value).build().unwrap()
}

#[test]
fn no_address_means_the_one_that_the_kernel_takes_for_it() {
    let server = TcpListener::bind("[::]:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let filters = || vec![to(CONNECT, "127.0.0.1"), to(CONNECT, "127.0.0.2"), to(CONNECT6, "::1")];
    let Some(mut live) = Live::new(filters(), &[CONNECT, CONNECT6]) else { return };
    for action in [
        "tcp 0.0.0.0",
        "udp 0.0.0.0",
        "send 0.0.0.0",
        "tcp [::ffff:0.0.0.0]",
        "tcp-from 127.0.0.1:0 0.0.0.0",
        "udp-from 127.0.0.2:0 0.0.0.0",
        "tcp-from [::ffff:127.0.0.1]:0 [::]",
        "udp-from [::ffff:127.0.0.1]:0 [::]",
        "tcp [::]",
        "udp [::]",
        "send [::]",
    ] {
        assert_eq!(live.act(&format!("{action}:{port}")), ["EPERM"], "{action}");
    }
    assert_eq!(live.events.len(), 11);
    assert!(live.events.iter().all(|event| event.blocked && event.filter != 0));
}

#[test]
fn a_message_to_no_address_is_asked_for_by_where_it_goes() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let Some(mut live) = Live::new(vec![to(CONNECT, "127.0.0.9")], &[CONNECT]) else { return };
    assert_eq!(live.act(&format!("send 0.0.0.0:{port}\nsend 0.0.0.0:{port}")), ["ok", "ok"]);
    let events: Vec<_> = live.at(CONNECT).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].values.get(words::IP_REMOTE_ADDRESS), 0x7f00_0001);
    drop(live);
    // what waits for its first packet for another reason
    let Some(mut live) = Live::new(vec![by(CONNECT, "127.0.0.1")], &[CONNECT]) else { return };
    assert_eq!(live.act(&format!("send 0.0.0.0:{port}\ntcp 0.0.0.0:{port}")), ["EPERM", "ECONNABORTED"]);
}

/// An actor whose script has come to its first `wait`.
fn waiting(live: &Live, script: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = actor::command(script);
    live.group.enter(&mut command, "");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut results = lines.filter_map(|line| line.strip_prefix("actor ").map(str::to_owned));
    let before = script.lines().position(|line| line == "wait").unwrap();
    for _ in 0..before {
        assert_eq!(results.next().unwrap(), "ok");
    }
    (child, results)
}

#[test]
fn a_socket_whose_datagrams_wait_does_not_go_free_when_the_table_of_flows_forgets() {
    let peer = UdpSocket::bind(local(0)).unwrap();
    let to = peer.local_addr().unwrap();
    let Some(mut live) = Live::new(vec![by(CONNECT, "127.0.0.1")], &[CONNECT]) else { return };
    let (mut child, mut results) = waiting(&live, &format!("udp-hold {to}\nwait\nsend-held"));
    live.enforcement.forget_flows();
    drop(child.stdin.take());
    assert_eq!(results.next().unwrap(), "ok");
    assert_eq!(results.next().unwrap(), "EPERM");
    child.wait().unwrap();
    peer.set_nonblocking(true).unwrap();
    assert!(peer.recv(&mut [0; 8]).is_err());
}

#[test]
fn a_message_with_control_data_and_no_endpoint_goes_where_its_socket_is_connected_to() {
    let (open, closed) = (UdpSocket::bind(local(0)).unwrap(), UdpSocket::bind(local(0)).unwrap());
    let (open, closed) = (open.local_addr().unwrap(), closed.local_addr().unwrap());
    let permit = support::live::remote_port(CONNECT, Action::Permit, open.port());
    let Some(mut live) = Live::new(vec![permit, filter(CONNECT, Action::Block).build().unwrap()], &[CONNECT]) else {
        return;
    };
    let script = format!("udp-hold {open}\nsend-held-with-control\nudp-hold {closed}\nsend-held-with-control");
    assert_eq!(live.act(&script)[..3], ["ok", "ok", "EPERM"]);
    assert_eq!(live.at(CONNECT).filter(|event| event.blocked).count(), 1);
}

#[test]
fn the_source_that_comes_with_an_ipv6_message_counts() {
    let peer = UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    let Some(mut live) = Live::new(vec![by(CONNECT6, "::1")], &[CONNECT6]) else { return };
    assert_eq!(live.act(&format!("send-bound-and-from [::1]:0 {peer}")), ["EPERM"]);
}

/// What an actor is told on kernels where all networks share one bound for the options of sockets, which is not changed
/// for a test.
const NO_SUCH_FILE: &str = "2";

/// Sockets without room for what has to be kept with them.
fn without_memory(filters: Vec<Filter>, script: &str) -> Option<(Vec<String>, Failures)> {
    let mut live = Live::new(filters, &[])?;
    let results = live.act(&format!("own-network\nno-option-memory\n{script}"));
    if results[1] == NO_SUCH_FILE {
        assert!(support::skips::kernel_is_before(6, 8, "net.core.optmem_max for each network"));
        return None;
    }
    assert_eq!(results[..2], ["ok", "ok"]);
    Some((results[2..].to_vec(), live.enforcement.failures()))
}

#[test]
fn what_cannot_be_kept_with_a_socket_is_closed() {
    let server = local(9);
    let port = free_port();
    let local_port = |layer: LayerId| {
        filter(layer, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(1)).build().unwrap()
    };
    // connects that wait for their first packet
    let late = vec![by(CONNECT, "127.0.0.1")];
    let Some((results, failures)) = without_memory(late, &format!("tcp {server}\nudp {server}\nsend {server}")) else {
        return;
    };
    assert_eq!(results, ["EPERM", "EPERM", "EPERM"]);
    assert_eq!(failures, Failures { sockets_without_memory: 3, ..Failures::default() });
    // servers
    for layer in [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_FLOW_ESTABLISHED_V4] {
        let script = format!("listen {}\nlisten-unbound", local(port));
        let Some((results, _)) = without_memory(vec![local_port(layer)], &script) else { return };
        assert_eq!(results[0], "EPERM", "{layer:?}");
        assert!(["timeout", "EPERM"].contains(&&*results[1]), "{layer:?}: {results:?}");
    }
    // flows that are judged once they are established
    let established = vec![local_port(LayerId::ALE_FLOW_ESTABLISHED_V4)];
    let Some((results, _)) = without_memory(established, &format!("tcp {server}")) else { return };
    assert_eq!(results, ["EPERM"]);
    // raw sockets whose owner may be asked for
    let application = Value::Application("/bin/cat".into());
    let owner = filter(CONNECT, Action::Block).when(FieldId::ALE_APP_ID, MatchType::Equal, application);
    let Some((results, _)) = without_memory(vec![owner.build().unwrap()], "raw") else { return };
    assert_eq!(results, ["EPERM"]);
    // where nobody asks for owners, nothing is kept with them, and their packets are asked all the same
    for (remote, result) in [("127.0.0.1", "EPERM"), ("127.0.0.9", "ok")] {
        let Some((results, _)) = without_memory(vec![to(CONNECT, remote)], "raw") else { return };
        assert_eq!(results, [result], "{remote}");
    }
}

#[test]
fn an_accepted_socket_has_the_memory_of_its_listening_one_or_is_not_made() {
    let layer = LayerId::ALE_AUTH_LISTEN_V4;
    let port = Value::Uint16(1);
    let block = filter(layer, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, port).build().unwrap();
    let Some(mut live) = Live::new(vec![block], &[]) else { return };
    let results = live.act("own-network\naccept-without-memory");
    assert!(results == ["ok", "timeout"] || results[1] == NO_SUCH_FILE, "{results:?}");
}

#[test]
fn a_listening_socket_that_nobody_refused_is_reached() {
    let layer = LayerId::ALE_AUTH_LISTEN_V4;
    let port = Value::Uint16(1);
    let block = filter(layer, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, port).build().unwrap();
    let Some(mut live) = Live::new(vec![block], &[]) else { return };
    assert_eq!(live.act("listen-unbound"), ["ok"]);
}

#[test]
fn a_later_fragment_has_no_ports_and_authorizes_nothing() {
    let permit = support::live::remote_port(CONNECT, Action::Permit, 53);
    let none = support::live::remote_port(CONNECT, Action::Permit, 0);
    let filters = vec![permit, none, filter(CONNECT, Action::Block).build().unwrap()];
    let Some(mut live) = Live::new(filters, &[CONNECT]) else { return };
    let script = "fragment-by-hand 53\ndatagram-by-hand 53\nfragment-by-hand 53\ndatagram-by-hand 54\n\
                  datagram-by-hand 0\nfragment-by-hand 0";
    assert_eq!(live.act(script), ["EPERM", "ok", "EPERM", "EPERM", "ok", "EPERM"]);
    let fragment = live.at(CONNECT).next().unwrap();
    assert_eq!(fragment.values.get(words::IP_REMOTE_PORT), UNKNOWN);
    drop(live);
    // and is closed where the policy asks for the port from which it comes
    let port = Value::Uint16(1);
    let from = filter(CONNECT, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, port).build().unwrap();
    let Some(mut live) = Live::new(vec![from], &[CONNECT]) else { return };
    assert_eq!(live.act("datagram-by-hand 53\nfragment-by-hand 53"), ["ok", "EPERM"]);
    assert!(live.at(CONNECT).any(|event| event.blocked && event.reason == Reason::Unreadable));
}

#[test]
fn a_permitted_echo_opens_no_redirects() {
    let icmp = |action, kind| {
        filter(CONNECT, action)
            .when(FieldId::IP_PROTOCOL, MatchType::Equal, Value::Uint8(1))
            .when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(kind))
            .build()
            .unwrap()
    };
    let Some(mut live) = Live::new(vec![icmp(Action::Block, 5)], &[CONNECT]) else { return };
    assert_eq!(live.act("icmp 8\nicmp 5\nicmp 8"), ["ok", "EPERM", "ok"]);
    assert_eq!(live.at(CONNECT).count(), 2);
    drop(live);
    // the answer to an echo is no call, and the echo that arrives opens no way out
    let accept = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    let block = filter(accept, Action::Block).build().unwrap();
    let Some(mut live) = Live::new(vec![icmp(Action::Block, 13), block], &[CONNECT, accept]) else { return };
    assert_eq!(live.act("icmp 8\nicmp 13"), ["ok", "EPERM"]);
    let arrived: Vec<u64> = live.at(accept).map(|event| event.values.get(words::IP_LOCAL_PORT)).collect();
    assert_eq!(arrived, [8]);
}

#[test]
fn a_raw_socket_gets_tcp_packets_only_where_they_may_be_received() {
    let layer = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    let protocol = |number| {
        let protocol = Value::Uint8(number);
        filter(layer, Action::Block).when(FieldId::IP_PROTOCOL, MatchType::Equal, protocol).build().unwrap()
    };
    for (number, expected) in [(6, "timeout"), (17, "ok")] {
        let Some(mut live) = Live::new(vec![protocol(number)], &[layer]) else { return };
        assert_eq!(live.act("hear-tcp"), [expected]);
        assert!(live.at(layer).all(|event| event.blocked == (number == 6)));
        assert!(live.at(layer).next().is_some());
    }
}

/// Takes a copy of a socket that another process has.
fn taken_from(child: &Child) -> OwnedFd {
    let folder = format!("/proc/{}/fd", child.id());
    let is_socket = |entry: &std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let entry = std::fs::read_dir(folder).unwrap().filter_map(Result::ok).find(is_socket).unwrap();
    let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
    // SAFETY: numbers; the descriptors are new.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        assert!(process >= 0);
        let process = OwnedFd::from_raw_fd(process as i32);
        let socket = libc::syscall(libc::SYS_pidfd_getfd, process.as_fd().as_raw_fd(), number, 0);
        assert!(socket >= 0);
        OwnedFd::from_raw_fd(socket as i32)
    }
}

#[test]
fn whoever_is_not_of_the_group_does_not_lend_it_his_identity() {
    let peer = UdpSocket::bind(local(0)).unwrap().local_addr().unwrap();
    let root =
        filter(CONNECT, Action::Permit).when(FieldId::ALE_USER_ID, MatchType::Equal, Value::User(0)).build().unwrap();
    let rest = filter(CONNECT, Action::Block).build().unwrap();
    let accept = filter(LayerId::ALE_AUTH_RECV_ACCEPT_V4, Action::Permit).build().unwrap();
    // where owners are kept, the socket's counts; else nobody is known
    for keeps in [false, true] {
        let mut filters = vec![root.clone(), rest.clone()];
        filters.extend(keeps.then(|| accept.clone()));
        let Some(mut live) = Live::new(filters, &[CONNECT]) else { return };
        let (mut child, _results) = waiting(&live, "bind 127.0.0.1:0\nwait");
        let socket = taken_from(&child);
        let result = odd::connect(&socket, peer).map_err(|error| error.raw_os_error());
        assert_eq!(result, if keeps { Ok(()) } else { Err(Some(libc::EPERM)) });
        live.drain();
        let event = live.at(CONNECT).next().unwrap();
        if keeps {
            assert_eq!((event.identity.process.tgid, event.identity.user), (child.id(), 0));
        } else {
            assert_eq!(event.values.get(words::ALE_USER_ID), UNKNOWN);
            assert_eq!((event.reason, event.identity), (Reason::Unreadable, Default::default()));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

#[test]
fn a_connection_of_many_paths_is_authorized_for_its_caller() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open: SocketAddr = server.local_addr().unwrap();
    let closed = free_port();
    let block = support::live::remote_port(CONNECT, Action::Block, closed);
    let Some(mut live) = Live::new(vec![block], &[CONNECT]) else { return };
    if live.act(&format!("mptcp {open}")) != ["ok"] {
        support::skips::kernel_lacks("MPTCP");
        return;
    }
    assert_eq!(live.act(&format!("mptcp {}", local(closed))), ["EPERM"]);
    let own = std::env::current_exe().unwrap().canonicalize().unwrap();
    let streams: Vec<_> = live.at(CONNECT).filter(|event| event.values.get(words::IP_PROTOCOL) == 6).collect();
    assert!(!streams.is_empty() && streams.iter().all(|event| *event.program == *own.to_str().unwrap()));
}

#[test]
fn decisions_without_working_memory_are_closed_and_counted() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let Some(mut live) = Live::new(vec![to(CONNECT, "127.0.0.9")], &[CONNECT]) else { return };
    assert_eq!(live.act(&format!("tcp {open}")), ["ok"]);
    assert_eq!(live.enforcement.failures(), Failures::default());
    (0..nesting::SLOTS).for_each(|slot| nesting::occupy(&mut live, slot));
    assert_eq!(live.act(&format!("tcp {open}\nudp {open}")), ["EPERM", "EPERM"]);
    let failures = live.enforcement.failures();
    assert_eq!(failures, Failures { decisions_without_memory: 2, ..Failures::default() });
    assert!(live.enforcement.labels().failures().is_empty());
}
