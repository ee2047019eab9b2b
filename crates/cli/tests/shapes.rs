//! The JSON that scripts rely on, key by key: explanations, brief answers, events, summaries.

mod common;

use common::{Folder, lines, root, stderr, succeeds, wfp};
use serde_json::{Value as Json, json};

/// An upper sublayer that permits the web, and a lower one that blocks some of it.
const POLICY: &str = r#"
[[sublayer]]
name   = "upper"
weight = 200

[[sublayer]]
name   = "lower"
weight = 100

[[filter]]
name     = "web"
layer    = "ALE_AUTH_CONNECT"
sublayer = "upper"
action   = "permit"
when     = { IP_PROTOCOL = "tcp", IP_REMOTE_PORT = [80, 443] }

[[filter]]
name     = "not on this machine"
layer    = "ALE_AUTH_CONNECT"
sublayer = "lower"
weight   = 9
action   = "block"
when     = { FLAGS = { any = ["IS_LOOPBACK"] } }

[[filter]]
name     = "not for this program"
layer    = "ALE_AUTH_CONNECT"
sublayer = "lower"
weight   = 8
action   = "block"
when     = { ALE_APP_ID = "/no/such/program" }

[[filter]]
name     = "not for daemon"
layer    = "ALE_AUTH_CONNECT"
sublayer = "lower"
weight   = 7
action   = "block"
when     = { ALE_USER_ID = "daemon" }
"#;

const V4: &str = "ALE_AUTH_CONNECT_V4";

/// The answer to one event.
#[track_caller]
fn answer(name: &str, words: &[&str]) -> Json {
    let folder = Folder::new(&format!("shapes-{name}"));
    let policy = folder.file("policy.toml", POLICY);
    let found = lines(&succeeds(&[&["explain", "-q", "--json", "-p", &policy], words].concat()));
    assert_eq!(found.len(), 1);
    found[0].clone()
}

/// An object has these keys, and perhaps more.
#[track_caller]
fn has_keys(object: &Json, wanted: &[&str]) {
    for wanted in wanted {
        assert!(object.get(wanted).is_some(), "there is no `{wanted}` in {object}");
    }
}

#[test]
fn an_explanation() {
    let answer = answer("explanation", &[V4, "IP_PROTOCOL=tcp", "IP_REMOTE_PORT=80", "FLAGS=IS_LOOPBACK"]);
    has_keys(&answer, &["layer", "action", "filter", "right", "sublayers"]);
    has_keys(&answer["filter"], &["id", "key", "name"]);
    assert_eq!((&answer["layer"], &answer["action"], &answer["right"]), (&json!(V4), &json!("block"), &json!("hard")));

    let [upper, lower] = &answer["sublayers"].as_array().unwrap()[..] else { panic!("{answer}") };
    for sublayer in [upper, lower] {
        has_keys(sublayer, &["sublayer", "weight", "answer", "filters"]);
    }
    assert_eq!(
        (&upper["sublayer"], &upper["weight"], &upper["answer"]),
        (&json!("upper"), &json!(200), &json!("permit"))
    );
    assert_eq!(
        (&lower["sublayer"], &lower["weight"], &lower["answer"]),
        (&json!("lower"), &json!(100), &json!("block"))
    );

    let web = &upper["filters"][0];
    has_keys(web, &["filter", "matched", "decided", "action", "conditions"]);
    has_keys(&web["filter"], &["id", "key", "name"]);
    assert_eq!((&web["matched"], &web["decided"], &web["action"]), (&json!(true), &json!(false), &json!("permit")));
    let conditions = web["conditions"].as_array().unwrap();
    let expected = json!({
        "field": "IP_REMOTE_PORT", "match": "equal", "expected": "80", "actual": "80", "matched": true
    });
    assert!(conditions.contains(&expected), "{web}");

    let filters = lower["filters"].as_array().unwrap();
    let told: Vec<_> = filters
        .iter()
        .map(|filter| {
            (filter["filter"]["name"].as_str().unwrap(), filter["decided"] == true, filter["reached"] == true)
        })
        .collect();
    let expected =
        [("not on this machine", true, true), ("not for this program", false, false), ("not for daemon", false, false)];
    assert_eq!(told, expected, "in the order in which the engine walks them");
    assert_eq!(filters[0]["filter"], answer["filter"]);
}

