//! The policies in `policies/` are valid, and decide as their comments say.

mod common;

use common::{lines, root, succeeds};
use std::fs;

#[test]
fn every_policy_is_valid() {
    let mut names: Vec<_> = fs::read_dir(root().join("policies")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(names.len() >= 6, "{names:?}");
    for path in &names {
        let text = succeeds(&["check", path.to_str().unwrap()]);
        assert!(text.contains("valid: "), "{}: {text}", path.display());
    }
}

/// What a policy says, without its comments and the width of its columns.
fn said(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_readme_shows_the_policy_that_is_in_the_folder() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let shown = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy = fs::read_to_string(root().join("policies/only-python.toml")).unwrap();
    assert_eq!(said(shown), said(&policy));
}

/// The layer, the event, the outcome: permit, block, or `late` where the first packet decides.
type Cases = &'static [(&'static str, &'static str, &'static str)];

#[track_caller]
fn decides(policy: &str, cases: Cases) {
    let path = root().join("policies").join(policy);
    for (layer, event, outcome) in cases {
        let mut arguments = vec!["explain", "-q", "--json", "--brief", "-p", path.to_str().unwrap(), layer];
        arguments.extend(event.split(' '));
        let answer = &lines(&succeeds(&arguments))[0];
        let said = answer.get("reason").unwrap_or(&answer["action"]);
        assert_eq!(said, *outcome, "{policy} at {layer}: {event}");
    }
}

const CONNECT: &str = "ALE_AUTH_CONNECT";
const CONNECT_V4: &str = "ALE_AUTH_CONNECT_V4";
const CONNECT_V6: &str = "ALE_AUTH_CONNECT_V6";

#[test]
fn plain_http_is_refused_and_loopback_is_not() {
    let cases = &[
        (CONNECT_V4, "IP_PROTOCOL=tcp IP_REMOTE_PORT=80 FLAGS=0", "block"),
        (CONNECT_V6, "IP_PROTOCOL=tcp IP_REMOTE_PORT=8099 FLAGS=0", "block"),
        (CONNECT_V4, "IP_PROTOCOL=tcp IP_REMOTE_PORT=443 FLAGS=0", "permit"),
        (CONNECT_V4, "IP_PROTOCOL=udp IP_REMOTE_PORT=80 FLAGS=0", "permit"),
        (CONNECT_V4, "IP_PROTOCOL=tcp IP_REMOTE_PORT=80 FLAGS=IS_LOOPBACK", "permit"),
    ];
    decides("block-plain-http.toml", cases);
}

#[test]
fn python_alone_connects() {
    let cases = &[
        (CONNECT_V4, "ALE_APP_ID=/usr/bin/python3 IP_PROTOCOL=tcp IP_REMOTE_PORT=8080", "permit"),
        (CONNECT_V6, "ALE_APP_ID=/usr/bin/python3 IP_PROTOCOL=tcp IP_REMOTE_PORT=80", "block"),
        (CONNECT_V4, "ALE_APP_ID=/usr/bin/env IP_PROTOCOL=tcp IP_REMOTE_PORT=8080", "block"),
        ("ALE_AUTH_RECV_ACCEPT_V4", "ALE_APP_ID=/usr/bin/env", "permit"),
    ];
    decides("only-python.toml", cases);
}

#[test]
fn what_is_on_the_list_is_reached() {
    let cases = &[
        (CONNECT, "IP_REMOTE_ADDRESS=10.255.255.255", "permit"),
        (CONNECT, "IP_REMOTE_ADDRESS=11.0.0.0", "block"),
        (CONNECT, "IP_REMOTE_ADDRESS=2001:db8:1::1", "permit"),
        (CONNECT, "IP_REMOTE_ADDRESS=2001:db9::1", "block"),
        (CONNECT, "IP_REMOTE_ADDRESS=9.9.9.9 IP_PROTOCOL=udp IP_REMOTE_PORT=53", "permit"),
        (CONNECT, "IP_REMOTE_ADDRESS=9.9.9.9 IP_PROTOCOL=tcp IP_REMOTE_PORT=443", "block"),
        (CONNECT, "IP_REMOTE_ADDRESS=127.0.0.1 FLAGS=IS_LOOPBACK", "permit"),
    ];
    decides("allow-list-by-address.toml", cases);
}

#[test]
fn nobody_serves() {
    let cases = &[
        ("ALE_AUTH_LISTEN_V4", "IP_LOCAL_PORT=8000", "block"),
        ("ALE_AUTH_LISTEN_V6", "IP_LOCAL_PORT=8000", "block"),
        ("ALE_AUTH_RECV_ACCEPT_V4", "IP_PROTOCOL=udp FLAGS=0", "block"),
        ("ALE_AUTH_RECV_ACCEPT_V6", "IP_PROTOCOL=udp FLAGS=IS_LOOPBACK", "permit"),
        (CONNECT_V4, "IP_REMOTE_PORT=443 FLAGS=0", "permit"),
    ];
    decides("no-listen.toml", cases);
}

#[test]
fn nothing_goes_past_the_tunnel() {
    let cases = &[
        (CONNECT_V4, "INTERFACE_TYPE=131 FLAGS=0", "permit"),
        (CONNECT_V6, "INTERFACE_TYPE=6 FLAGS=0", "block"),
        (CONNECT_V4, "INTERFACE_TYPE=? FLAGS=0", "late"),
        (CONNECT_V4, "INTERFACE_TYPE=? FLAGS=IS_LOOPBACK", "permit"),
        (CONNECT_V4, "INTERFACE_TYPE=? IP_PROTOCOL=udp IP_REMOTE_ADDRESS=198.51.100.7 IP_REMOTE_PORT=51820", "permit"),
    ];
    decides("kill-switch-vpn.toml", cases);
}

#[test]
fn users_have_different_rights() {
    let cases = &[
        (CONNECT_V4, "ALE_USER_ID=nobody FLAGS=IS_LOOPBACK", "block"),
        ("ALE_AUTH_LISTEN_V6", "ALE_USER_ID=daemon FLAGS=0", "block"),
        (CONNECT_V6, "ALE_USER_ID=root FLAGS=0", "block"),
        (CONNECT_V6, "ALE_USER_ID=0 FLAGS=IS_LOOPBACK", "permit"),
        (CONNECT_V4, "ALE_USER_ID=65533 FLAGS=0", "permit"),
    ];
    decides("per-user.toml", cases);
}
