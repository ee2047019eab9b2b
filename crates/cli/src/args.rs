//! The command line.

use crate::{callout_host::HostArgs, output::Globals, policies::is_standard_input};
use clap::{Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};

/// The Windows Filtering Platform for Linux: filter what a command may do on the network, and say why.
#[derive(Debug, Parser)]
#[command(name = "wfp", version, arg_required_else_help = true, after_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "\
Examples:
  sudo wfp run -p policy.toml --trace -- ./tests        enforce a policy on a command, and watch
  wfp explain -p policy.toml ALE_AUTH_CONNECT IP_REMOTE_ADDRESS=192.0.2.1 IP_REMOTE_PORT=443
  wfp replay -p policy.toml capture.pcapng              what the policy would have done
  wfp check policy.toml                                 mistakes, and filters that can never decide

Exit status: 0 done; 1 it could not be done, and nothing was changed; 2 wrong usage: words that no file and no machine would make \
right, such as an unknown option, layer or field. `wfp run` exits as the command does (see there).

`wfp COMMAND --help` says more of each.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command, and all that it starts, under policies
    Run(RunArgs),
    /// Check policies: mistakes, and filters that can never decide
    Check(CheckArgs),
    /// Classify one event, or many, and say why
    Explain(ExplainArgs),
    /// Classify a capture at every layer that it passes
    Replay(ReplayArgs),
    /// Measure what a policy costs
    Bench(BenchArgs),
    /// Show what the platform has
    Show(ShowArgs),
    /// Show the built-in callouts and their settings
    #[command(after_help = "\
A policy names one with `uses = \"NAME\"` in a `[[callout]]` section, and sets it in `[callout.settings]`; filters name the callout
as their action (docs/callouts.md). They answer in `wfp replay`, and in `wfp run` at the layers of packets. Elsewhere a filter that
names a callout blocks in `wfp run`, or does nothing where its kind is `inspection`.

Examples:
  wfp callouts
  wfp callouts --json | jq -r .name")]
    Callouts,
    /// Become a host of callouts: `wfp run` does
    #[command(hide = true)]
    CalloutHost(HostArgs),
    /// Write a policy in another form, or the schema of policy files
    Export(ExportArgs),
    /// See a policy at work on real connections (needs root)
    #[command(after_help = "\
Starts two servers on loopback and a client under a policy that refuses one of them, and explains what happened. Nothing leaves \
the machine. With --json: one object for each connection, with `port`, what the kernel said (`action`, `filter`), how often the server \
was `reached`, and the `explanation`.")]
    Demo,
    /// Write completions for a shell to standard output
    #[command(after_help = "\
Example:
  wfp completions bash > /etc/bash_completion.d/wfp")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual page of wfp, or of one of its commands, to standard output
    #[command(after_help = "\
Examples:
  wfp man | man -l -
  wfp man explain > wfp-explain.1")]
    Man {
        /// The command
        command: Option<String>,
    },
}

impl Command {
    /// What of the arguments does not go together, where standard input is meant.
    pub fn conflict(&self) -> Option<&'static str> {
        let (policies, other): (&[PathBuf], _) = match self {
            Self::Run(args) => (&args.policy, None),
            Self::Check(args) => (&args.policies, None),
            Self::Explain(args) => (&args.policy, args.from.as_deref()),
            Self::Replay(args) => (&args.policy, Some(&*args.capture)),
            Self::Bench(args) => (&args.policy, None),
            Self::Export(args) => (args.policy.as_slice(), None),
            Self::CalloutHost(_)
            | Self::Callouts
            | Self::Show(_)
            | Self::Demo
            | Self::Completions { .. }
            | Self::Man { .. } => return None,
        };
        let from_input = policies.iter().filter(|path| is_standard_input(path)).count();
        let watched = matches!(self, Self::Run(args) if args.watch);
        match from_input {
            0 => None,
            _ if watched => Some("--watch: standard input (-p -) does not change; name a file"),
            1 if other.is_none_or(|other| !is_standard_input(other)) => None,
            _ => Some("standard input can be read once: only one file can be `-`"),
        }
    }
}

/// `wfp run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command runs in a control group of its own, isolated from what would let it get around the policies; this needs root, or \
the rights to load BPF programs and to make control groups.

Exit status: the command's; 128+n after signal n; 125 when wfp itself failed (an invalid policy, a missing right, a user whom \
--user names and nobody knows, a full disk under --events), 126 when the command cannot be executed, 127 when it is not found; \
2 for wrong usage, and nothing is run.

Signals: wfp hands on to the command every signal that it gets, real-time ones too and with their values, but SIGKILL and \
SIGSTOP, which nobody can catch, SIGCHLD, and what tells of faults (SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS). SIGKILL \
ends wfp alone: the command goes on, filtered.

