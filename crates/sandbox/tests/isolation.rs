//! What a command cannot do inside, and can outside: each attack is first shown to succeed without isolation.

mod common;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use common::{Place, Ran, place};
use openwfp_sandbox::{Capability, UNDO_FILTERING};

const STATUS: &[&str] = &["cat", "/proc/self/status"];
const OFF: &[&str] = &["--no-isolation"];
const NOBODY: &[&str] = &["--user", "nobody"];

fn bit(capability: Capability) -> u64 {
    1 << capability.number()
}

fn all_that_undo_filtering() -> u64 {
    UNDO_FILTERING.iter().map(|(capability, _)| bit(*capability)).sum()
}

/// The number of a system call, as text.
fn number(call: i64) -> String {
    call.to_string()
}

// ---- user, capabilities, privileges ----

#[test]
fn a_user_gets_its_ids_and_no_capability() {
    let Some(place) = place() else { return };
    let status = place.run(NOBODY, STATUS);
    let id = |option| Ran::of(place.command("id", [option, "nobody"])).out.trim().to_owned();
    let ids = |id: &str| [id; 4].join("\t");
    assert_eq!(status.field("Uid"), ids(&id("-u")));
    assert_eq!(status.field("Gid"), ids(&id("-g")));
    assert_eq!(status.field("Groups"), id("-G"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status.bits(set), 0, "{set}");
    }
    assert_eq!(status.bits("CapBnd") & all_that_undo_filtering(), 0);
    assert_eq!(status.field("NoNewPrivs"), "1");
    assert_eq!(status.field("Seccomp"), "2");
}

#[test]
fn root_keeps_the_rights_that_do_not_undo_filtering() {
    let Some(place) = place() else { return };
    let (inside, outside) = (place.run(&[], STATUS), place.run(OFF, STATUS));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(inside.bits(set), outside.bits(set) & !all_that_undo_filtering() & ((1 << 41) - 1), "{set}");
    }
    assert_eq!(inside.bits("CapInh") | inside.bits("CapAmb"), 0);
    assert_eq!(inside.field("NoNewPrivs"), "1");
    assert_eq!((outside.field("NoNewPrivs"), outside.field("Seccomp")), ("0", "0"));
}

#[test]
fn root_can_do_what_installing_packages_takes() {
    let Some(place) = place() else { return };
    let file = place.folder.join("file");
    let script = format!(
        "set -e; f={}; echo x > $f; chown nobody $f; chmod 600 $f; echo y >> $f
         setpriv --reuid nobody --regid nogroup --clear-groups sh -c 'cat '$f'; id -un'
         setpriv --reuid nobody --regid nogroup --clear-groups sleep 60 & kill $!",
        file.display()
    );
    let ran = place.run(&[], &["sh", "-c", &script]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "x\ny\nnobody\n"), "{ran:?}");
}

#[test]
fn the_user_who_called_sudo_runs_the_command() {
    let Some(place) = place() else { return };
    let mut command = place.probe(["run", "--", "sh", "-c", "id -u; id -g; id -G; echo $HOME"]);
    let ran = Ran::of(std::mem::replace(
        command.env("SUDO_UID", "987654").env("SUDO_GID", "4242").env("HOME", "/x"),
        std::process::Command::new("true"),
    ));
    assert_eq!(ran.out, "987654\n4242\n4242\n/x\n", "{ran:?}");
    let mut command = place.probe(["run", "--no-isolation", "--", "id", "-u"]);
    command.env("SUDO_UID", "987654").env("SUDO_GID", "4242");
    assert_eq!(Ran::of(command).out, "0\n");
}

#[test]
fn a_user_finds_its_own_home() {
    let Some(place) = place() else { return };
    let ran = place.run(&["--user", "daemon"], &["sh", "-c", "echo $USER $LOGNAME $HOME"]);
    assert_eq!(ran.out, "daemon daemon /usr/sbin\n");
}

