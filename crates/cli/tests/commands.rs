//! `wfp bench`, `wfp show`, `wfp export`, `wfp completions`, `wfp man`, and what all commands have in common.

mod common;

use common::{Folder, POLICY, lines, root, stderr, stdout, succeeds, wfp, wfp_reading};
use std::process::{Command, Stdio};

/// Whether BPF programs may be loaded here; told where nothing may be left out.
fn may_load() -> bool {
    std::env::var_os("WFP_TEST_EVERYTHING").is_some() || openwfp_kernel::features::missing().is_empty()
}

#[test]
fn what_a_policy_costs() {
    let may_load = may_load();
    let folder = Folder::new("bench");
    let policy = folder.file("policy.toml", POLICY);
    let output = wfp(&["bench", "-p", &policy, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("made from the filters themselves"));
    let layers = lines(&stdout(&output));
    assert_eq!(layers.len(), 2, "each layer with filters");
    for layer in &layers {
        let keys: Vec<&str> = layer.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["layer", "filters", "build_ms", "bytes_per_filter", "worst_steps", "user_ns", "kernel_ns"]);
        assert_eq!(layer["filters"], 3);
        assert!(layer["build_ms"].is_number());
        let places = if may_load { &["user_ns", "kernel_ns"][..] } else { &["user_ns"] };
        for place in places {
            let times = layer[*place].as_object().unwrap();
            assert_eq!(times.keys().collect::<Vec<_>>(), ["mean", "p50", "p99"]);
            assert!(times.values().all(|ns| ns.as_f64().unwrap() > 0.0), "{layer}");
        }
        assert!(may_load || layer["kernel_ns"].is_null());
    }
    let events = folder.file("events.jsonl", "{\"IP_REMOTE_PORT\":80}\n{\"IP_REMOTE_PORT\":81}\n");
    let output = wfp(&["bench", "-p", &policy, "--layer", "ALE_AUTH_CONNECT_V4", "--from", &events]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("ALE_AUTH_CONNECT_V4: 3 filters"));
    assert_eq!(stdout(&output).contains("; kernel: mean "), may_load);
    assert_eq!(stderr(&output).is_empty(), may_load);
}

#[test]
fn what_a_policy_costs_without_the_right_to_look_in_the_kernel() {
    let folder = Folder::new("bench-user");
    let policy = folder.file("policy.toml", POLICY);
    let bench = |options: &[&str]| {
        let mut command = if may_load() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-all", env!("CARGO_BIN_EXE_wfp")]);
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_wfp"))
        };
        command.args(["bench", "-p", &policy, "--layer", "ALE_AUTH_CONNECT_V4"]).args(options).output().unwrap()
    };
    let output = bench(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let layer = &lines(&stdout(&output))[0];
    assert!(layer["kernel_ns"].is_null() && layer["user_ns"]["mean"].as_f64().unwrap() > 0.0);
    let output = bench(&[]);
    assert!(stderr(&output).contains("not measured in the kernel: "), "{}", stderr(&output));
    assert!(stdout(&output).contains("user space: mean") && !stdout(&output).contains("kernel"));
}

