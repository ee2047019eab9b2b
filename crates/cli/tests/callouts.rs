//! The built-in callouts in `wfp replay`, by the policies and over the captures of the tree.

mod common;

use common::{Folder, lines, root, stderr, stdout, succeeds, wfp};
use serde_json::{Value as Json, json};

fn path(folder: &str, name: &str) -> String {
    root().join(folder).join(name).to_str().unwrap().to_owned()
}

fn replay(policy: &str, options: &[&str], capture: &str) -> Vec<Json> {
    let (policy, capture) = (path("policies", policy), path("captures", capture));
    let mut arguments = vec!["replay", "--json", "-q", "-p", &policy];
    arguments.extend(options);
    arguments.push(&capture);
    lines(&succeeds(&arguments))
}

fn of_kind<'a>(events: &'a [Json], kind: &str) -> Vec<&'a Json> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_site_is_blocked_by_the_name_in_tls_wherever_it_is_cut() {
    let events = replay("block-sites.toml", &[], "tls.pcap");
    let reports = of_kind(&events, "callout");
    assert_eq!(reports.len(), 1, "www.example.org is not in the list");
    assert_eq!(reports[0]["report"], json!({"action": "block", "protocol": "tls", "site": "www.example.com"}));
    assert_eq!((&reports[0]["callout"], &reports[0]["flow"]), (&json!("block-sites"), &json!(2)));
    let deleted = of_kind(&events, "flow-deleted");
    assert!(deleted.iter().any(|event| event["flow"] == 2 && event["reason"] == "dropped"));
    assert!(deleted.iter().any(|event| event["flow"] == 1 && event["reason"] == "closed"));
    // The segment with the end of the name, and all that comes after it in both directions.
    let summary = events.last().unwrap();
    assert_eq!((&summary["blocked"], &summary["packets"]), (&json!(7), &json!(24)), "{summary}");
}

#[test]
fn a_site_is_blocked_by_the_host_in_http() {
    let folder = Folder::new("callout-http");
    let text = std::fs::read_to_string(root().join("policies/block-sites.toml")).unwrap();
    let policy = folder.file("p.toml", &text.replace("\"example.com\"", "\"192.0.2.80\""));
    let events = lines(&succeeds(&["replay", "--json", "-q", "-p", &policy, &path("captures", "http.pcap")]));
    let report = &of_kind(&events, "callout")[0]["report"];
    assert_eq!(*report, json!({"action": "block", "protocol": "http", "site": "192.0.2.80"}));
    let request = of_kind(&events, "classify").into_iter().find(|event| event["layer"] == "STREAM_V4").unwrap();
    assert_eq!((&request["action"], &request["packet"]), (&json!("block"), &json!(4)));
    assert!(of_kind(&replay("block-sites.toml", &[], "http.pcap"), "callout").is_empty());
}

#[test]
fn dns_is_reported_with_answers_and_changes_nothing() {
    let events = replay("dns-log.toml", &[], "dns.pcapng");
    let reports = of_kind(&events, "dns");
    let servers: Vec<&str> = reports.iter().map(|event| event["server"].as_str().unwrap()).collect();
    assert_eq!(servers, ["192.0.2.80:53", "[2001:db8::80]:53"]);
    for report in &reports {
        assert_eq!((&report["name"], &report["type"]), (&json!("example.com"), &json!("A")));
        assert_eq!((&report["answers"], &report["code"]), (&json!(["192.0.2.80"]), &json!("NOERROR")));
        assert_eq!((&report["action"], &report["process"]), (&json!("permit"), &Json::Null));
        assert!(report["latency_us"].as_u64().unwrap() < 1_000_000);
    }
    let summary = events.last().unwrap();
    assert_eq!((&summary["permitted"], &summary["absorbed"]), (&summary["packets"], &json!(0)));
}

