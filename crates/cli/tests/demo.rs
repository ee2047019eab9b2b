//! `wfp demo`, the first that anyone sees of it.

#[macro_use]
mod common;

use common::{
    lines,
    live::{left_of, status},
    stderr, stdout,
};
use std::process::{Command, Stdio};

/// What stands in a text between two marks.
#[track_caller]
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {rest}")).0
}

#[test]
fn one_connection_is_permitted_and_one_refused_and_the_reasons_are_told() {
    needs!("env");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wfp"));
    command.arg("demo").env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let demo = command.spawn().unwrap();
    let process = demo.id();
    let output = demo.wait_with_output().unwrap();
    let text = stdout(&output);
    assert_eq!(status(&output), 0, "{text}{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let (policy, rest) = text.split_once("2. A real client").unwrap();
    let (happened, why) = rest.split_once("3. Why").unwrap();

    let shut = between(policy, "IP_REMOTE_PORT = ", " ");
    let open = between(happened, "the server at port ", " was reached");
    assert_ne!(open, shut);
    for line in [
        format!("   client: port {open}: connected, the server says \"hello\""),
        format!("   client: port {shut}: Operation not permitted (os error 1)"),
        format!(
            "   the server at port {open} was reached 1 time(s), the one at port {shut} 0 time(s); 1 permitted, 1 blocked"
        ),
    ] {
        assert!(happened.lines().any(|found| found == line), "no {line} in {happened}");
    }
    // the kernel's own words of it
    for (action, port, filter) in [("permit", open, "loopback may be used"), ("block", shut, "but not this port")] {
        let told = format!(" to port {port}: \"{filter}\"");
        let line = happened.lines().find(|line| line.ends_with(&told));
        let line = line.unwrap_or_else(|| panic!("no {told} in {happened}"));
        assert!(line.starts_with(&format!("   {action} ALE_AUTH_CONNECT_V4 of /")), "{line}");
        assert!(line.contains("/wfp ["), "{line}");
    }
    // the same asked offline, once for each port
    for (action, filter) in [("permit", "loopback may be used"), ("block", "but not this port")] {
        let answers = why.lines().filter(|line| line.contains(action) && line.contains(filter)).count();
        assert!(answers > 0, "no {action} by {filter} in {why}");
    }
    assert_eq!(left_of(&format!("run-{process}-")), "");
}

#[test]
fn a_demonstration_for_programs() {
    needs!("env");
    let output = Command::new(env!("CARGO_BIN_EXE_wfp")).args(["demo", "--json"]).output().unwrap();
    assert_eq!((status(&output), stderr(&output).as_str()), (0, ""));
    let connections = lines(&stdout(&output));
    assert_eq!(connections.len(), 2);
    for (connection, (action, filter, reached)) in
        connections.iter().zip([("permit", "loopback may be used", 1), ("block", "but not this port", 0)])
    {
        let keys: Vec<_> = connection.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["port", "action", "filter", "reached", "explanation"]);
        assert_eq!(connection["action"], action, "{connection}");
        assert_eq!(connection["filter"]["name"], filter, "{connection}");
        assert_eq!(connection["reached"], reached, "{connection}");
        assert_eq!(connection["explanation"]["action"], action, "offline as live: {connection}");
        assert_eq!(connection["explanation"]["filter"], connection["filter"], "{connection}");
    }
    assert_ne!(connections[0]["port"], connections[1]["port"]);
}

#[test]
fn a_reader_that_does_not_read_is_no_error_and_leaves_nothing() {
    needs!("env");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wfp"));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let demo = command.arg("demo").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let process = demo.id();
    let output = demo.wait_with_output().unwrap();
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    assert_ne!(status(&output), 101);
    assert_eq!(left_of(&format!("run-{process}-")), "");
}
