//! What is done on both sides of the cable: by a process of the filtered group, and by the peer, who knows nothing of policies.

use crate::tagged;
use openwfp_attacks::call::{Socket, any};
use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

const VARIABLE: &str = "OPENWFP_LIVE_REPLAY";

/// Nothing waits for longer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A group that has nothing to do with the networks themselves.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// All on the cable.
const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 255);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A connection is opened, used, and closed by the one who opened it.
    TcpClient,
    /// The same, opened by the peer.
    TcpServer,
    /// A connection is opened and nobody answers in time.
    TcpAttempt,
    /// A connection that the peer resets.
    TcpReset,
    /// A connection to a port where nobody listens.
    TcpRefused,
    /// The peer tries to connect to a port of ours where nobody listens.
    TcpUnheard,
    /// The peer tries to connect to us, and gets no answer.
    TcpUnanswered,
    /// A datagram and its answer.
    UdpClient,
    /// The same from a socket that is bound to nothing.
    UdpUnbound,
    /// A datagram of the peer, and our answer.
    UdpServer,
    /// A datagram of the peer to a group that we are in (IPv4).
    UdpMulticast,
    /// A datagram of the peer to all on the cable (IPv4).
    UdpBroadcast,
    /// A datagram to a port where nobody is.
    UdpRefused,
    /// A datagram of the peer to a port of ours where nobody is.
    UdpUnheard,
    /// An echo request and its reply.
    Ping,
    /// A datagram and its answer, each in several fragments.
    UdpLong,
    /// The same, and the peer speaks first.
    UdpLongServer,
    /// A datagram and its answer, whose IP headers have options (IPv6: hop-by-hop and destination options).
    UdpOptions,
    /// A connection with such headers.
    TcpOptions,
    /// The peer's datagram to somebody beyond us, and the answer.
    Forwarded,
    /// The same, each in several fragments.
    ForwardedLong,
    /// A datagram of the peer in a frame that bears a priority, and our answer.
    UdpPriority,
}

impl Scene {
    /// Whether we are on the way to somebody else.
    pub const fn is_forwarded(self) -> bool {
        matches!(self, Self::Forwarded | Self::ForwardedLong)
    }

    /// The bytes of a datagram.
    pub fn data(self) -> Vec<u8> {
        vec![b'l'; if matches!(self, Self::UdpLong | Self::UdpLongServer | Self::ForwardedLong) { 3000 } else { 5 }]
    }

    /// Whether an IP header is of the kind that the scene is about, where it is about one: of a fragment, or with options.
    pub fn shows(self, header: &[u8]) -> bool {
        const V6: u8 = 6;
        const HOP_BY_HOP: u8 = 0;
        const FRAGMENT: u8 = 44;
        let is_v6 = header[0] >> 4 == V6;
        match self {
            Self::UdpLong | Self::UdpLongServer | Self::ForwardedLong if is_v6 => header[6] == FRAGMENT,
            Self::UdpLong | Self::UdpLongServer | Self::ForwardedLong => header[6] & 0x20 != 0,
            Self::UdpOptions | Self::TcpOptions if is_v6 => header[6] == HOP_BY_HOP,
            Self::UdpOptions | Self::TcpOptions => header[0] == 0x46,
            _ => true,
        }
    }

    /// Adds options to the headers of what a socket sends, where the scene has them.
    fn options(self, socket: &Socket, v6: bool) -> io::Result<()> {
        const IPPROTO_IP: i32 = 0;
        const IP_OPTIONS: i32 = 4;
        const IPPROTO_IPV6: i32 = 41;
        const IPV6_HOPOPTS: i32 = 54;
        const IPV6_DSTOPTS: i32 = 59;
        // padding
        const OF_IPV6: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
        match self {
            Self::UdpOptions | Self::TcpOptions if v6 => {
                socket.set_bytes(IPPROTO_IPV6, IPV6_HOPOPTS, &OF_IPV6)?;
                socket.set_bytes(IPPROTO_IPV6, IPV6_DSTOPTS, &OF_IPV6)
            }
            Self::UdpOptions | Self::TcpOptions => socket.set_bytes(IPPROTO_IP, IP_OPTIONS, &[1; 4]),
            _ => Ok(()),
        }
    }
}

/// Where a scene takes place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub ours: SocketAddr,
    pub peer: SocketAddr,
    /// In the network on the other side of ours.
    pub beyond: SocketAddr,
}

impl Place {
    pub fn new(v6: bool) -> Self {
        match v6 {
            false => Self {
                ours: ([10, 78, 0, 1], 4000).into(),
                peer: ([10, 78, 0, 2], 7000).into(),
                beyond: ([10, 79, 0, 2], 7000).into(),
            },
            true => Self {
                ours: ([0xfd78, 0, 0, 0, 0, 0, 0, 1], 4000).into(),
                peer: ([0xfd78, 0, 0, 0, 0, 0, 0, 2], 7000).into(),
                beyond: ([0xfd79, 0, 0, 0, 0, 0, 0, 2], 7000).into(),
            },
        }
    }
}

