//! A process that does what a script says, to be run in a control group: this test program once more, told by a variable of
//! its environment.

use super::{bulk, odd, storm, unix};
use std::{
    cell::RefCell,
    env,
    io::{self, ErrorKind, Read, Write},
    mem,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    time::Duration,
};

const VARIABLE: &str = "OPENWFP_ACTOR";

/// To be called by a test with the name `actor`: acts and ends the process when it was started for that.
pub fn act() {
    let Ok(script) = env::var(VARIABLE) else { return };
    let tell = |line: &str| println!("\nactor {}", result(line));
    if script == OBEY {
        io::stdin().lines().map_while(Result::ok).for_each(|line| tell(&line));
    } else {
        script.lines().for_each(tell);
    }
    std::process::exit(0);
}

/// The script of an actor that is told each action on its standard input.
pub const OBEY: &str = "obey";

fn result(line: &str) -> String {
    match perform(line) {
        Ok(()) => "ok".to_string(),
        Err(error) => match (error.raw_os_error(), error.kind()) {
            (Some(libc::EINPROGRESS | libc::EAGAIN), _) | (_, ErrorKind::TimedOut) => "timeout".into(),
            (Some(code), _) => name(code),
            _ => error.to_string(),
        },
    }
}

/// The command that acts out a script, one action in a line.
pub fn command(script: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["actor", "--exact", "--nocapture", "--test-threads=1"]).env(VARIABLE, script);
    command
}

/// The results, one for each line of the script, from what the command wrote.
pub fn results(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|line| line.strip_prefix("actor ")).map(str::to_owned).collect()
}

fn name(code: i32) -> String {
    match code {
        libc::EPERM => "EPERM".into(),
        libc::EACCES => "EACCES".into(),
        libc::EPIPE => "EPIPE".into(),
        libc::ECONNREFUSED => "ECONNREFUSED".into(),
        libc::ECONNABORTED => "ECONNABORTED".into(),
        libc::ENETUNREACH => "ENETUNREACH".into(),
        libc::ETIMEDOUT => "timeout".into(),
        code => code.to_string(),
    }
}

thread_local! {
    static HELD: RefCell<Vec<OwnedFd>> = const { RefCell::new(vec![]) };
    static SENDER: RefCell<Option<UdpSocket>> = const { RefCell::new(None) };
}

/// The first address that `send-to-many` sends to.
pub const MANY: u32 = 0x7f01_0000;

pub fn hold(socket: impl Into<OwnedFd>) {
    HELD.with_borrow_mut(|held| held.push(socket.into()));
}

fn last<T>(act: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
    HELD.with_borrow(|held| act(held.last().expect("something is held")))
}

