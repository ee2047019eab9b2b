//! `wfp check`: mistakes are errors, what is probably not meant is a warning.

mod common;

use common::{Folder, POLICY, lines, stderr, stdout, succeeds, wfp};
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn all_mistakes_of_all_files_are_shown_at_once() {
    let folder = Folder::new("mistakes");
    let first = folder.file("first.toml", "[[filter]]\nname = 'a'\nlayer = 'ALE_AUTH_CONECT'\naction = 'blok'\n");
    let second = folder.file(
        "second.toml",
        "[[filter]]\nname = 'b'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = { IP_REMOTE_PROT = 1 }\n",
    );
    let output = wfp(&["check", &first, &second, "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    for expected in
        ["first.toml:3:9", "ALE_AUTH_CONNECT", "first.toml:4:10", "second.toml:5:10", "IP_REMOTE_PORT", "/nowhere.toml"]
    {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    assert!(stdout(&output).is_empty());
    let output = wfp(&["check", "--json", &first, &second, "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let found = lines(&stdout(&output));
    assert!(found.len() >= 4, "{found:?}");
    assert!(
        found.iter().all(|line| line["severity"] == "error" && line["message"].is_string() && line["file"].is_string())
    );
    assert_eq!((&found[0]["line"], &found[0]["column"]), (&3.into(), &9.into()));
}

/// A policy with one of each thing that a person should know.
const ODD: &str = r#"
[[filter]]
name   = "wide"
layer  = "ALE_AUTH_CONNECT"
action = "block"
weight = 9
when   = { IP_REMOTE_PORT = "1-100" }

[[filter]]
name   = "in its shadow"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
weight = 8
when   = { IP_REMOTE_PORT = 80 }

[[filter]]
name   = "late"
layer  = "ALE_AUTH_CONNECT_V4"
action = "block"
when   = { IP_LOCAL_ADDRESS = "10.0.0.1" }

[[filter]]
name   = "errno for nobody"
layer  = "ALE_AUTH_RECV_ACCEPT_V4"
action = "block"
errno  = "EACCES"

[[filter]]
name   = "try again"
layer  = "ALE_RESOURCE_ASSIGNMENT_V4"
action = "block"
errno  = "EINPROGRESS"

[[filter]]
name   = "for later"
layer  = "ALE_AUTH_LISTEN_V4"
action = "block"
flags  = ["DISABLED"]
errno  = "EACCES"

[[callout]]
name = "scanner"

[[filter]]
name   = "asks a callout"
layer  = "STREAM_V4"
action = { callout = "scanner", kind = "terminating" }
"#;

#[test]
fn what_a_person_should_know_is_a_warning() {
    let folder = Folder::new("odd");
    let program = folder.file("program", "");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    let odd = format!(
        "{ODD}\n[[filter]]\nname = 'anyone may change it'\nlayer = 'ALE_AUTH_LISTEN_V4'\naction = 'permit'\nwhen = {{ ALE_APP_ID = '{program}' }}\n"
    );
    let odd = folder.file("odd.toml", &odd);
    let good = folder.file("good.toml", POLICY);
    let text = succeeds(&["check", "--json", &good, &odd]);
    let found = lines(&text);
    let kinds: Vec<_> =
        found.iter().map(|line| (line["kind"].as_str().unwrap(), line["filter"].as_str().unwrap())).collect();
    for expected in [
        ("shadowed", "in its shadow"),
        ("late", "late"),
        ("errno", "errno for nobody"),
        ("errno", "try again"),
        ("disabled", "for later"),
        ("callout-unregistered", "asks a callout"),
        ("application-writable", "anyone may change it"),
    ] {
        assert!(kinds.contains(&expected), "{expected:?} is missing in {kinds:?}");
    }
    assert!(!kinds.contains(&("errno", "for later")), "what is left out is not looked at: {kinds:?}");
    let (notes, warnings): (Vec<_>, Vec<_>) = found.iter().partition(|line| line["severity"] == "note");
    assert!(warnings.iter().all(|line| line["severity"] == "warning"));
    assert!(found.iter().all(|line| line["file"].as_str().unwrap().ends_with("odd.toml")));
    assert_eq!(notes.len(), 1, "the layer of streams: {notes:?}");
    let text = succeeds(&["check", &good, &odd]);
    assert!(text.contains("\"in its shadow\" at ALE_AUTH_CONNECT can never decide: \"wide\" answers first"), "{text}");
    assert!(text.contains("\"for later\" at ALE_AUTH_LISTEN_V4 is disabled: "), "{text}");
    assert!(text.contains("valid: ") && text.contains(", 1 disabled"), "{text}");
    assert_eq!(succeeds(&["check", "-q", &good, &odd]), "");
}

/// What makes a value known at connect is a bind, and to what is another matter for each field.
#[test]
fn late_filters_are_told_what_a_socket_would_have_to_be_bound_to() {
    let folder = Folder::new("late");
    let told = |conditions: &str| {
        let policy = folder.file(
            "policy.toml",
            &format!(
                "[[filter]]\nname = 'x'\nlayer = 'ALE_AUTH_CONNECT_V4'\naction = 'block'\nwhen = {{ {conditions} }}\n"
            ),
        );
        let found = lines(&succeeds(&["check", "--json", &policy]));
        let late: Vec<_> = found.iter().filter(|line| line["kind"] == "late").collect();
        let [late] = late[..] else { panic!("{conditions}: {found:?}") };
        late["message"].as_str().unwrap().trim_start_matches("\"x\" at ALE_AUTH_CONNECT_V4 ").to_owned()
    };
    let device = "INTERFACE_INDEX, not known at connect unless the socket is bound to a device (SO_BINDTODEVICE)";
    let address = "IP_LOCAL_ADDRESS, not known at connect unless the socket is bound to an address";
    let port = "IP_LOCAL_PORT, not known at connect unless the socket is bound to a port";
    let end = ": it decides when the first packet leaves, so the call is not refused, and the connection ended instead";
    assert_eq!(told("INTERFACE_INDEX = 2"), format!("tests {device}{end}"));
    assert_eq!(told("IP_LOCAL_ADDRESS = '10.0.0.1'"), format!("tests {address}{end}"));
    assert_eq!(told("IP_LOCAL_PORT = 4711"), format!("tests {port}{end}"));
    assert_eq!(
        told("IP_LOCAL_ADDRESS = '10.0.0.1', INTERFACE_INDEX = 2"),
        format!("tests {address}; and {device}{end}")
    );
}

/// Layers of captures alone, one that nothing meets, and one that is met live.
#[test]
fn layers_that_are_not_met_live_are_told() {
    let folder = Folder::new("layers");
    let filter = |name: &str, layer: &str| format!("[[filter]]\nname = '{name}'\nlayer = {layer}\naction = 'block'\n");
    let policy = folder.file(
        "policy.toml",
        &[
            filter("a", "'INBOUND_MAC_FRAME_ETHERNET'"),
            filter("b", "'STREAM'"),
            filter("c", "['STREAM_V6', 'ALE_AUTH_CONNECT']"),
            filter("d", "'RPC_UM'"),
            filter("e", "'IKEEXT_V4'").replace("action", "flags = ['DISABLED']\naction"),
        ]
        .concat(),
    );
    let found = lines(&succeeds(&["check", "--json", &policy]));
    let notes: Vec<_> = found.iter().filter(|line| line["kind"] == "layer-not-live").collect();
    let told: Vec<_> =
        notes.iter().map(|note| (note["layer"].as_str().unwrap(), &note["met"], &note["filters"])).collect();
    let (replay, nowhere) = (serde_json::json!(["replay"]), serde_json::json!([]));
    let expected = [
        ("STREAM_V4", &replay, &1.into()),
        ("STREAM_V6", &replay, &2.into()),
        ("INBOUND_MAC_FRAME_ETHERNET", &replay, &1.into()),
        ("RPC_UM", &nowhere, &1.into()),
    ];
    assert_eq!(told, expected);
    assert!(notes.iter().all(|note| note["severity"] == "note" && note["message"].is_string()));
    let text = succeeds(&["check", &policy]);
    assert!(text.contains("note: STREAM is not met live: `wfp replay` asks its filters"), "{text}");
    assert!(text.contains("note: RPC_UM is not met live, nor by `wfp replay`: only `wfp explain`"), "{text}");
    assert!(!text.contains("ALE_AUTH_CONNECT is not met"), "{text}");
}

#[test]
fn an_application_that_does_not_exist_is_a_warning() {
    let folder = Folder::new("missing");
    let policy = folder.file(
        "policy.toml",
        "[[filter]]\nname = 'x'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = { ALE_APP_ID = '/no/such/program' }\n",
    );
    let text = succeeds(&["check", &policy]);
    assert!(text.contains("/no/such/program") && text.contains("policy.toml:5:"), "{text}");
    assert!(text.contains("1 warning"), "{text}");
}

#[test]
fn alternatives_that_are_each_a_negation_are_warned_of_once() {
    let folder = Folder::new("negations");
    for tests in ["[{ not = 80 }, { not = 443 }]", "[{ not = 80 }, { not = 80 }, { not = 443 }]"] {
        let policy = folder.file(
            "negations.toml",
            &format!(
                "[[filter]]\nname = 'all but two'\nlayer = 'ALE_AUTH_CONNECT_V4'\naction = 'block'\n\
                 when = {{ IP_REMOTE_PORT = {tests} }}\n"
            ),
        );
        let output = wfp(&["check", &policy]);
        let text = format!("{}{}", stdout(&output), stderr(&output));
        assert_eq!(text.matches("warning:").count(), 1, "{text}");
        assert!(text.contains("the tests of `IP_REMOTE_PORT` hold for nearly everything"), "{text}");
    }
}

#[test]
fn which_icmp_errors_a_group_meets_is_said() {
    let folder = Folder::new("errors");
    let policy = |layer: &str| {
        format!("[[filter]]\nname = 'no errors'\nlayer = '{layer}'\naction = 'block'\nwhen = {{ ICMP_TYPE = 3 }}\n")
    };
    for (layer, errors) in
        [("INBOUND_ICMP_ERROR", "raw ICMP sockets read"), ("OUTBOUND_ICMP_ERROR_V4_DISCARD", "raw ICMP sockets send")]
    {
        let file = folder.file("policy.toml", &policy(layer));
        let found = lines(&succeeds(&["check", "--json", &file]));
        assert!(!found.is_empty(), "{layer}");
        for line in &found {
            assert_eq!((&line["kind"], &line["severity"]), (&"icmp-errors".into(), &"warning".into()), "{line}");
            assert!(line["message"].as_str().unwrap().contains(errors), "{line}");
        }
        let text = succeeds(&["check", &file]);
        assert!(text.contains(&format!("\"no errors\" at {layer} meets in `wfp run` only the errors")), "{text}");
    }
    let file = folder.file("policy.toml", &policy("INBOUND_TRANSPORT"));
    assert_eq!(succeeds(&["check", "--json", &file]), "", "other layers meet what they say");
}
