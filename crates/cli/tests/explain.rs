//! `wfp explain`.

mod common;

use common::{Folder, POLICY, lines, root, stderr, stdout, succeeds, wfp, wfp_reading};
use std::fs;

const HTTP: [&str; 4] = ["ALE_AUTH_CONNECT", "IP_PROTOCOL=tcp", "IP_REMOTE_ADDRESS=192.0.2.1", "IP_REMOTE_PORT=8011"];

fn explain(folder: &Folder, arguments: &[&str]) -> String {
    let policy = folder.file("policy.toml", POLICY);
    succeeds(&[&["explain", "-p", &policy][..], arguments].concat())
}

#[test]
fn an_explanation_for_people() {
    let folder = Folder::new("people");
    let text = explain(&folder, &HTTP);
    let golden = root().join("crates/cli/tests/golden/explain.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(golden).unwrap());
}

#[test]
fn an_explanation_for_programs() {
    let folder = Folder::new("programs");
    let answer = &lines(&explain(&folder, &[&HTTP[..], &["--json"]].concat()))[0];
    assert_eq!(answer["layer"], "ALE_AUTH_CONNECT_V4");
    assert_eq!(answer["action"], "block");
    assert_eq!(answer["right"], "hard");
    assert_eq!(answer["filter"]["name"], "no plain HTTP");
    assert!(answer["filter"]["id"].is_u64());
    assert_eq!(answer["filter"]["key"].as_str().unwrap().len(), 38);
    let [universal, web] = &answer["sublayers"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((&universal["sublayer"], &universal["answer"]), (&"UNIVERSAL".into(), &"permit".into()));
    assert_eq!(
        (&web["sublayer"], &web["weight"], &web["answer"]),
        (&"acme.web".into(), &16384.into(), &"block".into())
    );
    let filters = web["filters"].as_array().unwrap();
    assert_eq!(filters[0]["matched"], true);
    assert_eq!(filters[0]["decided"], true);
    assert_eq!(filters[0]["action"], "block");
    assert_eq!(filters[1]["reached"], false, "those that were never reached say so");
    let conditions = filters[0]["conditions"].as_array().unwrap();
    let port =
        conditions.iter().find(|condition| condition["field"] == "IP_REMOTE_PORT" && condition["match"] == "range");
    let port = port.unwrap_or_else(|| panic!("{answer}"));
    assert_eq!((&port["actual"], &port["matched"]), (&"8011".into(), &true.into()));
}

#[test]
fn a_family_takes_the_version_of_the_address() {
    let folder = Folder::new("family");
    let layer = |address: &str| {
        let word = format!("IP_REMOTE_ADDRESS={address}");
        lines(&explain(&folder, &["ALE_AUTH_CONNECT", &word, "--json"]))[0]["layer"].clone()
    };
    assert_eq!(layer("192.0.2.1"), "ALE_AUTH_CONNECT_V4");
    assert_eq!(layer("2001:db8::1"), "ALE_AUTH_CONNECT_V6");
    assert_eq!(layer("::ffff:192.0.2.1"), "ALE_AUTH_CONNECT_V4", "IPv4-mapped addresses are IPv4");
    let policy = folder.file("policy.toml", POLICY);
    let output = wfp(&["explain", "-p", &policy, "ALE_AUTH_CONNECT", "IP_REMOTE_PORT=80"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("ALE_AUTH_CONNECT_V4 or ALE_AUTH_CONNECT_V6"), "{}", stderr(&output));
}

#[test]
fn empty_and_unknown_values() {
    let folder = Folder::new("unknown");
    let policy = folder.file(
        "late.toml",
        "[[filter]]\nname = 'not from here'\nlayer = 'ALE_AUTH_CONNECT_V4'\naction = 'block'\nwhen = { IP_LOCAL_ADDRESS = '10.0.0.1' }\n",
    );
    let arguments = |word: &str, more: &[&str]| {
        let words = ["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", word];
        succeeds(&[&words[..], more].concat())
    };
    let brief = |word: &str| {
        let answer = lines(&arguments(word, &["--brief", "--json"])).remove(0);
        (answer["action"].clone(), answer.get("reason").cloned())
    };
    assert_eq!(brief("IP_LOCAL_ADDRESS=10.0.0.1"), ("block".into(), None));
    assert_eq!(brief("IP_LOCAL_ADDRESS="), ("permit".into(), None));
    // the first packet decides; blocked if the value is not known then either
    assert_eq!(brief("IP_LOCAL_ADDRESS=?"), ("block".into(), Some("late".into())));
    let answer = lines(&arguments("IP_LOCAL_ADDRESS=?", &["--json"])).remove(0);
    assert_eq!((&answer["action"], &answer["reason"]), (&"block".into(), &"late".into()));
    assert_eq!(answer["waits_for"], serde_json::json!(["IP_LOCAL_ADDRESS"]));
    assert_eq!(answer["sublayers"][0]["answer"], "late");
    let text = arguments("IP_LOCAL_ADDRESS=?", &[]);
    assert!(text.starts_with("block (late) at ALE_AUTH_CONNECT_V4 by \"not from here\""), "{text}");
    assert!(arguments("IP_LOCAL_ADDRESS=?", &["--brief"]).starts_with("block (late) by"));
}

/// The platform's name for it is "prefix"; what it compares is the end.
#[test]
fn the_prefix_of_an_application_is_its_ending() {
    let folder = Folder::new("ending");
    let policy = folder.file(
        "policy.toml",
        "[[filter]]\nname = 'x'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = { ALE_APP_ID = { prefix = '/curl' } }\n",
    );
    for (application, action) in [("/usr/bin/curl", "block"), ("/opt/curl", "block"), ("/curl/sh", "permit")] {
        let event = format!("ALE_APP_ID={application}");
        let text = succeeds(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", &event, "--brief"]);
        assert!(text.starts_with(action), "{application}: {text}");
    }
    // to the kernel a program is one file
    let found = lines(&succeeds(&["check", "--json", &policy]));
    assert!(found.iter().any(|line| line["kind"] == "not-live"), "{found:?}");
}

#[test]
fn a_disabled_filter_decides_nothing() {
    let folder = Folder::new("disabled");
    let event = [&HTTP[..], &["--brief", "--json"]].concat();
    let enabled = explain(&folder, &event);
    let text = POLICY.replace("name     = \"no plain HTTP\"", "name = \"no plain HTTP\"\nflags = [\"DISABLED\"]");
    assert_ne!(text, POLICY);
    let policy = folder.file("disabled.toml", &text);
    let disabled = succeeds(&[&["explain", "-p", &policy][..], &event].concat());
    assert_eq!((&lines(&enabled)[0]["action"], &lines(&disabled)[0]["action"]), (&"block".into(), &"permit".into()));
}

#[test]
fn the_groups_of_a_user() {
    let folder = Folder::new("groups");
    let policy = folder.file(
        "groups.toml",
        "[[filter]]\nname = 'g'\nlayer = 'ALE_AUTH_CONNECT_V4'\naction = 'block'\nwhen = { ALE_USER_ID = { group = 4242 } }\n",
    );
    let action = |more: &[&str]| {
        let words = ["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "ALE_USER_ID=nobody", "--brief", "--json"];
        lines(&succeeds(&[&words[..], more].concat()))[0]["action"].clone()
    };
    assert_eq!(action(&[]), "permit");
    assert_eq!(action(&["--group", "4242"]), "block");
    assert_eq!(action(&["--group", "root"]), "permit");
    let output = wfp(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--group", "no-such-group"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no-such-group"));
}

#[test]
fn many_events_from_a_file_and_from_standard_input() {
    let folder = Folder::new("many");
    let policy = folder.file("policy.toml", POLICY);
    let events = concat!(
        "{\"IP_PROTOCOL\":6,\"IP_REMOTE_ADDRESS\":\"192.0.2.1\",\"IP_REMOTE_PORT\":80}\n",
        "\n",
        "{\"IP_PROTOCOL\":\"udp\",\"IP_REMOTE_ADDRESS\":\"192.0.2.1\",\"IP_REMOTE_PORT\":\"domain\"}\n",
        "{\"time\":\"2026-01-02T03:04:05.678901234Z\",\"kind\":\"classify\",\"layer\":\"ALE_AUTH_CONNECT_V4\",\"action\":\"permit\",",
        "\"filter\":null,\"values\":{\"IP_PROTOCOL\":6,\"IP_REMOTE_ADDRESS\":\"192.0.2.9\",\"IP_REMOTE_PORT\":23,\"ALE_USER_ID\":0}}\n",
    );
    let file = folder.file("events.jsonl", events);
    let arguments = |from| ["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--brief", "--from", from];
    let text = succeeds(&arguments(&file));
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("{\"action\":\"block\",\"filter\":{\"id\":"), "{first}");
    assert!(first.ends_with(",\"name\":\"no plain HTTP\"}}"), "{first}");
    let answers = lines(&text);
    let names: Vec<_> = answers.iter().map(|answer| answer["filter"]["name"].as_str()).collect();
    assert_eq!(names, [Some("no plain HTTP"), Some("the network may be used"), Some("no telnet for root")]);
    let piped = wfp_reading(&arguments("-"), events);
    assert_eq!(stdout(&piped), text);
    let family = ["explain", "-p", &policy, "ALE_AUTH_CONNECT", "--from", &file];
    let layers: Vec<_> = lines(&succeeds(&family)).iter().map(|answer| answer["layer"].clone()).collect();
    assert_eq!(layers, ["ALE_AUTH_CONNECT_V4"; 3]);
}

#[test]
fn where_no_filter_decides_the_filter_is_null() {
    let folder = Folder::new("null");
    let policy = folder.file("policy.toml", POLICY);
    let output = wfp_reading(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--brief", "--from", "-"], "{}\n");
    assert_eq!(stdout(&output), "{\"action\":\"permit\",\"filter\":null}\n");
}

#[test]
fn an_error_in_line_two_of_three() {
    let folder = Folder::new("line");
    let policy = folder.file("policy.toml", POLICY);
    let from = |second: &str| {
        let events = format!("{{\"IP_REMOTE_PORT\":80}}\n{second}\n{{\"IP_REMOTE_PORT\":80}}\n");
        let file = folder.file("events.jsonl", &events);
        let output = wfp(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--brief", "--from", &file]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output).lines().count(), 1, "what was right before stands");
        assert!(stderr(&output).contains("events.jsonl, line 2: "), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(from("nonsense").contains("no JSON object"));
    assert!(from("{\"IP_REMOTE_PROT\":80}").contains("did you mean IP_REMOTE_PORT?"));
    assert!(from("{\"IP_REMOTE_PORT\":70000}").contains("70000 does not fit"));
    assert!(from("{\"IP_REMOTE_PORT\":[80]}").contains("takes a number or text"));
    assert!(from("{\"L2_FLAGS\":0}").contains("does not have the field"));
    assert!(from("{\"kind\":\"flow-ended\",\"flow\":1}").contains("there is no kind `flow-ended`"));
    assert!(from("{\"kind\":\"classify\",\"layer\":\"ALE_AUTH_CONNECT_V4\"}").contains("no `values`"));
    assert!(from("{\"layer\":\"ALE_AUTH_LISTN_V4\",\"values\":{}}").contains("did you mean ALE_AUTH_LISTEN_V4?"));
    let twice = from("{\"values\":{\"IP_REMOTE_PORT\":80,\"IP_REMOTE_PORT\":81}}");
    assert!(twice.contains("line 2: the key `IP_REMOTE_PORT` stands twice in one object"), "{twice}");
    assert!(from("{\"IP_REMOTE_PORT\":80,\"FWPM_CONDITION_IP_REMOTE_PORT\":81}").contains("is given twice"));
}

/// A log has lines that are no events, and events of other layers.
#[test]
fn of_a_log_the_events_of_the_layer_are_explained() {
    let folder = Folder::new("log");
    let policy = folder.file("policy.toml", POLICY);
    let event = |kind: &str, layer: &str| {
        format!(
            "{{\"kind\":\"{kind}\",\"layer\":\"{layer}\",\"values\":{{\"IP_PROTOCOL\":6,\"IP_REMOTE_PORT\":80}}}}\n"
        )
    };
    let log = [
        &event("classify", "ALE_AUTH_CONNECT_V4"),
        &event("classify", "ALE_FLOW_ESTABLISHED_V4"),
        &event("classify", "ALE_AUTH_CONNECT_V6"),
        &event("flow-established", "ALE_FLOW_ESTABLISHED_V4"),
        "{\"kind\":\"flow-deleted\",\"flow\":1,\"reason\":\"closed\"}\n",
        // as replay writes it
        "{\"kind\":\"flow-deleted\",\"flow\":2,\"values\":{\"DIRECTION\":0}}\n",
        "{\"kind\":\"closed\",\"cpu\":0,\"seq\":4}\n",
        "{\"kind\":\"policy\",\"generation\":2,\"filters\":3}\n",
        "{\"kind\":\"lost\",\"count\":3,\"cpu\":0,\"seq\":[1,3]}\n",
        &event("classify", "ALE_AUTH_CONNECT_V4"),
        "{\"kind\":\"summary\",\"packets\":null,\"flows\":1,\"permitted\":1,\"blocked\":1,\"lost\":3}\n",
    ]
    .concat();
    let file = folder.file("events.jsonl", &log);
    let output = wfp(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--brief", "--from", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(lines(&stdout(&output)).len(), 2);
    let expected = "wfp: 2 events classified; 9 lines passed over: 2 of other layers, 1 closed, 2 flow-deleted, 1 flow-established, \
                    1 lost, 1 policy, 1 summary\n";
    assert_eq!(stderr(&output), expected);
    let family = lines(&succeeds(&["explain", "-q", "-p", &policy, "ALE_AUTH_CONNECT", "--from", &file]));
    assert_eq!(family.len(), 3);
    let bench = wfp(&["bench", "-p", &policy, "--layer", "ALE_AUTH_CONNECT_V4", "--from", &file]);
    assert_eq!(bench.status.code(), Some(0), "{}", stderr(&bench));
    let none = wfp(&["bench", "-p", &policy, "--layer", "ALE_AUTH_LISTEN_V6", "--from", &file]);
    assert!(stderr(&none).contains("holds no events of ALE_AUTH_LISTEN_V6"), "{}", stderr(&none));
}

/// Every line of a replay is known, and its events are answered as the replay has answered them.
#[test]
fn the_log_of_a_replay_is_explained() {
    let folder = Folder::new("replayed");
    let policy = folder.file("policy.toml", POLICY);
    let capture = root().join("captures/http.pcap").to_str().unwrap().to_owned();
    let log = succeeds(&["replay", "-q", "--json", "-p", &policy, &capture]);
    let file = folder.file("events.jsonl", &log);
    let mut asked = lines(&log);
    asked.retain(|line| line["kind"] == "classify" && line["layer"] == "ALE_AUTH_CONNECT_V4");
    assert!(!asked.is_empty());
    let answers =
        lines(&succeeds(&["explain", "-q", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--brief", "--from", &file]));
    let actions = |all: &[serde_json::Value]| all.iter().map(|line| line["action"].clone()).collect::<Vec<_>>();
    assert_eq!(actions(&answers), actions(&asked));
}

#[test]
fn wrong_words() {
    let folder = Folder::new("words");
    let policy = folder.file("policy.toml", POLICY);
    let says = |words: &[&str], what: &str| {
        let output = wfp(&[&["explain", "-p", &policy][..], words].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
        assert!(stdout(&output).is_empty());
    };
    says(&["ALE_AUTH_CONECT_V4"], "did you mean ALE_AUTH_CONNECT_V4?");
    says(&["ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT"], "no FIELD=VALUE");
    says(&["ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT=80", "IP_REMOTE_PORT=81"], "given twice");
    says(&["ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT=80-90"], "more than one value");
    says(&["ALE_AUTH_CONNECT_V4", "IP_REMOTE_ADDRESS=10.0.0.0/8"], "more than one value");
    says(&["ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT=many"], "`many`");
    says(&["ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT=?"], "never unknown");
}

#[test]
fn of_many_filters_those_nearest_to_matching_are_shown() {
    let folder = Folder::new("nearest");
    let filter = |n: u32| {
        format!(
            "[[filter]]\nname = 'f{n}'\nlayer = 'ALE_AUTH_CONNECT_V4'\naction = 'block'\n\
             when = {{ IP_REMOTE_ADDRESS = '10.0.{n}.0/24', IP_REMOTE_PORT = {n} }}\n"
        )
    };
    let policy = folder.file("policy.toml", &(1..=100).map(filter).collect::<String>());
    let event = ["explain", "-p", &policy, "ALE_AUTH_CONNECT", "IP_REMOTE_ADDRESS=10.0.200.1", "IP_REMOTE_PORT=77"];
    let text = succeeds(&event);
    assert!(
        text.contains("\"f77\" did not match\n      fails IP_REMOTE_ADDRESS is 10.0.77.0/24: here it is 10.0.200.1\n"),
        "{text}"
    );
    assert!(text.contains("92 more filters"), "{text}");
    assert!(succeeds(&[&event[..], &["-v"]].concat()).contains("\"f50\""));
}

/// Control groups, units, containers and network namespaces.
#[test]
fn the_fields_of_linux_are_explained() {
    let folder = Folder::new("linux");
    let policy = folder.file(
        "linux.toml",
        r#"
        [[filter]]
        name = "no service but one"
        layer = "ALE_AUTH_CONNECT"
        action = "block"
        weight = 1
        when.LINUX_CGROUP = { prefix = "/system.slice" }
        [[filter]]
        name = "the one"
        layer = "ALE_AUTH_CONNECT"
        action = "permit"
        weight = 2
        when.LINUX_SYSTEMD_UNIT = "ssh.service"
        [[filter]]
        name = "no container"
        layer = "ALE_AUTH_CONNECT"
        action = "block"
        weight = 3
        when.LINUX_CONTAINER = "web"
        [[filter]]
        name = "another network"
        layer = "ALE_AUTH_CONNECT"
        action = "block"
        weight = 4
        when.LINUX_NETWORK_NAMESPACE = { not = "/proc/self/ns/net" }
        "#,
    );
    let brief = |events: &str| -> Vec<String> {
        let output = wfp_reading(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "--from", "-", "--brief"], events);
        let decided = lines(&stdout(&output)).into_iter().map(|answer| answer["filter"]["name"].clone());
        decided.map(|name| name.as_str().unwrap_or("none").to_owned()).collect()
    };
    let events = [
        (r#"{"LINUX_CGROUP":"/system.slice/cron.service","LINUX_SYSTEMD_UNIT":"cron.service"}"#, "no service but one"),
        (r#"{"values":{"LINUX_CGROUP":"/system.slice","LINUX_CONTAINER":null}}"#, "no service but one"),
        (r#"{"LINUX_CGROUP":"/system.slice/ssh.service","LINUX_SYSTEMD_UNIT":"ssh.service"}"#, "the one"),
        (r#"{"LINUX_CGROUP":"/system.slicer"}"#, "none"),
        (r#"{}"#, "none"),
        (r#"{"LINUX_CONTAINER":"web"}"#, "no container"),
        (r#"{"LINUX_NETWORK_NAMESPACE":1}"#, "another network"),
        (r#"{"LINUX_NETWORK_NAMESPACE":"/proc/self/ns/net"}"#, "none"),
        (r#"{"LINUX_CGROUP":"?"}"#, "no service but one"),
    ];
    let (given, expected): (Vec<&str>, Vec<&str>) = events.into_iter().unzip();
    assert_eq!(brief(&given.join("\n")), expected);

    let text = succeeds(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "LINUX_CGROUP=/system.slice/a.service"]);
    assert!(text.contains("/system.slice"), "{text}");
    for (word, said) in [
        ("LINUX_CGROUP=system.slice", "begins with `/`"),
        ("LINUX_SYSTEMD_UNIT=ssh", "`ssh.service`"),
        ("LINUX_NETWORK_NAMESPACE=no-such-namespace", "unknown network namespace"),
        ("LINUX_NETWORK_NAMESPACE=0", "no namespace"),
    ] {
        let output = wfp(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", word]);
        assert_eq!(output.status.code(), Some(2), "{word}");
        assert!(stderr(&output).contains(said), "{word}: {}", stderr(&output));
    }
}

#[test]
fn the_fields_of_linux_are_shown_apart() {
    let shown = &lines(&succeeds(&["show", "layers", "ALE_AUTH_CONNECT_V4", "--json"]))[0];
    let names = |key: &str| -> Vec<String> {
        let fields = shown[key].as_array().unwrap().iter();
        fields.map(|field| field["field"].as_str().unwrap().to_owned()).collect()
    };
    let ours = ["LINUX_CGROUP", "LINUX_SYSTEMD_UNIT", "LINUX_CONTAINER", "LINUX_NETWORK_NAMESPACE"];
    assert_eq!(names("extension_fields"), ours);
    assert!(names("fields").iter().all(|name| !ours.contains(&name.as_str())));
    let text = succeeds(&["show", "layers", "ALE_AUTH_CONNECT_V4"]);
    let (public, extension) = text.split_once("fields of ours").unwrap();
    for name in ours {
        assert!(extension.contains(name) && !public.contains(name), "{name}");
    }
}

#[test]
fn a_change_names_the_value_unless_any_other_would_do() {
    let folder = Folder::new("changes");
    let filter = |name: &str, weight: u32, action: &str, when: &str| {
        format!(
            "[[filter]]\nname = '{name}'\nlayer = 'ALE_AUTH_CONNECT_V4'\nweight = {weight}\n\
             action = '{action}'\nwhen = {{ {when} }}\n"
        )
    };
    let explain = |text: &str, port: &str| {
        let policy = folder.file("changes.toml", text);
        succeeds(&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "IP_PROTOCOL=tcp", port])
    };
    let no_http = filter("no http", 10, "block", "IP_PROTOCOL = 'tcp', IP_REMOTE_PORT = 80");
    let web = filter("web", 5, "permit", "IP_REMOTE_PORT = [80, 443]");
    let rest = filter("nothing else", 1, "block", "");
    // the filter's own port rather than its protocol
    let text = explain(&no_http, "IP_REMOTE_PORT=80");
    assert!(text.contains("it would be permitted if IP_REMOTE_PORT were another, such as 81"), "{text}");
    for port in ["IP_REMOTE_PORT=80", "IP_REMOTE_PORT=22"] {
        let text = explain(&[&no_http[..], &web, &rest].concat(), port);
        assert!(text.contains("it would be permitted by \"web\" if IP_REMOTE_PORT were 443"), "{text}");
        assert!(!text.contains("another"), "{text}");
    }
}
