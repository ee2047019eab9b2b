//! Short-lived processes, other files at a program's path, and a policy that outlives its loader. Needs root and BPF.

mod support;

use openwfp_kernel::{bpffs, enforcement::Enforcement, features, group::Group, options::Options};
use openwfp_model::{Action, FieldId, LayerId, MatchType, Value};
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};
use support::{
    Folder, OwnGroup, actor,
    live::{Live, filter, free_port, local, policy, remote_port},
    pins::Pins,
    wait_until,
};

#[test]
fn actor() {
    actor::act();
}

const COUNT: usize = 200;

fn events_of_many(action: &str, port: u16) {
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let Some(mut live) = Live::new(vec![], &[layer]) else { return };
    let folder = Folder::make();
    let program = folder.copy_of(std::env::current_exe().unwrap().to_str().unwrap(), "short-lived");
    for number in 0..COUNT {
        let mut command = actor::command(&format!("{action} {}", local(port)));
        let mut renamed = Command::new(&program);
        renamed.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        live.group.enter(&mut renamed, "");
        command = renamed;
        let status = command.uid(1000 + number as u32 % 7).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
    }
    live.drain();
    assert_eq!(live.at(layer).count(), COUNT);
    for (number, event) in live.at(layer).enumerate() {
        assert_eq!(Path::new(&*event.program), program.canonicalize().unwrap());
        assert_eq!(event.identity.user, 1000 + number as u32 % 7);
        let value = |field| live.policy.value(layer, field, &event.values);
        assert_eq!(value(FieldId::IP_REMOTE_ADDRESS), Some(Value::Uint32(0x7f00_0001)));
        assert_eq!(value(FieldId::IP_REMOTE_PORT), Some(Value::Uint16(port)));
    }
    assert_eq!(live.enforcement.failures(), Default::default());
}

#[test]
fn processes_that_connect_and_end_are_named() {
    let server = TcpListener::bind(local(0)).unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || server.incoming().for_each(drop));
    events_of_many("tcp", port);
}

#[test]
fn processes_that_send_one_datagram_and_end_are_named() {
    let server = UdpSocket::bind(local(0)).unwrap();
    events_of_many("send", server.local_addr().unwrap().port());
}

#[test]
fn another_file_at_the_path_is_another_program_and_an_upgrade_is_not() {
    let folder = Folder::make();
    let own = std::env::current_exe().unwrap();
    let program = folder.copy_of(own.to_str().unwrap(), "client");
    let other = folder.copy_of(own.to_str().unwrap(), "other");
    let server = TcpListener::bind(local(0)).unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    // this program alone may connect
    let permit = filter(layer, Action::Permit)
        .when(FieldId::ALE_APP_ID, MatchType::Equal, Value::Application(program.to_str().unwrap().into()))
        .weight(openwfp_model::Weight::Range(10))
        .build()
        .unwrap();
    let block = filter(layer, Action::Block).weight(openwfp_model::Weight::Range(1)).build().unwrap();
    let Some(mut live) = Live::new(vec![permit, block], &[layer]) else { return };
    let script = actor::command(&format!("tcp {}", server.local_addr().unwrap()));
    let run = |live: &mut Live, mut command: Command| {
        command.envs(script.get_envs().filter_map(|(name, value)| Some((name, value?))));
        actor::results(&live.run(&mut command))
    };
    let arguments: Vec<_> = script.get_args().collect();
    let plain = |path: &Path| {
        let mut command = Command::new(path);
        command.args(&arguments);
        command
    };
    assert_eq!(run(&mut live, plain(&program)), ["ok"]);
    assert_eq!(run(&mut live, plain(&other)), ["EPERM"]);
    let (other, at, root) = (other.display(), program.display(), folder.0.display());
    let bind = format!("mount --bind {other} {at} && exec {at}");
    // of the same file system: that the path is another one inside it is all that tells
    let jail = format!(
        "j={root}/jail; mkdir -p $j{root} $j/lib $j/lib64 && mount --bind /lib $j/lib && mount --bind /lib64 $j/lib64 && \
         cp {other} $j{at} && exec chroot $j {at}"
    );
    let overlay = format!(
        "o={root}/o; mkdir -p $o && mount -t tmpfs none $o && mkdir $o/l $o/u $o/w && cp {other} $o/l/client && \
         mount -t overlay overlay -o lowerdir=$o/l,upperdir=$o/u,workdir=$o/w {root} && exec {at}"
    );
    for (how, script, expected) in [
        ("-m", &format!("exec {at}"), "ok"),
        ("-m", &bind, "EPERM"),
        ("-U -r -m", &bind, "EPERM"),
        ("-m", &jail, "EPERM"),
        ("-m", &overlay, "EPERM"),
    ] {
        let mut command = Command::new("unshare");
        let script = format!("{script} actor --exact --nocapture --test-threads=1");
        command.args(how.split(' ').chain(["sh", "-c", &script]));
        assert_eq!(run(&mut live, command), [expected], "{how} {script}");
    }
    // a package upgrade renames a new file over the old one
    let new = folder.copy_of(own.to_str().unwrap(), "client.new");
    fs::rename(new, &program).unwrap();
    assert_eq!(run(&mut live, plain(&program)), ["ok"]);
}