#[test]
fn the_layers_and_the_fields_of_one() {
    let layers = lines(&succeeds(&["show", "layers", "--json"]));
    assert_eq!(layers.len(), 99);
    for (id, layer) in layers.iter().enumerate() {
        assert_eq!(layer["id"], id);
        assert!(layer["layer"].is_string() && layer["key"].is_string());
    }
    let fields = |name: &str| lines(&succeeds(&["show", "layers", name, "--json"]));
    let connect = &fields("fwpm_layer_ale_auth_connect_v4")[0];
    let address =
        connect["fields"].as_array().unwrap().iter().find(|field| field["field"] == "IP_LOCAL_ADDRESS").unwrap();
    assert_eq!(address["type"], "FWP_UINT32");
    assert_eq!(address["filled"], serde_json::json!(["late", "replay"]));
    assert!(address["match"].as_array().unwrap().contains(&"equal".into()));
    assert_eq!(fields("ALE_AUTH_CONNECT").len(), 2, "a family");
    let text = succeeds(&["show", "layers", "INBOUND_TRANSPORT_V6"]);
    assert!(text.contains("IP_REMOTE_PORT") && text.contains("replay"), "{text}");
    let output = wfp(&["show", "layers", "INBOUND_TRANSPRT_V6"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("INBOUND_TRANSPORT_V6"));
}

#[test]
fn a_policy_in_another_form_is_the_same_policy() {
    let folder = Folder::new("export");
    let policy = folder.file("policy.toml", POLICY);
    let json = succeeds(&["export", "-p", &policy, "--format", "json"]);
    let json = folder.file("policy.json", &json);
    let toml = succeeds(&["export", "-p", &json, "--format", "toml"]);
    let toml = folder.file("again.toml", &toml);
    let answer = |policy: &str| {
        let event = ["ALE_AUTH_CONNECT_V4", "IP_PROTOCOL=tcp", "IP_REMOTE_PORT=80", "IP_REMOTE_ADDRESS=192.0.2.1"];
        succeeds(&[&["explain", "-p", policy, "--json"][..], &event].concat())
    };
    assert_eq!(answer(&policy), answer(&json));
    assert_eq!(answer(&policy), answer(&toml));
    let schema: serde_json::Value = serde_json::from_str(&succeeds(&["export", "--format", "schema"])).unwrap();
    assert!(schema["$schema"].is_string());
    assert_eq!(wfp(&["export", "--format", "toml"]).status.code(), Some(2), "which policy?");
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(&["completions", shell]).contains("explain"));
    }
    assert!(succeeds(&["man"]).contains(".TH wfp 1"));
    let page = succeeds(&["man", "explain"]);
    assert!(page.contains("wfp\\-explain") && page.contains(concat!("explain ", env!("CARGO_PKG_VERSION"))), "{page}");
    assert_eq!(wfp(&["man", "no-such-command"]).status.code(), Some(2));
}

#[test]
fn colour_is_for_terminals_and_for_who_asks() {
    let folder = Folder::new("colour");
    let policy = folder.file("policy.toml", POLICY);
    let explain = |color: &[&str]| {
        let arguments = [&["explain", "-p", &policy, "ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT=80"][..], color].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_wfp")).args(arguments).env_remove("NO_COLOR").output().unwrap();
        stdout(&output).contains('\x1b')
    };
    assert!(!explain(&[]), "this is no terminal");
    assert!(explain(&["--color", "always"]));
    assert!(!explain(&["--color", "never"]));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["show", "layers"][..], &["completions", "bash"], &["man"], &["export", "--format", "schema"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_policy_from_standard_input() {
    let (on_http, folder) = (["ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT=80", "IP_PROTOCOL=6"], Folder::new("stdin"));
    let file = folder.file("policy.toml", POLICY);
    let capture = root().join("captures/http.pcap").to_str().unwrap().to_owned();
    for words in [
        [&["explain", "-p", "POLICY"][..], &on_http].concat(),
        vec!["replay", "-p", "POLICY", &capture],
        vec!["export", "-p", "POLICY", "--format", "json"],
        vec!["check", "POLICY"],
    ] {
        let with =
            |policy: &'static str| words.iter().map(|word| if *word == "POLICY" { policy } else { word }).collect();
        let (from_input, from_file): (Vec<&str>, Vec<&str>) = (with("-"), with("FILE"));
        let from_file: Vec<&str> =
            from_file.into_iter().map(|word| if word == "FILE" { &file } else { word }).collect();
        let output = wfp_reading(&from_input, POLICY);
        assert_eq!(output.status.code(), Some(0), "{from_input:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), succeeds(&from_file), "{from_input:?}");
    }
    let wrong = wfp_reading(&["check", "-"], "[[filter]]\nname = 'x'\nlayer = 'NO_SUCH'\naction = 'block'\n");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("<stdin>:3:9"), "{}", stderr(&wrong));
    let empty = wfp_reading(&["explain", "-p", "-", "ALE_AUTH_CONNECT_V4"], " \n");
    assert_eq!(empty.status.code(), Some(1), "a policy that could not be made permits nothing");
    assert!(stderr(&empty).contains("<stdin> is empty: a comment"), "{}", stderr(&empty));
    // without the right to load programs too: nothing is begun
    for words in [
        &["run", "--watch", "-p", "-", "--", "true"][..],
        &["run", "-p", "-", "-p", "-", "--", "true"],
        &["check", "-", &file, "-"],
        &["explain", "-p", "-", "ALE_AUTH_CONNECT_V4", "--from", "-"],
        &["replay", "-p", "-", "--local", "192.0.2.1/32", "-"],
    ] {
        let output = wfp_reading(words, POLICY);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("standard input"), "{words:?}: {}", stderr(&output));
    }
}
