//! Two networks, the programs that attack in one of them, and what the other sees.

use openwfp_attacks::{DEVICE, OPEN, script, token, world};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

/// The ports of the attacks begin here.
pub const FIRST: u16 = 20_000;

/// The peer's addresses.
pub const PEER: &str = "10.77.0.2";
pub const PEER_V6: &str = "[fd77::2]";

/// Decided in the call, and by the first packet.
pub const BOTH: &[&str] = &[ONE_PORT, ONE_PORT_LATE];

/// Whoever is filtered may connect to one port and nowhere else; decided in the call.
pub const ONE_PORT: &str = r#"
[[filter]]
name   = "the open port"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
when   = { IP_REMOTE_PORT = 7001 }

[[filter]]
name   = "nothing else"
layer  = "ALE_AUTH_CONNECT"
action = "block"
"#;

/// The same, decided by the first packet, since no call knows its source address.
pub const ONE_PORT_LATE: &str = r#"
[[filter]]
name   = "the open port"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
when   = { IP_REMOTE_PORT = 7001, IP_LOCAL_ADDRESS = { not = "203.0.113.99" } }

[[filter]]
name   = "the open port"
layer  = "ALE_AUTH_CONNECT_V6"
action = "permit"
when   = { IP_REMOTE_PORT = 7001, IP_LOCAL_ADDRESS = { not = "fd99::99" } }

[[filter]]
name   = "nothing else"
layer  = "ALE_AUTH_CONNECT_V4"
action = "block"
when   = { IP_LOCAL_ADDRESS = { not = "203.0.113.99" } }

[[filter]]
name   = "nothing else"
layer  = "ALE_AUTH_CONNECT_V6"
action = "block"
when   = { IP_LOCAL_ADDRESS = { not = "fd99::99" } }
"#;

/// One address, where nobody is, may be reached.
pub const ONE_ADDRESS: &str = r#"
[[filter]]
name   = "the address"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
when   = { IP_REMOTE_ADDRESS = ["203.0.113.5", "fd78::5"] }

[[filter]]
name   = "nothing else"
layer  = "ALE_AUTH_CONNECT"
action = "block"
"#;

/// As another user than the one who tests, with nothing of the isolation taken off.
pub const NOBODY: &[&str] = &["--user", "65534:65534"];

/// Says on standard error, past the test runner, that something is not tried here.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// What cannot be prevented has to be said in the documentation, in these words.
#[track_caller]
pub fn documented(words: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
    let text = fs::read_to_string(path).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(words), "docs/security.md does not say \"{words}\"");
}

type Job = Box<dyn FnOnce() + Send>;

/// The two networks.
pub struct World {
    jobs: mpsc::Sender<Job>,
    wire: world::Wire,
    folder: PathBuf,
    receivers: RefCell<BTreeMap<u16, (TcpListener, UdpSocket)>>,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// This program, where every user can execute it; it goes away with the last test.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::current_exe().unwrap())
}

#[track_caller]
fn ip(script: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip: {script}");
}