#[test]
fn a_set_user_id_program_is_judged_by_its_effective_user() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let folder = Folder::make();
    let program = folder.copy_of(std::env::current_exe().unwrap().to_str().unwrap(), "set-user-id");
    chown(&program, Some(1234), None).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let server = TcpListener::bind(local(0)).unwrap();
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let block =
        filter(layer, Action::Block).when(FieldId::ALE_USER_ID, MatchType::Equal, Value::User(1234)).build().unwrap();
    let Some(mut live) = Live::new(vec![block], &[layer]) else { return };
    let script = actor::command(&format!("tcp {}", server.local_addr().unwrap()));
    let mut command = Command::new(&program);
    command.args(script.get_args()).envs(script.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.uid(1000);
    assert_eq!(actor::results(&live.run(&mut command)), ["EPERM"]);
    assert_eq!(live.events[0].identity.user, 1234);
}

#[test]
fn a_policy_stays_while_its_loader_lives_whatever_becomes_of_the_pins() {
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let server = TcpListener::bind(local(0)).unwrap();
    let address = server.local_addr().unwrap();
    let pins = match Pins::new("live") {
        Ok(pins) => pins,
        Err(error) => return support::skips::skipped(error),
    };
    let options = Options { pins: Some(pins.0.clone()), ..Options::default() };
    let Some(mut live) = Live::with(vec![remote_port(layer, Action::Block, address.port())], options) else { return };
    assert_eq!(live.act(&format!("tcp {address}")), ["EPERM"]);
    bpffs::unpin(&pins.0).unwrap();
    assert_eq!(live.act(&format!("tcp {address}")), ["EPERM"]);
}

/// Loads a pinned policy and waits to be killed; `OPENWFP_LOADER` says for which group, where, and which port is refused.
#[test]
fn loader() {
    let Ok(told) = std::env::var("OPENWFP_LOADER") else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let group = Group::open(Path::new(told[0])).unwrap();
    let policy = policy(vec![remote_port(LayerId::ALE_AUTH_CONNECT_V4, Action::Block, told[2].parse().unwrap())]);
    let options = Options { pins: Some(told[1].into()), ..Options::default() };
    let mut enforcement = Enforcement::prepare(&policy, &group, options).unwrap();
    enforcement.attach().unwrap();
    println!("\nloaded");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_policy_stays_when_its_loader_is_killed() {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return;
    }
    let group = OwnGroup::make();
    let pins = Pins::new("enforce").unwrap();
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let refused = free_port();
    let mut loader = Command::new(std::env::current_exe().unwrap());
    loader.args(["loader", "--exact", "--nocapture"]);
    loader.env("OPENWFP_LOADER", format!("{} {} {refused}", group.0.path.display(), pins.0.display()));
    let mut loader = loader.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(loader.stdout.take().unwrap());
    let loaded = std::io::BufRead::lines(&mut output).any(|line| line.is_ok_and(|line| line == "loaded"));
    loader.kill().unwrap();
    loader.wait().unwrap();
    assert!(loaded);
    let mut command = actor::command(&format!("tcp {open}\ntcp {}", local(refused)));
    group.enter(&mut command, "");
    let output = command.output().unwrap();
    assert_eq!(actor::results(&output.stdout), ["ok", "EPERM"]);
    let totals = openwfp_kernel::totals::TotalsMap::from_pins(&pins.0).unwrap().read().unwrap();
    assert_eq!((totals[0].permitted, totals[0].blocked), (1, 1));
    let labels = openwfp_kernel::labels::Labels::from_pins(&pins.0).unwrap();
    assert!(wait_until(|| labels.iter().next().is_none()));
}
