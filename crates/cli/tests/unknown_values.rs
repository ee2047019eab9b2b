//! Values that exist and were not known: told in the lines of events, and taken back by `wfp explain`.

#[macro_use]
mod common;

use common::{
    Folder, lines,
    live::{run, status, text},
    stderr, succeeds, wfp,
};
use serde_json::{Value as Json, json};
use std::fs;

const POLICY: &str = r#"
[[filter]]
name   = "not there"
layer  = ["ALE_AUTH_CONNECT", "ALE_AUTH_RECV_ACCEPT"]
action = "block"
when   = { INTERFACE_INDEX = 77 }
"#;

/// What decided: action, reason, filter.
fn answer(line: &Json) -> [Json; 3] {
    [line["action"].clone(), line["reason"].clone(), line["filter"]["id"].clone()]
}

/// Every event of a log, asked again.
#[track_caller]
fn are_explained_as_decided(policy: &str, log: &str) -> usize {
    let mut events = lines(&fs::read_to_string(log).unwrap());
    events.retain(|event| event["kind"] == "classify");
    let mut layers: Vec<&str> = events.iter().map(|event| event["layer"].as_str().unwrap()).collect();
    layers.sort_unstable();
    layers.dedup();
    for layer in layers {
        let of_layer: Vec<_> = events.iter().filter(|event| event["layer"] == layer).map(answer).collect();
        for options in [&["--json"][..], &["--brief"]] {
            let words = [&["explain", "-q", "-p", policy, layer, "--from", log][..], options].concat();
            let explained: Vec<_> = lines(&succeeds(&words)).iter().map(answer).collect();
            assert_eq!(explained, of_layer, "{layer}");
        }
    }
    events.len()
}

/// In a network namespace that the run does not know, interfaces are not known either.
#[test]
fn what_the_kernel_could_not_tell_is_not_empty() {
    needs!("unshare", "python3", "ip", "sh");
    let folder = Folder::new("unknown");
    folder.open_to_all();
    let (policy, log) = (folder.file("policy.toml", POLICY), folder.path("events.jsonl"));
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 9))\n\
                  try:\n s.sendto(b'x', ('127.0.0.1', 9))\n print('sent')\nexcept PermissionError: print('refused')";
    let command = format!("ip link set lo up; exec python3 -c \"{script}\"");
    let options = ["--no-isolation", "--events", &log, "-p", &policy, "--"];
    let output = run(&[&options[..], &["unshare", "-n", "sh", "-c", &command]].concat());
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert_eq!(text(&output), "refused\n");
    let events = lines(&fs::read_to_string(&log).unwrap());
    let asked = events.iter().find(|event| event["layer"] == "ALE_AUTH_CONNECT_V4").unwrap();
    assert_eq!(answer(asked), [json!("block"), json!("unreadable"), Json::Null], "{asked}");
    let unknown: Vec<&str> = asked["unknown"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(unknown.contains(&"INTERFACE_INDEX"), "{asked}");
    for name in &unknown {
        assert!(asked["values"].get(name).is_none(), "{name} is unknown and has a value: {asked}");
    }
    assert!(are_explained_as_decided(&policy, &log) > 3);
    // read as empty, they would have passed
    let without = events.iter().filter(|event| event["kind"] == "classify").map(|event| {
        let mut event = event.clone();
        event.as_object_mut().unwrap().remove("unknown");
        format!("{event}\n")
    });
    let log = folder.file("without.jsonl", &without.collect::<String>());
    let explain = ["explain", "-q", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--brief", "--from", &log];
    assert_eq!(lines(&succeeds(&explain))[0]["action"], "permit");
}

/// What is late at connect decides nothing here, and what decides at the first packet is known there.
#[test]
fn what_was_not_known_yet() {
    needs!("bash");
    let folder = Folder::new("late");
    folder.open_to_all();
    let log = folder.path("events.jsonl");
    let send = ["bash", "-c", "echo x >/dev/udp/127.0.0.1/9; echo x >/dev/udp/::1/9"];
    for (condition, late) in [("IP_REMOTE_PORT = 7", true), ("IP_LOCAL_PORT = 7", false)] {
        let text_of =
            format!("[[filter]]\nname = 'x'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = {{ {condition} }}\n");
        let policy = folder.file("policy.toml", &text_of);
        let output = run(&[&["-p", &policy, "--events", &log, "--"][..], &send].concat());
        assert_eq!(status(&output), 0, "{}", text(&output));
        let events = lines(&fs::read_to_string(&log).unwrap());
        let asked: Vec<&Json> = events.iter().filter(|event| event["layer"] == "ALE_AUTH_CONNECT_V4").collect();
        let unknown =
            |event: &&Json| event["unknown"].as_array().is_some_and(|all| all.contains(&json!("IP_LOCAL_PORT")));
        assert_eq!(
            asked.iter().filter(|event| unknown(event)).count(),
            if late { asked.len() } else { 0 },
            "{asked:?}"
        );
        assert!(!asked.is_empty() && are_explained_as_decided(&policy, &log) > 6);
    }
}

#[test]
fn lists_that_are_wrong() {
    let folder = Folder::new("lists");
    let policy = folder.file("policy.toml", POLICY);
    let explain = |unknown: &str| {
        let line = format!("{{\"kind\":\"classify\",\"values\":{{\"IP_REMOTE_PORT\":80}},\"unknown\":{unknown}}}\n");
        let file = folder.file("events.jsonl", &line);
        wfp(&["explain", "-p", &policy, "ALE_AUTH_RECV_ACCEPT_V4", "--brief", "--from", &file])
    };
    for (unknown, said) in [
        ("{}", "`unknown` is no list of fields"),
        ("\"INTERFACE_INDEX\"", "`unknown` is no list of fields"),
        ("[7]", "`unknown` is no list of fields"),
        ("[\"INTERFACE_INDEXES\"]", "there is no field INTERFACE_INDEXES"),
        ("[\"IP_REMOTE_PORT\"]", "IP_REMOTE_PORT is unknown and has a value"),
        ("[\"ALE_APP_ID\",\"ale_app_id\"]", "unknown twice"),
    ] {
        let output = explain(unknown);
        assert_eq!(output.status.code(), Some(1), "{unknown}");
        assert!(stderr(&output).contains(said), "{unknown}: {}", stderr(&output));
    }
    let answered = |unknown| answer(&lines(&common::stdout(&explain(unknown)))[0]);
    assert_eq!(answered("[]")[0], "permit");
    assert_eq!(answered("[\"INTERFACE_INDEX\"]")[..2], [json!("block"), json!("unreadable")]);
}
