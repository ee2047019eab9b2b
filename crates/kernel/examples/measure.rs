//! What enforcement costs: nanoseconds of the connect program, and of whole connects. Needs root and BPF.
//!
//! `cargo run --release -p openwfp-kernel --example measure`

use aya::sys::{Stats, enable_stats};
use openwfp_engine::compile;
use openwfp_kernel::{
    enforcement::Enforcement,
    group::{Group, hierarchy},
    options::Options,
};
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Policy, Value};
use std::{
    error::Error,
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
    time::Instant,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const UDP_CALLS: u32 = 100_000;
const TCP_CALLS: u32 = 20_000;

/// The part that runs in the group; (what a connect takes by UDP, by TCP) in nanoseconds.
fn calls() -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let started = Instant::now();
    for _ in 0..UDP_CALLS {
        socket.connect("127.0.0.1:9")?;
    }
    let udp = started.elapsed().as_nanos() / u128::from(UDP_CALLS);
    let server = TcpListener::bind("127.0.0.1:0")?;
    let address = server.local_addr()?;
    let mut best = u128::MAX;
    for _ in 0..4 {
        let started = Instant::now();
        for _ in 0..TCP_CALLS / 4 {
            let client = TcpStream::connect(address)?;
            // before the reset, which could overtake the client's last segment on another CPU: then nothing would come
            let accepted = server.accept()?;
            // a reset instead of a port that waits a minute
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: a structure of our own and its size.
            unsafe {
                libc::setsockopt(
                    client.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    (&raw const linger).cast(),
                    size_of::<libc::linger>() as u32,
                );
            }
            drop(client);
            drop(accepted);
        }
        best = best.min(started.elapsed().as_nanos() / u128::from(TCP_CALLS / 4));
    }
    println!("    connect of UDP {udp} ns, connect, accept and close of TCP {best} ns");
    Ok(())
}

fn run(group: &Path) -> Result<()> {
    let procs = fs::File::options().write(true).open(group.join("cgroup.procs"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("calls");
    // SAFETY: one write to an open descriptor between fork and exec.
    unsafe {
        command.pre_exec(move || std::io::Write::write_all(&mut &procs, b"0"));
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("the calls failed: {status}").into()) }
}

/// Filters on the remote port and address, of which none matches.
fn policy(count: u32) -> Result<Policy> {
    let layer = LayerId::ALE_AUTH_CONNECT_V4;
    let mut policy = Policy::builder();
    for number in 0..count {
        let filter = Filter::builder(format!("filter {number}"), layer)
            .action(Action::Block)
            .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(1024 + (number % 60_000) as u16))
            .when(FieldId::IP_REMOTE_ADDRESS, MatchType::Equal, Value::Uint32(0x0a00_0000 + number / 7))
            .build()?;
        policy = policy.filter(filter);
    }
    policy.build().map_err(|errors| format!("{errors:?}").into())
}

/// (times that the program ran, nanoseconds in all)
fn ran(enforcement: &mut Enforcement, name: &str) -> Result<(u64, u64)> {
    let program = enforcement.shims().ebpf().program(name).ok_or("no such program")?;
    let place = format!("/proc/self/fdinfo/{}", program.fd()?.as_fd().as_raw_fd());
    let text = fs::read_to_string(place)?;
    let number = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
    };
    Ok((number("run_cnt:"), number("run_time_ns:")))
}

fn measure(group: &Group, count: u32, recorded: &[LayerId]) -> Result<()> {
    let policy = policy(count)?;
    let policy = compile(&[&policy])?;
    let started = Instant::now();
    let options = Options { recorded: recorded.to_vec(), ..Options::default() };
    let mut enforcement = Enforcement::prepare(&policy, group, options)?;
    enforcement.attach()?;
    println!("{count} filters, {} layers recorded: start {:?}", recorded.len(), started.elapsed());
    println!("    {:?}", enforcement.phases());
    run(&group.path)?;
    // apart, because counting has its price
    let _stats = enable_stats(Stats::RunTime)?;
    println!("    the same, while the kernel counts what its programs take:");
    run(&group.path)?;
    for hook in enforcement.hooks().to_vec() {
        let (times, all) = ran(&mut enforcement, hook.name())?;
        if let Some(each) = all.checked_div(times) {
            println!("    {} ran {times} times, {each} ns each", hook.name());
        }
    }
    Ok(())
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("calls") {
        return calls();
    }
    let path = hierarchy()?.join(format!("openwfp-measure-{}", std::process::id()));
    fs::create_dir(&path)?;
    let result = (|| {
        let group = Group::open(&path)?;
        println!("no policy");
        run(&path)?;
        for count in [1, 10, 100, 1000] {
            measure(&group, count, &[])?;
        }
        measure(&group, 0, &[LayerId::ALE_AUTH_CONNECT_V4])
    })();
    fs::remove_dir(&path)?;
    result
}
