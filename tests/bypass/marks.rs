//! Marks by which packets are taken out for callouts and come back: whoever gives them to his own gets nothing through.

use crate::harness::{FIRST, PEER, World, line, skipped};
use openwfp_attacks::{DEVICE, token};
use openwfp_callout::{Callout, Classification, ClassifyOut, Registration};
use openwfp_model::Guid;
use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdout, Command, ExitCode, Stdio, exit},
    sync::Arc,
    thread,
    time::Duration,
};

/// Blocks what carries a token.
struct NoTokens;

impl Callout for NoTokens {
    fn registration(&self) -> Registration {
        Registration::new(Guid::named("test", "no tokens"), "no-tokens")
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        let begins_one = |packet: &[u8]| packet.starts_with(b"<openwfp ");
        if event.packet().is_some_and(|packet| begins_one(packet.payload())) { out.block() } else { out.permit() }
    }
}

/// What the host of [`NoTokens`] does.
pub fn serve() {
    if std::env::var_os(openwfp_channel::VARIABLE).is_some() {
        let served = openwfp_callout::serve([Arc::new(NoTokens) as Arc<dyn Callout>]);
        exit(i32::from(served != ExitCode::SUCCESS));
    }
}

/// A policy in which the host is asked about what leaves, or about a part of that.
fn policy(world: &World, when: &str) -> String {
    let host = world.path("serve");
    fs::write(&host, format!("#!/bin/sh\nexec {} --exact host\n", world.attacker().display())).unwrap();
    fs::set_permissions(&host, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        "[[callout]]\nname = \"no tokens\"\nhost = \"{}\"\n\n[[filter]]\nname = \"what leaves\"\nlayer = \"OUTBOUND_TRANSPORT_V4\"\n\
         action = {{ callout = \"no tokens\", kind = \"terminating\" }}\n{when}\n",
        host.display()
    )
}

/// Everything is asked about.
const ALL: &str = "";
/// The permitted port alone: about what the attacks send nobody is asked.
const OPEN_ALONE: &str = "when = { IP_REMOTE_PORT = 7001 }";

/// Another user with all rights that a mark takes, and packet sockets besides.
const MARKING: &[&str] = &["--user", "65534:65534", "--keep-cap", "net_raw,net_admin", "--family", "packet"];

