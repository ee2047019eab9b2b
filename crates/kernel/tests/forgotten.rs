//! Connections of which nothing is kept: connects where nothing is shown and no filter asks who connects, and whatever is made
//! or accepted while the policy has no filters for it. A later policy finds them all the same. Needs root and BPF.

mod support;

use openwfp_kernel::{hooks::Hook, options::Options};
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, free_port, local, remote_port},
    net::ip,
    obedient::Obedient,
    talk::in_own_network,
};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const CONNECT_V6: LayerId = LayerId::ALE_AUTH_CONNECT_V6;
const ACCEPT: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
const ACCEPT_V6: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V6;
const LISTEN: LayerId = LayerId::ALE_AUTH_LISTEN_V4;
// FWP_CONDITION_FLAG_IS_REAUTHORIZE
const IS_REAUTHORIZE: u64 = 4;

#[test]
fn actor() {
    actor::act();
}

/// A connection of the actor's to a server of the test.
struct Talk {
    live: Live,
    actor: Obedient,
    peer: TcpStream,
    remote: SocketAddr,
}

impl Talk {
    fn begin(any: SocketAddr) -> Option<Self> {
        Self::under(remote_port(CONNECT, Action::Block, 9), any)
    }

    /// Under a policy of one filter.
    fn under(filter: Filter, any: SocketAddr) -> Option<Self> {
        let mut live = Live::with(vec![filter], Options::default())?;
        let mut actor = Obedient::start(&live);
        let server = TcpListener::bind(any).unwrap();
        let remote = server.local_addr().unwrap();
        assert_eq!(actor.tell(&mut live, &format!("tcp-waiting {remote}")), "ok");
        let peer = accepted(&server);
        Some(Self { live, actor, peer, remote })
    }

    fn layer(&self) -> LayerId {
        if self.remote.is_ipv6() { CONNECT_V6 } else { CONNECT }
    }

    fn says(&mut self) -> bool {
        self.actor.tell(&mut self.live, "say");
        self.peer.read_exact(&mut [0; 5]).is_ok()
    }

    fn hears(&mut self) -> String {
        self.peer.write_all(b"hello").unwrap();
        self.actor.tell(&mut self.live, "hear")
    }

    /// How often the connection was asked again, and how often it was refused then.
    fn asked(&mut self) -> (usize, usize) {
        self.asked_at(self.layer(), self.remote.port())
    }

    fn asked_at(&mut self, layer: LayerId, port: u16) -> (usize, usize) {
        self.live.drain();
        let port = u64::from(port);
        let asked = self.live.at(layer).filter(|event| {
            let values = &event.values;
            values.get(openwfp_engine::words::IP_REMOTE_PORT) == port
                && values.get(openwfp_engine::words::FLAGS) & IS_REAUTHORIZE != 0
                && event.flow != 0
        });
        let blocked: Vec<bool> = asked.map(|event| event.blocked).collect();
        (blocked.len(), blocked.iter().filter(|blocked| **blocked).count())
    }
}

fn accepted(server: &TcpListener) -> TcpStream {
    let stream = server.accept().unwrap().0;
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream
}

fn both_versions() -> [SocketAddr; 2] {
    [local(0), "[::1]:0".parse().unwrap()]
}

#[test]
fn it_goes_on_where_the_later_policy_permits_it_and_is_asked_once() {
    for any in both_versions() {
        let Some(mut talk) = Talk::begin(any) else { return };
        assert!(talk.says());
        let other = remote_port(talk.layer(), Action::Block, 10);
        talk.live.replace(vec![other], &[talk.layer()]);
        assert!(talk.says());
        assert_eq!(talk.hears(), "ok");
        assert!(talk.says());
        assert_eq!(talk.asked(), (1, 0), "{any}");
    }
}

#[test]
fn it_ends_where_the_later_policy_refuses_it_whichever_way_its_next_packet_goes() {
    for any in both_versions() {
        for out in [true, false] {
            let Some(mut talk) = Talk::begin(any) else { return };
            assert!(talk.says());
            let this = remote_port(talk.layer(), Action::Block, talk.remote.port());
            talk.live.replace(vec![this], &[talk.layer()]);
            if out {
                assert!(!talk.says());
            } else {
                assert_eq!(talk.hears(), "ECONNABORTED");
            }
            assert!(!talk.says());
            assert_eq!(talk.asked(), (1, 1), "{any} {out}");
        }
    }
}

#[test]
fn who_connected_is_not_known_any_more() {
    let Some(mut talk) = Talk::begin(local(0)) else { return };
    assert!(talk.says());
    let application = Value::Application("/bin/cat".into());
    let other = filter(CONNECT, Action::Block).when(FieldId::ALE_APP_ID, MatchType::Equal, application);
    talk.live.replace(vec![other.build().unwrap()], &[CONNECT]);
    assert!(!talk.says(), "it may have been that program");
    assert_eq!(talk.asked(), (1, 1));
}

#[test]
fn what_connects_under_the_later_policy_is_kept() {
    let Some(mut talk) = Talk::begin(local(0)) else { return };
    let application = |path: &str| Value::Application(path.into());
    let other = |path| filter(CONNECT, Action::Block).when(FieldId::ALE_APP_ID, MatchType::Equal, application(path));
    talk.live.replace(vec![remote_port(CONNECT, Action::Block, 10)], &[]);
    let server = TcpListener::bind(local(0)).unwrap();
    talk.remote = server.local_addr().unwrap();
    assert_eq!(talk.actor.tell(&mut talk.live, &format!("tcp-waiting {}", talk.remote)), "ok");
    talk.peer = accepted(&server);
    assert!(talk.says());
    talk.live.replace(vec![other("/bin/cat").build().unwrap()], &[CONNECT]);
    assert!(talk.says(), "it was not that program");
    assert_eq!(talk.asked(), (1, 0));
}

