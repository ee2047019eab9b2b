//! Getting out of the group, and at what filters it.

use crate::harness::{BOTH, FIRST, NOBODY, ONE_PORT, PEER, Seen, World, line, skipped};
use openwfp_attacks::trace::READ;
use std::{
    fs,
    net::UdpSocket,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    process::{Child, Command, Stdio},
    time::Duration,
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

/// A command, as a user to whom nothing belongs.
fn as_nobody(command: &Command) -> Command {
    let mut as_nobody = Command::new("setpriv");
    as_nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    as_nobody.arg(command.get_program()).args(command.get_args()).current_dir("/");
    as_nobody.envs(command.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
    as_nobody
}

impl Other {
    /// A process of the same user, which waits in a call, as `wfp` does, and wakes now and then.
    fn of(nobody: bool) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "while sleep 0.1; do :; done"]);
        let mut command = if nobody { as_nobody(&command) } else { command };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        // until it is what it is to be
        std::thread::sleep(Duration::from_millis(300));
        Self(child)
    }
}

/// What has been read of a program's first bytes arrives at the open port.
fn has_read(seen: &Seen) -> bool {
    seen.frames_with(&[READ, b"\x7fELF"].concat())
}

/// How the attacks on processes outside went, of which each has a port: that of reading brings what it read.
fn came_of(attack: &str, seen: &Seen, port: u16) -> bool {
    if attack == "read-memory" { has_read(seen) } else { seen.reached(port) }
}

/// The last one ends the process.
const ON_PROCESSES: [&str; 3] = ["read-memory", "trace", "write-memory"];

#[test]
fn nobody_outside_can_be_traced_and_wfp_least_of_all() {
    let Some(world) = World::new("traced") else { return };
    world.receive([FIRST]);
    // a process of the same user does what it is made to do
    for nobody in [false, true] {
        let other = Other::of(nobody);
        for attack in ON_PROCESSES {
            let command = world.command(None, &[line(&format!("{attack} {}", other.0.id()), PEER, FIRST)]);
            let without = world.look_for(if nobody { as_nobody(&command) } else { command }, &[FIRST]);
            let may_not =
                fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0");
            if without.results == ["unsupported"] || nobody && may_not {
                skipped(&format!("{attack}: not without a policy either: {without:?}"));
                continue;
            }
            assert!(came_of(attack, &without, FIRST), "{attack}, nobody: {nobody}: {without:?}");
        }
    }
    // and so does the `wfp` of the run itself, where nothing of the isolation is left
    for attack in ON_PROCESSES {
        let command = world.command(Some((&["--no-isolation"], ONE_PORT)), &[line(attack, PEER, FIRST)]);
        let without = world.look_for(command, &[FIRST]);
        assert!(came_of(attack, &without, FIRST) || without.results == ["unsupported"], "{attack} of wfp: {without:?}");
    }
    // its process was made to end
    world.clear_up();
    for (options, nobody) in USERS.into_iter().zip([false, true]) {
        let other = Other::of(nobody);
        let on_other = ON_PROCESSES.map(|attack| line(&format!("{attack} {}", other.0.id()), PEER, FIRST));
        let on_wfp = ON_PROCESSES.map(|attack| line(attack, PEER, FIRST));
        let seen = world.look(world.command(Some((options, ONE_PORT)), &[on_other, on_wfp].concat()));
        assert_eq!(seen.results.len(), 6, "{seen:?}");
        assert!(seen.results.iter().all(|result| ["EPERM", "EACCES"].contains(&&**result)), "{seen:?}");
        assert!(!seen.reached(FIRST) && !seen.frames_with(READ), "{seen:?}");
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
    // a socket that is made there, where that network leads out
    world.defeats_as(PEER, &["own-network-joined"], &USERS, &[ONE_PORT]);
    let both = &["--keep-cap", "sys_admin,net_admin"];
    for (attack, result) in world.defeats_as(PEER, &["own-network-joined"], &[both], BOTH) {
        assert_ne!(result, "ok", "{attack}");
    }
}

#[test]
fn set_user_id_programs_get_no_more_rights() {
    let Some(world) = World::new("set-user-id") else { return };
    let program = world.path("set-user-id");
    fs::copy(world.attacker(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let attack = [line("sudo-packet", PEER, FIRST)];
    let command = world.command_of(&program, None, &attack);
    let without = world.look_for(as_nobody(&command), &[FIRST]);
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