#[test]
fn a_question_without_an_answer_is_reported_when_its_flow_ends() {
    let folder = Folder::new("callout-unanswered");
    let text = std::fs::read_to_string(root().join("policies/dns-log.toml")).unwrap();
    let blocked = "[[filter]]\nname = 'no answers'\nlayer = 'INBOUND_TRANSPORT'\naction = 'block'\n";
    let policy = folder.file("p.toml", &format!("{text}\n{blocked}"));
    let events = lines(&succeeds(&["replay", "--json", "-q", "-p", &policy, &path("captures", "dns.pcapng")]));
    let reports = of_kind(&events, "dns");
    assert_eq!(reports.len(), 2);
    assert!(reports.iter().all(|report| report["code"].is_null() && report["latency_us"].is_null()));
}

/// Whether a file holds these bytes somewhere.
fn holds(file: &str, bytes: &[u8]) -> bool {
    std::fs::read(file).unwrap().windows(bytes.len()).any(|window| window == bytes)
}

#[test]
fn datagrams_are_encrypted_at_one_end_and_decrypted_at_the_other() {
    const NAME: &[u8] = b"\x07example\x03com";
    let folder = Folder::new("callout-cipher");
    let (sent, received) = (folder.path("sent.pcapng"), folder.path("received.pcapng"));
    let from = ["--local", "192.0.2.1/32", "--local", "2001:db8::1/128", "--write", &sent];
    let events = replay("encrypt-datagrams.toml", &from, "dns.pcapng");
    let summary = events.last().unwrap();
    // Two questions go on changed; two answers were never encrypted.
    assert_eq!(
        (&summary["absorbed"], &summary["injected"], &summary["injected_permitted"]),
        (&json!(2), &json!(2), &json!(2))
    );
    assert_eq!(summary["blocked"], 2, "{summary}");
    assert!(holds(&path("captures", "dns.pcapng"), NAME) && !holds(&sent, NAME), "a sniffer sees no name");
    let policy = path("policies", "encrypt-datagrams.toml");
    let to = ["replay", "--json", "-q", "-p", &policy, "--local", "192.0.2.80/32", "--local", "2001:db8::80/128"];
    let events = lines(&succeeds(&[&to[..], &["--write", &received, &sent]].concat()));
    let summary = events.last().unwrap();
    assert_eq!(
        (&summary["packets"], &summary["blocked"], &summary["injected_permitted"]),
        (&json!(2), &json!(0), &json!(2))
    );
    assert!(holds(&received, NAME), "the other end reads it");
    // With another key nothing comes in.
    let text = std::fs::read_to_string(root().join("policies/encrypt-datagrams.toml")).unwrap();
    let other = folder.file("other.toml", &text.replace("ZXhhbXBsZSBr", "YXhhbXBsZSBr"));
    let refused =
        ["replay", "--json", "-q", "-p", &other, "--local", "192.0.2.80/32", "--local", "2001:db8::80/128", &sent];
    let events = lines(&succeeds(&refused));
    assert_eq!(events.last().unwrap()["blocked"], 2);
    assert_eq!(of_kind(&events, "callout")[0]["report"], json!({"refused": "not made with the key"}));
}

#[test]
fn a_datagram_in_fragments_is_looked_at_as_a_whole_or_refused() {
    let to = ["--local", "192.0.2.80/32", "--local", "2001:db8::80/128"];
    let events = replay("encrypt-datagrams.toml", &to, "fragments.pcap");
    // What arrives was not made with the key: refused once for each datagram, not for each piece. What leaves shows its
    // first fragment alone in a capture, which cannot be sealed: refused as well, and its other fragments with it.
    assert_eq!(of_kind(&events, "callout").len(), 4);
    let summary = events.last().unwrap();
    assert_eq!((&summary["absorbed"], &summary["injected"]), (&json!(0), &json!(0)), "{summary}");
}

#[test]
fn a_pattern_is_found_across_segments_and_ends_the_connection() {
    let events = replay("find-patterns.toml", &[], "parts.pcap");
    let reports = of_kind(&events, "callout");
    assert_eq!(reports.len(), 1);
    let expected = json!({"action": "block", "direction": "outbound", "offset": 16, "pattern": "confidential"});
    assert_eq!((&reports[0]["report"], &reports[0]["packet"]), (&expected, &json!(6)));
    let dropped = of_kind(&events, "flow-deleted");
    assert_eq!((dropped.len(), &dropped[0]["reason"]), (1, &json!("dropped")));
    let text = succeeds(&["replay", "-p", &path("policies", "find-patterns.toml"), &path("captures", "parts.pcap")]);
    assert!(text.contains("6  no-leaks: action=block direction=outbound offset=16 pattern=confidential"), "{text}");
}

