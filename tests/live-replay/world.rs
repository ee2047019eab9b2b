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
    local::{LocalSide, Prefix},
    packet::{Frame, Packet},
    replay::{Classifier, Decision, Replay, ReplaySettings},
    unheard::Unheard,
};
use std::{
    fs,
    io::Write,
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

fn play(scene: Scene, v6: bool, met: Met, policy: &CompiledPolicy) -> Recorded {
    let place = Place::new(v6);
    world::own_network().unwrap();
    ip("link set lo up\n");
    let (asked, to_play) = mpsc::channel::<()>();
    let (told, number) = mpsc::channel();
    let peer = thread::spawn(move || {
        world::own_network().unwrap();
        told.send(world::thread_id()).unwrap();
        to_play.recv().unwrap();
        ip(
            "link set lo up\nlink set wfp-in up\naddress add 10.78.0.2/24 broadcast 10.78.0.255 dev wfp-in\naddress add fd78::2/64 dev wfp-in nodad\nroute add 224.0.0.0/4 dev wfp-in\n\
            neighbour add 10.78.0.1 lladdr 02:00:00:00:00:01 dev wfp-in\nneighbour add fd78::1 lladdr 02:00:00:00:00:01 dev wfp-in\n",
        );
        told.send(0).unwrap();
        let part = Peer::new(scene, place);
        to_play.recv().unwrap();
        part.play(scene, place)
    });
    let other = number.recv().unwrap();
    ip(&format!(
        "link add wfp-out address 02:00:00:00:00:01 type veth peer name wfp-in address 02:00:00:00:00:02 netns {other}\n\
         link set wfp-out up\naddress add 10.78.0.1/24 broadcast 10.78.0.255 dev wfp-out\naddress add fd78::1/64 dev wfp-out nodad\n\
         neighbour add 10.78.0.2 lladdr 02:00:00:00:00:02 dev wfp-out\n\
         neighbour add fd78::2 lladdr 02:00:00:00:00:02 dev wfp-out\n"
    ));
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    asked.send(()).unwrap();
    number.recv().unwrap();
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
    let ready = std::env::temp_dir().join(format!("wfp-live-replay-{}-{other}", std::process::id()));
    let _ = fs::remove_file(&ready);
    let mut command = actor::command(scene, v6, &group.0.path.join("cgroup.procs"), &ready);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !ready.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the process of the group did not begin");
        thread::sleep(Duration::from_millis(5));
    }
    asked.send(()).unwrap();
    let output = child.wait_with_output().unwrap();
    let of_peer = peer.join().unwrap();
    let _ = fs::remove_file(&ready);
    let mut live = Vec::new();
    enforcement.events(|event| {
        // what the kernel drops by itself no capture shows
        if event.kind == EventKind::Classify && event.dropped.is_none() {
            live.push(Step::of_event(&event));
        }
    });
    let said = format!("{}\npeer: {of_peer:?}", String::from_utf8_lossy(&output.stdout));
    let capture = Capture { link_type: recorder.link_type(), packets: recorder.packets() };
    Recorded { live, capture, said }
}

/// Packets that were captured.
pub struct Capture {
    link_type: u32,
    packets: Vec<Vec<u8>>,
}

impl Capture {
    /// As if the capture had ended after so many packets, not counting what finds neighbours and groups.
    pub fn first(mut self, count: usize) -> Self {
        let skip = usize::from(self.link_type == 276) * 6;
        let multicast = |packet: &Vec<u8>| {
            skip == 0 && packet.first().is_some_and(|first| first & 1 != 0)
                || skip != 0 && packet.get(20 + 24).is_some_and(|first| packet[20] >> 4 == 6 && *first == 0xff)
        };
        self.packets.retain(|packet| !multicast(packet));
        self.packets.truncate(count);
        self
    }

    /// The file, in the format of pcap with nanoseconds.
    pub fn file(&self) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 1 << 16, self.link_type] {
            file.extend(u32::to_le_bytes(word));
        }
        for (number, packet) in self.packets.iter().enumerate() {
            // time is the order alone
            let length = u32::try_from(packet.len()).unwrap();
            for word in [1_700_000_000, 1000 * number as u32, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend(packet);
        }
        file
    }

    /// Replays it as `wfp replay --local` does.
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
        while let Some(record) = reader.next_record() {
            replay.packet(&record.unwrap(), &mut judge);
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