#[test]
fn a_capability_can_be_kept_for_root_and_for_others() {
    let Some(place) = place() else { return };
    let raw = bit(Capability::NET_RAW);
    let root = place.run(&["--keep-cap", "net_raw"], STATUS);
    assert_eq!(root.bits("CapEff") & all_that_undo_filtering(), raw);
    assert_eq!(root.bits("CapBnd") & all_that_undo_filtering(), raw);
    let other = place.run(&["--user", "nobody", "--keep-cap", "CAP_NET_RAW"], STATUS);
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(other.bits(set), raw, "{set}");
    }
}

#[test]
fn programs_with_more_rights_do_not_get_them() {
    let Some(place) = place() else { return };
    let id = place.copy("/usr/bin/id", "id");
    std::fs::set_permissions(&id, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let outside = place.run(OFF, &["setpriv", "--reuid", "nobody", "--clear-groups", &id, "-u"]);
    if outside.out != "0\n" {
        common::skipped(format_args!("{} does not honour set-user-id programs", place.folder.display()));
        return;
    }
    assert_ne!(place.run(NOBODY, &[&id, "-u"]).out, "0\n");
}

// ---- system calls ----

#[test]
fn sockets_of_other_families_are_refused() {
    let Some(place) = place() else { return };
    let socket = number(libc::SYS_socket);
    let packet = ["syscall", &socket, "17", "3", "0"];
    assert!(place.call(OFF, &packet).parse::<i32>().is_ok());
    assert_eq!(place.call(&["--keep-cap", "net_raw"], &packet), "EAFNOSUPPORT");
    assert!(place.call(&["--keep-cap", "net_raw", "--family", "packet"], &packet).parse::<i32>().is_ok());
    // by its old name, among those of IP
    let old = ["syscall", &socket, "2", "10", "8"];
    assert!(place.call(OFF, &old).parse::<i32>().is_ok());
    assert_eq!(place.call(&["--keep-cap", "net_raw"], &old), "EAFNOSUPPORT");
    for family in ["1", "2", "10"] {
        assert!(place.call(NOBODY, &["syscall", &socket, family, "2", "0"]).parse::<i32>().is_ok(), "{family}");
    }
    assert!(place.call(NOBODY, &["syscall", &socket, "16", "3", "0"]).parse::<i32>().is_ok());
    for family in ["38", "40", "43", "44"] {
        assert_eq!(place.call(NOBODY, &["syscall", &socket, family, "1", "0"]), "EAFNOSUPPORT", "{family}");
    }
    assert_eq!(place.call(NOBODY, &["syscall", &socket, "2", "1", "256"]), "EPROTONOSUPPORT");
    // Without the capability no raw socket either.
    assert_eq!(place.call(&[], &["syscall", &socket, "2", "3", "1"]), "EPERM");
}

#[test]
fn io_uring_is_not_there() {
    let Some(place) = place() else { return };
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register] {
        let call = ["syscall", &number(call), "1"];
        assert_eq!(place.call(&[], &call), "ENOSYS");
        assert_ne!(place.call(&["--io-uring"], &call), "ENOSYS");
    }
}

