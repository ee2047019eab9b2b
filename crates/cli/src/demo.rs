//! `wfp demo`: a policy at work on real connections, one permitted and one refused, with the reason for each.

use crate::{
    explain, json,
    output::{Globals, Paint},
    policies::Reported,
    run::{Ended, Watcher, run_session},
};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_engine::{CompiledPolicy, Event as EngineEvent, compile};
use openwfp_kernel::events::Event;
use openwfp_model::{FieldId, LayerId, Policy, Value, policy_file};
use openwfp_sandbox::Isolation;
use serde::Serialize;
use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Prints a line; whoever does not read it misses it, and nothing else comes of that.
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// What became of a connection, for programs.
#[derive(Serialize)]
struct Connection<'a> {
    /// The port of the server.
    port: u16,
    /// What the kernel decided, and by which filter.
    action: &'static str,
    filter: Option<json::FilterName<'a>>,
    /// How often the server was reached.
    reached: usize,
    /// The same asked offline.
    explanation: explain::json::Line<'a>,
}

/// Set for the client, which is this program again.
const CLIENT: &str = "WFP_DEMO_CLIENT";

/// Runs the command.
pub(crate) fn demo(globals: Globals) -> Result<()> {
    if let Some(ports) = std::env::var_os(CLIENT) {
        return client(&ports.to_string_lossy(), !globals.json);
    }
    let (open, open_reached) = serve()?;
    let (shut, shut_reached) = serve()?;
    let text = policy(shut);
    // programs get what became of each connection, and no words
    let people = !globals.json;
    let paint = globals.paint();
    if people {
        say!("{}\n", paint.bold("1. The policy"));
        say!("{text}");
    }
    let read = policy_file::read("demo.toml", &text, &policy_file::NoMachine).map_err(|report| {
        eprintln!("{}", report.render(false));
        anyhow!(Reported)
    })?;
    let policies: Vec<&Policy> = vec![&read.policy];
    let compiled = compile(&policies)?;
    if people {
        say!("{}\n", paint.bold("2. A real client, run under it, connects to two real servers"));
    }
    let (ended, met) = run_client(&compiled, open, shut, globals)?;
    let reached = [&open_reached, &shut_reached].map(|reached| reached.load(Ordering::SeqCst));
    if people {
        say!(
            "\n   the server at port {open} was reached {} time(s), the one at port {shut} {} time(s); {} permitted, {} blocked",
            reached[0],
            reached[1],
            ended.permitted,
            ended.blocked
        );
    }
    if (reached, ended.permitted, ended.blocked) != ([1, 0], 1, 1) {
        bail!("one connection should have been permitted and one refused: this machine does not filter as it should");
    }
    if people {
        say!("\n{}\n", paint.bold("3. Why: the same policy, asked offline"));
    }
    for (port, reached) in [open, shut].into_iter().zip(reached) {
        let event = EngineEvent::new(LayerId::ALE_AUTH_CONNECT_V4)
            .with(FieldId::IP_PROTOCOL, Value::Uint8(6))
            .with(FieldId::FLAGS, Value::Uint32(1))
            .with(FieldId::IP_REMOTE_ADDRESS, Value::v4_address(Ipv4Addr::LOCALHOST))
            .with(FieldId::IP_REMOTE_PORT, Value::Uint16(port));
        let explanation = compiled.explain(&event);
        let (_, action, filter) = met.iter().find(|met| met.0 == port).context("the kernel told no event")?;
        crate::output::write_out(|out| {
            if people {
                explain::text::write(out, &compiled, &event, &explanation, globals)?;
                return Ok(writeln!(out)?);
            }
            let filter = json::filter(&compiled, *filter);
            let explanation = explain::json::Line::new(&compiled, &explanation);
            serde_json::to_writer(&mut *out, &Connection { port, action, filter, reached, explanation })?;
            Ok(writeln!(out)?)
        })?;
    }
    Ok(())
}

fn policy(port: u16) -> String {
    format!(
        "    [[filter]]\n    name   = \"loopback may be used\"\n    layer  = \"ALE_AUTH_CONNECT\"\n    action = \"permit\"\n    \
         weight = 1\n    when   = {{ FLAGS = {{ all = [\"IS_LOOPBACK\"] }} }}\n\n    [[filter]]\n    name   = \"but not this port\"\n    \
         layer  = \"ALE_AUTH_CONNECT\"\n    action = \"block\"\n    weight = 2\n    when   = {{ IP_REMOTE_PORT = {port} }}\n"
    )
}

/// The end of the run, and the connections that were asked about: port, action, filter.
fn run_client(compiled: &CompiledPolicy, open: u16, shut: u16, globals: Globals) -> Result<(Ended, Vec<Met>)> {
    let program = std::env::current_exe()?;
    let ports = format!("{CLIENT}={open},{shut}");
    let mut command: Vec<OsString> = vec!["/usr/bin/env".into(), ports.into(), program.into(), "demo".into()];
    command.extend(globals.json.then(|| "--json".into()));
    // the program may stand in a folder that only its owner can enter
    let isolation = Isolation { user: Some("0".to_owned()), ..Isolation::default() };
    let paint = (!globals.json).then(|| globals.paint());
    let mut narrator = Narrator { compiled, paint, met: vec![] };
    let notice = |text: &str| globals.notice(text);
    let ended = run_session(
        &crate::run::Plan {
            policy: compiled,
            isolation: &isolation,
            recorded: vec![LayerId::ALE_AUTH_CONNECT_V4],
            dry_run: false,
            unix: openwfp_kernel::unix::UnixSockets::All,
            replaceable: false,
            hosts: None,
            command: &command,
            notice: &notice,
        },
        &mut narrator,
        None,
    )?;
    Ok((ended, narrator.met))
}

/// Port, action and filter of a connection.
type Met = (u16, &'static str, u64);

/// Says what happens, for people who see it for the first time.
struct Narrator<'a> {
    compiled: &'a CompiledPolicy,
    /// None: nothing is said.
    paint: Option<Paint>,
    met: Vec<Met>,
}

impl Watcher for Narrator<'_> {
    fn event(&mut self, event: &Event) {
        let word = if event.blocked { "block" } else { "permit" };
        let port = self.compiled.value(event.layer, FieldId::IP_REMOTE_PORT, &event.values);
        let filter = self.compiled.filter(event.filter).map_or("no filter", |filter| filter.filter.name.as_str());
        let port = if let Some(Value::Uint16(port)) = port { port } else { 0 };
        self.met.push((port, word, event.filter));
        if let Some(paint) = self.paint {
            let (word, layer, program) = (paint.action(word), event.layer, &event.program);
            say!("   {word} {layer} of {program} [{}] to port {port}: \"{filter}\"", event.identity.process.tgid);
        }
    }
}

/// A server on a free port of the loopback that greets and counts.
fn serve() -> Result<(u16, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let reached = Arc::new(AtomicUsize::new(0));
    let count = reached.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"hello");
        }
    });
    Ok((port, reached))
}

/// What runs under the policy: says what it sees, to people.
fn client(ports: &str, says: bool) -> Result<()> {
    for port in ports.split(',').filter_map(|port| port.parse::<u16>().ok()) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.read_to_string(&mut text)?;
                if says {
                    say!("   client: port {port}: connected, the server says \"{text}\"");
                }
            }
            Err(error) if says => say!("   client: port {port}: {error}"),
            Err(_) => {}
        }
    }
    Ok(())
}
