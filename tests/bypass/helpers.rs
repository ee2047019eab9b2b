//! Helpers outside that are what they are in earnest: a bus that starts services, and whoever executes files later.

use crate::harness::{FIRST, NOBODY, ONE_PORT, PEER, World, documented, line, skipped};
use openwfp_attacks::{handed, token};
use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A message bus outside, which ends with the test.
struct Bus(Child);

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bus {
    /// A bus of everybody's, at the path `bus`, that can start one service: it sends to a port of the peer's.
    fn start(world: &World) -> Option<Self> {
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !there("dbus-daemon") || !there("dbus-send") {
            return None;
        }
        // a folder in which nothing else happens: the bus reads it anew then
        let folder = world.path("services");
        fs::create_dir(&folder).unwrap();
        let place = folder.display();
        let script = handed::script(&world.attacker(), &format!("udp {PEER}:{FIRST}"));
        // of one that ends well, the bus thinks that it goes on elsewhere, and waits
        fs::write(folder.join("activated"), format!("({script})\nexit 1\n")).unwrap();
        let service = format!("[D-BUS Service]\nName={}\nExec=/bin/sh {place}/activated\n", handed::SERVICE);
        fs::write(folder.join(format!("{}.service", handed::SERVICE)), service).unwrap();
        let bus = world.path("bus");
        let bus = bus.display();
        let configuration = format!(
            "<busconfig><type>session</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth>\
             <servicedir>{place}</servicedir><policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>\n"
        );
        fs::write(world.path("bus.conf"), configuration).unwrap();
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--nofork", "--nopidfile", "--config-file"]).arg(world.path("bus.conf"));
        let bus = Self(daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        for _ in 0..200 {
            if world.path("bus").exists() {
                return Some(bus);
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the bus does not begin");
    }
}

#[test]
fn a_service_that_a_bus_starts_is_documented_and_out_of_reach_with_the_run_s_own_sockets_alone() {
    let Some(world) = World::new("bus") else { return };
    let Some(_bus) = Bus::start(&world) else {
        skipped("activation by D-Bus: dbus-daemon and dbus-send are not installed");
        return;
    };
    let attack = format!("activate {}", world.path("bus").display());
    world.receive([FIRST]);
    let lines = [line(&attack, PEER, FIRST)];
    let without = world.look_for(world.command(None, &lines), &[FIRST]);
    assert!(without.reached(FIRST), "{without:?}");
    let under = |attacks: &[String]| world.command(Some((NOBODY, ONE_PORT)), attacks);
    world.not_prevented(&[&attack], under, "Services outside that act for the command through a Unix socket");
    let options = [NOBODY, &["--unix", "run"]].concat();
    let seen = world.look(world.command(Some((&options, ONE_PORT)), &lines));
    assert!(!seen.reached(FIRST) && seen.results.len() == 1 && seen.results != ["ok"], "{seen:?}");
}

#[test]
fn what_others_execute_later_is_documented() {
    let Some(world) = World::new("later") else { return };
    world.receive([FIRST]);
    let table = world.path("table");
    let attack = [line(&format!("leave-behind {}", table.display()), PEER, FIRST)];
    for under in [None, Some((NOBODY, ONE_PORT))] {
        let seen = world.look(world.command(under, &attack));
        assert!(seen.results == ["ok"] && !seen.reached(FIRST), "{seen:?}");
        // as cron does
        assert!(Command::new("sh").arg(&table).stdout(Stdio::null()).status().unwrap().success());
        thread::sleep(Duration::from_millis(100));
        let token = token(FIRST);
        let arrived = world.frames().iter().any(|frame| frame.windows(token.len()).any(|part| part == token));
        assert!(arrived, "prevented now");
        fs::remove_file(&table).unwrap();
    }
    documented("Files that others execute later");
}