#[test]
fn an_explanation_where_nothing_matches() {
    let answer = answer("nothing", &[V4, "IP_REMOTE_PORT=22"]);
    assert_eq!((&answer["action"], &answer["filter"]), (&json!("permit"), &json!(null)));
    assert_eq!(answer["sublayers"][0]["answer"], json!(null));
    let condition = &answer["sublayers"][1]["filters"][1]["conditions"][0];
    assert_eq!((&condition["field"], &condition["actual"]), (&json!("ALE_APP_ID"), &json!(null)), "empty is null");
}

#[test]
fn a_brief_answer() {
    let found = answer("brief", &[V4, "--brief", "FLAGS=1"]);
    assert_eq!(
        found,
        json!({"action": "block", "filter": {"id": found["filter"]["id"], "name": "not on this machine"}})
    );
    assert!(found["filter"]["id"].is_u64());
    assert_eq!(answer("brief-none", &[V4, "--brief"]), json!({"action": "permit", "filter": null}));
}

#[test]
fn values_are_written_as_in_policy_files() {
    let loopback = json!("not on this machine");
    let table: [(&[&str], Json); 17] = [
        (&["IP_PROTOCOL=6", "IP_REMOTE_PORT=80"], json!("web")),
        (&["IP_PROTOCOL=tcp", "IP_REMOTE_PORT=443"], json!("web")),
        (&["IP_PROTOCOL=TCP", "IP_REMOTE_PORT=https"], json!("web")),
        (&["FWPM_CONDITION_IP_PROTOCOL=tcp", "ip_remote_port=http"], json!("web")),
        (&["IP_PROTOCOL=udp", "IP_REMOTE_PORT=80"], json!(null)),
        (&["IP_PROTOCOL=", "IP_REMOTE_PORT=80"], json!(null)),
        (&["FLAGS=IS_LOOPBACK"], loopback.clone()),
        (&["FLAGS=0x1"], loopback.clone()),
        (&["FLAGS=3"], loopback.clone()),
        (&["FLAGS=IS_LOOPBACK|IS_WILDCARD_BIND"], loopback.clone()),
        (&["FLAGS=IS_WILDCARD_BIND, IS_LOOPBACK"], loopback),
        (&["FLAGS=IS_WILDCARD_BIND"], json!(null)),
        (&["ALE_APP_ID=/no/such/program"], json!("not for this program")),
        (&["ALE_APP_ID=/no/other/program"], json!(null)),
        (&["ALE_USER_ID=daemon"], json!("not for daemon")),
        (&["ALE_USER_ID=1"], json!("not for daemon")),
        (&["ALE_USER_ID=0"], json!(null)),
    ];
    for layer in [V4, "FWPM_LAYER_ALE_AUTH_CONNECT_V6", "ale_auth_connect_v4"] {
        for (words, name) in &table {
            let found = answer("values", &[&[layer, "--brief"], *words].concat());
            assert_eq!(found["filter"]["name"], *name, "{layer} {words:?}");
        }
    }
}

#[track_caller]
fn replayed(arguments: &[&str]) -> Vec<Json> {
    let root = root();
    let capture = root.join("captures/http.pcap");
    lines(&succeeds(&[&["replay", "--json", "-q", capture.to_str().unwrap()], arguments].concat()))
}

#[test]
fn events_of_a_replay() {
    let events = replayed(&[]);
    for event in events.iter().filter(|event| event["kind"] == "classify") {
        has_keys(event, &["time", "kind", "layer", "action", "filter", "sublayer", "flow", "packet", "values"]);
        let of_frame = event["layer"].as_str().unwrap().ends_with("_MAC_FRAME_ETHERNET");
        let fields = match of_frame {
            true => ["MAC_LOCAL_ADDRESS", "MAC_REMOTE_ADDRESS", "ETHER_TYPE"],
            false => ["IP_LOCAL_ADDRESS", "IP_REMOTE_ADDRESS", "FLAGS"],
        };
        has_keys(&event["values"], &fields);
        assert!(event["values"].get("ALE_APP_ID").is_none(), "empty fields are left out: {event}");
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
    }
    for event in events.iter().filter(|event| event["kind"] != "classify" && event["kind"] != "summary") {
        assert!(event["kind"] == "flow-established" || event["kind"] == "flow-deleted", "{event}");
        has_keys(event, &["time", "kind", "flow"]);
    }
    let summary = events.last().unwrap();
    has_keys(summary, &["kind", "packets", "flows", "permitted", "blocked", "lost"]);
}