fn perform(line: &str) -> io::Result<()> {
    let words: Vec<&str> = line.split(' ').collect();
    let address = || words[1].parse::<SocketAddr>().map_err(io::Error::other);
    let peer = || words[2].parse::<SocketAddr>().map_err(io::Error::other);
    match words[0] {
        // connects, and waits two seconds
        "tcp" => TcpStream::connect_timeout(&address()?, Duration::from_secs(2)).map(hold),
        // connects as a call that waits does
        "tcp-waiting" => TcpStream::connect(address()?).map(hold),
        "udp" => {
            let any = if address()?.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            UdpSocket::bind(any)?.connect(address()?)
        }
        // as often as the second word says
        "udp-often" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let times: u32 = words[2].parse().map_err(io::Error::other)?;
            (0..times).try_for_each(|_| socket.connect(address()?))
        }
        // new sockets to the ports from the second word on, as many as the third says, until the standard input is closed; the
        // numbers of those that were let through and refused
        "udp-storm" => storm(address()?, words[2].parse().map_err(io::Error::other)?),
        // connected datagrams until the standard input is closed: from sockets that live for eight of them each
        "send-storm" => send_storm(address()?),
        // what is shot at, what it has received, and what shoots
        "storm-open" => storm::open(words[1].parse().map_err(io::Error::other)?),
        "storm-tell" => {
            storm::tell();
            Ok(())
        }
        "storm-send" => {
            let number = |at: usize| words[at].parse::<u64>().map_err(io::Error::other);
            storm::send(number(1)?, number(2)? as usize)
        }
        "on-cpu" => on_cpu(words[1].parse().map_err(io::Error::other)?),
        // Unix sockets, by a path or `@` and an abstract name: what is asked for, then where
        "unix" => unix::act(words[1], words[2]),
        // all from one socket that is not connected
        "send" => SENDER.with_borrow_mut(|sender| {
            if sender.is_none() {
                let any = if address()?.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                *sender = Some(UdpSocket::bind(any)?);
            }
            sender.as_ref().unwrap().send_to(b"hello", address()?).map(drop)
        }),
        // to so many endpoints, once to each
        "send-to-many" => SENDER.with_borrow_mut(|sender| {
            let sender = sender.insert(UdpSocket::bind("0.0.0.0:0")?);
            let count: u32 = words[1].parse().map_err(io::Error::other)?;
            (0..count)
                .try_for_each(|place| sender.send_to(b"hello", (std::net::Ipv4Addr::from(MANY + place), 9)).map(drop))
        }),
        // a datagram of so many bytes, and one that comes and must have as many
        "send-long" => bulk::send(address()?, words[2].parse().map_err(io::Error::other)?),
        "receive-long" => SENDER
            .with_borrow(|sender| bulk::receive(sender.as_ref().unwrap(), words[1].parse().map_err(io::Error::other)?)),
        // so many bytes to a server, which sends them back
        "pour" => bulk::pour(address()?, words[2].parse().map_err(io::Error::other)?),
        // a connection is taken, and what comes is sent back; of the listener that is held last
        "pour-back" => bulk::pour_back(last(|descriptor| TcpListener::from(descriptor.try_clone()?).accept())?.0),
        "send-marked" => odd::send_marked(address()?, words[2].parse().map_err(io::Error::other)?),
        // bound to the address, for "send" and "receive"
        "udp-at" => {
            let socket = UdpSocket::bind(address()?)?;
            SENDER.set(Some(socket));
            Ok(())
        }
        // likewise, with room for hardly anything that comes
        "udp-at-narrow" => {
            let socket = UdpSocket::bind(address()?)?;
            odd::narrow(&socket)?;
            SENDER.set(Some(socket));
            Ok(())
        }
        "receive" => SENDER.with_borrow(|sender| {
            let sender = sender.as_ref().unwrap();
            sender.set_read_timeout(Some(Duration::from_secs(1)))?;
            match sender.recv(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::TimedOut.into()),
                result => result.map(drop),
            }
        }),
        // of what is held last: five bytes out, five in
        "talk" => last(|descriptor| {
            let mut stream = TcpStream::from(descriptor.try_clone()?);
            stream.write_all(b"hello")?;
            stream.read_exact(&mut [0; 5])
        }),
        // of the connection that is held last: five bytes out
        "bind-to-device" => last(|descriptor| odd::bind_to_device(descriptor, words[1])),
        "say" => last(|descriptor| TcpStream::from(descriptor.try_clone()?).write_all(b"hello")),
        // five bytes in, within a second
        "hear" => last(|descriptor| {
            let mut stream = TcpStream::from(descriptor.try_clone()?);
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.read_exact(&mut [0; 5])
        }),
        // of the connection that is held last: nothing more will come from here
        "shut" => last(|descriptor| TcpStream::from(descriptor.try_clone()?).shutdown(Shutdown::Write)),
        // of the connection that is held last: it is closed by a reset
        "reset" => {
            last(odd::lingers_not)?;
            HELD.with_borrow_mut(Vec::pop);
            Ok(())
        }
        // of the connection that is held last: how many milliseconds it waits for acknowledgments
        "give-up-after" => {
            last(|descriptor| odd::gives_up_after(descriptor, words[1].parse().map_err(io::Error::other)?))
        }
        // a connection of the listener that is held last
        "accept" => {
            last(|descriptor| TcpListener::from(descriptor.try_clone()?).accept()).map(|(stream, _)| hold(stream))
        }
        // of the listener that is held last: a connection, five bytes in, five out
        "answer" => {
            let (mut stream, _) = last(|descriptor| TcpListener::from(descriptor.try_clone()?).accept())?;
            stream.read_exact(&mut [0; 5])?;
            stream.write_all(b"hello")?;
            hold(stream);
            Ok(())
        }
        // of the socket that is held last: a datagram in, one out
        "answer-datagram" => {
            let socket = last(|descriptor| Ok(UdpSocket::from(descriptor.try_clone()?)))?;
            let (_, peer) = socket.recv_from(&mut [0; 64])?;
            socket.send_to(b"hello", peer).map(drop)
        }
        "close" => {
            SENDER.with_borrow_mut(Option::take);
            HELD.with_borrow_mut(Vec::pop);
            Ok(())
        }
        "bind" => UdpSocket::bind(address()?).map(hold),
        "listen" => TcpListener::bind(address()?).map(hold),
        // a network namespace of its own, in which ping sockets are allowed
        "own-network" => own_network(),
        "ping" => ping(libc::SOCK_DGRAM),
        // a socket that sends an echo request to an address, of which the port does not count, and has the reply
        "echo" => odd::echo(address()?).map(hold),
        // one socket, which sends an echo request to an address whenever it is told and waits for the reply
        "ping-hold" => odd::ping_socket(address()?).map(hold),
        "ping-again" => last(|socket| {
            odd::request_echo(socket, address()?)?;
            odd::hears(socket)
        }),
        // a socket that hears echo requests alone, and one of them
        "requests-at" => odd::hears_requests(address()?).map(hold),
        "hear-request" => last(odd::hears),
        "raw" => ping(libc::SOCK_RAW),
        "euid" => {
            let id = words[1].parse().map_err(io::Error::other)?;
            // SAFETY: a number.
            check(unsafe { libc::seteuid(id) })
        }
        // binds to the first address, connects to the second
        "tcp-from" => odd::connect_from(libc::SOCK_STREAM, 0, Some(address()?), peer()?).map(hold),
        "udp-from" => odd::connect_from(libc::SOCK_DGRAM, 0, Some(address()?), peer()?).map(hold),
        "mptcp" => odd::connect_from(libc::SOCK_STREAM, libc::IPPROTO_MPTCP, None, address()?).map(hold),
        // a connected socket, for the next two
        "udp-hold" => SENDER.with_borrow_mut(|sender| {
            let socket = UdpSocket::bind(if address()?.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
            socket.connect(address()?)?;
            *sender = Some(socket);
            Ok(())
        }),
        "send-held" => SENDER.with_borrow(|sender| sender.as_ref().unwrap().send(b"again").map(drop)),
        "send-held-with-control" => SENDER.with_borrow(|sender| odd::send_with_control(sender.as_ref().unwrap())),
        "send-bound-and-from" => odd::send_from(address()?, peer()?),
        "listen-unbound" => odd::listens_unbound(false).map(hold),
        // on ::, and connects by IPv6
        "listen-unbound-v6" => odd::listens_unbound(true).map(hold),
        // sockets on :: of this network serve IPv6 alone
        "v6-only" => std::fs::write("/proc/sys/net/ipv6/bindv6only", "1"),
        "accept-without-memory" => odd::accepts_without_memory(),
        "icmp" => odd::icmp(words[1].parse().map_err(io::Error::other)?),
        "icmp6" => odd::icmp6(words[1].parse().map_err(io::Error::other)?),
        "datagram-by-hand" => odd::by_hand(words[1].parse().map_err(io::Error::other)?, false),
        "fragment-by-hand" => odd::by_hand(words[1].parse().map_err(io::Error::other)?, true),
        "hear-tcp" => odd::hears_tcp(),
        // no socket of this network may have memory for its options
        "no-option-memory" => std::fs::write("/proc/sys/net/core/optmem_max", "1"),
        // milliseconds
        "pause" => {
            std::thread::sleep(Duration::from_millis(words[1].parse().map_err(io::Error::other)?));
            Ok(())
        }
        // until the other end of the standard input is closed
        "wait" => io::stdin().read(&mut [0]).map(drop),
        other => Err(io::Error::other(format!("no action {other}"))),
    }
}