#[test]
fn what_connects_where_no_filter_looks_at_connects_is_found_too() {
    for any in both_versions() {
        for out in [true, false] {
            let listens =
                filter(LISTEN, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(9));
            let Some(mut talk) = Talk::under(listens.build().unwrap(), any) else { return };
            assert!(talk.says());
            let other = remote_port(talk.layer(), Action::Block, 10);
            talk.live.replace(vec![other], &[talk.layer()]);
            assert!(if out { talk.says() } else { talk.hears() == "ok" });
            assert_eq!(talk.asked(), (1, 0), "{any} {out}");
            let this = remote_port(talk.layer(), Action::Block, talk.remote.port());
            talk.live.replace(vec![this], &[talk.layer()]);
            assert!(!if out { talk.says() } else { talk.hears() == "ok" });
            assert!(!talk.says());
        }
    }
}

impl Talk {
    /// Has the actor accept a connection of the test's in the place of the one that it made.
    fn accept(&mut self, any: SocketAddr) {
        let address = SocketAddr::new(any.ip(), free_port());
        let address: SocketAddr =
            if any.is_ipv6() { format!("[::1]:{}", address.port()).parse().unwrap() } else { address };
        assert_eq!(self.actor.tell(&mut self.live, &format!("listen {address}")), "ok");
        self.peer = TcpStream::connect(address).unwrap();
        self.peer.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(self.actor.tell(&mut self.live, "accept"), "ok");
        assert!(self.says());
    }

    /// The remote port of what it accepted.
    fn port(&self) -> u16 {
        self.peer.local_addr().unwrap().port()
    }
}

#[test]
fn what_is_accepted_where_no_filter_looks_at_it_is_found_too() {
    for any in both_versions() {
        for out in [true, false] {
            let Some(mut talk) = Talk::begin(any) else { return };
            talk.accept(any);
            let layer = if any.is_ipv6() { ACCEPT_V6 } else { ACCEPT };
            talk.live.replace(vec![remote_port(layer, Action::Block, 10)], &[layer]);
            assert!(if out { talk.says() } else { talk.hears() == "ok" });
            assert_eq!(talk.asked_at(layer, talk.port()), (1, 0), "{any} {out}");
            talk.live.replace(vec![remote_port(layer, Action::Block, talk.port())], &[layer]);
            assert!(!if out { talk.says() } else { talk.hears() == "ok" });
            assert_eq!(talk.asked_at(layer, talk.port()), (2, 1), "{any} {out}");
            assert!(!talk.says());
        }
    }
}

#[test]
fn sockets_of_datagrams_that_connected_where_nobody_looked_are_asked_too() {
    let listens = filter(LISTEN, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(9));
    let Some(mut live) = Live::with(vec![listens.build().unwrap()], Options::default()) else { return };
    let mut actor = Obedient::start(&live);
    let peer = UdpSocket::bind(local(0)).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let address = peer.local_addr().unwrap();
    assert_eq!(actor.tell(&mut live, &format!("udp-hold {address}")), "ok");
    live.replace(vec![remote_port(CONNECT, Action::Block, 10)], &[]);
    assert_eq!(actor.tell(&mut live, "send-held"), "ok");
    live.replace(vec![remote_port(CONNECT, Action::Block, address.port())], &[]);
    assert_eq!(actor.tell(&mut live, "send-held"), "EPERM");
    let mut room = [0; 16];
    assert_eq!((peer.recv(&mut room).is_ok(), peer.recv(&mut room).is_ok()), (true, false));
}

const PING: &str = "ping-again 127.0.0.1:0";

#[test]
fn sockets_of_icmp_that_were_made_where_nobody_looked_are_asked_too() {
    let listens = filter(LISTEN, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(9));
    let Some(mut live) = Live::with(vec![listens.build().unwrap()], Options::default()) else { return };
    let mut actor = Obedient::start(&live);
    for action in ["own-network", "ping-hold 127.0.0.1:0", PING] {
        assert_eq!(actor.tell(&mut live, action), "ok", "{action}");
    }
    live.replace(vec![remote_port(CONNECT, Action::Block, 10)], &[]);
    assert_eq!(actor.tell(&mut live, PING), "ok");
    live.replace(vec![filter(CONNECT, Action::Block).build().unwrap()], &[]);
    assert_eq!(actor.tell(&mut live, PING), "EPERM");
}

#[test]
fn a_change_of_addresses_asks_the_next_byte_too() {
    in_own_network(|| {
        let Some(mut talk) = Talk::begin(local(0)) else { return };
        assert!(talk.says());
        let is_asked = |talk: &Talk| talk.live.enforcement.hooks().contains(&Hook::Ingress);
        talk.live.enforcement.refresh_interfaces().unwrap();
        assert!(!is_asked(&talk), "nothing had changed");
        ip("address add 127.9.9.9/32 dev lo");
        talk.live.enforcement.refresh_interfaces().unwrap();
        assert!(is_asked(&talk));
        assert_eq!(talk.hears(), "ok");
    });
}

#[test]
fn what_was_accepted_is_no_connect() {
    let Some(mut talk) = Talk::begin(local(0)) else { return };
    talk.accept(local(0));
    talk.live.replace(vec![filter(CONNECT, Action::Block).build().unwrap()], &[CONNECT]);
    assert!(talk.says());
    assert_eq!(talk.hears(), "ok");
    assert!(talk.live.at(CONNECT).next().is_none());
}
