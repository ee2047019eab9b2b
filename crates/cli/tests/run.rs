//! `wfp run` with real programs on real sockets: what is refused, and what is not.
//!
//! Servers live in this process, outside the filtered group; clients are curl, python3, bash, and what they start.

#[macro_use]
mod common;

use common::{
    Folder,
    live::{Server, blocking, events, run, status, text},
};
use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    process::Command,
};

#[test]
fn curl_is_refused_at_one_port_and_served_at_another() {
    needs!("curl");
    let folder = Folder::new("ports");
    let (refused, served) = (Server::local(), Server::local());
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", &format!("IP_REMOTE_PORT = {}", refused.port()));
    let get = |port: u16| run(&["-p", &policy, "--", "curl", "-sS", "-m", "5", &format!("http://127.0.0.1:{port}/")]);
    let output = get(served.port());
    assert_eq!((status(&output), output.stdout.as_slice()), (0, &b"hello"[..]), "{}", text(&output));
    let output = get(refused.port());
    // curl: couldn't connect
    assert_eq!(status(&output), 7, "{}", text(&output));
    assert_eq!((served.reached(), refused.reached()), (1, 0));
}

#[test]
fn the_errno_of_a_filter_is_what_connect_returns() {
    needs!("python3");
    let folder = Folder::new("errno");
    let server = Server::local();
    let policy = |errno: &str| {
        let text = fs::read_to_string(blocking(&folder, "ALE_AUTH_CONNECT", "")).unwrap();
        folder.file("errno.toml", &format!("{text}{errno}"))
    };
    let script = format!(
        "import socket,sys\ns=socket.socket()\ntry:\n s.connect(('127.0.0.1',{}))\nexcept OSError as e:\n sys.exit(e.errno)",
        server.port()
    );
    let run = |policy: &str| status(&run(&["-p", policy, "--", "python3", "-c", &script]));
    assert_eq!(run(&policy("")), 1, "EPERM");
    assert_eq!(run(&policy("errno = \"ECONNREFUSED\"\n")), 111);
    assert_eq!(run(&policy("errno = \"EHOSTDOWN\"\n")), 112);
    assert_eq!(run(&policy("errno = \"EHWPOISON\"\n")), 133, "the highest");
    assert_eq!(server.reached(), 0);
}

#[test]
fn a_policy_for_one_program_does_not_touch_another() {
    needs!("curl", "python3");
    let folder = Folder::new("application");
    let server = Server::local();
    let python = Command::new("python3").args(["-c", "import sys,os;print(os.path.realpath(sys.executable))"]).output();
    let python = String::from_utf8(python.unwrap().stdout).unwrap();
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", &format!("ALE_APP_ID = \"{}\"", python.trim()));
    let url = format!("http://127.0.0.1:{}/", server.port());
    let script = format!("import urllib.request as u;u.urlopen('{url}')");
    assert_eq!(status(&run(&["-p", &policy, "--", "curl", "-s", "-m", "5", &url])), 0);
    let output = run(&["-p", &policy, "--", "python3", "-c", &script]);
    assert_eq!(status(&output), 1, "{}", text(&output));
    assert_eq!(server.reached(), 1, "curl alone");
}

#[test]
fn one_unconnected_socket_is_permitted_to_one_peer_and_refused_to_another() {
    needs!("python3");
    let folder = Folder::new("peers");
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (good, bad) = (bind(), bind());
    let (good_port, bad_port) = (good.local_addr().unwrap().port(), bad.local_addr().unwrap().port());
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", &format!("IP_REMOTE_PORT = {bad_port}"));
    let script = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nr=[]\nfor p in ({good_port},{bad_port},{good_port}):\n try:\n  s.sendto(b'x',('127.0.0.1',p)); r.append('sent')\n except PermissionError: r.append('refused')\nprint(r)"
    );
    let output = run(&["-p", &policy, "--", "python3", "-c", &script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "['sent', 'refused', 'sent']", "{}", text(&output));
    bad.set_nonblocking(true).unwrap();
    assert!(bad.recv(&mut [0; 8]).is_err(), "nothing has arrived");
}

