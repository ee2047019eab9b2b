//! `wfp callout-host`: what becomes a host of callouts. `wfp run` starts it, with the control socket of a channel as its standard input;
//! it gives up every right, and serves a built-in callout or executes the host that a policy names.

use clap::Args;
use openwfp_callout::host::serve_builtin;
use openwfp_channel::{Parts, VARIABLE, close_others_at_exec};
use rustix::{
    process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit, setsid},
    stdio::{dup2_stdin, stdin},
    thread::{
        CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use std::{
    env,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
};

/// As whom, and what.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// The user
    #[arg(long)]
    pub uid: u32,
    /// The group, the only one
    #[arg(long)]
    pub gid: u32,
    /// The host; none: the built-in callout that is asked for
    #[arg(last = true)]
    pub path: Option<PathBuf>,
}

/// The most memory of its own that a host gets, in bytes.
const MEMORY: u64 = 1 << 30;

/// Becomes a host.
pub(crate) fn host(args: &HostArgs) -> ExitCode {
    match become_host(args) {
        Ok(status) => status,
        Err(error) => {
            let what = args.path.as_ref().map_or("a callout".into(), |path| path.display().to_string());
            eprintln!("wfp callout-host: {what} cannot be served: {error}");
            ExitCode::FAILURE
        }
    }
}

fn become_host(args: &HostArgs) -> io::Result<ExitCode> {
    // what wfp was started with is not for the host
    if close_others_at_exec()? {
        return Err(Command::new("/proc/self/exe").args(env::args_os().skip(1)).exec());
    }
    // what is typed at the terminal is not for it
    let _ = setsid();
    let control = rustix::io::fcntl_dupfd_cloexec(stdin(), 3)?;
    dup2_stdin(File::open("/dev/null")?)?;
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, limit(0))?;
    setrlimit(Resource::Data, limit(MEMORY))?;
    give_up(args.uid, args.gid)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // whoever is gone already has left nothing there
    let parts = Parts::from_control(control)?;
    match &args.path {
        None => Ok(serve_builtin(parts)),
        Some(path) => {
            let error = Command::new(path).env(VARIABLE, parts.announce()?).exec();
            Err(error)
        }
    }
}

/// Becomes a user without any right that others have not.
fn give_up(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    for number in 0..u64::BITS {
        // numbers that are no capabilities are refused
        let _ = remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number));
    }
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    Ok(())
}
