//! Devices and addresses that come and go while a policy is enforced are followed without being asked for. Needs root, BPF and
//! Linux 6.6.

mod support;

use aya::maps::HashMap as Map;
use openwfp_kernel::options::Options;
use openwfp_model::{Action, LayerId};
use std::{
    collections::HashMap,
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};
use support::{
    live::{Live, filter},
    net::{self, alone, at, index},
    router::{LONG, PORT, Router, SHORT, bound, comes},
};

fn at_devices(layer: LayerId) -> Option<Live> {
    let block = filter(layer, Action::Block).build().unwrap();
    Live::with(vec![block], Options { devices: true, ..Options::default() })
}

/// Waits for the descriptor, and reads, as a service does; whether that was done before the time is over.
fn follow(live: &mut Live, mut until: impl FnMut(&mut Live) -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < LONG {
        let mut ready = libc::pollfd { fd: live.enforcement.poll_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure of our own.
        unsafe { libc::poll(&raw mut ready, 1, 100) };
        live.drain();
        if until(live) {
            return true;
        }
    }
    false
}

#[test]
fn new_devices_are_filtered() {
    alone(|| {
        let Some(mut live) = at_devices(LayerId::INBOUND_TRANSPORT_V4) else { return };
        let router = Router::make();
        let both = [index("r0"), index("r1")];
        assert!(follow(&mut live, |live| both.iter().all(|device| live.enforcement.devices().contains(device))));
        let socket = bound(SocketAddr::new(at(1, 1, false), PORT));
        router.client_sends(socket.local_addr().unwrap(), "in");
        assert!(!comes(&socket, SHORT));
        assert_eq!(live.enforcement.failures().changes_not_followed, 0);
        net::ip("link del r0");
        assert!(follow(&mut live, |live| !live.enforcement.devices().contains(&both[0])));
        // one that takes its number
        net::ip(&format!("link add name r0 index {} type veth peer name c1 netns {}", both[0], router.client.id));
        assert!(follow(&mut live, |live| live.enforcement.devices().contains(&both[0])));
    });
}

#[test]
fn addresses_are_known_as_local_when_they_have_come() {
    alone(|| {
        let Some(mut live) = at_devices(LayerId::INBOUND_TRANSPORT_V4) else { return };
        let knows = |live: &mut Live, address: Ipv4Addr| {
            let map = live.enforcement.shims().ebpf().map("ADDRESSES").unwrap();
            let map = Map::<_, [u32; 4], u32>::try_from(map).unwrap();
            map.get(&[u32::from(address), 0, 0, 0], 0).is_ok()
        };
        let address = Ipv4Addr::new(10, 9, 8, 7);
        assert!(!knows(&mut live, address));
        net::ip("addr add 10.9.8.7/32 dev lo");
        assert!(follow(&mut live, |live| knows(live, address)));
        net::ip("addr del 10.9.8.7/32 dev lo");
        assert!(follow(&mut live, |live| !knows(live, address)));
    });
}

/// A device of TUN's, which is there when this returns.
fn tap(number: usize) -> std::io::Result<(File, u32)> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zeros are a request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = format!("tap{number}");
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
    // SAFETY: a request of our own, with a name that ends with a zero.
    support::actor::check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) })?;
    Ok((file, index(&name)))
}

/// How long a device is there without programs.
#[test]
fn new_devices_are_attached_to_at_once() {
    const DEVICES: usize = 100;
    alone(|| {
        if let Err(error) = tap(0) {
            return support::skips::skipped(format_args!("/dev/net/tun: {error}"));
        }
        let Some(mut live) = at_devices(LayerId::INBOUND_TRANSPORT_V4) else { return };
        // a thread of the same namespace
        let maker = thread::spawn(|| {
            let make = |number| {
                thread::sleep(Duration::from_millis(5));
                let (device, index) = tap(number).unwrap();
                (device, index, Instant::now())
            };
            (1..=DEVICES).map(make).collect::<Vec<_>>()
        });
        let mut attached = HashMap::new();
        let before = live.enforcement.devices().clone();
        assert!(follow(&mut live, |live| {
            for device in live.enforcement.devices().difference(&before) {
                attached.entry(*device).or_insert_with(Instant::now);
            }
            attached.len() == DEVICES
        }));
        let made = maker.join().unwrap();
        let mut windows: Vec<Duration> =
            made.iter().map(|(_, index, made)| attached[index].saturating_duration_since(*made)).collect();
        windows.sort_unstable();
        support::skips::say(format_args!(
            "a device was without programs for {:?} (median), {:?} (longest of {DEVICES})",
            windows[DEVICES / 2],
            windows[DEVICES - 1]
        ));
        assert!(windows[DEVICES / 2] < Duration::from_millis(100), "{windows:?}");
    });
}