const SCENES: [Scene; 22] = [
    Scene::TcpClient,
    Scene::TcpServer,
    Scene::TcpAttempt,
    Scene::TcpReset,
    Scene::TcpRefused,
    Scene::TcpUnheard,
    Scene::TcpUnanswered,
    Scene::UdpClient,
    Scene::UdpUnbound,
    Scene::UdpServer,
    Scene::UdpMulticast,
    Scene::UdpBroadcast,
    Scene::UdpRefused,
    Scene::UdpUnheard,
    Scene::Ping,
    Scene::UdpLong,
    Scene::UdpLongServer,
    Scene::UdpOptions,
    Scene::TcpOptions,
    Scene::Forwarded,
    Scene::ForwardedLong,
    Scene::UdpPriority,
];

/// This program once more, as a process of the group whose processes are listed in `members`. It writes `ready` when the
/// peer may begin.
pub fn command(scene: Scene, v6: bool, members: &Path, ready: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(members).arg(env::current_exe().unwrap());
    command.args(["--exact", "actor", "--nocapture"]);
    command.env(VARIABLE, format!("{scene:?} {v6} {}", ready.display()));
    command
}

/// To be called by a test named `actor`: acts when the process was started for that.
pub fn act() {
    let Ok(task) = env::var(VARIABLE) else { return };
    let mut words = task.splitn(3, ' ');
    let mut next = || words.next().unwrap();
    let (scene, v6, ready) = (next(), next() == "true", next().to_owned());
    let scene = *SCENES.iter().find(|known| format!("{known:?}") == scene).unwrap();
    println!("acted: {:?}", local(scene, Place::new(v6), &|| fs::write(&ready, "").unwrap()));
    // what the kernel still sends for the socket shall be seen
    thread::sleep(Duration::from_millis(300));
    std::process::exit(0);
}

fn local(scene: Scene, Place { ours, peer, .. }: Place, ready: &dyn Fn()) -> io::Result<()> {
    match scene {
        Scene::TcpClient | Scene::TcpOptions => {
            ready();
            let socket = bound(ours)?;
            scene.options(&socket, ours.is_ipv6())?;
            socket.connect(peer)?;
            let mut stream = TcpStream::from(socket.0);
            stream.write_all(b"hello")?;
            stream.read_exact(&mut [0; 5])?;
            // the socket stays until both sides have closed: after that it would be but a remnant, which belongs to no group
            stream.shutdown(std::net::Shutdown::Write)?;
            ends(&mut stream)
        }
        Scene::TcpAttempt => {
            ready();
            let socket = bound(ours)?;
            socket.unblock()?;
            let result = socket.connect(peer);
            // before the SYN is sent again
            thread::sleep(Duration::from_millis(300));
            result
        }
        Scene::TcpReset => {
            ready();
            let mut stream = connected(ours, peer)?;
            stream.write_all(b"hello")?;
            ends(&mut stream)
        }
        Scene::TcpRefused => {
            ready();
            connected(ours, peer).map(drop)
        }
        Scene::TcpServer => {
            let listener = TcpListener::bind(ours)?;
            ready();
            let (mut stream, _) = listener.accept()?;
            stream.read_exact(&mut [0; 5])?;
            stream.write_all(b"hello")?;
            ends(&mut stream)
        }
        Scene::TcpUnanswered => {
            let _listener = TcpListener::bind(ours)?;
            ready();
            thread::sleep(Duration::from_millis(600));
            Ok(())
        }
        Scene::UdpClient | Scene::UdpRefused | Scene::UdpUnbound | Scene::UdpLong | Scene::UdpOptions => {
            ready();
            let socket = datagrams(scene, if scene == Scene::UdpUnbound { any(ours) } else { ours })?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send_to(&scene.data(), peer)?;
            socket.recv(&mut [0; 5]).map(drop)
        }
        Scene::Forwarded | Scene::ForwardedLong | Scene::TcpUnheard | Scene::UdpUnheard => {
            ready();
            thread::sleep(Duration::from_millis(500));
            Ok(())
        }
        Scene::UdpServer | Scene::UdpLongServer | Scene::UdpPriority => {
            let socket = UdpSocket::bind(ours)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            ready();
            let (_, from) = socket.recv_from(&mut [0; 5])?;
            socket.send_to(&scene.data(), from).map(drop)
        }
        Scene::UdpMulticast | Scene::UdpBroadcast => {
            let socket = UdpSocket::bind(SocketAddr::new(any(ours).ip(), ours.port()))?;
            if let std::net::IpAddr::V4(ip) = ours.ip() {
                socket.join_multicast_v4(&GROUP, &ip)?;
            }
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            ready();
            socket.recv(&mut [0; 5]).map(drop)
        }
        Scene::Ping => {
            ready();
            let (protocol, request) = if ours.is_ipv4() { (1, 8) } else { (58, 128) };
            let socket = Socket::new(openwfp_attacks::call::family(ours), 2, protocol)?;
            socket.bind(SocketAddr::new(ours.ip(), 0))?;
            socket.send_to(&[request, 0, 0, 0, 0, 0, 0, 1, 7], 0, SocketAddr::new(peer.ip(), 0))?;
            thread::sleep(Duration::from_millis(200));
            socket.receive().map(drop)
        }
    }
}