pub fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the other end of the standard input is closed; it is not waited for.
fn told_to_end() -> bool {
    let mut input = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure of our own.
    unsafe { libc::poll(&raw mut input, 1, 0) > 0 }
}

fn storm(first: SocketAddr, ports: u16) -> io::Result<()> {
    let (mut permitted, mut refused) = (0u64, 0u64);
    'on: loop {
        for port in 0..ports {
            if port % 16 == 0 && told_to_end() {
                break 'on;
            }
            let to = SocketAddr::new(first.ip(), first.port() + port);
            match UdpSocket::bind("0.0.0.0:0")?.connect(to) {
                Ok(()) => permitted += 1,
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => refused += 1,
                Err(error) => return Err(error),
            }
        }
    }
    println!("\nstorm {permitted} {refused}");
    Ok(())
}

fn send_storm(to: SocketAddr) -> io::Result<()> {
    while !told_to_end() {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        if socket.connect(to).is_ok() {
            for _ in 0..8 {
                let _ = socket.send(b"storm");
            }
        }
    }
    Ok(())
}

/// Keeps this thread on one processor.
pub fn on_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: zeros are an empty set, which is our own.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
    }
}

pub fn own_network() -> io::Result<()> {
    // SAFETY: plain system calls on our own memory.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNET))?;
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        check(socket)?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request))?;
    }
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
}

/// Sends an echo request to 127.0.0.1.
fn ping(kind: i32) -> io::Result<()> {
    // SAFETY: plain system calls on our own memory.
    unsafe {
        let socket = libc::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP);
        check(socket)?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut to: libc::sockaddr_in = mem::zeroed();
        to.sin_family = libc::AF_INET as u16;
        to.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
        let packet = [8u8, 0, 0xf7, 0xfe, 0, 1, 0, 0];
        let sent = libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        );
        check(sent as i32)
    }
}
