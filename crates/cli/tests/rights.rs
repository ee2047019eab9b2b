//! `wfp` for users who may not load programs: what is missing is named, and what takes no rights works.

mod common;

use common::{
    Folder,
    live::{status, text, without_rights},
};
use std::{fs, os::unix::fs::PermissionsExt};

#[test]
fn who_may_not_run_anything_loses_no_events() {
    let folder = Folder::new("no-rights");
    folder.open_to_all();
    let (log, ran) = (folder.file("events.jsonl", "of before"), folder.path("ran"));
    open_to_all(&log);
    let run = ["run", "--events", &log, "--", "touch", &ran];
    let output = without_rights(&folder).args(run).output().unwrap();
    assert_eq!(status(&output), 125, "{}", text(&output));
    assert!(text(&output).contains("missing CAP_NET_ADMIN, "), "{}", text(&output));
    assert_eq!(fs::read_to_string(&log).unwrap(), "of before");
    assert!(fs::metadata(&ran).is_err(), "nothing was executed");
    // nor is one made
    let new = folder.path("new.jsonl");
    assert_eq!(status(&without_rights(&folder).args(["run", "--events", &new, "--", "true"]).output().unwrap()), 125);
    assert!(fs::metadata(&new).is_err());
}

/// Lets every user write to a file.
fn open_to_all(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}
