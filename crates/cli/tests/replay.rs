//! `wfp replay`, over the captures of the tree.

mod common;

use common::{Folder, lines, root, stderr, stdout, succeeds, wfp, wfp_reading};
use serde_json::Value as Json;
use std::{fs, process::Command};

fn capture(name: &str) -> String {
    root().join("captures").join(name).to_str().unwrap().to_owned()
}

const NO_HTTP: &str = "[[filter]]\nname = 'no plain HTTP'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = { IP_REMOTE_PORT = 80 }\n";

fn of_kind<'a>(events: &'a [Json], kind: &str) -> Vec<&'a Json> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn without_a_policy_everything_is_permitted_and_shown() {
    let events = lines(&succeeds(&["replay", "--json", &capture("http.pcap")]));
    let (summary, before) = events.split_last().unwrap();
    assert_eq!(summary["kind"], "summary", "the last line");
    assert_eq!(summary["packets"], summary["permitted"]);
    assert_eq!((&summary["flows"], &summary["blocked"], &summary["lost"]), (&1.into(), &0.into(), &0.into()));
    let first = &before[0];
    assert_eq!(first["layer"], "ALE_AUTH_CONNECT_V4");
    assert_eq!((&first["action"], &first["filter"], &first["packet"]), (&"permit".into(), &Json::Null, &1.into()));
    assert_eq!(first["values"]["IP_REMOTE_ADDRESS"], "192.0.2.80");
    assert_eq!((&first["values"]["IP_PROTOCOL"], &first["values"]["IP_REMOTE_PORT"]), (&6.into(), &80.into()));
    assert_eq!(first["time"].as_str().unwrap().len(), "2026-01-02T03:04:05.678901234Z".len());
    assert_eq!(of_kind(before, "flow-established").len(), 1);
    let deleted = of_kind(before, "flow-deleted");
    assert_eq!((&deleted[0]["flow"], &deleted[0]["reason"]), (&1.into(), &"closed".into()));
    assert_eq!(deleted[0]["values"]["IP_REMOTE_PORT"], 80);
}

#[test]
fn a_refused_connection_is_refused_once_and_its_packets_with_it() {
    let folder = Folder::new("refused");
    let policy = folder.file("policy.toml", NO_HTTP);
    let events = lines(&succeeds(&["replay", "-p", &policy, "--json", &capture("http.pcap")]));
    let refused = &events[0];
    assert_eq!((&refused["layer"], &refused["action"]), (&"ALE_AUTH_CONNECT_V4".into(), &"block".into()));
    assert_eq!(refused["filter"]["name"], "no plain HTTP");
    let summary = events.last().unwrap();
    assert_eq!((&summary["permitted"], &summary["blocked"]), (&0.into(), &summary["packets"]));
    let text = succeeds(&["replay", "-p", &policy, &capture("http.pcap")]);
    assert!(text.starts_with("local: 192.0.2.1 ("), "what was inferred, and why: {text}");
    assert!(text.contains("1  \"no plain HTTP\" at ALE_AUTH_CONNECT_V4"), "{text}");
}

#[test]
fn what_passes_is_not_written_over_the_capture() {
    let folder = Folder::new("over");
    let (file, link) = (folder.path("http.pcap"), folder.path("link.pcap"));
    fs::copy(capture("http.pcap"), &file).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for (written, read) in [(&file, &file), (&link, &file), (&file, &link)] {
        let output = wfp(&["replay", "--write", written, read]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(&format!("{written} is the capture itself")), "{}", stderr(&output));
        assert_eq!(fs::read(&file).unwrap(), fs::read(capture("http.pcap")).unwrap());
    }
}

/// Where the local side is given, one reading is enough.
#[test]
fn a_capture_from_a_pipe() {
    let folder = Folder::new("pipe");
    let (file, fifo) = (capture("http.pcap"), folder.path("fifo"));
    let options = "replay --json --local 192.0.2.1/32";
    let expected = succeeds(&[&options.split(' ').collect::<Vec<_>>()[..], &[&file]].concat());
    let wfp = env!("CARGO_BIN_EXE_wfp");
    for script in [
        format!("cat {file} | {wfp} {options} -"),
        // whoever writes into it is not left alone in between
        format!("mkfifo {fifo}; (set -e; exec >{fifo}; sleep 0.2; cat {file}) & {wfp} {options} {fifo} && wait $!"),
        format!("{wfp} {options} - <{file}"),
    ] {
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{script}: {}", stderr(&output));
        assert_eq!(stdout(&output), expected, "{script}");
    }
    let script = format!("cat {file} | {wfp} replay -");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("say with --local which side is local"), "{}", stderr(&output));
}

