//! What is pinned goes on when the process that loaded it is gone. Needs root and BPF.

mod support;

use openwfp_kernel::{
    bpffs, features,
    labels::Labels,
    load::{Settings, Shims},
};
use std::process::Command;
use support::{OwnGroup, pins::Pins, wait_until};

#[test]
fn labels_are_given_after_the_loader_is_gone() {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return;
    }
    let group = OwnGroup::make();
    let pins = Pins::new("labels").unwrap();
    let folder = &pins.0;
    let settings = Settings::labels(&group.0);
    {
        let mut shims = Shims::load(&settings).unwrap_or_else(|error| panic!("{error}"));
        shims.pin_maps(folder).unwrap_or_else(|error| panic!("{error}"));
        shims.attach_labels(Some(folder)).unwrap_or_else(|error| panic!("{error}"));
    }
    let labels = Labels::from_pins(folder).unwrap();
    let mut command = Command::new("/bin/sleep");
    group.enter(command.arg("100"), "");
    let mut child = command.spawn().unwrap();
    let labelled = wait_until(|| labels.of(child.id()).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(labels);
    bpffs::unpin(folder).unwrap();
    assert!(labelled);
    assert!(!folder.exists());
}

/// The folders of killed tests have the name of no run: they are the tests' own to take away.
#[test]
fn pins_of_killed_tests_are_taken_away() {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return;
    }
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let own = Pins::new("own").unwrap();
    let folder = own.0.parent().unwrap();
    let of_ended = folder.join(format!("test-x-{}", ended.id()));
    let no_test = folder.join(format!("other-{}", ended.id()));
    for folder in [&of_ended, &no_test] {
        std::fs::create_dir(folder).unwrap();
    }
    drop(Pins::new("next").unwrap());
    let stands = [&of_ended, &own.0, &no_test].map(|folder| folder.exists());
    for folder in [&of_ended, &no_test] {
        bpffs::unpin(folder).unwrap();
    }
    assert_eq!(stands, [false, true, true]);
}
