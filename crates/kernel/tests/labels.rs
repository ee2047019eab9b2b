//! Each process of the group is labelled with the program that it runs. Needs root and BPF.

mod support;

use openwfp_abi::label::{Label, LabelState};
use openwfp_kernel::applications::Application;
use std::{
    ffi::CString,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
};
use support::{Bench, Folder, wait_until};

/// Starts the command, and ends it when `look` has looked at the label that it has got.
fn look(bench: &Bench, command: &mut Command, look: impl FnOnce(&mut Child, Label)) {
    let mut child = command.spawn().unwrap();
    let label = bench.label_of(child.id());
    look(&mut child, label);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_program_is_named_by_device_and_path_inside_its_file_system() {
    let Some(bench) = Bench::new() else { return };
    look(&bench, &mut bench.command("/bin/sleep", &["100"]), |child, label| {
        let expected = Application::find(Path::new("/bin/sleep")).unwrap();
        let key = expected.key(bench.shims.hash_key());
        assert_eq!(label.application(), Some(key), "{label:?}");
        assert_eq!(bench.labels.inner_path(&key).unwrap().path, expected.inner);
        let shown = Path::new("/bin/sleep").canonicalize().unwrap();
        assert_eq!(Path::new(&bench.describe(child.id())), shown);
    });
    println!("loading took {:?}", bench.shims.times());
}

#[test]
fn groups_below_count_and_others_do_not() {
    let Some(bench) = Bench::new() else { return };
    let mut below = Command::new("/bin/sleep");
    bench.group.enter(below.arg("100"), "below");
    look(&bench, &mut below, |_, label| assert_eq!(label.state, LabelState::NAMED));
    assert!(wait_until(|| bench.labels.iter().next().is_none()));
    assert!(Command::new("/bin/true").status().unwrap().success());
    let mut other = Command::new("/bin/sleep").arg("100").spawn().unwrap();
    assert!(bench.labels.of(other.id()).is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_fork_inherits_the_label() {
    let Some(bench) = Bench::new() else { return };
    let script = "( read pid rest </proc/self/stat; kill -STOP $pid ) & echo $!; wait";
    let mut shell = bench.command("/bin/sh", &["-c", script]);
    look(&bench, shell.stdout(Stdio::piped()), |shell, label| {
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child: u32 = line.trim().parse().unwrap();
        assert_eq!(bench.labels.of(child), Some(label));
    });
}

#[test]
fn nothing_is_left_of_a_thousand_processes() {
    let Some(bench) = Bench::new() else { return };
    let script = "i=0; while [ $i -lt 500 ]; do /bin/true; ( : ); i=$((i+1)); done";
    let status = bench.command("/bin/sh", &["-c", script]).status().unwrap();
    assert!(status.success());
    assert!(wait_until(|| bench.labels.iter().next().is_none()));
    let failures = bench.labels.failures();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn a_file_renamed_over_a_program_is_the_program() {
    let Some(bench) = Bench::new() else { return };
    let folder = Folder::make();
    let program = folder.copy_of("/bin/sleep", "sleep");
    let policy = Application::find(&program).unwrap().key(bench.shims.hash_key());
    let mut command = bench.command(program.to_str().unwrap(), &["100"]);
    look(&bench, &mut command, |child, label| {
        assert_eq!(label.application(), Some(policy));
        let newer = folder.copy_of("/bin/sleep", "sleep.new");
        fs::rename(newer, &program).unwrap();
        assert_eq!(bench.labels.of(child.id()), Some(label));
    });
    look(&bench, &mut command, |_, label| assert_eq!(label.application(), Some(policy)));
}

#[test]
fn a_deleted_program_is_no_application() {
    let Some(bench) = Bench::new() else { return };
    let folder = Folder::make();
    let program = folder.copy_of("/bin/sleep", "sleep");
    let file = File::open(&program).unwrap();
    fs::remove_file(&program).unwrap();
    let mut command = bench.command(&format!("/proc/self/fd/{}", file.as_raw_fd()), &["100"]);
    look(&bench, command.arg0("sleep"), |child, label| {
        assert_eq!(label.state, LabelState::UNLINKED);
        assert_eq!(label.application(), None);
        assert!(bench.describe(child.id()).ends_with("/sleep (deleted)"));
    });
}

#[test]
fn a_program_in_memory_is_no_application() {
    let Some(bench) = Bench::new() else { return };
    // SAFETY: a string that ends with zero; the new descriptor is nobody else's.
    let mut file = unsafe {
        let fd = libc::memfd_create(c"curl".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    file.write_all(&fs::read("/bin/sleep").unwrap()).unwrap();
    let mut command = bench.command(&format!("/proc/self/fd/{}", file.as_raw_fd()), &["100"]);
    look(&bench, command.arg0("sleep"), |child, label| {
        assert_eq!(label.state, LabelState::DETACHED);
        assert_eq!(label.application(), None);
        assert_eq!(bench.describe(child.id()), "memfd:curl");
    });
}

/// Paths of every length around the sizes that matter, up to one that is too long.
#[test]
fn deep_paths_are_followed_to_the_last_byte() {
    let Some(bench) = Bench::new() else { return };
    let folder = Folder::make();
    let program = folder.copy_of("/bin/sleep", "sleep");
    let outer = Application::find(&program).unwrap().inner;
    let outer = outer.parent().unwrap().as_os_str().len();
    let last = "/sleep".len();
    let table = [
        // components, bytes of the whole path inside the file system
        (1, outer + last + 2),
        (64, 1000),
        (100, 1024),
        (100, 1025),
        (120, 4003),
        (64, 4094),
        (64, 4095),
        (64, 4096),
        (64, 4097),
        (300, 4200),
    ];
    for (depth, bytes) in table {
        let names = bytes - outer - last - depth;
        let name = |index: usize| "d".repeat(names / depth + usize::from(index < names % depth));
        let names: Vec<_> = (0..depth).map(|index| CString::new(name(index)).unwrap()).collect();
        let start = CString::new(folder.0.as_os_str().as_bytes()).unwrap();
        let source = CString::new(program.as_os_str().as_bytes()).unwrap();
        let make = move || {
            // SAFETY: strings that end with zero, all made before the fork.
            unsafe {
                libc::chdir(start.as_ptr());
                for name in &names {
                    libc::mkdir(name.as_ptr(), 0o700);
                    assert_eq!(libc::chdir(name.as_ptr()), 0);
                }
                libc::link(source.as_ptr(), c"sleep".as_ptr());
            }
            Ok(())
        };
        let mut command = bench.command("./sleep", &["100"]);
        // SAFETY: system calls alone, between fork and exec.
        unsafe { command.pre_exec(make) };
        look(&bench, &mut command, |child, label| {
            let case = format!("{depth} components, {bytes} bytes: {}", bench.describe(child.id()));
            if bytes > 4096 {
                assert_eq!(label.state, LabelState::TOO_LONG, "{case}");
                assert_eq!(label.application(), None);
                return;
            }
            assert_eq!(label.state, LabelState::NAMED, "{case}");
            let inner = bench.labels.inner_path(&label.file()).expect(&case);
            assert_eq!(inner.is_cut, bytes > 1024, "{case}");
            assert_eq!(inner.path.as_os_str().len(), bytes.min(1024), "{case}");
            let path = Path::new(&format!("/proc/{}/exe", child.id())).to_owned();
            // the link cannot be read when the path is as long as that
            if let Ok(path) = fs::read_link(path) {
                let policy = Application::find(&path).unwrap();
                assert_eq!(label.application(), Some(policy.key(bench.shims.hash_key())), "{case}");
            }
        });
    }
    assert!(bench.labels.failures().is_empty());
}

/// Another file, mounted or found at the path that the policy names, is another file.
#[test]
fn what_merely_stands_at_the_path_is_not_the_application() {
    let Some(bench) = Bench::new() else { return };
    let folder = Folder::make();
    let program = folder.copy_of("/bin/sleep", "sleep");
    fs::create_dir(folder.0.join("other")).unwrap();
    let other = folder.copy_of("/bin/sleep", "other/sleep");
    let policy = Application::find(&program).unwrap().key(bench.shims.hash_key());
    let (at, other, root) = (program.display(), other.display(), folder.0.display());
    let inside = root.to_string().trim_start_matches('/').to_string();
    let table = [
        ("bind mount", format!("mount --bind {other} {at} && exec {at} 100")),
        (
            "bind mount in a user namespace",
            format!("exec unshare -U -r -m sh -c 'mount --bind {other} {at} && exec {at} 100'"),
        ),
        (
            "tmpfs over the folder",
            format!(
                "cp /bin/sleep /tmp/.s$$; exec 3</tmp/.s$$; rm /tmp/.s$$; mount -t tmpfs none {root} && cat <&3 >{at} && chmod +x {at} && exec 3<&- && exec {at} 100"
            ),
        ),
        (
            "chroot",
            format!(
                "mkdir -p {root}/jail && mount -t tmpfs none {root}/jail && mkdir -p {root}/jail/{inside} {root}/jail/lib {root}/jail/lib64 {root}/jail/usr && (mount --bind /lib {root}/jail/lib; mount --bind /lib64 {root}/jail/lib64; true) 2>/dev/null && cp {other} {root}/jail/{at} && exec chroot {root}/jail {at} 100"
            ),
        ),
        (
            "overlay",
            format!(
                "mkdir -p {root}/o && mount -t tmpfs none {root}/o && mkdir {root}/o/l {root}/o/u {root}/o/w && cp {other} {root}/o/l/sleep && mount -t overlay overlay -o lowerdir={root}/o/l,upperdir={root}/o/u,workdir={root}/o/w {root} && exec {at} 100"
            ),
        ),
    ];
    for (how, script) in table {
        let mut command = bench.command("unshare", &["-m", "sh", "-c", &script]);
        let mut child = command.arg0("unshare").spawn().unwrap();
        let arrived = wait_until(|| {
            let comm = fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap_or_default();
            comm.ends_with("100\0") && comm.starts_with(&at.to_string())
        });
        assert!(arrived, "{how}: the program was not executed");
        assert!(wait_until(|| {
            let state = bench.labels.of(child.id());
            state.is_some_and(|label| !bench.describe(child.id()).ends_with("sh") && label.state == LabelState::NAMED)
        }));
        let label = bench.labels.of(child.id()).unwrap();
        println!("{how}: device {:#x}, {}", label.device, bench.describe(child.id()));
        assert_ne!(label.application(), Some(policy), "{how}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
