//! Servers under a live policy: what may listen, what is accepted, which flows are established. Needs root and BPF.

mod support;

use openwfp_kernel::{events::Event, flows::FlowLimits, options::Options};
use openwfp_model::{Action, FieldId, LayerId, MatchType, Value};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, free_port, local},
    serving::{Server, connects},
    wait_until,
};

#[test]
fn actor() {
    actor::act();
}

/// Waits for the server's `listen()`, as an event.
fn listening(live: &mut Live, layer: LayerId) {
    assert!(wait_until(|| {
        live.drain();
        live.at(layer).next().is_some()
    }));
}

fn port_filter(layer: LayerId, port: u16) -> openwfp_model::Filter {
    filter(layer, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(port)).build().unwrap()
}

#[test]
fn nobody_reaches_a_socket_that_may_not_listen() {
    let (refused, free) = (free_port(), free_port());
    let layer = LayerId::ALE_AUTH_LISTEN_V4;
    let Some(mut live) = Live::new(vec![port_filter(layer, refused)], &[layer]) else { return };
    let _server = Server::start(&live, &format!("listen {}\nlisten {}", local(refused), local(free)));
    assert!(wait_until(|| {
        live.drain();
        live.at(layer).count() == 2
    }));
    assert!(!connects(local(refused)));
    assert!(connects(local(free)));
    let own = std::env::current_exe().unwrap().canonicalize().unwrap();
    assert!(live.events.iter().all(|event| *event.program == *own.to_str().unwrap()));
}

#[test]
fn calls_from_outside_are_accepted_or_not() {
    let port = free_port();
    let (layer, listen) = (LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_LISTEN_V4);
    let block = filter(layer, Action::Block)
        .when(FieldId::IP_REMOTE_ADDRESS, MatchType::Equal, Value::Uint32(0x7f00_0002))
        .when(FieldId::ALE_USER_ID, MatchType::Equal, Value::User(0))
        .build()
        .unwrap();
    let Some(mut live) = Live::new(vec![block], &[layer, listen]) else { return };
    let _server = Server::start(&live, &format!("listen {}", local(port)));
    listening(&mut live, listen);
    assert!(connects(local(port)));
    // from 127.0.0.2
    let refused = from(SocketAddr::from(([127, 0, 0, 2], 0)), local(port));
    assert!(!refused);
    live.drain();
    let blocked: Vec<&Event> = live.at(layer).filter(|event| event.blocked).collect();
    assert!(!blocked.is_empty());
    assert!(live.at(layer).any(|event| !event.blocked));
    let own = std::env::current_exe().unwrap().canonicalize().unwrap();
    assert!(live.at(layer).all(|event| *event.program == *own.to_str().unwrap()));
}

/// Connects from a local address.
fn from(local: SocketAddr, to: SocketAddr) -> bool {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let sockaddr = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("IPv4") };
        libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
            sin_zero: [0; 8],
        }
    };
    let length = size_of::<libc::sockaddr_in>() as u32;
    // SAFETY: plain system calls on our own memory.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        assert!(socket >= 0);
        let socket = OwnedFd::from_raw_fd(socket);
        let (local, to) = (sockaddr(local), sockaddr(to));
        assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const local).cast(), length), 0);
        libc::connect(socket.as_raw_fd(), (&raw const to).cast(), length);
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        libc::poll(&raw mut poll, 1, 400) == 1
    }
}

#[test]
fn the_interface_by_which_a_packet_came_is_known() {
    let layer = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    // the loopback interface: index 1, ifType 24
    for (field, value, expected) in [
        (FieldId::ARRIVAL_INTERFACE_INDEX, Value::Uint32(1), "timeout"),
        (FieldId::ARRIVAL_INTERFACE_INDEX, Value::Uint32(2), "ok"),
        (FieldId::ARRIVAL_INTERFACE_TYPE, Value::Uint32(24), "timeout"),
        (FieldId::ARRIVAL_TUNNEL_TYPE, Value::Uint32(0), "timeout"),
        (FieldId::IP_ARRIVAL_INTERFACE, Value::Uint64(24 << 48 | 1 << 24), "timeout"),
    ] {
        let block = filter(layer, Action::Block).when(field, MatchType::Equal, value).build().unwrap();
        let Some(mut live) = Live::new(vec![block], &[]) else { return };
        assert_eq!(live.act("hear-tcp"), [expected], "{field}");
    }
}

