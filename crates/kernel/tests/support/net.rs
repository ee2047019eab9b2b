//! Network namespaces of the test's own, each entered by a thread, and what passes between them.

use super::odd;
use std::{
    io,
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

type Task = Box<dyn FnOnce() + Send>;

/// A network namespace, which lives as long as its thread.
pub struct Space {
    tasks: Option<Sender<Task>>,
    thread: Option<thread::JoinHandle<()>>,
    /// The thread's id, by which devices are moved to the namespace.
    pub id: i32,
}

impl Space {
    pub fn make() -> Self {
        let (tasks, todo) = channel::<Task>();
        let (ready, is_ready) = channel();
        let thread = thread::spawn(move || {
            own_network();
            // SAFETY: no arguments.
            ready.send(unsafe { libc::gettid() }).unwrap();
            todo.into_iter().for_each(|task| task());
        });
        Self { tasks: Some(tasks), thread: Some(thread), id: is_ready.recv().unwrap() }
    }

    /// Does something in the namespace.
    pub fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let task = Box::new(move || answer.send(act()).unwrap());
        self.tasks.as_ref().unwrap().send(task).unwrap();
        answered.recv().expect("it has panicked in the namespace")
    }

    /// `ip` with arguments, in the namespace.
    pub fn ip(&self, arguments: impl Into<String>) {
        let arguments = arguments.into();
        self.run(move || ip(&arguments));
    }

    /// What a device of the namespace receives.
    pub fn tap(&self, device: &'static str) -> Tap {
        self.run(move || Tap::new(device))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.tasks.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// Runs a test in a network namespace of its own.
pub fn alone(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        own_network();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A new network namespace for this thread, with its loopback device up, and without what IPv6 says by itself.
fn own_network() {
    // SAFETY: a number.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
    for (name, value) in [("default/accept_dad", "0"), ("default/router_solicitations", "0"), ("all/forwarding", "0")] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}"), value).unwrap();
    }
    ip("link set lo up");
}

/// `ip` with arguments, in this thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether this kernel has a kind of device: tried, and taken away again.
pub fn can_make(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    if output.status.success() {
        ip(&format!("link del {}", arguments.split(' ').nth(3).unwrap()));
    }
    output.status.success()
}

/// Sets a number of /proc/sys/net.
pub fn set(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

/// The index of a device of this thread's namespace.
pub fn index(device: &str) -> u32 {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: a text that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "there is no device {device}");
    index
}

/// A pair of devices, `near` here and `far` in the other namespace, that know each other's addresses without asking: `net`
/// is the third number of 10.9.net.1 (here) and .2, and of fd09::net:1 and :2. Their MAC addresses are 02:00:00:00:net:01
/// and 02.
pub fn connect(near: &str, far: &str, other: &Space, net: u8) {
    ip(&format!("link add {near} address {} type veth peer name {far} address {}", mac(net, 1), mac(net, 2)));
    ip(&format!("link set {far} netns {}", other.id));
    let commands = |device: &str, own: u8, peer: u8| {
        [
            format!("link set {device} up"),
            format!("addr add 10.9.{net}.{own}/24 broadcast 10.9.{net}.255 dev {device}"),
            format!("addr add fd09::{net}:{own}/112 dev {device} nodad"),
            format!("neigh replace 10.9.{net}.{peer} lladdr {} dev {device} nud permanent", mac(net, peer)),
            format!("neigh replace fd09::{net}:{peer} lladdr {} dev {device} nud permanent", mac(net, peer)),
        ]
    };
    commands(near, 1, 2).iter().for_each(|command| ip(command));
    commands(far, 2, 1).into_iter().for_each(|command| other.ip(command));
}

fn mac(net: u8, side: u8) -> String {
    format!("02:00:00:00:{net:02x}:{side:02x}")
}

/// The MAC address of a side as a number.
pub fn station(net: u8, side: u8) -> u64 {
    0x0200_0000_0000 | u64::from(net) << 8 | u64::from(side)
}

/// The address of a side.
pub fn at(net: u8, side: u8, v6: bool) -> IpAddr {
    let text = if v6 { format!("fd09::{net}:{side}") } else { format!("10.9.{net}.{side}") };
    text.parse().unwrap()
}

/// A socket that sees what a device receives.
pub struct Tap(OwnedFd);

impl Tap {
    pub fn new(device: &str) -> Self {
        const ALL: u16 = 3;
        let socket = odd::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, ALL.to_be().into()).unwrap();
        // SAFETY: zeros are an address.
        let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ALL.to_be();
        address.sll_ifindex = index(device) as i32;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: an address of this length.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    /// The frames that have come so far, without those that were sent from there.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let mut all = vec![];
        let mut memory = [0u8; 4096];
        loop {
            // SAFETY: zeros are an address; the system writes at most these lengths.
            let (length, address) = unsafe {
                let mut address: libc::sockaddr_ll = MaybeUninit::zeroed().assume_init();
                let mut size = size_of::<libc::sockaddr_ll>() as u32;
                let place = (&raw mut address).cast();
                let flags = libc::MSG_DONTWAIT;
                let memory = memory.as_mut_ptr().cast();
                (libc::recvfrom(self.0.as_raw_fd(), memory, 4096, flags, place, &raw mut size), address)
            };
            let Ok(length) = usize::try_from(length) else { return all };
            if address.sll_pkttype != libc::PACKET_OUTGOING {
                all.push(memory[..length].to_vec());
            }
        }
    }

    /// Whether a frame comes that holds these bytes; waited for at most so long.
    pub fn sees(&self, bytes: &[u8], wait: Duration) -> bool {
        let started = Instant::now();
        loop {
            let seen = self.frames().iter().any(|frame| frame.windows(bytes.len()).any(|part| part == bytes));
            if seen || started.elapsed() > wait {
                return seen;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) {
        assert!(self.sends(frame), "{}", io::Error::last_os_error());
    }

    /// Whether a frame is sent.
    pub fn sends(&self, frame: &[u8]) -> bool {
        // SAFETY: memory of this length.
        unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) == frame.len() as isize }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}