#[test]
fn a_replay_with_callouts_says_the_same_each_time() {
    for (policy, capture) in
        [("block-sites.toml", "tls.pcap"), ("dns-log.toml", "dns.pcapng"), ("find-patterns.toml", "parts.pcap")]
    {
        assert_eq!(replay(policy, &[], capture), replay(policy, &[], capture));
    }
}

#[test]
fn the_built_in_callouts_are_listed() {
    let listed = lines(&succeeds(&["callouts", "--json"]));
    let names: Vec<&str> = listed.iter().map(|callout| callout["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["openwfp.block-sites", "openwfp.dns-monitor", "openwfp.datagram-cipher", "openwfp.find-patterns"]
    );
    assert_eq!(listed[0]["settings"][0]["name"], "sites");
    assert!(succeeds(&["callouts"]).contains("has to be given"));
}

#[test]
fn mistakes_in_callouts_are_told() {
    let folder = Folder::new("callout-mistakes");
    let filter = "[[filter]]\nname = 'f'\nlayer = 'STREAM'\naction = { callout = 'c', kind = 'unknown' }\n";
    let cases = [
        ("uses = 'openwfp.block-site'", "did you mean `openwfp.block-sites`?"),
        ("uses = 'openwfp.block-sites'", "`sites` is missing"),
        ("uses = 'openwfp.block-sites'\nsettings = { site = 'a' }", "did you mean `sites`?"),
        ("uses = 'openwfp.find-patterns'\nsettings = { patterns = '' }", "1 to 4096 bytes"),
        ("uses = 'openwfp.dns-monitor'", "cannot be asked at STREAM_V4"),
    ];
    for (number, (callout, expected)) in cases.into_iter().enumerate() {
        let policy = folder.file(&format!("{number}.toml"), &format!("[[callout]]\nname = 'c'\n{callout}\n{filter}"));
        let output = wfp(&["replay", "-p", &policy, &path("captures", "http.pcap")]);
        assert_eq!(output.status.code(), Some(1), "{callout}");
        assert!(stderr(&output).contains(expected), "{callout}: {}", stderr(&output));
        let checked = wfp(&["check", &policy]);
        assert_eq!((checked.status.code(), stderr(&checked).contains(expected)), (Some(1), true), "{callout}");
    }
    let cipher = "uses = 'openwfp.datagram-cipher'";
    let datagrams = filter.replace("STREAM", "DATAGRAM_DATA");
    let policy = folder.file("key.toml", &format!("[[callout]]\nname = 'c'\n{cipher}\n{datagrams}"));
    let output = wfp(&["replay", "-p", &policy, &path("captures", "http.pcap")]);
    assert!(stderr(&output).contains("the callout `c` refuses it: there is no `key`"), "{}", stderr(&output));
}

#[test]
fn a_callout_that_is_served_elsewhere_counts_as_unregistered() {
    let folder = Folder::new("callout-host");
    let filter = "[[filter]]\nname = 'f'\nlayer = 'STREAM'\naction = { callout = 'c', kind = 'terminating' }\n";
    let policy = folder.file("p.toml", &format!("[[callout]]\nname = 'c'\nhost = '/usr/libexec/acme'\n{filter}"));
    let output = wfp(&["replay", "--json", "-p", &policy, &path("captures", "http.pcap")]);
    assert!(stderr(&output).contains("/usr/libexec/acme is not started"), "{}", stderr(&output));
    let events = lines(&stdout(&output));
    let blocked = of_kind(&events, "classify").into_iter().find(|event| event["action"] == "block").unwrap();
    assert_eq!(blocked["reason"], "callout-unregistered");
}