#[test]
fn bpf_and_another_executable_file_are_refused() {
    let Some(place) = place() else { return };
    let bpf = ["syscall", &number(libc::SYS_bpf), "0"];
    assert_eq!(place.call(&[], &bpf), "EPERM");
    assert_ne!(place.call(OFF, &bpf), "EPERM");
    let prctl = ["syscall", &number(libc::SYS_prctl), "35", "13", "999"];
    assert_eq!(place.call(&[], &prctl), "EPERM");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bit_programs_are_no_way_around() {
    let Some(place) = place() else { return };
    // socket: 359. socketcall: 102, of which 1 is socket, its arguments in memory.
    let packet = ["int80", "359", "17", "3", "0"];
    if place.call(OFF, &packet).parse::<i32>().is_err() {
        common::kernel_lacks(format_args!("this kernel runs no 32-bit programs"));
        return;
    }
    assert_eq!(place.call(&["--keep-cap", "net_raw"], &packet), "EAFNOSUPPORT");
    assert!(place.call(NOBODY, &["int80", "359", "2", "2", "0"]).parse::<i32>().is_ok());
    assert_eq!(place.call(OFF, &["int80", "102", "1", "0"]), "EFAULT");
    assert_eq!(place.call(&[], &["int80", "102", "1", "0"]), "ENOSYS");
    assert_eq!(place.call(&[], &["int80", "102", "8", "0"]), "ENOSYS");
    assert_eq!(place.call(&[], &["int80", "102", "3", "0"]), "EFAULT");
    assert_eq!(place.call(&[], &["int80", "425", "1"]), "ENOSYS");
    assert_eq!(place.call(&[], &["int80", "310", "0x10000000"]), "EPERM");
    // x32: the numbers of x86-64 with bit 30 set.
    assert_eq!(place.call(&[], &["syscall", "0x40000029", "17", "3", "0"]), "ENOSYS");
}

#[test]
fn user_and_cgroup_namespaces_are_refused() {
    let Some(place) = place() else { return };
    let (unshare, clone) = (number(libc::SYS_unshare), number(libc::SYS_clone));
    let child = libc::SIGCHLD;
    for space in [libc::CLONE_NEWUSER, libc::CLONE_NEWCGROUP] {
        let (flags, with_child) = (space.to_string(), (space | child).to_string());
        assert_eq!(place.call(OFF, &["syscall", &unshare, &flags]), "0");
        assert_eq!(place.call(&[], &["syscall", &unshare, &flags]), "EPERM");
        assert!(place.call(OFF, &["syscall", &clone, &with_child]).parse::<u32>().is_ok());
        assert_eq!(place.call(&[], &["syscall", &clone, &with_child]), "EPERM");
    }
    assert_eq!(place.call(&[], &["syscall", &number(libc::SYS_clone3), "0", "0"]), "ENOSYS");
    assert_eq!(place.call(&[], &["syscall", &number(libc::SYS_setns), "0", "0"]), "EPERM");
    assert_ne!(place.run(NOBODY, &["unshare", "-Ur", "true"]).status, 0);
}

#[test]
fn threads_and_processes_can_be_made() {
    let Some(place) = place() else { return };
    for options in [NOBODY, &["--user", "nobody", "--user-namespaces"]] {
        assert_eq!(place.call(options, &["threads"]), "thread process");
    }
}

// ---- file systems ----

/// Runs a shell script in mounts of its own, where what it mounts goes away by itself. `$P` is the probe, `$D` an empty folder.
fn in_own_mounts(place: &Place, script: &str) -> Ran {
    let folder = place.folder.join("empty");
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = place.command("unshare", ["-m", "--propagation", "private", "sh", "-c", script]);
    command.env("P", &place.probe).env("D", &folder);
    Ran::of(command)
}

#[test]
fn cgroup_file_systems_are_not_seen() {
    let Some(place) = place() else { return };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let groups = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind) = (words.next()?, words.next()?);
        kind.starts_with("cgroup").then_some(path)
    });
    for mount in groups {
        for options in [&[], NOBODY] {
            let ran = place.run(options, &["ls", "-A", mount]);
            assert_eq!((ran.status, ran.out.as_str()), (0, ""), "{mount}: {ran:?}");
        }
        assert_ne!(place.run(OFF, &["ls", "-A", mount]).out, "");
        assert_ne!(place.run(&[], &["umount", mount]).status, 0);
    }
}

#[test]
fn a_bpf_file_system_and_single_files_are_not_seen() {
    let Some(place) = place() else { return };
    let ran = in_own_mounts(
        &place,
        "mount -t bpf none $D && mkdir $D/pins && $P run -- ls -A $D && $P run --no-isolation -- ls -d $D/pins",
    );
    let pins = place.folder.join("empty/pins");
    assert_eq!((ran.status, ran.out.trim_end()), (0, pins.to_str().unwrap()), "{ran:?}");
    let script = format!(
        "touch $D/procs && mount --bind {}/cgroup.procs $D/procs && $P run -- cat $D/procs && $P run -- sh -c 'echo 0 > $D/procs'",
        place.mount().display()
    );
    let ran = in_own_mounts(&place, &script);
    assert_eq!(ran.out, "", "{ran:?}");
}

