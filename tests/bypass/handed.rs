//! Sockets that come from elsewhere, and helpers outside.

use crate::harness::{BOTH, FIRST, NOBODY, ONE_PORT, PEER, World, documented, line};
use openwfp_attacks::{call::Socket, escape::mount, handed, token};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr as UnixAddress, UnixListener, UnixStream},
        },
    },
    process::{Command, Stdio},
    thread,
};

/// The command with a socket as its descriptor 3 (or standard input).
fn with_socket(command: &Command, socket: UdpSocket, as_input: bool) -> Command {
    let mut shell = Command::new("sh");
    let script = if as_input { "exec \"$@\"" } else { "exec \"$@\" 3<&0 0</dev/null" };
    shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args()).current_dir("/");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::from(OwnedFd::from(socket)));
    shell
}

fn socket() -> UdpSocket {
    UdpSocket::bind("0.0.0.0:0").unwrap()
}

#[test]
fn a_socket_that_was_open_before_is_not_inherited() {
    let Some(world) = World::new("inherited") else { return };
    world.receive([FIRST]);
    let attack = [line("inherited", PEER, FIRST)];
    let without = with_socket(&world.command(None, &attack), socket(), false);
    assert!(world.look_for(without, &[FIRST]).reached(FIRST));
    let seen = world.look(with_socket(&world.command(Some((NOBODY, ONE_PORT)), &attack), socket(), false));
    assert!(!seen.reached(FIRST) && seen.results == ["EBADF"], "{seen:?}");
}

#[test]
fn a_socket_that_is_handed_over_on_purpose_is_warned_of() {
    let Some(world) = World::new("handed") else { return };
    let words = "Sockets that are handed to the command from outside (`--keep-fd`, standard input)";
    let under = |options: &[&str], attacks: &[String], as_input| {
        with_socket(&world.command(Some((&[NOBODY, options].concat(), ONE_PORT)), attacks), socket(), as_input)
    };
    world.not_prevented(&["inherited-input"], |attacks| under(&[], attacks, true), words);
    world.not_prevented(&["inherited"], |attacks| under(&["--keep-fd", "3"], attacks, false), words);
    let attack = [line("inherited-input", PEER, FIRST)];
    let seen = world.look(under(&[], &attack, true));
    assert!(seen.error().contains("descriptor 0 is a socket that was made outside"), "{seen:?}");
}

/// A service outside, which does what it is asked for, as systemd, D-Bus services, container engines and agents do.
fn serve(mut client: UnixStream, of_peer: &UdpSocket) -> io::Result<()> {
    let mut request = String::new();
    // a line, and no byte of what comes after it
    let mut reader = BufReader::with_capacity(1, client.try_clone()?);
    reader.read_line(&mut request)?;
    let (what, address) = request.trim().split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let token = token(address.port());
    let result = match what.split_once(':').map_or(what, |(what, _)| what) {
        "socket" => return handed::hand_over(&client, &socket().into()),
        "peer-socket" => return handed::hand_over(&client, &of_peer.try_clone()?.into()),
        "send" => Socket(handed::receive(&client)?).send_to(&token, 0, address),
        "connect" => {
            let socket = Socket(handed::receive(&client)?);
            socket.connect(address).and_then(|()| socket.send(&token))
        }
        // as systemd does for `systemd-run --scope`
        "move" => {
            let process = what.split(':').nth(1).unwrap_or_default();
            mount("cgroup2").and_then(|mount| std::fs::write(mount.join("cgroup.procs"), process))
        }
        _ => socket().send_to(&token, address).map(drop),
    };
    let code = result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
    write!(client, "{code}")
}

/// A service at a path and at an abstract name, in the network of the attacks.
fn service(world: &World) -> [String; 2] {
    let path = world.path("service");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    // abstract names belong to a network
    let name = UnixAddress::from_abstract_name("wfp-service").unwrap();
    for listener in [listener, UnixListener::bind_addr(&name).unwrap()] {
        let of_peer = world.outside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // whoever has gone has gone
                let _ = serve(client, &of_peer);
            }
        });
    }
    [path.to_str().unwrap().to_owned(), "@wfp-service".to_owned()]
}