/// The program that sends with the marks that it is told.
struct Attacker {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Attacker {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line == "ready"), "it is ready");
        Self { child, lines }
    }

    /// Sends with a mark by a device; what the call said.
    fn send(&mut self, mark: u32, device: &str, kind: &str) -> String {
        let line = format!("{mark} {device} {kind}");
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
        let mut said = self.lines.by_ref().map_while(Result::ok);
        let said = said.find_map(|said| said.strip_prefix(&format!("sent {line} ")).map(str::to_owned));
        said.unwrap_or_else(|| panic!("it answers to {line}"))
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Notes the marks of what leaves by devices, before any other program there, in a set for each.
fn sniff(devices: &[&str]) -> bool {
    let chains: String = devices
        .iter()
        .enumerate()
        .map(|(number, device)| {
            format!(
                "set marks{number} {{ type mark; flags dynamic; size 65535; }}\n\
                 chain out{number} {{ type filter hook egress device \"{device}\" priority 0\n\
                 meta mark != 0 update @marks{number} {{ meta mark }}\n}}\n"
            )
        })
        .collect();
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let _ = child.stdin.take().unwrap().write_all(format!("table netdev sniff {{\n{chains}}}\n").as_bytes());
    child.wait().is_ok_and(|status| status.success())
}

/// What has been noted at one of the devices.
fn sniffed(number: usize) -> Vec<u32> {
    for _ in 0..100 {
        let name = format!("marks{number}");
        let output = Command::new("nft").args(["list", "set", "netdev", "sniff", &name]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if let Some((_, elements)) = text.split_once("elements = {") {
            let numbers = elements.split('}').next().unwrap_or_default().split(',').map(str::trim);
            return numbers.map(|mark| u32::from_str_radix(mark.trim_start_matches("0x"), 16).unwrap()).collect();
        }
        thread::sleep(Duration::from_millis(20));
    }
    Vec::new()
}

/// Which of the ports of [`Attacker`] a token has reached.
fn reached(world: &World) -> Vec<u16> {
    thread::sleep(Duration::from_millis(300));
    let frames = world.frames();
    let has = |port: &u16| {
        let token = token(*port);
        frames.iter().any(|frame| frame.windows(token.len()).any(|part| part == token))
    };
    (FIRST..FIRST + 3).filter(has).collect()
}

#[test]
fn a_mark_of_ours_lets_nothing_through() {
    let Some(world) = World::new("divert-marks") else { return };
    if !openwfp_kernel::features::diverts() {
        skipped("marks of packets for callouts: the kernel has no tcx");
        return;
    }
    world.receive(FIRST..FIRST + 3);
    // any mark, without a policy
    let mut attacker = Attacker::start(world.command(None, &[line("marked", PEER, FIRST)]));
    for kind in ["udp", "raw", "packet"] {
        assert_eq!(attacker.send(0x1234_5678, DEVICE, kind), "ok", "{kind}");
    }
    assert_eq!(reached(&world), [FIRST, FIRST + 1, FIRST + 2]);
    drop(attacker);
    for when in [ALL, OPEN_ALONE] {
        let command = world.command(Some((MARKING, &policy(&world, when))), &[line("marked", PEER, FIRST)]);
        let mut attacker = Attacker::start(command);
        let devices = Command::new("ip").args(["-o", "link", "show", "type", "ifb"]).output().unwrap();
        let devices = String::from_utf8(devices.stdout).unwrap();
        let ours = devices.split(": ").nth(1).expect("a device by which packets come back").to_owned();
        if !sniff(&[DEVICE, &ours]) {
            skipped("marks of packets for callouts: nft shows none where packets leave");
            return;
        }
        // how marks are seen: what is permitted is taken out, and comes back
        for _ in 0..3 {
            assert_eq!(attacker.send(0, DEVICE, "permitted"), "ok");
        }
        let (out, back) = (sniffed(0), sniffed(1));
        thread::sleep(Duration::from_millis(100));
        let arrived = world.frames().iter().filter(|frame| frame.ends_with(b"permitted")).count();
        assert_eq!((out.len(), arrived), (1, 3), "{out:x?} {back:x?}");
        assert!(!back.is_empty(), "tokens are seen");
        // by which packets are taken out
        let mark = out[0];
        attacker.send(mark, DEVICE, "udp");
        attacker.send(mark, DEVICE, "raw");
        assert!(reached(&world).is_empty(), "{when}: the mark of what is taken out");
        // tokens that were used, their neighbours, and guesses, at the device where they count, and at the one where they do not
        let guesses = back.iter().flat_map(|token| [*token, token.wrapping_add(1), token.wrapping_add(1 << 16)]);
        for guess in guesses.chain([1, 0x0077_6670, u32::MAX, mark]) {
            for kind in ["udp", "raw", "packet"] {
                attacker.send(guess, &ours, kind);
            }
            if when == ALL {
                attacker.send(guess, DEVICE, "udp");
                attacker.send(guess, DEVICE, "raw");
            }
        }
        assert!(reached(&world).is_empty(), "{when}: tokens");
        // what nobody is asked about passes with a mark that means nothing, so the others were not lost by chance
        if when == OPEN_ALONE {
            assert_eq!(
                [attacker.send(0x1234_5678, DEVICE, "udp"), attacker.send(0x1234_5678, DEVICE, "raw")],
                ["ok", "ok"]
            );
            assert_eq!(reached(&world), [FIRST, FIRST + 1]);
        }
        assert!(Command::new("nft").args(["delete", "table", "netdev", "sniff"]).status().unwrap().success());
    }
}