#[test]
fn the_command_cannot_leave_its_group() {
    let Some(place) = place() else { return };
    let procs = place.mount().join("cgroup.procs").display().to_string();
    let leave = format!("echo $$ > {procs}; grep ^0:: /proc/self/cgroup");
    assert_eq!(place.run(OFF, &["sh", "-c", &leave]).out, "0::/\n");
    for options in [&[], NOBODY] {
        let ran = place.run(options, &["sh", "-c", &leave]);
        assert!(ran.out.contains("/run-"), "{ran:?}");
    }
    // Through another process's view of the files.
    let other = std::process::id();
    let leave = format!("echo $$ > /proc/{other}/root{procs}; grep ^0:: /proc/self/cgroup");
    assert_eq!(place.run(OFF, &["sh", "-c", &leave]).out, "0::/\n");
    let ran = place.run(&[], &["sh", "-c", &leave]);
    assert!(ran.out.contains("/run-"), "{ran:?}");
}

#[test]
fn a_cgroup_file_system_cannot_be_mounted_anew() {
    let Some(place) = place() else { return };
    let empty = place.folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let mount = format!("mount -t cgroup2 none {0} && ls {0}/cgroup.procs", empty.display());
    let as_nobody = |flags| ["setpriv", "--reuid", "nobody", "--clear-groups", "unshare", flags, "sh", "-c", &mount];
    let outside = place.run(OFF, &as_nobody("-UrmC"));
    assert_eq!(outside.status, 0, "{outside:?}");
    let open: &[&str] = &["--user", "nobody", "--user-namespaces"];
    for (options, flags) in [(open, "-UrmC"), (open, "-Urm"), (NOBODY, "-UrmC"), (NOBODY, "-m"), (&[], "-m")] {
        let ran = place.run(options, &["unshare", flags, "sh", "-c", &mount]);
        assert_ne!(ran.status, 0, "{options:?} {flags}: {ran:?}");
        assert_eq!(ran.out, "");
    }
    let ran = place.run(&[], &["sh", "-c", &mount]);
    assert_ne!(ran.status, 0, "{ran:?}");
}

#[test]
fn with_user_namespaces_the_covers_stay() {
    let Some(place) = place() else { return };
    let options = &["--user", "nobody", "--user-namespaces"];
    let mount = place.mount().display().to_string();
    // It may mount there: what it needs namespaces for works.
    let script = format!("mount -t tmpfs none /mnt && umount {mount}; ls -A {mount}; ls /sys/fs");
    let ran = place.run(options, &["unshare", "-Urm", "sh", "-c", &script]);
    assert!(!ran.out.contains("cgroup.procs"), "{ran:?}");
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.err.contains("umount"), "{ran:?}");
}

#[test]
fn a_working_folder_behind_the_covers_is_refused() {
    let Some(place) = place() else { return };
    let mut command = place.probe(["run", "--", "true"]);
    command.current_dir(&place.parent);
    let ran = Ran::of(command);
    assert_eq!(ran.status, 125);
    assert!(ran.err.contains("change to another folder"), "{ran:?}");
}

#[test]
fn root_cannot_write_the_kernel_s_settings() {
    let Some(place) = place() else { return };
    // Opened for writing, nothing written.
    for file in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/class/net/lo/mtu",
    ] {
        if !Path::new(file).exists() {
            common::kernel_lacks(format_args!("this kernel has no {file}"));
            continue;
        }
        let open = &["sh", "-c", &format!(": >> {file}")];
        assert_eq!(place.run(OFF, open).status, 0, "{file}");
        assert_ne!(place.run(&[], open).status, 0, "{file}");
    }
    assert_eq!(place.run(&[], &["cat", "/proc/sys/kernel/ostype"]).out, "Linux\n");
}

#[test]
fn network_devices_are_not_seen_unless_asked_for() {
    let Some(place) = place() else { return };
    let open = &["sh", "-c", ": < /dev/net/tun"];
    let outside = place.run(OFF, open);
    if outside.status != 0 {
        common::kernel_lacks(format_args!("{}", outside.err.trim()));
        return;
    }
    assert_ne!(place.run(&[], open).status, 0);
    assert_eq!(place.run(&["--network-devices"], open).status, 0);
    assert_ne!(place.run(&[], &["mknod", "/tmp/openwfp-tun", "c", "10", "200"]).status, 0);
}

