//! What the tests of `wfp run` share.
//!
//! Where the machine or the user cannot load BPF programs, or a program is missing, a test says so and is skipped.

use super::{Folder, lines};
use serde_json::Value as Json;
use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Why the tests of this file cannot run here.
pub fn obstacle(programs: &[&str]) -> Option<String> {
    let missing = openwfp_kernel::features::missing();
    if let Some(first) = missing.first() {
        return Some(first.to_string());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&&str| std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    programs.iter().find(|program| !found(program)).map(|program| format!("{program} is not installed"))
}

/// With WFP_TEST_EVERYTHING set, what would be skipped fails: for machines that are known to be able to run it all.
pub fn may_skip(obstacle: &str) {
    assert!(std::env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {obstacle}");
    // past the test runner, which keeps what passing tests print
    let _ = writeln!(io::stderr(), "skipped: {obstacle}");
}

/// Skips the test where it cannot run, or a program that it starts is missing.
#[allow(unused_macros, reason = "each test file uses what it needs")]
macro_rules! needs {
    ($($program:literal),*) => {
        if let Some(obstacle) = $crate::common::live::obstacle(&[$($program),*]) {
            $crate::common::live::may_skip(&obstacle);
            return;
        }
    };
}

/// An HTTP server that counts the connections that reach it.
pub struct Server {
    address: SocketAddr,
    reached: Arc<AtomicUsize>,
}

impl Server {
    pub fn at(address: impl Into<SocketAddr>) -> Self {
        let listener = TcpListener::bind(address.into()).unwrap();
        let address = listener.local_addr().unwrap();
        let reached = Arc::new(AtomicUsize::new(0));
        let count = reached.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            }
        });
        Self { address, reached }
    }

    pub fn local() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0))
    }

    /// One that ends each connection at once.
    pub fn quick() -> Self {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let reached = Arc::new(AtomicUsize::new(0));
        let count = reached.clone();
        thread::spawn(move || {
            for _ in server.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, reached }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

/// Runs `wfp run`.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wfp")).arg("run").args(arguments).output().unwrap()
}

/// `nobody`.
pub const NOBODY: u32 = 65534;

/// A copy of `wfp` in the folder: other users may not be let into the one where it was built.
pub fn copy(folder: &Folder) -> String {
    let copy = folder.path("wfp");
    // by another process: nobody that this one starts meanwhile holds it open, which would keep it from being executed
    if fs::metadata(&copy).is_err() {
        assert!(Command::new("cp").args([env!("CARGO_BIN_EXE_wfp"), &copy]).status().unwrap().success());
    }
    copy
}

/// Starts `wfp` as `nobody`, with some capabilities (`+bpf,+net_admin`), or none.
pub fn as_nobody(folder: &Folder, capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]);
    match capabilities {
        "" => command.arg("--bounding-set=-all"),
        some => command.args(["--inh-caps", some, "--ambient-caps", some]),
    };
    command.arg(copy(folder)).env("NO_COLOR", "1").current_dir("/");
    command
}

/// Starts `wfp` as a user who has no rights at all.
pub fn without_rights(folder: &Folder) -> Command {
    if rustix::process::geteuid().is_root() {
        return as_nobody(folder, "");
    }
    let mut command = Command::new(copy(folder));
    command.env("NO_COLOR", "1").current_dir("/");
    command
}

#[track_caller]
pub fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

/// All that was said.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The classify events of a layer (its name begins so).
pub fn events(path: &str, layer: &str) -> Vec<Json> {
    let of_layer = |event: &Json| event["layer"].as_str().is_some_and(|name| name.starts_with(layer));
    let mut all = lines(&fs::read_to_string(path).unwrap());
    all.retain(|event| event["kind"] == "classify" && of_layer(event));
    all
}

/// A policy of one filter, "no", which blocks at a layer under a condition (`FIELD = value`), or always.
pub fn blocking(folder: &Folder, layer: &str, when: &str) -> String {
    let filter = format!("[[filter]]\nname = \"no\"\nlayer = \"{layer}\"\naction = \"block\"\nwhen = {{ {when} }}\n");
    folder.file("policy.toml", &filter)
}

/// The file of a program, symbolic links resolved.
pub fn program(name: &str) -> String {
    let script = format!("readlink -f \"$(command -v {name})\"");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A folder for control groups, directly below a cgroup v2 mount. What goes on in it ends with the test.
pub struct Groups(PathBuf);

impl Groups {
    /// A folder that is not made yet.
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.find(|mount| mount[2] == "cgroup2").unwrap()[1].to_owned();
        Self(PathBuf::from(mount).join(format!("wfp-test-{name}-{}", std::process::id())))
    }

    pub fn make(&self) {
        fs::create_dir(&self.0).unwrap();
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `wfp run` whose groups stand in this folder.
    pub fn wfp(&self, arguments: &[&str]) -> Command {
        let mut wfp = Command::new(env!("CARGO_BIN_EXE_wfp"));
        wfp.arg("run").args(arguments).env("OPENWFP_CGROUP_PARENT", &self.0);
        wfp
    }

    /// The groups of runs that stand now.
    pub fn runs(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.0)
            .map_or(vec![], |all| all.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // also what a test has moved into the folder itself, or left in a group when it failed
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for folder in self.runs().iter().chain([&self.0]) {
            for _ in 0..200 {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        thread::sleep(Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// The group of a run and what is pinned for it, one path a line: what there is whose name begins so.
pub fn left_of(run: &str) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let points = mounts.lines().filter(|line| line.contains(" cgroup2 ") || line.contains(" bpf "));
    let points: Vec<&str> = points.filter_map(|line| line.split(' ').nth(1)).collect();
    let find = Command::new("find").args(points).args(["-maxdepth", "3", "-name", &format!("{run}*")]).output();
    String::from_utf8(find.unwrap().stdout).unwrap()
}