#[test]
fn ipv6_servers_are_told_from_ipv4_ones() {
    let (refused, free) = (free_port(), free_port());
    let (listen, accept) = (LayerId::ALE_AUTH_LISTEN_V6, LayerId::ALE_AUTH_RECV_ACCEPT_V6);
    let own = Value::ByteArray16(std::net::Ipv6Addr::LOCALHOST.octets());
    let block = filter(accept, Action::Block)
        .when(FieldId::IP_REMOTE_ADDRESS, MatchType::Equal, own)
        .when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(free))
        .when(FieldId::ALE_USER_ID, MatchType::Equal, Value::User(0))
        .build()
        .unwrap();
    let Some(mut live) = Live::new(vec![port_filter(listen, refused), block], &[listen, accept]) else { return };
    let third = free_port();
    // the last one serves IPv4 too
    let script = format!("listen [::1]:{refused}\nlisten [::1]:{free}\nlisten [::]:{third}");
    let _server = Server::start(&live, &script);
    assert!(wait_until(|| {
        live.drain();
        live.at(listen).count() == 3
    }));
    let v6 = |port| SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    assert!(!connects(v6(refused)));
    assert!(!connects(v6(free)));
    assert!(connects(v6(third)));
    assert!(connects(local(third)));
    live.drain();
    assert_eq!(live.at(listen).filter(|event| event.blocked).count(), 1);
    assert!(live.at(accept).any(|event| event.blocked) && live.at(accept).any(|event| !event.blocked));
    let program = std::env::current_exe().unwrap().canonicalize().unwrap();
    assert!(live.events.iter().all(|event| *event.program == *program.to_str().unwrap()));
}

/// A server on `::` serves both versions of IP: a filter at the layer of either refuses it for all clients.
#[test]
fn a_server_of_both_versions_is_refused_by_a_block_of_either() {
    let both = [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_AUTH_LISTEN_V6];
    for layer in both {
        let (refused, free) = (free_port(), free_port());
        let Some(mut live) = Live::new(vec![port_filter(layer, refused)], &both) else { return };
        let _server = Server::start(&live, &format!("listen [::]:{refused}\nlisten [::]:{free}"));
        // each is asked about at both layers, or is refused by the first
        assert!(wait_until(|| {
            live.drain();
            both.iter().all(|layer| live.at(*layer).any(|event| !event.blocked))
        }));
        let clients = |port| [local(port), SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))];
        assert_eq!(clients(free).map(connects), [true; 2], "{layer}");
        assert_eq!(clients(refused).map(connects), [false; 2], "{layer}");
        live.drain();
        let blocked: Vec<LayerId> = live.events.iter().filter(|event| event.blocked).map(|event| event.layer).collect();
        assert_eq!(blocked, [layer]);
    }
}

/// An endpoint on `::` is asked for at the layers of both versions, before and after its port is chosen, also where it gets its port by
/// `listen()` alone.
#[test]
fn an_endpoint_of_both_versions_is_refused_by_a_block_of_either() {
    for both in [
        [LayerId::ALE_BIND_REDIRECT_V4, LayerId::ALE_BIND_REDIRECT_V6],
        [LayerId::ALE_RESOURCE_ASSIGNMENT_V4, LayerId::ALE_RESOURCE_ASSIGNMENT_V6],
    ] {
        for layer in both {
            let (refused, free) = (free_port(), free_port());
            let Some(mut live) = Live::new(vec![port_filter(layer, refused)], &both) else { return };
            let script = format!("bind [::]:{refused}\nlisten [::]:{refused}\nbind [::]:{free}\nlisten [::]:{free}");
            assert_eq!(live.act(&script), ["EPERM", "EPERM", "ok", "ok"], "{layer}");
            let told =
                |blocked| live.events.iter().filter(move |event| event.blocked == blocked).map(|event| event.layer);
            assert_eq!(told(true).collect::<Vec<_>>(), [layer; 2]);
            let [v4, v6] = both.map(|layer| told(false).filter(|told| *told == layer).count());
            assert_eq!((v4, v6), if layer == both[0] { (2, 4) } else { (2, 2) }, "{layer}");
        }
        // the client meets the layer of IPv6 alone
        for (action, result) in [(Action::Permit, "ok"), (Action::Block, "timeout")] {
            let Some(mut live) = Live::new(vec![filter(both[0], action).build().unwrap()], &both) else { return };
            assert_eq!(live.act("listen-unbound-v6"), [result], "{}", both[0]);
            assert_eq!(live.at(both[0]).count(), 1);
        }
        // what serves IPv6 alone is no matter of the other layer
        let Some(mut live) = Live::new(vec![filter(both[0], Action::Block).build().unwrap()], &both) else { return };
        let script = "own-network\nv6-only\nbind [::]:4711\nlisten [::]:4711\nlisten-unbound-v6";
        assert_eq!(live.act(script), ["ok"; 5], "{}", both[1]);
        assert_eq!(live.at(both[0]).count(), 0);
    }
}