#[test]
fn ipv6_and_mapped_addresses() {
    needs!("python3");
    let folder = Folder::new("v6");
    let (v4, v6) = (Server::local(), Server::at((Ipv6Addr::LOCALHOST, 0)));
    let run = |layer: &str, target: &str, port: u16| {
        let policy = blocking(&folder, layer, &format!("IP_REMOTE_PORT = {port}"));
        let script = format!(
            "import socket,sys\ns=socket.socket(socket.AF_INET6)\ntry:\n s.connect(('{target}',{port}))\nexcept PermissionError:\n sys.exit(9)"
        );
        status(&run(&["-p", &policy, "--", "python3", "-c", &script]))
    };
    assert_eq!(run("ALE_AUTH_CONNECT_V6", "::1", v6.port()), 9);
    assert_eq!(run("ALE_AUTH_CONNECT_V4", "::1", v6.port()), 0);
    // an IPv4-mapped address is IPv4 traffic
    assert_eq!(run("ALE_AUTH_CONNECT_V4", "::ffff:127.0.0.1", v4.port()), 9);
    assert_eq!(run("ALE_AUTH_CONNECT_V6", "::ffff:127.0.0.1", v4.port()), 0);
}

#[test]
fn bind_and_listen_and_accept() {
    needs!("python3", "bash");
    let folder = Folder::new("listen");
    let policy = |layer: &str, port: u16| blocking(&folder, layer, &format!("IP_LOCAL_PORT = {port}"));
    // dual-stack: an endpoint on :: that serves IPv4 too is bound at V4 as well
    let bind = "import socket,sys\ns=socket.socket(socket.AF_INET6)\ns.setsockopt(41,26,int(sys.argv[1]))\ntry:\n s.bind(('::',23456))\nexcept PermissionError:\n sys.exit(9)";
    for (layer, only, expected) in [
        ("ALE_RESOURCE_ASSIGNMENT_V6", "1", 9),
        ("ALE_RESOURCE_ASSIGNMENT_V4", "0", 9),
        ("ALE_RESOURCE_ASSIGNMENT_V4", "1", 0),
    ] {
        let output = run(&["-p", &policy(layer, 23456), "--", "python3", "-c", bind, only]);
        assert_eq!(status(&output), expected, "{layer} {only}: {}", text(&output));
    }
    // a listener in the group, a client in the group: the connection is made, or its SYN is dropped
    let pair = "import socket,sys\na=socket.socket();a.bind(('127.0.0.1',23457));a.listen()\nc=socket.socket();c.settimeout(0.5)\ntry:\n c.connect(('127.0.0.1',23457))\nexcept TimeoutError:\n sys.exit(9)";
    for (layer, expected) in [("ALE_AUTH_LISTEN", 9), ("ALE_AUTH_RECV_ACCEPT", 9), ("ALE_AUTH_CONNECT", 0)] {
        let output = run(&["-p", &policy(layer, 23457), "--", "python3", "-c", pair]);
        assert_eq!(status(&output), expected, "{layer}: {}", text(&output));
    }
}

#[test]
fn a_late_refusal_ends_the_connect() {
    needs!("python3");
    let folder = Folder::new("late");
    let server = Server::local();
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", "IP_LOCAL_ADDRESS = \"127.0.0.1\"");
    let script = format!(
        "import socket,sys,time\ns=socket.socket()\ns.settimeout(20)\nt=time.time()\ntry:\n s.connect(('127.0.0.1',{}))\nexcept TimeoutError:\n sys.exit(8)\nexcept OSError:\n sys.exit(9 if time.time()-t<3 else 7)",
        server.port()
    );
    let output = run(&["-p", &policy, "--", "python3", "-c", &script]);
    assert_eq!(status(&output), 9, "{}", text(&output));
    assert_eq!(server.reached(), 0);
}

