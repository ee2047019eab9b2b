//! What is pinned goes on when the process that loaded it is gone. Needs root and BPF.

mod support;

use openwfp_kernel::{
    bpffs, features,
    labels::Labels,
    load::{Settings, Shims},
};
use std::process::Command;
use support::{OwnGroup, wait_until};

#[test]
fn labels_are_given_after_the_loader_is_gone() {
    if let Some(reason) = features::missing().first() {
        eprintln!("skipped: {reason}");
        return;
    }
    let group = OwnGroup::make();
    let folder = bpffs::folder().unwrap().join(format!("test-{}", std::process::id()));
    let settings = Settings::labels(&group.0);
    {
        let mut shims = Shims::load(&settings).unwrap_or_else(|error| panic!("{error}"));
        shims.pin_maps(&folder).unwrap_or_else(|error| panic!("{error}"));
        shims.attach_labels(Some(&folder)).unwrap_or_else(|error| panic!("{error}"));
    }
    let labels = Labels::from_pins(&folder).unwrap();
    let mut command = Command::new("/bin/sleep");
    group.enter(command.arg("100"), "");
    let mut child = command.spawn().unwrap();
    let labelled = wait_until(|| labels.of(child.id()).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(labels);
    bpffs::unpin(&folder).unwrap();
    bpffs::release().unwrap();
    assert!(labelled);
    assert!(!folder.exists());
}