#[test]
fn the_local_side_can_be_given() {
    let text = succeeds(&["replay", "--local", "192.0.2.80/32", "--json", &capture("http.pcap")]);
    let layers: Vec<Json> = lines(&text).iter().map(|event| event["layer"].clone()).collect();
    assert!(layers.contains(&"ALE_AUTH_RECV_ACCEPT_V4".into()), "seen from the server");
    assert!(!layers.contains(&"ALE_AUTH_CONNECT_V4".into()));
    assert_eq!(wfp(&["replay", "--local", "192.0.2.80/64", "x"]).status.code(), Some(2));
}

#[test]
fn each_flow_is_established_once_and_deleted_once_with_the_cause() {
    for (name, flows, cause) in
        [("http.pcap", 1, "closed"), ("ping.pcap", 4, "end-of-capture"), ("loopback.pcap", 2, "closed")]
    {
        let events = lines(&succeeds(&["replay", "--json", "-q", &capture(name)]));
        for kind in ["flow-established", "flow-deleted"] {
            let told: Vec<_> = of_kind(&events, kind).iter().map(|event| event["flow"].as_u64().unwrap()).collect();
            let each = |flow| told.iter().filter(|&&other| other == flow).count();
            assert!(told.len() == flows && (1..=flows as u64).all(|flow| each(flow) == 1), "{name} {kind} {told:?}");
        }
        assert!(of_kind(&events, "flow-deleted").iter().all(|event| event["reason"] == cause), "{name}");
        assert_eq!(events.last().unwrap()["flows"], flows);
    }
}

#[test]
fn frames_streams_and_datagrams_are_shown_with_what_the_capture_tells() {
    let events = lines(&succeeds(&["replay", "--json", "-q", &capture("vlan.pcap")]));
    let at = |layer: &str| events.iter().find(|event| event["layer"] == layer).unwrap_or_else(|| panic!("{layer}"));
    let frame = &at("OUTBOUND_MAC_FRAME_ETHERNET")["values"];
    assert_eq!((&frame["VLAN_ID"], &frame["ETHER_TYPE"]), (&7.into(), &0x0800.into()));
    assert_eq!((&frame["MAC_LOCAL_ADDRESS_TYPE"], &frame["L2_FLAGS"]), (&0.into(), &1.into()));
    assert!(frame["MAC_LOCAL_ADDRESS"].is_string());
    assert_eq!(at("DATAGRAM_DATA_V4")["bytes"], 29);
    assert_eq!(at("DATAGRAM_DATA_V6")["values"]["DIRECTION"], 0);
    let events = lines(&succeeds(&["replay", "--json", "-q", &capture("http.pcap")]));
    let stream: Vec<_> = events.iter().filter(|event| event["layer"] == "STREAM_V4").collect();
    assert_eq!(stream.len(), 3);
    assert_eq!(stream[2]["bytes"], "hello from port 80\n".len());
    assert!(stream.iter().all(|event| event["values"]["DIRECTION"] == 0), "the direction of the connection");
    let closed = events.iter().find(|event| event["layer"] == "ALE_ENDPOINT_CLOSURE_V4").unwrap();
    assert_eq!((&closed["packet"], &closed["values"]["IP_REMOTE_PORT"]), (&12.into(), &80.into()));
    let events = lines(&succeeds(&["replay", "--json", "-q", &capture("ping.pcap")]));
    let error = &events.iter().find(|event| event["layer"] == "INBOUND_ICMP_ERROR_V6").unwrap()["values"];
    assert_eq!((&error["EMBEDDED_PROTOCOL"], &error["EMBEDDED_REMOTE_PORT"]), (&17.into(), &4001.into()));
    assert_eq!(error["EMBEDDED_REMOTE_ADDRESS"], "2001:db8::80");
    let events = lines(&succeeds(&["replay", "--json", "-q", &capture("two-interfaces.pcapng")]));
    let interfaces: Vec<_> = events.iter().filter_map(|event| event["values"]["INTERFACE_INDEX"].as_u64()).collect();
    assert!(interfaces.contains(&0) && interfaces.iter().any(|&index| index > 0), "{interfaces:?}");
}

