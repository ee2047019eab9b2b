//! A machine between two others: what its devices show of their traffic and of its own.

use super::{
    live::Live,
    net::{self, Space, Tap, at},
};
use openwfp_engine::Schema;
use openwfp_kernel::{
    events::{Event, EventKind},
    hooks::Hook,
    options::Options,
};
use openwfp_model::{FieldId, Filter, Layer, LayerId};
use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// So long is waited for what should come, and so long for what should not.
pub const LONG: Duration = Duration::from_secs(5);
pub const SHORT: Duration = Duration::from_millis(200);

/// The port of the receivers, and one that nobody listens to.
pub const PORT: u16 = 4711;
pub const CLOSED: u16 = 4712;

/// The caller's namespace is the machine's: `r0` leads to the client (net 1), `r1` to the server (net 2).
pub struct Router {
    pub client: Space,
    pub server: Space,
    pub client_tap: Tap,
    pub server_tap: Tap,
}

impl Router {
    pub fn make() -> Self {
        let (client, server) = (Space::make(), Space::make());
        net::connect("r0", "c0", &client, 1);
        net::connect("r1", "s0", &server, 2);
        net::set("ipv4/ip_forward", "1");
        net::set("ipv6/conf/all/forwarding", "1");
        net::set("ipv4/icmp_ratelimit", "0");
        net::set("ipv6/icmp/ratelimit", "0");
        for (space, own, other) in [(&client, 1, 2), (&server, 2, 1)] {
            space.ip(format!("route add 10.9.{other}.0/24 via 10.9.{own}.1"));
            space.ip(format!("-6 route add fd09::{other}:0/112 via fd09::{own}:1"));
        }
        let (client_tap, server_tap) = (client.tap("c0"), server.tap("s0"));
        Self { client, server, client_tap, server_tap }
    }

    /// A socket of the machine, on the way to the client.
    pub fn socket(&self, port: u16, v6: bool) -> UdpSocket {
        bound(SocketAddr::new(at(1, 1, v6), port))
    }

    /// The client sends a datagram.
    pub fn client_sends(&self, to: SocketAddr, text: &'static str) {
        self.client.run(move || {
            let socket = bound(SocketAddr::new(at(1, 2, to.is_ipv6()), 0));
            // it may be an address of many
            socket.set_broadcast(true).unwrap();
            let _ = socket.send_to(text.as_bytes(), to);
        });
    }

    /// How a connection from the client to a port of the machine ends.
    pub fn client_connects(&self, port: u16, v6: bool, wait: Duration) -> Option<ErrorKind> {
        let to = SocketAddr::new(at(1, 1, v6), port);
        self.client.run(move || TcpStream::connect_timeout(&to, wait).err().map(|error| error.kind()))
    }

    /// Whether an echo request to the machine is answered.
    pub fn client_pings(&self, v6: bool, wait: Duration) -> bool {
        self.client.run(move || pings(at(1, 1, v6), wait))
    }
}

/// Whether an echo request from this thread's namespace is answered.
pub fn pings(to: IpAddr, wait: Duration) -> bool {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-W", &wait.as_secs_f64().to_string()]).arg(to.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

pub fn bound(address: SocketAddr) -> UdpSocket {
    UdpSocket::bind(address).unwrap()
}

/// Whether a datagram comes.
pub fn comes(socket: &UdpSocket, wait: Duration) -> bool {
    socket.set_read_timeout(Some(wait)).unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

/// Whether a datagram from here to there is answered with an ICMP error that the socket is told of.
pub fn is_refused(from: IpAddr, to: SocketAddr, wait: Duration) -> bool {
    let socket = bound(SocketAddr::new(from, 0));
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    let _ = socket.send(b"refused?");
    let error: io::Error = socket.recv(&mut [0; 8]).unwrap_err();
    error.kind() == ErrorKind::ConnectionRefused
}

/// Every layer that is met at devices.
pub fn device_layers() -> Vec<LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|layer| Hook::of_device_layer(*layer).is_some()).collect()
}

