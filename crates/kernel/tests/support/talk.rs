//! One flow between an actor in a group and this process, under a policy that changes.

use super::{
    actor,
    live::{Live, free_port, remote_port},
    obedient::Obedient,
    wait_until,
};
use openwfp_engine::words;
use openwfp_kernel::{
    events::{EndOfFlow, Event},
    options::Options,
};
use openwfp_model::{Action, Filter, LayerId};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// The layers of flows.
pub const RECORDED: [LayerId; 6] = [
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_AUTH_RECV_ACCEPT_V6,
    LayerId::ALE_FLOW_ESTABLISHED_V4,
    LayerId::ALE_FLOW_ESTABLISHED_V6,
];

// FWP_CONDITION_FLAG_IS_REAUTHORIZE and FWP_CONDITION_REAUTHORIZE_REASON_*
const IS_REAUTHORIZE: u64 = 4;
pub const POLICY_CHANGE: u64 = 1;
pub const NEW_ARRIVAL_INTERFACE: u64 = 2;
pub const NEW_NEXTHOP_INTERFACE: u64 = 4;

/// Which way the packet goes that comes after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
}

/// Who speaks first, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// TCP, else UDP.
    pub stream: bool,
    /// The actor is spoken to.
    pub server: bool,
    pub v6: bool,
}

const fn kinds(v6: bool) -> [Kind; 4] {
    [
        Kind { stream: true, server: false, v6 },
        Kind { stream: true, server: true, v6 },
        Kind { stream: false, server: false, v6 },
        Kind { stream: false, server: true, v6 },
    ]
}

/// The kinds of IPv4.
pub const KINDS: [Kind; 4] = kinds(false);

/// Those of IPv4 and of IPv6.
pub fn both_versions() -> impl Iterator<Item = Kind> {
    KINDS.into_iter().chain(kinds(true))
}

impl Kind {
    fn layer(self, v4: LayerId, v6: LayerId) -> LayerId {
        if self.v6 { v6 } else { v4 }
    }

    /// ALE_AUTH_CONNECT of the version.
    pub fn connects(self) -> LayerId {
        self.layer(LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6)
    }

    /// ALE_AUTH_RECV_ACCEPT of the version.
    pub fn accepts(self) -> LayerId {
        self.layer(LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6)
    }

    /// The layer that authorizes the flow.
    pub fn authorizes(self) -> LayerId {
        if self.server { self.accepts() } else { self.connects() }
    }

    /// ALE_FLOW_ESTABLISHED of the version.
    pub fn establishes(self) -> LayerId {
        self.layer(LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6)
    }

    /// An endpoint of this machine.
    pub fn local(self, port: u16) -> SocketAddr {
        if self.v6 { (Ipv6Addr::LOCALHOST, port).into() } else { (Ipv4Addr::LOCALHOST, port).into() }
    }
}

/// What this process does.
pub enum Peer {
    Stream(TcpStream),
    Datagrams(UdpSocket, SocketAddr),
}

/// One flow between an actor and this process.
pub struct Talk {
    pub live: Live,
    pub actor: Obedient,
    pub peer: Peer,
    pub flow: u64,
    /// The layer that has authorized the flow.
    pub layer: LayerId,
    /// Of this process.
    pub port: u16,
    pub kind: Kind,
}

impl Talk {
    /// A flow, with events of the layers of flows.
    pub fn begin(kind: Kind, options: Options) -> Option<Self> {
        let live = Live::with(vec![], Options { recorded: RECORDED.to_vec(), replaceable: true, ..options })?;
        let actor = Obedient::start(&live);
        Some(Self::of(live, actor, kind))
    }