#[test]
fn what_passes_through_the_machine_is_forwarded() {
    let folder = Folder::new("forwarded");
    let policy = folder.file(
        "policy.toml",
        "[[filter]]\nname = 'not through here'\nlayer = 'IPFORWARD'\naction = 'block'\nwhen = { IP_DESTINATION_ADDRESS = '192.0.2.80' }\n",
    );
    let events =
        lines(&succeeds(&["replay", "-p", &policy, "--local", "203.0.113.1", "--json", "-q", &capture("http.pcap")]));
    let met: Vec<_> =
        of_kind(&events, "classify").iter().take(4).map(|event| event["layer"].as_str().unwrap()).collect();
    assert_eq!(met, ["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET_V4", "IPFORWARD_V4", "IPFORWARD_V4_DISCARD"]);
    let summary = events.last().unwrap();
    assert_eq!((&summary["blocked"], &summary["permitted"], &summary["flows"]), (&6.into(), &6.into(), &0.into()));
}

#[test]
fn data_can_be_blocked_where_they_are_a_stream() {
    let folder = Folder::new("stream");
    let policy = folder.file(
        "policy.toml",
        "[[filter]]\nname = 'no words'\nlayer = 'STREAM'\naction = 'block'\nwhen = { IP_REMOTE_PORT = 80 }\n",
    );
    let events = lines(&succeeds(&["replay", "-p", &policy, "--json", "-q", &capture("http.pcap")]));
    let blocked: Vec<_> = events.iter().filter(|event| event["action"] == "block").collect();
    assert!(blocked.iter().all(|event| event["layer"] == "STREAM_V4" && event["filter"]["name"] == "no words"));
    assert_eq!((blocked.len(), &events.last().unwrap()["blocked"]), (3, &3.into()));
    let text = succeeds(&["replay", "-p", &policy, &capture("http.pcap")]);
    assert!(text.contains("3  \"no words\" at STREAM_V4"), "{text}");
    // Layers without filters are not asked at, and are counted all the same.
    let count = |layer: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(layer)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{layer}: {text}"))
            .split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(count("STREAM_V4"), ["0", "3"]);
    assert_eq!(count("STREAM_V4_DISCARD"), ["3", "0"]);
    assert_eq!(count("INBOUND_MAC_FRAME_ETHERNET"), ["6", "0"]);
    assert_eq!(count("ALE_ENDPOINT_CLOSURE_V4"), ["1", "0"]);
}

#[test]
fn every_capture_of_the_tree() {
    let entries = std::fs::read_dir(root().join("captures")).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let is_capture = path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng");
        if !is_capture || path.ends_with("cut.pcap") {
            continue;
        }
        let events = lines(&succeeds(&["replay", "--json", "-q", path.to_str().unwrap()]));
        assert!(of_kind(&events, "classify").len() > 1, "{}", path.display());
        assert_eq!(of_kind(&events, "summary").len(), 1);
    }
}

#[test]
fn a_cut_capture_is_replayed_as_far_as_it_goes() {
    let output = wfp(&["replay", "--json", "-q", &capture("cut.pcap")]);
    assert_eq!(output.status.code(), Some(1));
    let events = lines(&stdout(&output));
    assert_eq!(events.last().unwrap()["kind"], "summary");
    assert_eq!(events.last().unwrap()["packets"], 7, "it is cut in the middle of its eighth packet");
    assert!(stderr(&output).contains("cut.pcap"), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
}

#[test]
fn what_is_no_capture_is_an_error() {
    let folder = Folder::new("no-capture");
    let text = folder.file("text.pcap", "this is no capture at all, but it is long enough to be one");
    for path in [text.as_str(), "/nowhere.pcap"] {
        let output = wfp(&["replay", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(path), "{}", stderr(&output));
    }
    let output = wfp(&["replay", "/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/ is a folder"), "{}", stderr(&output));
    // a pipe cannot be read twice: once to see which side is local, and once more
    let output = wfp_reading(&["replay", "-"], "x");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--local"), "{}", stderr(&output));
}

#[test]
fn a_capture_without_packets() {
    let folder = Folder::new("nothing");
    let path = folder.path("empty.pcap");
    let whole = fs::read(capture("http.pcap")).unwrap();
    // the head of the file alone
    fs::write(&path, &whole[..24]).unwrap();
    assert_eq!(succeeds(&["replay", &path]), "no packets\n");
    let told = lines(&succeeds(&["replay", "--json", &path]));
    let [summary] = &told[..] else { panic!("{told:?}") };
    for key in ["packets", "flows", "permitted", "blocked", "lost"] {
        assert_eq!(summary[key], 0, "{key}");
    }
}
