//! Two networks, a control group in one of them, and a capture of what passes between them.

use crate::{
    actor::{self, Peer, Place, Scene},
    compare::Step,
};
use openwfp_attacks::world;
use openwfp_engine::CompiledPolicy;
use openwfp_kernel::{
    enforcement::Enforcement,
    events::EventKind,
    group::{self, Group},
    hooks::Hook,
    options::Options,
};
use openwfp_model::{Layer, LayerId};
use openwfp_packet::{
    capture::CaptureReader,
    flow::FlowEvent,
    link::LinkDirection,
    local::{LocalSide, Prefix},
    packet::{Frame, Packet},
    replay::{Classifier, Decision, Replay, ReplaySettings},
    unheard::Unheard,
};
use std::{
    fs,
    io::{self, Write},
    net::UdpSocket,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Where live traffic is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// At the sockets of a group (`wfp run`).
    AtSockets,
    /// The layers below the endpoints at the devices of a network namespace, whoever sends.
    AtDevices,
}

/// Why nothing can be compared here; said past the test runner.
pub fn cannot_run(met: Met) -> bool {
    let mut obstacle = openwfp_kernel::features::missing().first().map(ToString::to_string);
    if obstacle.is_none() && Command::new("ip").arg("-V").output().is_err() {
        obstacle = Some("iproute2 is not installed".into());
    }
    if obstacle.is_none() && met == Met::AtDevices && !kernel_has_devices() {
        obstacle = Some("the kernel has no programs at devices (Linux 6.6)".into());
    }
    let Some(obstacle) = obstacle else { return false };
    assert!(std::env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {obstacle}");
    let _ = writeln!(std::io::stderr(), "skipped: live and replay are not compared: {obstacle}");
    true
}

/// Programs at devices came with Linux 6.6.
fn kernel_has_devices() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6u32, 6u32)
}

#[track_caller]
fn ip(script: &str) {
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip: {script}");
}

/// A control group that is removed at the end.
struct OwnGroup(Group);