#[test]
fn an_address_that_is_added_while_the_command_runs_is_local() {
    needs!("unshare", "ip", "python3");
    let folder = Folder::new("added");
    let log = folder.path("events.jsonl");
    let (ready, go) = (folder.path("ready"), folder.path("go"));
    // in a network namespace of its own: the address belongs to nobody else
    let command = format!(
        "touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; python3 -c 'import socket; \
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.connect((\"203.0.113.7\",9))'"
    );
    folder.open_to_all();
    let wfp = env!("CARGO_BIN_EXE_wfp");
    let script = format!(
        "ip link set lo up; {wfp} run --events {log} -- sh -c '{}' & while [ ! -e {ready} ]; do sleep 0.05; done; \
         ip address add 203.0.113.7/32 dev lo; sleep 0.5; touch {go}; wait $!",
        command.replace('\'', "'\\''")
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    let found = events(&log, "ALE_AUTH_CONNECT_V4");
    assert_eq!(found[0]["values"]["FLAGS"], 1, "IS_LOOPBACK: {}", found[0]);
}

/// A kill switch, `block` unless a tunnel is used, in a network namespace of its own whose interfaces have the indexes of
/// other ones of this machine: /sys shows those, and what counts is where the command is.
#[test]
fn interfaces_are_those_of_the_network_namespace_of_the_command() {
    needs!("unshare", "ip", "python3");
    if fs::metadata("/dev/net/tun").is_err() {
        return common::live::may_skip("there is no /dev/net/tun");
    }
    let folder = Folder::new("namespace");
    let policy = blocking(&folder, "ALE_AUTH_CONNECT_V4", "INTERFACE_TYPE = { not = 131 }");
    let send = "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
                try:\n s.sendto(b\"x\",(sys.argv[1],9))\nexcept PermissionError:\n sys.exit(9)";
    let wfp = env!("CARGO_BIN_EXE_wfp");
    let script = folder.file("send.py", send);
    let run = format!("{wfp} run -p {policy} -- python3 {script}");
    let script = format!(
        "ip link set lo up && ip tuntap add mode tun name t1 && ip address add 198.51.100.1/24 dev t1 && ip link set t1 up && \
         {run} 198.51.100.2 && {run} 127.0.0.1"
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    assert_eq!(status(&output), 9, "permitted through the tunnel, refused on loopback: {}", text(&output));
    let only_tunnel = script.replace(&format!(" && {run} 127.0.0.1"), "");
    let output = Command::new("unshare").args(["--net", "sh", "-c", &only_tunnel]).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
}

/// What is behind a policy on standard input is no input of the command.
#[test]
fn a_policy_from_standard_input_is_enforced_and_the_command_reads_nothing() {
    needs!("sh", "cat", "curl");
    let server = Server::local();
    let policy = "[[filter]]\nname = 'no'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\n# the end\n";
    let script = format!("cat; curl -s -m 5 http://127.0.0.1:{}/ || exit 9", server.port());
    let output = common::wfp_reading(&["run", "-p", "-", "--", "sh", "-c", &script], policy);
    assert_eq!(status(&output), 9, "{}", text(&output));
    assert!(output.stdout.is_empty(), "{}", text(&output));
    assert!(text(&output).contains("came from standard input, so the command's is empty"), "{}", text(&output));
    assert_eq!(server.reached(), 0);
}

#[test]
fn a_filter_for_icmp_errors_is_told_what_it_meets() {
    needs!("true");
    let folder = Folder::new("errors");
    let output = run(&["-p", &blocking(&folder, "INBOUND_ICMP_ERROR", "ICMP_TYPE = 3"), "--", "true"]);
    assert_eq!(status(&output), 0);
    let expected =
        "INBOUND_ICMP_ERROR_V4 meets in `wfp run` only the errors that the command's own raw ICMP sockets read";
    assert!(text(&output).contains(expected), "{}", text(&output));
    let output = run(&["-p", &blocking(&folder, "INBOUND_TRANSPORT", "IP_PROTOCOL = 1"), "--", "true"]);
    assert!(!text(&output).contains("meets in"), "{}", text(&output));
}