/// A policy at the devices of the caller's namespace, with all of their layers recorded.
pub fn at_devices(filters: Vec<Filter>, dry_run: bool) -> Option<Live> {
    let options = Options { recorded: device_layers(), devices: true, dry_run, ..Options::default() };
    Live::with(filters, options)
}

/// Reads events until one of these has come.
pub fn wait_for(live: &mut Live, wanted: impl Fn(&Event) -> bool) -> Event {
    let started = Instant::now();
    loop {
        live.drain();
        if let Some(event) = live.events.iter().find(|event| wanted(event)) {
            return event.clone();
        }
        let met: Vec<&str> = live.events.iter().map(|event| event.layer.name()).collect();
        assert!(started.elapsed() < LONG, "it is not met: {met:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A number among the values; `None`: empty, or unknown.
pub fn number(event: &Event, field: FieldId) -> Option<u64> {
    let words = Schema::of(event.layer).field(field).unwrap_or_else(|| panic!("{} lacks {field}", event.layer));
    let word = |at: usize| Some(event.values.get(words.first + at)).filter(|word| *word <= u64::from(u32::MAX));
    match words.count {
        1 => word(0),
        2 => Some(word(0)? << 32 | word(1)?),
        count => panic!("{field} has {count} words"),
    }
}

/// An address among the values.
pub fn address(event: &Event, field: FieldId) -> Option<IpAddr> {
    let words = Schema::of(event.layer).field(field).unwrap_or_else(|| panic!("{} lacks {field}", event.layer));
    let word = |at: usize| u32::try_from(event.values.get(words.first + at)).ok();
    if words.count == 1 {
        return Some(IpAddr::V4(word(0)?.into()));
    }
    let bits = (0..4).try_fold(0u128, |bits, at| Some(bits << 32 | u128::from(word(at)?)))?;
    Some(IpAddr::V6(bits.into()))
}

/// What was met that has to do with a machine of the net: the families, in order, once there are as many. The kernel's own talk
/// with neighbours and groups is left out, and what it drops by itself.
pub fn met_with(live: &mut Live, net: u8, v6: bool, count: usize) -> Vec<&'static str> {
    let started = Instant::now();
    loop {
        // what is under way arrives
        thread::sleep(Duration::from_millis(20));
        live.drain();
        let met = families_met_with(live, net, v6);
        if met.len() >= count || started.elapsed() > LONG {
            return met;
        }
    }
}

fn families_met_with(live: &Live, net: u8, v6: bool) -> Vec<&'static str> {
    let station = net::station(net, 2);
    let peer = at(net, 2, v6);
    let kind = if v6 { 0x86dd } else { 0x0800 };
    let concerns = |event: &&Event| match event.layer {
        LayerId::INBOUND_MAC_FRAME_ETHERNET | LayerId::OUTBOUND_MAC_FRAME_ETHERNET => {
            number(event, FieldId::MAC_REMOTE_ADDRESS) == Some(station)
                && number(event, FieldId::MAC_LOCAL_ADDRESS) == Some(net::station(net, 1))
                && number(event, FieldId::ETHER_TYPE) == Some(kind)
        }
        layer if layer.name().starts_with("IPFORWARD") => true,
        _ => address(event, FieldId::IP_REMOTE_ADDRESS) == Some(peer),
    };
    let classified = live.events.iter().filter(|event| event.kind == EventKind::Classify && event.dropped.is_none());
    let classified = classified.filter(concerns);
    let family = |event: &Event| {
        let name = event.layer.name();
        name.strip_suffix("_V4").or_else(|| name.strip_suffix("_V6")).unwrap_or(name)
    };
    classified.map(family).collect()
}

/// The layer of a family, or the layer of this name.
pub fn layer(family: &str, v6: bool) -> LayerId {
    let name = format!("{family}_{}", if v6 { "V6" } else { "V4" });
    Layer::find(&name).or_else(|| Layer::find(family)).unwrap_or_else(|| panic!("no layer {family}")).id
}