impl OwnGroup {
    fn make() -> Self {
        let name = format!("openwfp-live-replay-{}-{}", std::process::id(), world::thread_id());
        let path = group::hierarchy().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        Self(Group::open(&path).unwrap())
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.path.join("cgroup.kill"), "1");
        for _ in 0..200 {
            if fs::remove_dir(&self.0.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What came of a scene.
pub struct Recorded {
    /// What was met, in order.
    pub live: Vec<Step>,
    /// The capture of it.
    pub capture: Capture,
    /// What the process of the group said.
    pub said: String,
}

/// Plays a scene in two networks of its own, under a policy.
pub fn record(scene: Scene, v6: bool, met: Met, policy: &CompiledPolicy) -> Recorded {
    let policy = policy.clone();
    // a thread of its own, so that each scene has fresh networks
    thread::spawn(move || play(scene, v6, met, &policy)).join().unwrap()
}

/// Somebody in a network of his own, who knows nothing of policies.
struct Host {
    /// The thread's number, by which `ip` finds the network.
    number: i32,
    asked: mpsc::Sender<()>,
    told: mpsc::Receiver<i32>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Host {
    /// He gives himself addresses with `script` and prepares his part when there is a cable, and plays it when all are ready.
    fn start<P>(
        script: &'static str,
        prepare: impl FnOnce() -> P + Send + 'static,
        play: impl FnOnce(P) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (asked, to_play) = mpsc::channel::<()>();
        let (tells, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            world::own_network().unwrap();
            tells.send(world::thread_id()).unwrap();
            to_play.recv().unwrap();
            ip(script);
            let part = prepare();
            tells.send(0).unwrap();
            to_play.recv().unwrap();
            play(part)
        });
        Self { number: told.recv().unwrap(), asked, told, thread }
    }

    /// There is a cable.
    fn connect(&self) {
        self.asked.send(()).unwrap();
        self.told.recv().unwrap();
    }

    fn begin(&self) {
        self.asked.send(()).unwrap();
    }
}

const OF_PEER: &str = "link set lo up
link set wfp-in up
address add 10.78.0.2/24 broadcast 10.78.0.255 dev wfp-in
address add fd78::2/64 dev wfp-in nodad
route add 224.0.0.0/4 dev wfp-in
neighbour add 10.78.0.1 lladdr 02:00:00:00:00:01 dev wfp-in
neighbour add fd78::1 lladdr 02:00:00:00:00:01 dev wfp-in
route add 10.79.0.0/24 via 10.78.0.1
route add fd79::/64 via fd78::1
";

const BEYOND: &str = "link set lo up
link set wfp-far up
address add 10.79.0.2/24 broadcast 10.79.0.255 dev wfp-far
address add fd79::2/64 dev wfp-far nodad
neighbour add 10.79.0.1 lladdr 02:00:00:00:01:01 dev wfp-far
neighbour add fd79::1 lladdr 02:00:00:00:01:01 dev wfp-far
route add 10.78.0.0/24 via 10.79.0.1
route add fd78::/64 via fd79::1
";

/// A cable from a device of the caller's network to another host's; so narrow that what is long does not pass at once.
fn cable(near: &str, far: &str, net: u8, host: &Host) {
    let mac = |side: u8| format!("02:00:00:00:{:02x}:{side:02x}", net - 78);
    ip(&format!(
        "link add {near} mtu 1280 address {} type veth peer name {far} mtu 1280 address {} netns {}
link set {near} up
address add 10.{net}.0.1/24 broadcast 10.{net}.0.255 dev {near}
address add fd{net}::1/64 dev {near} nodad
neighbour add 10.{net}.0.2 lladdr {} dev {near}
neighbour add fd{net}::2 lladdr {} dev {near}
",
        mac(1),
        mac(2),
        host.number,
        mac(2),
        mac(2)
    ));
    host.connect();
}

fn play(scene: Scene, v6: bool, met: Met, policy: &CompiledPolicy) -> Recorded {
    let place = Place::new(v6);
    world::own_network().unwrap();
    ip("link set lo up\n");
    let peer = Host::start(OF_PEER, move || Peer::new(scene, place), move |part| part.play(scene, place));
    cable("wfp-out", "wfp-in", 78, &peer);
    let beyond = scene.is_forwarded().then(|| {
        let listens = move || UdpSocket::bind(place.beyond).unwrap();
        let host = Host::start(BEYOND, listens, move |socket| actor::answer(&socket, scene));
        cable("wfp-up", "wfp-far", 79, &host);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        host
    });
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let recorder = world::Recorder::new(met == Met::AtSockets).unwrap();
    let group = OwnGroup::make();
    let devices = met == Met::AtDevices;
    let is_met =
        |layer: &LayerId| !Hook::of_layer(*layer).is_empty() || devices && Hook::of_device_layer(*layer).is_some();
    let recorded = Layer::all().iter().map(|layer| layer.id).filter(is_met).collect();
    let options = Options { recorded, devices, ..Options::default() };
    let mut enforcement = Enforcement::prepare(policy, &group.0, options).unwrap_or_else(|error| panic!("{error}"));
    recorder.packets();
    enforcement.attach().unwrap_or_else(|error| panic!("{error}"));
    let ready = std::env::temp_dir().join(format!("wfp-live-replay-{}-{}", std::process::id(), peer.number));
    let _ = fs::remove_file(&ready);
    let mut command = actor::command(scene, v6, &group.0.path.join("cgroup.procs"), &ready);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !ready.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the process of the group did not begin");
        thread::sleep(Duration::from_millis(5));
    }
    beyond.iter().for_each(Host::begin);
    peer.begin();
    let output = child.wait_with_output().unwrap();
    let of_peer = peer.thread.join().unwrap();
    let of_beyond = beyond.map(|host| host.thread.join().unwrap());
    let _ = fs::remove_file(&ready);
    let mut live = Vec::new();
    enforcement.events(|event| {
        // what the kernel drops by itself no capture shows, but for what nobody listens to
        let shown = event.dropped.as_ref().is_none_or(|reason| &**reason == "NO_SOCKET");
        if event.kind == EventKind::Classify && shown {
            live.push(Step::of_event(&event));
        }
    });
    let said = format!("{}\npeer: {of_peer:?}, beyond: {of_beyond:?}", String::from_utf8_lossy(&output.stdout));
    let capture = Capture { link_type: recorder.link_type(), packets: recorder.passed() };
    Recorded { live, capture, said }
}

/// Packets that were captured.
pub struct Capture {
    link_type: u32,
    /// Each with whether it was sent from here.
    packets: Vec<(Vec<u8>, bool)>,
}

impl Capture {
    /// As if the capture had ended after so many packets, not counting what finds neighbours and groups.
    pub fn first(mut self, count: usize) -> Self {
        let skip = usize::from(self.link_type == 276) * 6;
        let multicast = |(packet, _): &(Vec<u8>, bool)| {
            skip == 0 && packet.first().is_some_and(|first| first & 1 != 0)
                || skip != 0 && packet.get(20 + 24).is_some_and(|first| packet[20] >> 4 == 6 && *first == 0xff)
        };
        self.packets.retain(|packet| !multicast(packet));
        self.packets.truncate(count);
        self
    }

    /// Whether it holds a packet whose IP header, up to its end in the least case, is like this.
    pub fn any(&self, is: impl Fn(&[u8]) -> bool) -> bool {
        const SLL2: usize = 20;
        const ETHERNET: usize = 14;
        let link = if self.link_type == 276 { SLL2 } else { ETHERNET };
        self.packets.iter().filter_map(|(packet, _)| packet.get(link..link + 20)).any(is)
    }

    /// The file, in the format of pcap with nanoseconds.
    pub fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 1 << 16, self.link_type] {
            file.extend(u32::to_le_bytes(word));
        }
        for (number, (packet, _)) in self.packets.iter().enumerate() {
            // time is the order alone
            let length = u32::try_from(packet.len()).unwrap();
            for word in [1_700_000_000, 1000 * number as u32, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
        file
    }

    /// Replays it as `wfp replay --local` does, with the directions that a capture file of pcapng has beside its packets.
    pub fn replay(&self, v6: bool, policy: &CompiledPolicy) -> Vec<Step> {
        let file = self.file();
        let mut unheard = Unheard::new();
        let mut reader = CaptureReader::new(&file[..]).unwrap();
        while let Some(record) = reader.next_record() {
            let record = record.unwrap();
            if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
                unheard.observe(&packet);
            }
        }
        let ours = Place::new(v6).ours.ip();
        let local = LocalSide::Given(vec![Prefix::new(ours, if v6 { 128 } else { 32 }).unwrap()]);
        let mut judge = Judge { policy, steps: vec![] };
        let mut replay = Replay::new(local, ReplaySettings::default()).expecting(unheard);
        let mut reader = CaptureReader::new(&file[..]).unwrap();
        for (_, sent) in &self.packets {
            let mut record = reader.next_record().unwrap().unwrap();
            record.direction = Some(if *sent { LinkDirection::Outgoing } else { LinkDirection::Incoming });
            replay.packet(&record, &mut judge);
        }
        replay.finish(&mut judge);
        judge.steps
    }

    /// Writes it to a file.
    #[allow(dead_code, reason = "for whoever looks into a difference")]
    pub fn write(&self, path: PathBuf) {
        fs::write(path, self.file()).unwrap();
    }
}

struct Judge<'p> {
    policy: &'p CompiledPolicy,
    steps: Vec<Step>,
}

impl Classifier for Judge<'_> {
    fn classify(&mut self, step: &openwfp_packet::replay::Step<'_>) -> Decision {
        let verdict = self.policy.classify_values(step.layer, step.values);
        self.steps.push(Step::of_replay(step, &verdict));
        Decision::from(verdict.action)
    }

    fn flow_changed(&mut self, _: &FlowEvent) {}
}