/// What the peer has before it begins: made in the peer's network.
pub enum Peer {
    Nobody,
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Peer {
    pub fn new(scene: Scene, Place { peer, .. }: Place) -> Self {
        match scene {
            Scene::TcpClient | Scene::TcpAttempt | Scene::TcpReset | Scene::TcpOptions => {
                Self::Tcp(TcpListener::bind(peer).unwrap())
            }
            Scene::TcpServer
            | Scene::TcpRefused
            | Scene::TcpUnheard
            | Scene::TcpUnanswered
            | Scene::UdpRefused
            | Scene::Ping => Self::Nobody,
            _ => Self::Udp(datagrams(scene, peer).unwrap()),
        }
    }

    /// Plays the peer's part. What goes wrong because of a policy shall go wrong.
    pub fn play(self, scene: Scene, Place { ours, peer, beyond }: Place) -> io::Result<()> {
        match (scene, self) {
            (Scene::TcpClient | Scene::TcpOptions, Self::Tcp(listener)) => {
                let stream = accepted(&listener)?;
                let socket = Socket(stream.into());
                scene.options(&socket, peer.is_ipv6())?;
                let mut stream = TcpStream::from(socket.0);
                stream.read_exact(&mut [0; 5])?;
                stream.write_all(b"hello")?;
                ends(&mut stream)
            }
            (Scene::TcpReset, Self::Tcp(listener)) => {
                let stream = accepted(&listener)?;
                // closed with data that nobody has read
                stream.peek(&mut [0; 5])?;
                Ok(())
            }
            (Scene::TcpServer, Self::Nobody) => {
                let mut stream = connected(peer, ours)?;
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])?;
                stream.shutdown(std::net::Shutdown::Write)?;
                ends(&mut stream)
            }
            (Scene::TcpUnanswered, Self::Nobody) => {
                let socket = bound(peer)?;
                socket.unblock()?;
                let result = socket.connect(ours);
                thread::sleep(Duration::from_millis(300));
                result
            }
            (Scene::TcpUnheard, Self::Nobody) => connected(peer, ours).map(drop),
            (Scene::UdpUnheard, Self::Udp(socket)) => {
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                socket.connect(ours)?;
                socket.send(b"hello")?;
                socket.recv(&mut [0; 5]).map(drop)
            }
            (Scene::UdpMulticast, Self::Udp(socket)) => socket.send_to(b"hello", (GROUP, ours.port())).map(drop),
            (Scene::UdpBroadcast, Self::Udp(socket)) => {
                socket.set_broadcast(true)?;
                socket.send_to(b"hello", (BROADCAST, ours.port())).map(drop)
            }
            (Scene::UdpClient | Scene::UdpUnbound | Scene::UdpLong | Scene::UdpOptions, Self::Udp(socket)) => {
                answer(&socket, scene)
            }
            (Scene::UdpServer | Scene::UdpLongServer | Scene::Forwarded | Scene::ForwardedLong, Self::Udp(socket)) => {
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                socket.send_to(&scene.data(), if scene.is_forwarded() { beyond } else { ours })?;
                socket.recv(&mut [0; 5]).map(drop)
            }
            (Scene::UdpPriority, Self::Udp(socket)) => {
                socket.set_read_timeout(Some(PATIENCE))?;
                tagged::send(peer, ours, &scene.data())?;
                socket.recv(&mut [0; 5]).map(drop)
            }
            (_, _here) => {
                thread::sleep(Duration::from_millis(300));
                Ok(())
            }
        }
    }
}

/// Answers a datagram.
pub fn answer(socket: &UdpSocket, scene: Scene) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (_, from) = socket.recv_from(&mut [0; 5])?;
    socket.send_to(&scene.data(), from).map(drop)
}

/// A socket for datagrams.
fn datagrams(scene: Scene, at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::datagram(at)?;
    scene.options(&socket, at.is_ipv6())?;
    socket.bind(at)?;
    Ok(UdpSocket::from(socket.0))
}

fn bound(from: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::stream(from)?;
    socket.bind(from)?;
    Ok(socket)
}

fn connected(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = bound(from)?;
    socket.connect(to)?;
    Ok(TcpStream::from(socket.0))
}

fn accepted(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    for _ in 0..PATIENCE.as_millis() / 10 {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            return Ok(stream);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Reads until the other side has closed.
fn ends(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}
