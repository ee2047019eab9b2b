//! Conditions on control groups, units, containers and network namespaces. Needs root and BPF.

mod support;

use openwfp_engine::compile_after;
use openwfp_kernel::{
    enforcement::{EnforceError, Enforcement, Warning},
    events::Event,
    features,
    group::{self, Group},
    options::Options,
};
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Policy, Value};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    process::Command,
};
use support::{
    OwnGroup, actor,
    live::{Live, filter, free_port, local, policy},
    net::Space,
    obedient::Obedient,
};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

#[test]
fn actor() {
    actor::act();
}

fn text(value: &str) -> Value {
    Value::UnicodeString(value.into())
}

/// Blocks connects to a port from what a condition names.
fn refuse(port: u16, field: FieldId, match_type: MatchType, value: Value) -> Filter {
    let filter = filter(CONNECT, Action::Block).when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(port));
    filter.when(field, match_type, value).build().unwrap()
}

/// A group of the test's own, by this name if one is given.
fn own_group(name: Option<&str>) -> Option<OwnGroup> {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return None;
    }
    let Some(name) = name else { return Some(OwnGroup::make()) };
    let path = group::hierarchy().unwrap().join(name);
    fs::create_dir(&path).unwrap();
    Some(OwnGroup(Group::open(&path).unwrap()))
}

/// The path of a group from the root of the hierarchy.
fn path(group: &OwnGroup, below: &str) -> String {
    let own = group.0.path.strip_prefix(group::hierarchy().unwrap()).unwrap().to_str().unwrap();
    format!("/{own}{below}")
}

fn live(group: OwnGroup, filters: Vec<Filter>) -> Live {
    live_with(group, filters, Options { recorded: vec![CONNECT], ..Options::default() })
}

fn live_with(group: OwnGroup, filters: Vec<Filter>, options: Options) -> Live {
    let policy = policy(filters);
    let mut enforcement = Enforcement::prepare(&policy, &group.0, options).unwrap_or_else(|error| panic!("{error}"));
    enforcement.attach().unwrap_or_else(|error| panic!("{error}"));
    Live { enforcement, policy, events: vec![], group }
}

/// Connects to each of these addresses from a group below the one that is filtered.
fn from(live: &mut Live, below: &str, to: &[SocketAddr]) -> Vec<String> {
    let script: Vec<String> = to.iter().map(|to| format!("tcp {to}")).collect();
    let mut command = actor::command(&script.join("\n"));
    live.group.enter(&mut command, below);
    let output = command.output().unwrap();
    live.drain();
    actor::results(&output.stdout)
}

