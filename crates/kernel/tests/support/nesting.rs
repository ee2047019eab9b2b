//! Programs that interrupt one another on one processor: made to happen, seen in their working memory, and denied it.

use super::live::Live;
use aya::maps::Map;
use std::{
    fmt::Display,
    fs, io,
    os::fd::{AsFd, AsRawFd},
    process::Command,
};

/// How many classifications may be under way on one processor.
pub const SLOTS: u32 = 6;

/// The processor that handles every packet of the loopback device of this thread's network namespace from now on. One that is sent by
/// another processor comes by an interrupt, in the middle of whatever runs there, also a program at a call.
pub fn packets_interrupt(cpu: usize) {
    let folder = super::Folder::make();
    // the devices of a namespace are listed by a file system that is mounted there
    let script = format!(
        "mount -t sysfs sysfs {0} && echo {1:x} >{0}/class/net/lo/queues/rx-0/rps_cpus; done=$?; umount {0}; exit $done",
        folder.0.display(),
        1 << cpu
    );
    let status = Command::new("unshare").args(["-m", "sh", "-c", &script]).status().unwrap();
    assert!(status.success(), "{status}");
}

/// Whether there are two processors to run on; said where not.
pub fn has_two_cpus() -> bool {
    let enough = fs::read_to_string("/sys/devices/system/cpu/online").unwrap().trim() != "0";
    if !enough {
        super::skips::skipped("one processor alone: no packet can be sent by another");
    }
    enough
}

/// How this kernel lets tasks preempt one another, as far as it says so.
pub fn preemption() -> impl Display {
    let version = fs::read_to_string("/proc/version").unwrap();
    version.split(' ').find(|word| word.starts_with("PREEMPT")).unwrap_or("no PREEMPT").to_owned()
}

/// Calls `bpf()` for one slot of the working memory; `value` has what each possible processor has there.
fn call(live: &mut Live, command: i32, slot: u32, fill: impl FnOnce(&mut [u8], usize)) -> Vec<u8> {
    #[repr(C)]
    struct Attributes {
        map: u32,
        key: *const u32,
        value: *mut u8,
        flags: u64,
    }
    let Some(Map::PerCpuArray(map)) = live.enforcement.shims().ebpf().map_mut("WORK") else {
        panic!("no working memory");
    };
    let size = map.info().unwrap().value_size().next_multiple_of(8) as usize;
    let mut value = vec![0; size * aya::util::nr_cpus().unwrap()];
    fill(&mut value, size);
    let attributes = Attributes {
        map: map.fd().as_fd().as_raw_fd() as u32,
        key: &raw const slot,
        value: value.as_mut_ptr(),
        flags: 0,
    };
    // SAFETY: key and value are as long as the map has them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Attributes>()) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    value
}

/// Takes a slot away, on every processor. No program may be under way in it.
pub fn occupy(live: &mut Live, slot: u32) {
    const UPDATE: i32 = 2;
    // the first word says that it is taken
    call(live, UPDATE, slot, |value, size| value.chunks_mut(size).for_each(|of_cpu| of_cpu[0] = 1));
}

/// What was written into a slot on a processor; `None`: nothing, so that no program has ever worked there.
pub fn written(live: &mut Live, slot: u32, cpu: usize) -> Option<Vec<u8>> {
    const LOOK_UP: i32 = 1;
    let mut size = 0;
    let value = call(live, LOOK_UP, slot, |_, bytes| size = bytes);
    let of_cpu = value[cpu * size + 8..(cpu + 1) * size].to_vec();
    of_cpu.iter().any(|byte| *byte != 0).then_some(of_cpu)
}

/// Counts interruptions: a program works in the second slot only while another one of its processor is in the first.
#[derive(Default)]
pub struct Interruptions {
    last: Option<Vec<u8>>,
    /// So many at least: those between two looks count once.
    pub seen: usize,
}

impl Interruptions {
    pub fn look(&mut self, live: &mut Live, cpu: usize) {
        let now = written(live, 1, cpu);
        self.seen += usize::from(now != self.last);
        self.last = now;
    }
}
