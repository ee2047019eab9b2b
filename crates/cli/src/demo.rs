//! `wfp demo`: a policy at work on real connections, one permitted and one refused, with the reason for each.

use crate::{
    output::{Globals, Paint},
    policies::Reported,
    run::{Ended, Watcher, run_session},
};
use anyhow::{Result, anyhow, bail};
use openwfp_engine::{CompiledPolicy, Event as EngineEvent, compile};
use openwfp_kernel::events::Event;
use openwfp_model::{FieldId, LayerId, Policy, Value, policy_file};
use openwfp_sandbox::Isolation;
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

/// Set for the client, which is this program again.
const CLIENT: &str = "WFP_DEMO_CLIENT";

/// Runs the command.
pub(crate) fn demo(globals: Globals) -> Result<()> {
    if let Some(ports) = std::env::var_os(CLIENT) {
        return client(&ports.to_string_lossy());
    }
    let (open, open_reached) = serve()?;
    let (shut, shut_reached) = serve()?;
    let text = policy(shut);
    let paint = globals.paint();
    say!("{}\n", paint.bold("1. The policy"));
    say!("{text}");
    let read = policy_file::read("demo.toml", &text, &policy_file::NoMachine).map_err(|report| {
        eprintln!("{}", report.render(false));
        anyhow!(Reported)
    })?;
    let policies: Vec<&Policy> = vec![&read.policy];
    let compiled = compile(&policies)?;
    say!("{}\n", paint.bold("2. A real client, run under it, connects to two real servers"));
    let ended = run_client(&compiled, open, shut, globals)?;
    let reached = [&open_reached, &shut_reached].map(|reached| reached.load(Ordering::SeqCst));
    say!(
        "\n   the server at port {open} was reached {} time(s), the one at port {shut} {} time(s); {} permitted, {} blocked",
        reached[0],
        reached[1],
        ended.permitted,
        ended.blocked
    );
    if (reached, ended.permitted, ended.blocked) != ([1, 0], 1, 1) {
        bail!("one connection should have been permitted and one refused: this machine does not filter as it should");
    }
    say!("\n{}\n", paint.bold("3. Why: the same policy, asked offline"));
    for port in [open, shut] {
        let event = EngineEvent::new(LayerId::ALE_AUTH_CONNECT_V4)
            .with(FieldId::IP_PROTOCOL, Value::Uint8(6))
            .with(FieldId::FLAGS, Value::Uint32(1))
            .with(FieldId::IP_REMOTE_ADDRESS, Value::v4_address(Ipv4Addr::LOCALHOST))
            .with(FieldId::IP_REMOTE_PORT, Value::Uint16(port));
        crate::output::write_out(|out| {
            crate::explain::text::write(out, &compiled, &event, &compiled.explain(&event), globals)?;
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

fn run_client(compiled: &CompiledPolicy, open: u16, shut: u16, globals: Globals) -> Result<Ended> {
    let program = std::env::current_exe()?;
    let ports = format!("{CLIENT}={open},{shut}");
    let command: Vec<OsString> = vec!["/usr/bin/env".into(), ports.into(), program.into(), "demo".into()];
    // the program may stand in a folder that only its owner can enter
    let isolation = Isolation { user: Some("0".to_owned()), ..Isolation::default() };
    let paint = globals.paint();
    let notice = |text: &str| globals.notice(text);
    run_session(
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
        &mut Narrator { compiled, paint },
        None,
    )
}

/// Says what happens, for people who see it for the first time.
struct Narrator<'a> {
    compiled: &'a CompiledPolicy,
    paint: Paint,
}

impl Watcher for Narrator<'_> {
    fn event(&mut self, event: &Event) {
        let word = if event.blocked { "block" } else { "permit" };
        let port = self.compiled.value(event.layer, FieldId::IP_REMOTE_PORT, &event.values);
        let filter = self.compiled.filter(event.filter).map_or("no filter", |filter| filter.filter.name.as_str());
        say!(
            "   {} {} of {} [{}] to port {}: \"{filter}\"",
            self.paint.action(word),
            event.layer,
            event.program,
            event.identity.process.tgid,
            port.map_or_else(String::new, |port| port.to_string())
        );
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

/// What runs under the policy: says what it sees.
fn client(ports: &str) -> Result<()> {
    for port in ports.split(',').filter_map(|port| port.parse::<u16>().ok()) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.read_to_string(&mut text)?;
                say!("   client: port {port}: connected, the server says \"{text}\"");
            }
            Err(error) => say!("   client: port {port}: {error}"),
        }
    }
    Ok(())
}