fn server() -> (TcpListener, SocketAddr) {
    let server = TcpListener::bind(local(0)).unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

#[test]
fn a_group_and_those_below_it_are_told_apart_also_when_they_are_made_later() {
    let Some(group) = own_group(None) else { return };
    let ((_a, exact), (_b, below), (_c, other), (_d, only)) = (server(), server(), server(), server());
    fs::create_dir(group.0.path.join("a")).unwrap();
    let cgroup = FieldId::LINUX_CGROUP;
    let filters = vec![
        refuse(exact.port(), cgroup, MatchType::Equal, text(&path(&group, "/a"))),
        refuse(below.port(), cgroup, MatchType::Prefix, text(&path(&group, "/a"))),
        refuse(other.port(), cgroup, MatchType::NotPrefix, text(&path(&group, "/a"))),
        refuse(only.port(), cgroup, MatchType::Equal, text(&path(&group, "/later/still"))),
    ];
    let mut live = live(group, filters);
    let all = [exact, below, other, only];
    for (place, expected) in [
        ("a", ["EPERM", "EPERM", "ok", "ok"]),
        ("a/child", ["ok", "EPERM", "ok", "ok"]),
        ("ab", ["ok", "ok", "EPERM", "ok"]),
        ("", ["ok", "ok", "EPERM", "ok"]),
        ("later", ["ok", "ok", "EPERM", "ok"]),
        ("later/still", ["ok", "ok", "EPERM", "EPERM"]),
        ("later/still/more", ["ok", "ok", "EPERM", "ok"]),
    ] {
        assert_eq!(from(&mut live, place, &all), expected, "{place}");
        let told: Vec<Option<&str>> = live.events.iter().map(|event| event.cgroup.as_deref()).collect();
        let slash = if place.is_empty() { "" } else { "/" };
        let its = path(&live.group, &format!("{slash}{place}"));
        assert_eq!(told, [Some(&*its); 4], "{place}");
        live.events.clear();
    }
    // made again under its name
    fs::remove_dir(live.group.0.path.join("a/child")).unwrap();
    fs::remove_dir(live.group.0.path.join("a")).unwrap();
    assert_eq!(from(&mut live, "a", &all), ["EPERM", "EPERM", "ok", "ok"]);
}

#[test]
fn a_process_that_is_moved_is_of_its_new_group() {
    let Some(group) = own_group(None) else { return };
    let (_server, address) = server();
    let block = refuse(address.port(), FieldId::LINUX_CGROUP, MatchType::Equal, text(&path(&group, "/b")));
    let mut live = live(group, vec![block]);
    let mut actor = Obedient::start(&live);
    let connect = format!("tcp {address}");
    assert_eq!(actor.tell(&mut live, &connect), "ok");
    for (below, expected) in [("b", "EPERM"), ("c", "ok"), ("b", "EPERM")] {
        let folder = live.group.0.path.join(below);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup.procs"), actor.id().to_string()).unwrap();
        assert_eq!(actor.tell(&mut live, &connect), expected, "{below}");
    }
}

#[test]
fn units_and_containers_are_known_by_the_outermost_name() {
    let name = format!("openwfp-test-{}-units.slice", std::process::id());
    let Some(group) = own_group(Some(&name)) else { return };
    let servers: Vec<(TcpListener, SocketAddr)> = (0..6).map(|_| server()).collect();
    let to: Vec<SocketAddr> = servers.iter().map(|(_, address)| *address).collect();
    let (unit, container) = (FieldId::LINUX_SYSTEMD_UNIT, FieldId::LINUX_CONTAINER);
    let filters = vec![
        refuse(to[0].port(), unit, MatchType::Equal, text("web.service")),
        refuse(to[1].port(), unit, MatchType::NotEqual, text("web.service")),
        refuse(to[2].port(), unit, MatchType::Equal, Value::Empty),
        refuse(to[3].port(), container, MatchType::Equal, text(ID)),
        refuse(to[4].port(), container, MatchType::Equal, text("web")),
        refuse(to[5].port(), container, MatchType::Equal, Value::Empty),
    ];
    let mut live = live(group, filters);
    let (ok, no) = ("ok", "EPERM");
    let (docker, podman) = (format!("docker-{ID}.scope"), format!("user@7.service/libpod-{ID}.scope"));
    for (place, expected) in [
        ("", [ok, ok, no, ok, ok, no]),
        ("web.service", [no, ok, ok, ok, ok, no]),
        ("inner.slice/web.service/below", [no, ok, ok, ok, ok, no]),
        ("_web.service", [no, ok, ok, ok, ok, no]),
        ("user@7.service/web.service", [ok, no, ok, ok, ok, no]),
        ("plain/web.service", [ok, ok, no, ok, ok, no]),
        (&*docker, [ok, no, ok, no, ok, ok]),
        (&*podman, [ok, no, ok, no, ok, ok]),
        (ID, [ok, ok, no, no, ok, ok]),
        ("machine-web.scope", [ok, no, ok, ok, no, ok]),
        ("systemd-nspawn@web.service", [ok, no, ok, ok, no, ok]),
        ("lxc.payload.web", [ok, no, ok, ok, no, ok]),
        // whoever is in a container cannot pose as another
        (&*format!("lxc.payload.other/docker-{ID}.scope"), [ok, no, ok, ok, ok, ok]),
    ] {
        assert_eq!(from(&mut live, place, &to), expected, "{place}");
    }
}

#[test]
fn what_is_too_deep_is_unreadable_and_closed() {
    let Some(group) = own_group(None) else { return };
    let ((_a, tested), (_b, free)) = (server(), server());
    let block = refuse(tested.port(), FieldId::LINUX_CGROUP, MatchType::Equal, text("/nowhere"));
    let mut live = live(group, vec![block]);
    let deepest = vec!["x"; 14].join("/");
    assert_eq!(from(&mut live, &deepest, &[tested, free]), ["ok", "ok"]);
    live.events.clear();
    assert_eq!(from(&mut live, &format!("{deepest}/x"), &[tested, free]), ["EPERM", "ok"]);
    let reasons: Vec<&str> = live.events.iter().map(|event| event.reason.name()).collect();
    assert_eq!(reasons, ["unreadable", ""]);
}

#[test]
fn the_owner_of_a_socket_counts_for_what_comes_in() {
    let Some(group) = own_group(None) else { return };
    let (first, second) = (free_port(), free_port());
    let layer = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    let block = |below: &str, port: u16| {
        let filter =
            filter(layer, Action::Block).when(FieldId::LINUX_CGROUP, MatchType::Equal, text(&path(&group, below)));
        filter.when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(port)).build().unwrap()
    };
    let filters = vec![block("", first), block("/other", second)];
    let mut live = live_with(group, filters, Options { recorded: vec![layer], ..Options::default() });
    let mut actor = Obedient::start(&live);
    for (port, is_refused) in [(first, true), (second, false)] {
        assert_eq!(actor.tell(&mut live, &format!("listen {}", local(port))), "ok");
        let connected = std::net::TcpStream::connect_timeout(&local(port), std::time::Duration::from_millis(300));
        live.drain();
        assert_eq!(connected.is_err(), is_refused, "{port}");
        assert!(live.events.iter().any(|event: &Event| event.layer == layer && event.blocked == is_refused));
        live.events.clear();
    }
}