#[test]
fn a_socket_that_is_handed_out_stays_filtered() {
    let Some(world) = World::new("out") else { return };
    let [path, _] = service(&world);
    let attacks = ["socket-to-outside", "socket-to-outside-stream"].map(|attack| format!("{attack} {path}"));
    world.defeats(PEER, &attacks.each_ref().map(String::as_str), NOBODY, BOTH);
}

#[test]
fn services_outside_and_their_sockets_are_documented() {
    let Some(world) = World::new("services") else { return };
    let under = |attacks: &[String]| world.command(Some((NOBODY, ONE_PORT)), attacks);
    for place in service(&world) {
        let attacks = ["helper", "socket-from-outside", "socket-of-another-network", "helper-moves"]
            .map(|name| format!("{name} {place}"));
        let words = "Services outside that act for the command through a Unix socket";
        world.not_prevented(&attacks.each_ref().map(String::as_str), under, words);
    }
    documented("sockets that such a service sends to the command");
}

/// The same service where nobody but root can change what stands at its path.
fn fixed_service(world: &World, name: &str) -> (Folder, String) {
    let folder = std::env::temp_dir().join(format!("wfp-bypass-fixed-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let [path, _] = service(world);
    let fixed = folder.join("service");
    std::fs::rename(path, &fixed).unwrap();
    let fixed = fixed.canonicalize().unwrap().to_str().unwrap().to_owned();
    (Folder(folder), fixed)
}

/// A folder that goes away with the test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn services_outside_are_out_of_reach_with_the_run_s_own_sockets_alone() {
    let Some(world) = World::new("unix") else { return };
    let [path, name] = service(&world);
    let options = [NOBODY, &["--unix", "run"]].concat();
    let asks = ["helper", "socket-from-outside", "socket-of-another-network", "helper-moves"];
    let asks = [&path, &name].into_iter().flat_map(|place| asks.map(|ask| format!("{ask} {place}")));
    let ways = ["helper-by-link", "helper-by-parent", "helper-by-slashes", "helper-from-its-folder"];
    let attacks: Vec<String> = asks.chain(ways.map(|way| format!("{way} {path}"))).collect();
    let attacks: Vec<&str> = attacks.iter().map(String::as_str).collect();
    let results = world.defeats(PEER, &attacks, &options, &[ONE_PORT]);
    assert_eq!(results.len(), attacks.len());
    // ELOOP: where paths are all that is seen, no link is followed
    assert!(results.iter().all(|(_, result)| ["EPERM", "ELOOP"].contains(&&**result)), "{results:?}");
    let seen = world.look(world.command(Some((&options, ONE_PORT)), &[line("own-sockets", PEER, FIRST)]));
    assert_eq!(seen.results, ["ok"], "{seen:?}");
}

#[test]
fn a_service_outside_is_reached_when_it_is_named() {
    let Some(world) = World::new("unix-named") else { return };
    let (_folder, path) = fixed_service(&world, "named");
    let options = [NOBODY, &["--unix", &path]].concat();
    let under = |attacks: &[String]| world.command(Some((&options, ONE_PORT)), attacks);
    let words = "Services outside that act for the command through a Unix socket";
    world.not_prevented(&[&format!("helper {path}")], under, words);
    // and no other
    let seen = world.look(under(&[line("helper @wfp-service", PEER, FIRST + 1)]));
    assert_eq!(seen.results, ["EPERM"], "{seen:?}");
}

#[test]
fn a_service_on_this_machine_is_reached_by_a_connection_that_is_refused() {
    let Some(world) = World::new("loopback") else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut request = String::new();
            let asked = BufReader::new(&client).read_line(&mut request).is_ok();
            if let (true, Some((_, address))) = (asked, request.trim().split_once(' ')) {
                let address: SocketAddr = address.parse().unwrap();
                socket().send_to(&token(address.port()), address).unwrap();
                let _ = (&client).write_all(b".");
            }
        }
    });
    world.defeats(PEER, &[&format!("helper-by-loopback {place}")], NOBODY, BOTH);
}
