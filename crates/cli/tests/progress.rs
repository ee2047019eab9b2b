//! The line that says how far a replay is: `script` plays the terminal.

mod common;

use common::{Folder, POLICY, live, wfp};
use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Makes a capture of so many bytes: a header, and records without data. It takes no room on the disk.
fn capture(path: &str, bytes: u64) {
    let mut file = File::create(path).unwrap();
    let header = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 0xffff, 1];
    header.iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    file.seek(SeekFrom::Start(24 + bytes / 16 * 16 - 1)).unwrap();
    file.write_all(&[0]).unwrap();
}

#[test]
fn both_passes_of_a_long_replay_are_shown_on_a_terminal() {
    let script = ["/usr/bin/script", "/bin/script"].into_iter().find(|path| Path::new(path).exists());
    let Some(script) = script else { return live::may_skip("script is not installed") };
    let folder = Folder::new("progress");
    let (policy, file) = (folder.file("policy.toml", POLICY), folder.path("long.pcap"));
    let bytes: u64 = 1 << 24;
    capture(&file, bytes);
    let started = Instant::now();
    let output = wfp(&["replay", "-p", &policy, &file]);
    let took = started.elapsed();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "nobody is at a terminal: {output:?}");
    // so long that the first pass, which takes about a third of the time, takes well over a second on this machine
    let mut seconds = 5.0;
    loop {
        capture(&file, (bytes as f64 * seconds / took.as_secs_f64()) as u64);
        let line = format!("{} replay -p {policy} {file}", env!("CARGO_BIN_EXE_wfp"));
        let mut terminal = Command::new(script);
        let started = Instant::now();
        let output = terminal.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").output().unwrap();
        let took = started.elapsed();
        let screen = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{screen}");
        let shown = ["\r1/2 [", "\r2/2 ["].map(|line| screen.contains(line));
        if shown == [true, true] {
            let (_, after) = screen.rsplit_once("\r2/2 [").unwrap();
            assert!(after.contains("\r  "), "the line is taken away: {screen}");
            break;
        }
        // the machine may have been busy when it was tried
        assert!(took < Duration::from_secs(10), "{took:?}: {shown:?}: {screen}");
        seconds *= 2.0;
    }
}