    fn of(mut live: Live, mut actor: Obedient, kind: Kind) -> Self {
        let second = Some(Duration::from_secs(1));
        let local = |port| kind.local(port);
        let (peer, port) = match (kind.stream, kind.server) {
            (true, false) => {
                let server = TcpListener::bind(local(0)).unwrap();
                let address = server.local_addr().unwrap();
                assert_eq!(actor.tell(&mut live, &format!("tcp-waiting {address}")), "ok");
                (Peer::Stream(server.accept().unwrap().0), address.port())
            }
            (true, true) => {
                let address = local(free_port());
                assert_eq!(actor.tell(&mut live, &format!("listen {address}")), "ok");
                let stream = TcpStream::connect(address).unwrap();
                assert_eq!(actor.tell(&mut live, "accept"), "ok");
                let port = stream.local_addr().unwrap().port();
                (Peer::Stream(stream), port)
            }
            (false, false) => {
                let server = UdpSocket::bind(local(0)).unwrap();
                let address = server.local_addr().unwrap();
                server.set_read_timeout(second).unwrap();
                assert_eq!(actor.tell(&mut live, &format!("send {address}")), "ok");
                let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
                (Peer::Datagrams(server, from), address.port())
            }
            (false, true) => {
                let address = local(free_port());
                assert_eq!(actor.tell(&mut live, &format!("udp-at {address}")), "ok");
                let client = UdpSocket::bind(local(0)).unwrap();
                client.set_read_timeout(second).unwrap();
                client.send_to(b"hello", address).unwrap();
                assert_eq!(actor.tell(&mut live, "receive"), "ok");
                let port = client.local_addr().unwrap().port();
                (Peer::Datagrams(client, address), port)
            }
        };
        if let Peer::Stream(stream) = &peer {
            stream.set_read_timeout(second).unwrap();
        }
        let layer = kind.authorizes();
        let first = live.classified();
        let layers: Vec<LayerId> = first.iter().map(|event| event.layer).collect();
        assert_eq!(layers, [layer, kind.establishes()], "{kind:?}");
        let flow = first[1].flow;
        Self { live, actor, peer, flow, layer, port, kind }
    }

    /// Five bytes out of the actor's socket; what its call says, and whether they have come.
    pub fn outward(&mut self) -> (String, bool) {
        let action = match self.peer {
            Peer::Stream(_) => "say".into(),
            Peer::Datagrams(..) => format!("send {}", self.kind.local(self.port)),
        };
        let said = self.actor.tell(&mut self.live, &action);
        let come = match &mut self.peer {
            Peer::Stream(stream) => stream.read_exact(&mut [0; 5]),
            Peer::Datagrams(socket, _) => socket.recv(&mut [0; 64]).map(drop),
        };
        self.live.drain();
        (said, come.is_ok())
    }

    /// Five bytes to the actor's socket; what it hears.
    pub fn inward(&mut self) -> String {
        match &mut self.peer {
            Peer::Stream(stream) => stream.write_all(b"hello").unwrap(),
            Peer::Datagrams(socket, to) => drop(socket.send_to(b"hello", *to).unwrap()),
        }
        let action = if matches!(self.peer, Peer::Stream(_)) { "hear" } else { "receive" };
        self.actor.tell(&mut self.live, action)
    }

    /// It does.
    pub fn passes(&mut self, way: Way) {
        match way {
            Way::Out => assert_eq!(self.outward(), ("ok".into(), true)),
            Way::In => assert_eq!(self.inward(), "ok"),
        }
    }

    /// Replaces the policy by one with these filters.
    pub fn replace(&mut self, filters: Vec<Filter>) {
        self.live.replace(filters, &RECORDED);
    }

    /// A filter at the flow's layer that says something about its other end.
    pub fn about(&self, action: Action) -> Filter {
        remote_port(self.layer, action, self.port)
    }

    /// The one classification since the last: a reauthorization of the flow.
    #[track_caller]
    pub fn asked_again(&mut self) -> Event {
        let events = self.live.classified();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.layer, event.flow), (self.layer, self.flow));
        assert_eq!(event.values.get(words::FLAGS) & IS_REAUTHORIZE, IS_REAUTHORIZE);
        event.clone()
    }

    /// The same, for this reason alone.
    #[track_caller]
    pub fn asked_for(&mut self, reason: u64) -> Event {
        let event = self.asked_again();
        assert_eq!(event.values.get(words::REAUTHORIZE_REASON), reason);
        event
    }

    /// Nothing was classified since the last time.
    #[track_caller]
    pub fn not_asked(&mut self) {
        let events = self.live.classified();
        assert!(events.is_empty(), "{events:?}");
    }

    /// The flow has ended, once and for this reason.
    #[track_caller]
    pub fn has_ended(&mut self, cause: EndOfFlow) {
        let live = &mut self.live;
        assert!(
            wait_until(|| {
                live.drain();
                !live.ended().is_empty()
            }),
            "no end"
        );
        // and no second time
        thread::sleep(Duration::from_millis(300));
        live.drain();
        assert_eq!(live.ended(), [(self.flow, cause)]);
    }
}

/// Runs a test in a network namespace of its own.
pub fn in_own_network(test: impl FnOnce() + Send + 'static) {
    let missing = openwfp_kernel::features::missing();
    if let Some(reason) = missing.first() {
        super::skips::skipped(reason);
        return;
    }
    let thread = thread::spawn(|| {
        actor::own_network().unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