#[test]
fn a_connection_meets_its_layers_in_order() {
    let events = replayed(&[]);
    let met: Vec<_> = events
        .iter()
        .filter(|event| event["kind"] == "classify")
        .map(|event| (event["packet"].as_u64().unwrap(), event["layer"].as_str().unwrap()))
        .take_while(|(packet, _)| *packet <= 3)
        .collect();
    let expected = [
        (1, "ALE_AUTH_CONNECT_V4"),
        (1, "STREAM_PACKET_V4"),
        (1, "OUTBOUND_TRANSPORT_V4"),
        (1, "OUTBOUND_IPPACKET_V4"),
        (1, "OUTBOUND_MAC_FRAME_ETHERNET"),
        (2, "INBOUND_MAC_FRAME_ETHERNET"),
        (2, "INBOUND_IPPACKET_V4"),
        (2, "INBOUND_TRANSPORT_V4"),
        (2, "STREAM_PACKET_V4"),
        (2, "ALE_FLOW_ESTABLISHED_V4"),
        (3, "STREAM_PACKET_V4"),
        (3, "OUTBOUND_TRANSPORT_V4"),
        (3, "OUTBOUND_IPPACKET_V4"),
        (3, "OUTBOUND_MAC_FRAME_ETHERNET"),
    ];
    assert_eq!(met, expected);
}

#[test]
fn an_event_of_a_replay_can_be_asked_for_its_reason() {
    let policy = root().join("policies/block-plain-http.toml");
    let policy = policy.to_str().unwrap();
    let event = &replayed(&["-p", policy])[0];
    assert_eq!((&event["action"], &event["filter"]["name"]), (&json!("block"), &json!("no plain HTTP")));
    assert!(event["sublayer"].is_string());
    let folder = Folder::new("shapes-reason");
    let file = folder.file("events.jsonl", &format!("{event}\n"));
    let explained = &lines(&succeeds(&["explain", "-p", policy, V4, "--from", &file]))[0];
    assert_eq!((&explained["action"], &explained["filter"]), (&event["action"], &event["filter"]));
}

#[test]
fn why_a_capture_is_broken_is_said_once() {
    let capture = root().join("captures/cut.pcap");
    let output = wfp(&["replay", "-q", capture.to_str().unwrap()]);
    let said = stderr(&output);
    assert!(said.contains("frame 8") && said.matches("the capture ends inside a packet").count() == 1, "{said}");
}

#[test]
fn a_field_under_two_names_is_given_twice() {
    let folder = Folder::new("shapes-twice");
    let policy = folder.file("policy.toml", POLICY);
    let file = folder.file("events.jsonl", "{\"IP_REMOTE_PORT\":80,\"ICMP_CODE\":0}\n");
    for (event, status) in [(&["IP_REMOTE_PORT=80", "ICMP_CODE=0"][..], 2), (&["--from", &file], 1)] {
        let output = wfp(&[&["explain", "-q", "-p", &policy, V4], event].concat());
        assert_eq!(output.status.code(), Some(status));
        assert!(stderr(&output).contains("ICMP_CODE is given twice"), "{}", stderr(&output));
    }
}

#[test]
fn the_events_of_a_replay_are_counted_as_those_of_one_cpu() {
    let capture = root().join("captures/http.pcap");
    let told = lines(&succeeds(&["replay", "--json", "-q", capture.to_str().unwrap()]));
    let (classified, others): (Vec<_>, Vec<_>) = told.iter().partition(|line| line["kind"] == "classify");
    for (seq, line) in classified.iter().enumerate() {
        assert_eq!((&line["cpu"], &line["seq"]), (&json!(0), &json!(seq)), "{line}");
        assert!(line.get("unknown").is_none(), "a capture shows what it has: {line}");
    }
    assert!(others.len() > 2 && others.iter().all(|line| line.get("seq").is_none()), "{others:?}");
}