// ---- other processes ----

#[test]
fn processes_outside_cannot_be_traced_and_those_inside_can() {
    let Some(place) = place() else { return };
    let as_nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"];
    let mut victim = place.command("setpriv", as_nobody.iter().chain(&["sleep", "60"])).spawn().unwrap();
    let pid = victim.id().to_string();
    common::eventually("the other process is another user's", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("sleep") && !status.contains("Uid:\t0")
    });
    let outside =
        Ran::of(place.command("setpriv", as_nobody.iter().chain(&[place.probe.as_str(), "steal", &pid, "0"])));
    let inside: Vec<_> = [NOBODY, &["--user", "nobody", "--user-namespaces"]]
        .iter()
        .map(|options| place.run(options, &[&place.probe, "steal", &pid, "0"]))
        .collect();
    let root = place.run(&[], &["sh", "-c", "ls /proc/1/root/; ls -L /proc/1/ns/net; readlink /proc/1/fd/*"]);
    victim.kill().unwrap();
    victim.wait().unwrap();
    if outside.out.trim().parse::<i32>().is_err() {
        common::kernel_lacks(format_args!("this kernel limits tracing by itself"));
    }
    for ran in inside {
        if ran.err.contains("Landlock") {
            common::kernel_lacks(format_args!("{}", ran.err.trim()));
        } else {
            assert_eq!(ran.out, "EPERM\n", "{ran:?}");
        }
    }
    assert_eq!(root.out, "", "{root:?}");
    let script = format!("sleep 60 & {} steal $! 0; kill $!", place.probe);
    let own = place.run(NOBODY, &["sh", "-c", &script]);
    assert!(own.out.trim().parse::<i32>().is_ok(), "{own:?}");
}

#[test]
fn files_can_still_be_moved_between_folders() {
    let Some(place) = place() else { return };
    let folder = place.folder.display();
    let script = format!("cd {folder} && mkdir a b && echo x > a/f && mv a/f b/g && ln b/g a/h && cat a/h");
    // mv would copy where rename is refused; ln would fail.
    let ran = place.run(&[], &["sh", "-c", &script]);
    assert_eq!((ran.status, ran.out.as_str()), (0, "x\n"), "{ran:?}");
}

// ---- descriptors ----

#[test]
fn descriptors_are_closed_but_those_to_keep() {
    let Some(place) = place() else { return };
    let open = |options: &str| {
        let script = format!(
            "exec {} run {options} -- sh -c 'ls /proc/$$/fd' 3</etc/passwd 4</etc/passwd 7</etc/passwd",
            place.probe
        );
        let ran = Ran::of(place.command("sh", ["-c", &script]));
        (ran.out.split_whitespace().collect::<Vec<_>>().join(" "), ran.err)
    };
    assert_eq!(open("--user nobody").0, "0 1 2");
    assert_eq!(open("--keep-fd 4 --keep-fd 7").0, "0 1 2 4 7");
    // The tests themselves may have been started with some more.
    assert!(open("--no-isolation").0.split(' ').filter(|number| ["3", "4", "7"].contains(number)).count() == 3);
    assert!(open("--keep-fd 5").1.contains("descriptor 5"), "{:?}", open("--keep-fd 5"));
}

#[test]
fn a_socket_that_is_handed_over_is_told() {
    let Some(place) = place() else { return };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = place.probe(["run", "--", "true"]);
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    let ran = Ran::of(command);
    drop(ours);
    assert_eq!(ran.status, 0);
    assert!(ran.err.contains("descriptor 0 is a socket that was made outside"), "{ran:?}");
}

#[test]
fn a_folder_or_a_cgroup_file_as_standard_input_is_refused() {
    let Some(place) = place() else { return };
    for path in [Path::new("/"), &place.parent.join("cgroup.procs")] {
        let mut command = place.probe(["run", "--", "cat"]);
        command.stdin(File::open(path).unwrap());
        let ran = Ran::of(command);
        assert_eq!(ran.status, 125, "{ran:?}");
        assert!(ran.err.contains("descriptor 0") && ran.err.contains("redirect it elsewhere"), "{ran:?}");
    }
}