impl World {
    /// Gives this thread a network of its own, and makes the peer's. `None`, with a line: it cannot be had here.
    pub fn new(name: &str) -> Option<Self> {
        let missing = openwfp_kernel::features::missing();
        let without_ip = || Command::new("ip").arg("-V").output().is_err().then(|| "iproute2 is not installed".into());
        if let Some(obstacle) = missing.first().map(ToString::to_string).or_else(without_ip) {
            assert!(std::env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {obstacle}");
            skipped(&format!("{name}: {obstacle}"));
            return None;
        }
        world::own_network().unwrap();
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::spawn(move || {
            world::own_network().unwrap();
            ready.send(world::thread_id()).unwrap();
            todo.iter().for_each(|job| job());
        });
        let peer = made.recv().unwrap();
        ip(&format!(
            "link set lo up\nlink add {DEVICE} type veth peer name wfp-in netns {peer}\nlink set {DEVICE} up\n\
             address add 10.77.0.1/24 broadcast 10.77.0.255 dev {DEVICE}\naddress add fd77::1/64 dev {DEVICE} nodad\n\
             address add fd77::9/64 dev {DEVICE} nodad\n"
        ));
        let settings = [
            // data in the first packet, without having met the server before
            ("ipv4/tcp_fastopen", "5"),
            ("ipv4/ping_group_range", "0 2147483647"),
            ("ipv4/ip_forward", "1"),
            ("ipv4/ip_local_port_range", "10000 60999"),
            ("ipv4/conf/all/rp_filter", "0"),
        ];
        for (setting, value) in settings {
            fs::write(format!("/proc/sys/net/{setting}"), value).unwrap();
        }
        let folder = std::env::temp_dir().join(format!("wfp-bypass-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        fs::copy(program(), folder.join("attacker")).unwrap();
        let wire = on(&jobs, || {
            ip("link set lo up\nlink set wfp-in up\naddress add 10.77.0.2/24 broadcast 10.77.0.255 dev wfp-in\n\
                address add fd77::2/64 dev wfp-in nodad\nroute add default via 10.77.0.1\n");
            world::Wire::tap().unwrap()
        });
        ip("route add default via 10.77.0.2\nroute add default via fd77::2\nroute add local 198.51.100.0/24 dev lo\n");
        Some(Self { jobs, wire, folder, receivers: RefCell::default() })
    }

    /// Does something in the peer's network: sockets that are made there stay there.
    pub fn outside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        on(&self.jobs, job)
    }

    /// A place for files of this test that everybody may write to.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The program that attacks.
    pub fn attacker(&self) -> PathBuf {
        self.path("attacker")
    }

    fn policy(&self, text: &str) -> String {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.path(&format!("policy-{number}.toml"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The command that makes attacks: without `wfp`, or under a policy.
    pub fn command(&self, under: Option<(&[&str], &str)>, attacks: &[String]) -> Command {
        self.command_of(&self.attacker(), under, attacks)
    }

    /// The same with a copy of the program that attacks.
    pub fn command_of(&self, program: &Path, under: Option<(&[&str], &str)>, attacks: &[String]) -> Command {
        let (arguments, (variable, value)) = script(attacks);
        let mut command = match under {
            None => Command::new(program),
            Some((options, policy)) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_wfp"));
                command.args(["run", "-p", &self.policy(policy)]).args(options).arg("--").arg(program);
                command
            }
        };
        command.args(arguments).env(variable, value).env_remove("SUDO_UID").env_remove("SUDO_GID").current_dir("/");
        command.stdin(Stdio::null());
        command
    }

    /// Makes attacks, and looks at what arrives until a moment after they have ended.
    #[track_caller]
    pub fn look(&self, command: Command) -> Seen {
        self.watch(command, 4, |_| false)
    }

    /// The same for so long that what the kernel sends once more by itself is seen too, of which the first time is after a second.
    #[track_caller]
    pub fn look_for_long(&self, command: Command) -> Seen {
        self.watch(command, 20, |_| false)
    }

    /// Makes attacks, and waits for what shall arrive at these ports; not for long, since it may never come.
    #[track_caller]
    pub fn look_for(&self, command: Command, ports: &[u16]) -> Seen {
        self.watch(command, 30, |seen| ports.iter().all(|port| seen.reached(*port)))
    }

    /// Makes attacks, and looks at what arrives so often, or until it has seen enough.
    #[track_caller]
    fn watch(&self, mut command: Command, turns: u32, is_enough: impl Fn(&Seen) -> bool) -> Seen {
        self.wire.frames();
        let output = command.output().unwrap();
        let mut seen = Seen { results: openwfp_attacks::results(&output.stdout), frames: Vec::new(), output };
        for _ in 0..turns {
            // what is on its way yet
            thread::sleep(Duration::from_millis(80));
            seen.frames.extend(self.wire.frames());
            if is_enough(&seen) {
                break;
            }
        }
        seen
    }

    /// What has arrived since it was asked last.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.wire.frames()
    }

    /// Clears up after a `wfp` that was ended by force.
    #[track_caller]
    pub fn clear_up(&self) {
        thread::sleep(Duration::from_millis(200));
        assert!(Command::new(env!("CARGO_BIN_EXE_wfp")).args(["run", "--", "true"]).status().unwrap().success());
    }

    /// Whatever is sent to these ports is received from now on, so that nobody is told that nobody is there.
    ///
    /// Sockets that are made once stay: one that is closed can live on for a moment in a process that another test starts.
    pub fn receive(&self, ports: impl IntoIterator<Item = u16>) {
        let mut receivers = self.receivers.borrow_mut();
        for port in ports.into_iter().chain([OPEN]) {
            receivers.entry(port).or_insert_with(|| {
                self.outside(move || {
                    let all = SocketAddr::from(([0u16; 8], port));
                    (TcpListener::bind(all).unwrap(), UdpSocket::bind(all).unwrap())
                })
            });
        }
    }

    /// Makes attacks (a name, and further words) on the peer, each of which arrives without a policy, and none under any
    /// of the policies. What they said then.
    #[track_caller]
    pub fn defeats(&self, peer: &str, attacks: &[&str], options: &[&str], policies: &[&str]) -> Vec<(String, String)> {
        self.defeats_as(peer, attacks, &[options], policies)
    }

    /// The same with each of several sets of options.
    #[track_caller]
    pub fn defeats_as(
        &self,
        peer: &str,
        attacks: &[&str],
        options: &[&[&str]],
        policies: &[&str],
    ) -> Vec<(String, String)> {
        let ports = FIRST..FIRST + attacks.len() as u16;
        self.receive(ports.clone());
        let lines: Vec<String> =
            attacks.iter().zip(ports.clone()).map(|(attack, port)| line(attack, peer, port)).collect();
        let command = self.command(None, &lines);
        let without = self.look_for(command, &ports.clone().collect::<Vec<_>>());
        assert_eq!(without.results.len(), attacks.len(), "{without:?}");
        let mut tried = Vec::new();
        for ((attack, port), result) in attacks.iter().zip(ports).zip(&without.results) {
            if without.reached(port) {
                tried.push((attack, port));
            } else {
                assert!(may_lack(attack, result), "{attack} to {peer} does not arrive without a policy: {result}");
                skipped(&format!("{attack} to {peer}: it does not work here without a policy either ({result})"));
            }
        }
        if tried.is_empty() {
            return Vec::new();
        }
        let lines: Vec<String> = tried.iter().map(|(attack, port)| line(attack, peer, *port)).collect();
        let mut results = Vec::new();
        for (options, policy) in
            options.iter().flat_map(|options| policies.iter().map(move |policy| (*options, policy)))
        {
            let command = self.command(Some((options, policy)), &lines);
            // what waits for its first packet may be sent again
            let seen = if *policy == ONE_PORT_LATE { self.look_for_long(command) } else { self.look(command) };
            assert_eq!(seen.results.len(), lines.len(), "{seen:?}");
            let through: Vec<String> = tried
                .iter()
                .zip(&seen.results)
                .filter(|((_, port), _)| seen.reached(*port))
                .map(|((attack, _), result)| format!("{attack} to {peer} ({result})"))
                .collect();
            assert!(through.is_empty(), "got around {policy}\nwith {options:?}: {}", through.join(", "));
            assert!(seen.others().is_empty(), "the peer sees {:02x?} under {policy}: {seen:?}", seen.others());
            for ((attack, _), result) in tried.iter().zip(&seen.results) {
                // for whoever asks for it (--nocapture)
                println!("{attack} to {peer}: {result}");
            }
            results.extend(tried.iter().zip(seen.results).map(|((attack, _), result)| (attack.to_string(), result)));
        }
        results
    }

    /// Attacks that a policy does not prevent, and which therefore have to be documented.
    #[track_caller]
    pub fn not_prevented(&self, attacks: &[&str], command: impl FnOnce(&[String]) -> Command, words: &str) {
        let ports: Vec<u16> = (FIRST..).take(attacks.len()).collect();
        self.receive(ports.iter().copied());
        let lines: Vec<String> = attacks.iter().zip(&ports).map(|(attack, port)| line(attack, PEER, *port)).collect();
        let seen = self.look_for(command(&lines), &ports);
        let prevented = attacks.iter().zip(ports).find(|(_, port)| !seen.reached(*port));
        assert!(prevented.is_none(), "prevented now: {prevented:?}: {seen:?}");
        documented(words);
    }
}

fn on<T: Send + 'static>(jobs: &mpsc::Sender<Job>, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    jobs.send(Box::new(move || drop(done.send(job())))).unwrap();
    result.recv().expect("what is done outside succeeds")
}

/// A line of the script.
pub fn line(attack: &str, peer: &str, port: u16) -> String {
    let (name, words) = attack.split_once(' ').unwrap_or((attack, ""));
    format!("{name} {peer}:{port} {words}").trim_end().to_owned()
}

/// Whether an attack is one by something that a kernel may be built without, and its error says that this one is.
fn may_lack(attack: &str, result: &str) -> bool {
    let errors: &[&str] = match attack.split(['-', ' ']).next().unwrap_or_default() {
        "sctp" | "dccp" | "smc" | "mptcp" | "udplite" | "vsock" | "xdp" | "packet" => {
            &["EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENOPROTOOPT"]
        }
        "ring" => &["ENOSYS"],
        "tun" => &["ENOENT", "ENODEV"],
        "vxlan" => return result.contains("Unknown device type"),
        _ => &[],
    };
    errors.contains(&result)
}

/// What came of attacks.
pub struct Seen {
    pub results: Vec<String>,
    frames: Vec<Vec<u8>>,
    output: Output,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = String::from_utf8_lossy(&self.output.stderr);
        write!(f, "{:?}, {}, {} frames\n{error}", self.results, self.output.status, self.frames.len())
    }
}

impl Seen {
    /// Whether the token of a port has arrived, elsewhere than at the open port.
    pub fn reached(&self, port: u16) -> bool {
        let token = token(port);
        self.others().iter().any(|frame| frame.windows(token.len()).any(|part| part == token))
    }