#[test]
fn another_policy_knows_other_groups() {
    let Some(group) = own_group(None) else { return };
    let (_server, address) = server();
    let in_group = |group: &OwnGroup, below: &str| {
        refuse(address.port(), FieldId::LINUX_CGROUP, MatchType::Equal, text(&path(group, below)))
    };
    let filters = vec![in_group(&group, "/a")];
    let mut live = live(group, filters);
    let both = |live: &mut Live| [from(live, "a", &[address]), from(live, "b", &[address])].concat();
    assert_eq!(both(&mut live), ["EPERM", "ok"]);
    let second = in_group(&live.group, "/b");
    live.replace(vec![second], &[CONNECT]);
    assert_eq!(both(&mut live), ["ok", "EPERM"]);
    let (first, second) = (in_group(&live.group, "/a"), in_group(&live.group, "/b"));
    live.replace(vec![first, second], &[CONNECT]);
    assert_eq!(both(&mut live), ["EPERM", "EPERM"]);
    live.replace(vec![], &[CONNECT]);
    assert_eq!(both(&mut live), ["ok", "ok"]);
}

#[test]
fn what_was_not_asked_for_from_the_start_is_not_known_later() {
    for (options, is_known) in
        [(Options::default(), false), (Options { replaceable: true, ..Options::default() }, true)]
    {
        let Some(group) = own_group(None) else { return };
        let (_server, address) = server();
        let block = refuse(address.port(), FieldId::LINUX_CGROUP, MatchType::Equal, text(&path(&group, "/a")));
        let mut live = live_with(group, vec![], options);
        let next = Policy::builder().filter(block).build().unwrap();
        let next = compile_after(&live.policy, &[&next]).unwrap();
        let replaced = live.enforcement.replace(&next, &[]);
        if is_known {
            replaced.unwrap();
            assert_eq!(from(&mut live, "a", &[address]), ["EPERM"]);
        } else {
            let refused = matches!(replaced, Err(EnforceError::NotAsked { field: FieldId::LINUX_CGROUP }));
            assert!(refused, "{replaced:?}");
        }
    }
}

#[test]
fn a_network_namespace_is_known_by_its_number() {
    let Some(group) = own_group(None) else { return };
    let space = Space::make();
    let number = |path: &str| u32::try_from(fs::metadata(path).unwrap().ino()).unwrap();
    let (own, other) = (number("/proc/self/ns/net"), number(&format!("/proc/self/task/{}/ns/net", space.id)));
    let namespace = FieldId::LINUX_NETWORK_NAMESPACE;
    let named = |inode, port| refuse(port, namespace, MatchType::Equal, Value::Uint32(inode));
    let filters = vec![
        named(own, 1001),
        named(other, 1002),
        refuse(1003, namespace, MatchType::NotEqual, Value::Uint32(other)),
        named(1, 1004),
    ];
    let mut live = live(group, filters);
    let warned = live.enforcement.warnings().iter().any(|warning| matches!(warning, Warning::NetworkNamespace(1)));
    assert!(warned, "{:?}", live.enforcement.warnings());
    let script = [1001, 1002, 1003, 1004].map(|port| format!("tcp {}", local(port))).join("\n");
    let refused = |live: &mut Live, command: &mut Command| -> Vec<bool> {
        live.events.clear();
        let results = actor::results(&live.run(command));
        results.iter().map(|result| result == "EPERM").collect()
    };
    assert_eq!(refused(&mut live, &mut actor::command(&script)), [true, false, true, false]);
    let shown = |live: &Live| -> Vec<Option<Value>> {
        let one = |event: &Event| live.policy.value(CONNECT, namespace, &event.values);
        live.events.iter().map(one).collect()
    };
    assert_eq!(shown(&live), vec![Some(Value::Uint32(own)); 4]);
    let mut command = Command::new("nsenter");
    let file = format!("--net=/proc/{}/task/{}/ns/net", std::process::id(), space.id);
    let inside = actor::command(&script);
    command.arg(file).arg(inside.get_program()).args(inside.get_args());
    command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(refused(&mut live, &mut command), [false, true, false, false]);
    assert_eq!(shown(&live), vec![Some(Value::Uint32(other)); 4]);
    // one that no filter names
    let script = format!("own-network\n{script}");
    assert_eq!(refused(&mut live, &mut actor::command(&script))[1..], [false, false, true, false]);
}