#[test]
fn datagrams_are_accepted_or_not_and_replies_are_no_calls() {
    let outside = UdpSocket::bind(local(0)).unwrap();
    outside.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let layer = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    let Some(mut live) = Live::new(vec![filter(layer, Action::Block).build().unwrap()], &[layer]) else { return };
    let address = outside.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        let (length, peer) = outside.recv_from(&mut bytes).unwrap();
        outside.send_to(&bytes[..length], peer).unwrap();
        // a stranger, whom nobody asked
        UdpSocket::bind(local(0)).unwrap().send_to(b"?", local(peer.port())).unwrap();
    });
    assert_eq!(live.act(&format!("send {address}\nreceive\nreceive")), ["ok", "ok", "timeout"]);
    echo.join().unwrap();
    assert_eq!(live.at(layer).filter(|event| event.blocked).count(), 1);
}

#[test]
fn a_refused_flow_ends_after_the_handshake() {
    let server = TcpListener::bind(local(0)).unwrap();
    let refused = server.local_addr().unwrap();
    let other = TcpListener::bind(local(0)).unwrap();
    let layer = LayerId::ALE_FLOW_ESTABLISHED_V4;
    let block = filter(layer, Action::Block)
        .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(refused.port()))
        .build()
        .unwrap();
    let Some(mut live) = Live::new(vec![block], &[layer]) else { return };
    let open = other.local_addr().unwrap();
    live.act(&format!("tcp {refused}\ntcp {open}"));
    // the last packet of the handshake did not leave
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.accept().map(drop).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(other.accept().is_ok());
    let own = std::env::current_exe().unwrap().canonicalize().unwrap();
    let decided: Vec<bool> = live.at(layer).map(|event| event.blocked).collect();
    assert_eq!(decided, [true, false]);
    assert!(live.at(layer).all(|event| event.flow != 0 && *event.program == *own.to_str().unwrap()));
    live.drain();
    assert_eq!(live.enforcement.failures(), Default::default());
}

/// Every fifth of a second a datagram, and for longer than a flow may be idle nothing back: then the answer is still one.
#[test]
fn a_flow_that_only_sends_is_not_idle() {
    let peer = UdpSocket::bind(local(0)).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let address = peer.local_addr().unwrap();
    let layer = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    let flows = FlowLimits { idle: Duration::from_millis(500), ..FlowLimits::default() };
    let options = Options { recorded: vec![layer], flows, ..Options::default() };
    let Some(mut live) = Live::with(vec![filter(layer, Action::Block).build().unwrap()], options) else { return };
    let answers = std::thread::spawn(move || {
        let senders: Vec<SocketAddr> = (0..5).map(|_| peer.recv_from(&mut [0; 64]).unwrap().1).collect();
        peer.send_to(b"at last", senders[4]).unwrap();
    });
    let script = format!("udp-hold {address}\n{}receive", "pause 200\nsend-held\n".repeat(5));
    assert!(live.act(&script).iter().all(|result| result == "ok"));
    answers.join().unwrap();
    assert_eq!(live.at(layer).count(), 0);
}

#[test]
fn an_icmp_error_says_what_it_quotes() {
    let layers = [LayerId::INBOUND_ICMP_ERROR_V4];
    let Some(mut live) = Live::new(vec![], &layers) else { return };
    // errors are shown to sockets that read ICMP
    assert_eq!(live.act("own-network\nicmp 3\nsend 127.0.0.1:9"), ["ok"; 3]);
    let word = |event: &openwfp_kernel::events::Event, field| {
        event.values.get(openwfp_engine::Schema::of(event.layer).field(field).unwrap().first)
    };
    let ports: Vec<u64> =
        live.at(LayerId::INBOUND_ICMP_ERROR_V4).map(|event| word(event, FieldId::EMBEDDED_REMOTE_PORT)).collect();
    // the first is empty: that message quoted nothing
    assert_eq!(ports, [openwfp_engine::EMPTY, 9]);
}
