//! Unix sockets of a group, where programs may look at the socket that a process is about to speak to. Needs root and BPF.

mod support;

use openwfp_kernel::{
    features,
    options::Options,
    unix::{NamedSocket, UnixSockets, peers_are_seen},
};
use std::{
    fs,
    os::unix::net::{UnixDatagram, UnixListener},
    path::{Path, PathBuf},
};
use support::{actor, live::Live, skips, unix::address};

#[test]
fn actor() {
    actor::act();
}

/// Sockets outside: of streams at a path and a name, of datagrams at both with `-d`.
struct Outside {
    folder: PathBuf,
    _sockets: (Vec<UnixListener>, Vec<UnixDatagram>),
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Outside {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("wfp-unix-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let places = [folder.join("service").to_str().unwrap().to_owned(), format!("@wfp-unix-{name}")];
        let listeners = places.iter().map(|place| UnixListener::bind_addr(&address(place).unwrap()).unwrap());
        let datagrams = places.iter().map(|place| {
            let socket = UnixDatagram::bind_addr(&address(&format!("{place}-d")).unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let _sockets = (listeners.collect(), datagrams.collect());
        Self { folder, _sockets }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }
}

fn limited(named: &[&str]) -> Option<Live> {
    if let Some(reason) = features::missing().first() {
        skips::skipped(reason);
        return None;
    }
    if !peers_are_seen().unwrap() {
        skips::kernel_lacks("a place for programs where a process speaks to a Unix socket");
        return None;
    }
    let named = named.iter().map(|place| NamedSocket::find(Path::new(place)).unwrap()).collect();
    Live::with(vec![], Options { unix: UnixSockets::Run(named), ..Options::default() })
}

#[test]
fn sockets_outside_are_refused_and_those_inside_are_not() {
    let outside = Outside::new("run");
    let Some(mut live) = limited(&[]) else { return };
    for place in [outside.path("service"), "@wfp-unix-run".into()] {
        let script = format!("unix connect {place}\nunix connect-datagram {place}-d\nunix send {place}-d");
        assert_eq!(live.act(&script), ["EPERM"; 3], "{place}");
        let own = format!("{place}-own");
        let script = format!(
            "unix listen {own}\nunix connect {own}\nunix receive {own}-d\nunix connect-datagram {own}-d\nunix send {own}-d"
        );
        assert_eq!(live.act(&script), ["ok"; 5], "{place}");
    }
    // nobody else is concerned
    UnixDatagram::unbound().unwrap().send_to(b"hello", outside.path("service-d")).unwrap();
}

#[test]
fn what_is_named_is_reached_under_any_path() {
    let outside = Outside::new("named");
    let (path, link) = (outside.path("service"), outside.path("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let Some(mut live) = limited(&[&path, "@wfp-unix-named-d"]) else { return };
    let script = format!(
        "unix connect {path}\nunix connect {link}\nunix send {path}-d\nunix send @wfp-unix-named-d\nunix connect @wfp-unix-named"
    );
    assert_eq!(live.act(&script), ["ok", "ok", "EPERM", "ok", "EPERM"]);
    // another socket at the named path is another socket
    fs::rename(&path, outside.path("moved")).unwrap();
    let _another = UnixListener::bind(&path).unwrap();
    assert_eq!(live.act(&format!("unix connect {path}\nunix connect {}", outside.path("moved"))), ["EPERM", "ok"]);
}