On SIGHUP wfp reads the policy files again and puts all of them in place at once: each connect, bind or packet is decided by \
the old policies or by the new ones. A file with mistakes changes nothing. Existing connections are authorized again. A \
terminal that is closed ends the command as ever, and so does every SIGHUP where there is no -p.

With --watch the files are read again when they change, and the run is prepared for what later policies may ask for. Without \
it, policies that are taken on SIGHUP can name no groups that the first did not name, and know little of sockets that are \
older than the filters for their layer.

Examples:
  sudo wfp run --trace -- curl https://example.org     no policy: all is permitted and shown
  sudo wfp run -p policy.toml --events log.jsonl -- ./ci
  sudo wfp run -p policy.toml --watch -- ./server      edit policy.toml meanwhile")]
pub(crate) struct RunArgs {
    /// A policy file; `-`: standard input, and the command's is empty then. Given several times, the policies live side by
    /// side as those of independent providers do. None: everything is permitted
    #[arg(short, long, value_name = "POLICY")]
    pub policy: Vec<PathBuf>,
    /// Read the policy files again whenever they change (SIGHUP does so once, with or without this)
    #[arg(long, requires = "policy")]
    pub watch: bool,
    /// Show events on standard error as they happen (with --json: as JSON Lines)
    #[arg(long)]
    pub trace: bool,
    /// Write events to a file, as JSON Lines; the last line is a summary. What stood in the file before goes when the command
    /// runs
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// The layers whose events --trace and --events show, separated by commas; `all`: all that there can be. Absent: the ALE
    /// layers, and those at which the policy has filters
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub layers: Vec<String>,
    /// Decide and report what would be blocked, but block nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Run as this user (name or number). Absent: the user who called sudo, else the caller
    #[arg(long, value_name = "USER", help_heading = "Isolation")]
    pub user: Option<String>,
    /// Let the command keep a capability (CAP_NET_ADMIN, …) although it can undo filtering with it
    #[arg(long, value_name = "CAP", value_delimiter = ',', help_heading = "Isolation")]
    pub keep_cap: Vec<String>,
    /// Hand on an open file descriptor besides 0, 1 and 2
    #[arg(long, value_name = "N", value_delimiter = ',', help_heading = "Isolation")]
    pub keep_fd: Vec<i32>,
    /// Allow sockets of a family (PACKET, VSOCK, …) besides UNIX, INET, INET6 and NETLINK; no filter sees them
    #[arg(long, value_name = "F", value_delimiter = ',', help_heading = "Isolation")]
    pub family: Vec<String>,
    /// Allow io_uring, through which sockets of every family can be made
    #[arg(long, help_heading = "Isolation")]
    pub io_uring: bool,
    /// Allow user namespaces, which browsers and container tools use
    #[arg(long, help_heading = "Isolation")]
    pub user_namespaces: bool,
    /// Let the command see /dev/net and /dev/infiniband, which carry packets past the filters
    #[arg(long, help_heading = "Isolation")]
    pub network_devices: bool,
    /// The Unix sockets that may be connected or sent to: `all`; `run`, those made in the run alone; or those and what is named:
    /// paths, or `@` and an abstract name (docs/security.md says how, and what it takes)
    #[arg(long, value_name = "all|run|PATH", num_args = 1.., default_value = "all", help_heading = "Isolation")]
    pub unix: Vec<PathBuf>,
    /// No isolation at all: the command runs as the caller, and can get around the policy
    #[arg(long, help_heading = "Isolation", conflicts_with = "user")]
    pub no_isolation: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `wfp check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Several files are checked together, as policies that live side by side.

Mistakes make the exit status 1. Warnings do not: they tell of filters that can never decide, or later than one would think, \
and of programs that others may change. Notes tell at which layers `wfp run` does not ask the filters.

Examples:
  wfp check policy.toml
  wfp check --json web.toml base.toml | jq -r .message")]
pub(crate) struct CheckArgs {
    /// The policy files, which are checked together (`-`: standard input)
    #[arg(required = true, value_name = "POLICY")]
    pub policies: Vec<PathBuf>,
}

/// `wfp explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A field that is not given, or given without a value (`FIELD=`), is empty. `FIELD=?` is a value that is not known: the source \
address and interface at connect, or an identity that could not be read; lines of a log name such fields under `unknown`. `wfp show layers LAYER` lists the fields of a layer.

What waits for such a value until the first packet is told as a block with the reason `late`, for it is blocked if the value \
is still not known then; `waits_for` (--json) names the fields: give them values to see what the packet would meet.

Examples:
  wfp explain -p policy.toml ALE_AUTH_CONNECT IP_REMOTE_ADDRESS=192.0.2.1 IP_REMOTE_PORT=80
  wfp explain -p policy.toml ALE_AUTH_LISTEN_V4 IP_LOCAL_PORT=22 ALE_APP_ID=/usr/bin/python3
  wfp explain -p policy.toml ALE_AUTH_CONNECT_V4 --from events.jsonl --brief")]
pub(crate) struct ExplainArgs {
    /// A policy file (`-`: standard input); several live side by side
    #[arg(short, long, required = true, value_name = "POLICY")]
    pub policy: Vec<PathBuf>,
    /// The layer; a family name (without _V4 or _V6) means the layer for the addresses of the event
    pub layer: String,
    /// What happened; values are written as in policy files, several flags as A|B
    #[arg(value_name = "FIELD=VALUE", conflicts_with = "from")]
    pub event: Vec<String>,
    /// Classify the events of a file, one JSON object a line: {"FIELD":value,…}, or a log as run and replay write it, of which
    /// other lines and other layers are passed over; `-`: standard input. One answer a line, in the same order
    #[arg(long, value_name = "EVENTS.jsonl")]
    pub from: Option<PathBuf>,
    /// Say only the action and the filter, without the explanation
    #[arg(long)]
    pub brief: bool,
    /// The groups that the user of ALE_USER_ID is in (names or numbers), instead of those that this machine knows
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub group: Option<Vec<String>>,
}

/// `wfp replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A capture knows no processes: fields such as ALE_APP_ID are empty, and filters that test them do not match. A broken capture is \
replayed as far as it goes; then the exit status is 1.

Built-in callouts that policies use are asked as they would be live, with the time of the capture. Packets that they change go on
changed, and what they inject is classified from where it comes in; --write shows both.

Examples:
  wfp replay -p policy.toml capture.pcapng
  wfp replay -p policy.toml --write passed.pcapng capture.pcapng
  wfp replay -p policy.toml --local 192.0.2.0/24 capture.pcap
  wfp replay -p policy.toml --json capture.pcap | jq 'select(.action == \"block\")'")]
pub(crate) struct ReplayArgs {
    /// A policy file (`-`: standard input); several live side by side. None: everything is permitted and shown
    #[arg(short, long, value_name = "POLICY")]
    pub policy: Vec<PathBuf>,
    /// The addresses of the machine that was captured, given several times for several. Absent: inferred from who opens
    /// connections
    #[arg(long, value_name = "ADDR/LEN")]
    pub local: Vec<openwfp_packet::local::Prefix>,
    /// Hold forwarded fragments until their datagram is whole, and classify them once more as a group
    #[arg(long)]
    pub group_forwarded_fragments: bool,
    /// Write the packets that pass every layer to a capture (pcapng), as they go on
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// The capture (pcap or pcapng); `-`: standard input, which needs --local
    pub capture: PathBuf,
}

/// `wfp bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For each layer with filters: the time to build it, its bytes for each filter, the most steps that an event can take, and the \
nanoseconds of a classification in user space and in the kernel.

In user space, groups of 16 are timed; in the kernel each by itself, less one reading of the clock, by a program that is \
attached to nothing. That takes the right to load BPF programs: without it, kernel_ns is null.

Examples:
  wfp bench -p policy.toml
  wfp bench -p policy.toml --layer ALE_AUTH_CONNECT --from events.jsonl --json")]
pub(crate) struct BenchArgs {
    /// A policy file (`-`: standard input); several live side by side
    #[arg(short, long, required = true, value_name = "POLICY")]
    pub policy: Vec<PathBuf>,
    /// Only this layer, or the layers of this family
    #[arg(long)]
    pub layer: Option<String>,
    /// Events to classify, in a file as for `wfp explain --from`. Absent: made from the filters themselves
    #[arg(long, value_name = "EVENTS.jsonl", requires = "layer")]
    pub from: Option<PathBuf>,
}

/// `wfp show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(subcommand)]
    pub what: Shown,
}

/// What can be shown.
#[derive(Debug, Subcommand)]
pub(crate) enum Shown {
    /// The layers, or the fields of one
    #[command(after_help = "\
Where a layer is met, and a field filled in: `live` by `wfp run`, `replay` by `wfp replay`; `late`: live, but not known at \
connect unless the socket is bound: to a port, an address or, for interfaces, a device (SO_BINDTODEVICE). What nothing meets or fills in can be asked with `wfp explain`.

Examples:
  wfp show layers
  wfp show layers ALE_AUTH_CONNECT_V4")]
    Layers {
        /// The layer, or a family of layers
        layer: Option<String>,
    },
}

/// `wfp export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wfp export --format schema > policy.schema.json
  wfp export -p policy.toml --format json")]
pub(crate) struct ExportArgs {
    /// The policy file (`-`: standard input); not needed for the schema
    #[arg(short, long, value_name = "POLICY", required_if_eq_any([("format", "toml"), ("format", "json")]))]
    pub policy: Option<PathBuf>,
    /// The form
    #[arg(long, value_enum)]
    pub format: Format,
}

/// The forms of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// TOML
    Toml,
    /// JSON
    Json,
    /// The JSON Schema of policy files; needs no policy
    Schema,
}
