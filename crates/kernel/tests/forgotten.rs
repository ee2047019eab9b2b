//! Connects that leave nothing with their sockets: where nothing is shown, and no filter asks who connects. A later policy
//! finds them all the same. Needs root and BPF.

mod support;

use openwfp_kernel::options::Options;
use openwfp_model::{Action, FieldId, LayerId, MatchType, Value};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, free_port, local, remote_port},
    obedient::Obedient,
};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const CONNECT_V6: LayerId = LayerId::ALE_AUTH_CONNECT_V6;
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
        let mut live = Live::with(vec![remote_port(CONNECT, Action::Block, 9)], Options::default())?;
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
        self.live.drain();
        let layer = self.layer();
        let port = u64::from(self.remote.port());
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
fn what_was_accepted_is_no_connect() {
    let Some(mut talk) = Talk::begin(local(0)) else { return };
    let address = local(free_port());
    assert_eq!(talk.actor.tell(&mut talk.live, &format!("listen {address}")), "ok");
    talk.peer = TcpStream::connect(address).unwrap();
    talk.peer.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    assert_eq!(talk.actor.tell(&mut talk.live, "accept"), "ok");
    assert!(talk.says());
    talk.live.replace(vec![filter(CONNECT, Action::Block).build().unwrap()], &[CONNECT]);
    assert!(talk.says());
    assert_eq!(talk.hears(), "ok");
    assert!(talk.live.at(CONNECT).next().is_none());
}
