//! Getting out of the group, and at what filters it.

use crate::harness::{FIRST, NOBODY, ONE_PORT, PEER, World, line, skipped};
use std::{
    fs,
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    process::{Child, Command},
};

const ROOT: &[&str] = &[];
const USERS: [&[&str]; 2] = [ROOT, NOBODY];

#[test]
fn nobody_leaves_the_group_and_nobody_detaches_or_changes_what_filters_it() {
    let Some(world) = World::new("escapes") else { return };
    let through = format!("leave-through-another {}", std::process::id());
    let attacks = [
        "leave",
        &through,
        "leave-by-birth",
        "leave-by-new-mount",
        "detach-by-id",
        "detach-by-pin",
        "write-map-by-id",
        "write-map-by-pin",
    ];
    for attack in attacks {
        // without the isolation, root does it
        world.receive([FIRST]);
        let without = world.command(Some((&["--no-isolation"], ONE_PORT)), &[line(attack, PEER, FIRST)]);
        let without = world.look_for(without, &[FIRST]);
        assert!(without.reached(FIRST), "{attack}: {without:?}");
    }
    for options in USERS {
        let lines: Vec<String> = attacks.iter().map(|attack| line(attack, PEER, FIRST)).collect();
        let seen = world.look(world.command(Some((options, ONE_PORT)), &lines));
        assert_eq!(seen.results.len(), attacks.len(), "{seen:?}");
        assert!(!seen.reached(FIRST) && !seen.results.contains(&"ok".to_owned()), "{seen:?}");
    }
}

/// A process outside, which ends with the test.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_outside_can_be_traced() {
    let Some(world) = World::new("traced") else { return };
    let other = Other(Command::new("sleep").arg("60").spawn().unwrap());
    let attack = |name: &str, port| line(&format!("{name} {}", other.0.id()), PEER, port);
    let attacks = [attack("trace", FIRST), attack("write-memory", FIRST + 1)];
    let without = world.look(world.command(None, &attacks));
    assert!(without.results == ["ok", "ok"], "{without:?}");
    // and `wfp`, which is their parent
    let [trace, write] = &attacks;
    let attacks = [trace.clone(), write.clone(), line("trace", PEER, FIRST), line("write-memory", PEER, FIRST + 1)];
    for options in USERS {
        let seen = world.look(world.command(Some((options, ONE_PORT)), &attacks));
        assert!(seen.results.iter().all(|result| ["EPERM", "EACCES"].contains(&&**result)), "{seen:?}");
        assert_eq!(seen.results.len(), 4);
        assert!(!seen.reached(FIRST) && !seen.reached(FIRST + 1));
    }
}

#[test]
fn nothing_is_taken_from_a_process_outside() {
    let Some(world) = World::new("stolen") else { return };
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let attack = format!("steal {} {}", std::process::id(), socket.as_raw_fd());
    world.defeats_as(PEER, &[&attack], &USERS, &[ONE_PORT]);
}

#[test]
fn without_wfp_everything_stays_filtered() {
    let Some(world) = World::new("killed") else { return };
    world.defeats(PEER, &["kill"], ROOT, &[ONE_PORT]);
    world.clear_up();
}

#[test]
fn other_namespaces_are_no_way_out() {
    let Some(world) = World::new("namespaces") else { return };
    let peer = world.outside(openwfp_attacks::world::thread_id);
    let enter = format!("enter-network /proc/{}/task/{peer}/ns/net", std::process::id());
    let results = world.defeats_as(PEER, &[&enter, "own-network", "own-user"], &USERS, &[ONE_PORT]);
    assert!(results.iter().all(|(_, result)| ["EPERM", "EACCES"].contains(&&**result)), "{results:?}");
    // where it may make them, its sockets are filtered as before
    let options = [&["--keep-cap", "sys_admin"][..], &[NOBODY, &["--user-namespaces"]].concat()];
    world.defeats_as(PEER, &["own-network", "own-user"], &options, &[ONE_PORT]);
}

#[test]
fn set_user_id_programs_get_no_more_rights() {
    let Some(world) = World::new("set-user-id") else { return };
    let program = world.path("set-user-id");
    fs::copy(world.attacker(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let attack = [line("sudo-packet", PEER, FIRST)];
    let command = world.command_of(&program, None, &attack);
    let mut as_nobody = Command::new("setpriv");
    as_nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    as_nobody.arg(command.get_program()).args(command.get_args()).current_dir("/");
    as_nobody.envs(command.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
    let without = world.look_for(as_nobody, &[FIRST]);
    if !without.reached(FIRST) {
        skipped(&format!("set-user-id programs have no more rights here without a policy either: {without:?}"));
        return;
    }
    let packet = [NOBODY, &["--family", "packet"]].concat();
    for options in [NOBODY, &packet] {
        let seen = world.look(world.command_of(&program, Some((options, ONE_PORT)), &attack));
        assert!(!seen.reached(FIRST) && seen.results.len() == 1 && seen.results != ["ok"], "{seen:?}");
    }
}

/// One user may connect.
const ONE_USER: &str = r#"
[[filter]]
name   = "the user"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
when   = { ALE_USER_ID = 1234 }

[[filter]]
name   = "nobody else"
layer  = "ALE_AUTH_CONNECT"
action = "block"
"#;

#[test]
fn only_root_turns_into_another_user() {
    let Some(world) = World::new("users") else { return };
    world.defeats(PEER, &["user 1234"], NOBODY, &[ONE_USER]);
    let command = |attacks: &[String]| world.command(Some((ROOT, ONE_USER)), attacks);
    world.not_prevented(&["user 1234"], command, "A command that runs as root may turn into any user");
}
