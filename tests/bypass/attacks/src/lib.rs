//! Programs that try to get around a policy.
//!
//! The tests of `wfp run` (`tests/bypass`) start themselves once more, told by a variable of the environment which
//! attacks to make; [`act`] makes them. Each tries to bring its [`Target::token`] to the peer, whose address and port it is
//! told. What arrives there, the peer says; what an attack itself says is only its errno.
//!
//! - [`stream`], [`path`], [`datagram`], [`raw`], [`ring`]: connections, those of many paths, datagrams, packets by hand, io_uring;
//! - [`link`]: below IP: packet, XDP and vsock sockets, TUN devices, tunnels;
//! - [`mark`]: marks that make packets look like those that callouts are asked about;
//! - [`handed`]: sockets that come from elsewhere, and helpers outside;
//! - [`escape`], [`trace`]: getting out of the group, at the programs that filter it, and at processes outside;
//! - [`serve`]: what arrives without having been asked for;
//! - [`call`], [`world`]: the system calls for all that, and the networks in which the tests make it.

pub mod call;
pub mod datagram;
pub mod escape;
pub mod handed;
pub mod link;
pub mod mark;
pub mod path;
pub mod raw;
pub mod ring;
pub mod serve;
pub mod stream;
pub mod trace;
pub mod world;

use std::{
    env, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
};

const VARIABLE: &str = "OPENWFP_ATTACKS";

/// The port of the peer that policies permit.
pub const OPEN: u16 = 7001;

/// The interface by which the attacks leave.
pub const DEVICE: &str = "wfp-out";

/// Where an attack shall arrive, and what else it is told.
#[derive(Clone, Debug)]
pub struct Target {
    /// The peer; the port is the attack's own.
    pub peer: SocketAddr,
    /// Further words.
    pub words: Vec<String>,
}

impl Target {
    /// What the peer looks for.
    pub fn token(&self) -> Vec<u8> {
        token(self.peer.port())
    }

    /// The peer's port that is permitted.
    pub fn open(&self) -> SocketAddr {
        SocketAddr::new(self.peer.ip(), OPEN)
    }

    /// Where policies permit everything, and nobody is.
    pub fn decoy(&self) -> SocketAddr {
        Self::decoy_for(self.peer.is_ipv4(), self.peer.port())
    }

    /// The same of the other version too.
    pub fn decoy_for(v4: bool, port: u16) -> SocketAddr {
        let ip: IpAddr = if v4 { [203, 0, 113, 5].into() } else { [0xfd78, 0, 0, 0, 0, 0, 0, 5].into() };
        SocketAddr::new(ip, port)
    }

    /// The address of the attacking side, with a port.
    pub fn own(&self, port: u16) -> SocketAddr {
        let ip: IpAddr = if self.peer.is_ipv4() { [10, 77, 0, 1].into() } else { [0xfd77, 0, 0, 0, 0, 0, 0, 1].into() };
        SocketAddr::new(ip, port)
    }

    /// The family of the peer's address.
    pub fn family(&self) -> i32 {
        call::family(self.peer)
    }

    /// [`DEVICE`].
    pub fn device(&self) -> &'static str {
        DEVICE
    }

    /// The number of [`DEVICE`].
    pub fn device_index(&self) -> io::Result<u32> {
        device_index()
    }

    /// One of the further words.
    pub fn word(&self, index: usize) -> io::Result<&str> {
        self.words.get(index).map(String::as_str).ok_or_else(|| io::Error::other("a word is missing"))
    }
}

/// The number of [`DEVICE`] in the network of the calling thread.
pub fn device_index() -> io::Result<u32> {
    device_index_of(DEVICE)
}

/// The number of a device in the network of the calling thread.
pub fn device_index_of(device: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(device)?;
    // SAFETY: a string that ends.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// What the peer looks for at a port.
pub fn token(port: u16) -> Vec<u8> {
    format!("<openwfp {port}>").into_bytes()
}

/// To be called by a test with the name `attacker`: makes the attacks and ends the process when it was started for that.
///
/// Each line of the variable is one attack: its name, the peer, further words. A line `attack RESULT` is written for each:
/// `ok`, or the name of the error.
pub fn act() {
    let Ok(script) = env::var(VARIABLE) else { return };
    for line in script.lines() {
        let result = match perform(line) {
            Ok(()) => "ok".to_owned(),
            Err(error) => errno(&error),
        };
        println!("\nattack {result}");
    }
    std::process::exit(0);
}

fn perform(line: &str) -> io::Result<()> {
    let mut words = line.split(' ').map(str::to_owned);
    let name = words.next().unwrap_or_default();
    let peer = words.next().unwrap_or_default().parse().map_err(io::Error::other)?;
    let target = Target { peer, words: words.collect() };
    let families = [
        stream::act,
        datagram::act,
        raw::act,
        ring::act,
        link::act,
        mark::act,
        path::act,
        handed::act,
        escape::act,
        trace::act,
        serve::act,
    ];
    let result = families.iter().find_map(|act| act(&name, &target));
    result.unwrap_or_else(|| Err(io::Error::other(format!("no attack {name}"))))
}

/// The arguments that a test program takes to make attacks, and the variable that names them.
pub fn script(attacks: &[String]) -> (&'static [&'static str], (&'static str, String)) {
    (&["attacker", "--exact", "--nocapture", "--test-threads=1"], (VARIABLE, attacks.join("\n")))
}

/// The command that makes attacks without any policy.
pub fn command(program: &Path, attacks: &[String]) -> Command {
    let (arguments, (variable, value)) = script(attacks);
    let mut command = Command::new(program);
    command.args(arguments).env(variable, value);
    command
}

/// What came of the attacks, from what the program wrote.
pub fn results(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|line| line.strip_prefix("attack ")).map(str::to_owned).collect()
}

fn errno(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EBADF) => "EBADF",
        Some(libc::ELOOP) => "ELOOP",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::ENOENT) => "ENOENT",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::ENOSYS) => "ENOSYS",
        Some(libc::ENOPROTOOPT) => "ENOPROTOOPT",
        Some(libc::EAFNOSUPPORT) => "EAFNOSUPPORT",
        Some(libc::EPROTONOSUPPORT) => "EPROTONOSUPPORT",
        Some(libc::ESOCKTNOSUPPORT) => "ESOCKTNOSUPPORT",
        Some(libc::ECONNABORTED) => "ECONNABORTED",
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::EINPROGRESS | libc::EAGAIN | libc::ETIMEDOUT) => "timeout",
        _ => return error.to_string(),
    };
    name.to_owned()
}