    /// What has arrived besides the permitted, and besides what finds neighbours.
    fn others(&self) -> Vec<&Vec<u8>> {
        self.frames.iter().filter(|frame| !is_permitted(frame) && !finds_neighbours(frame)).collect()
    }

    /// Whether some frame has these bytes in it.
    pub fn frames_with(&self, bytes: &[u8]) -> bool {
        self.frames.iter().any(|frame| frame.windows(bytes.len()).any(|part| part == bytes))
    }

    /// All that has arrived, from the Ethernet header on.
    pub fn frames(&self) -> &[Vec<u8>] {
        &self.frames
    }

    /// The standard error of the program.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

const ETHERNET: usize = 14;

fn version(frame: &[u8]) -> u8 {
    match frame.get(12..14) {
        Some([8, 0]) => 4,
        Some([0x86, 0xdd]) => 6,
        _ => 0,
    }
}

/// Whether it is a packet for the open port, or the beginning of one that carries no token.
fn is_permitted(frame: &[u8]) -> bool {
    const FRAGMENT: u8 = 44;
    let packet = frame.get(ETHERNET..).unwrap_or_default();
    let (protocol, transport, whole) = match (version(frame), packet) {
        (4, [first @ 0x45..=0x4f, ..]) if packet.len() > 20 => {
            let begins = packet[6] & 0x1f == 0 && packet[7] == 0;
            (if begins { packet[9] } else { 0 }, usize::from(first & 15) * 4, packet[6] & 0x20 == 0)
        }
        (6, [0x60..=0x6f, ..]) if packet.len() > 48 && packet[6] == FRAGMENT => {
            let begins = packet[42] == 0 && packet[43] & 0xf8 == 0;
            (if begins { packet[40] } else { 0 }, 48, false)
        }
        (6, [0x60..=0x6f, ..]) if packet.len() > 40 => (packet[6], 40, true),
        _ => return false,
    };
    [6, 17].contains(&protocol)
        && packet.get(transport + 2..transport + 4) == Some(&OPEN.to_be_bytes())
        && (whole || !carries_token(packet))
}

/// What every token begins with.
const TOKEN: &[u8] = b"<openwfp ";

fn carries_token(bytes: &[u8]) -> bool {
    bytes.windows(TOKEN.len()).any(|part| part == TOKEN)
}

/// ARP, and the discovery of neighbours, routers and listeners of IPv6 (RFC 4861, 2710, 3810), where it says nothing else.
fn finds_neighbours(frame: &[u8]) -> bool {
    const ARP: [u8; 2] = [8, 6];
    if carries_token(frame) {
        return false;
    }
    let packet = frame.get(ETHERNET..).unwrap_or_default();
    match version(frame) {
        4 => false,
        6 => {
            let (protocol, message) = match packet.get(6) {
                // behind options for each hop
                Some(0) => (packet.get(40).copied(), 48),
                other => (other.copied(), 40),
            };
            let kind = packet.get(message).copied().unwrap_or_default();
            protocol == Some(58) && (matches!(kind, 130..=137) || kind == 143)
        }
        _ => frame.get(12..14) == Some(&ARP),
    }
}
