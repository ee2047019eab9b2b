//! Processes and all that they have started, where no control group holds them together any more.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    parent: u32,
    /// Clock ticks from boot to its start.
    started: u64,
}

/// How often new processes are looked for: each look finds what the last one's were about to start.
const LOOKS: u32 = 64;

/// Ends processes and all that they have started (SIGKILL); how many.
///
/// Of each root its start in clock ticks after boot is given where it is known: a number that another process has now is
/// passed over. What has lost its parents is found only as a root. All are stopped before the first one is ended, so that none
/// starts another meanwhile, or loses the parent by which it is found.
pub fn end_with_descendants(roots: &[(u32, Option<u64>)]) -> usize {
    let mut held: HashMap<u32, OwnedFd> = HashMap::new();
    for _ in 0..LOOKS {
        let all = snapshot();
        let new: Vec<u32> = family(roots, &all).into_iter().filter(|pid| !held.contains_key(pid)).collect();
        let before = held.len();
        for pid in new {
            // the descriptor holds on to the process: what has this number now is the one that was seen, or it is left
            if let Some(descriptor) = open(pid)
                && entry(pid) == all.get(&pid).copied()
            {
                let _ = pidfd_send_signal(&descriptor, Signal::STOP);
                held.insert(pid, descriptor);
            }
        }
        if held.len() == before {
            break;
        }
    }
    held.values().filter(|descriptor| pidfd_send_signal(descriptor, Signal::KILL).is_ok()).count()
}

fn open(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(pid.try_into().ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The roots that are what they were, and what descends from them; never this process or the first one.
fn family(roots: &[(u32, Option<u64>)], all: &HashMap<u32, Entry>) -> Vec<u32> {
    let is_it = |(pid, started): &&(u32, Option<u64>)| {
        all.get(pid).is_some_and(|entry| started.is_none_or(|started| entry.started == started))
    };
    let may_end = |pid: u32| pid > 1 && pid != std::process::id();
    let mut found: Vec<u32> = roots.iter().filter(is_it).map(|(pid, _)| *pid).filter(|pid| may_end(*pid)).collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let children = all.iter().filter(|(_, entry)| entry.parent == parent).map(|(pid, _)| *pid);
        let children: Vec<u32> = children.filter(|pid| may_end(*pid) && !found.contains(pid)).collect();
        found.extend(children);
    }
    found
}

fn snapshot() -> HashMap<u32, Entry> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid| Some((pid, entry(pid)?))).collect()
}

fn entry(pid: u32) -> Option<Entry> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `stat` of proc(5): the name in brackets may hold anything; behind it come the state, the parent, and the start as the twentieth field. `None` for
/// one that has ended.
fn parse(stat: &str) -> Option<Entry> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    // one that has ended has no children, and cannot be ended
    fields.next().filter(|state| !["Z", "X"].contains(state))?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Entry { parent, started })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn a_name_may_hold_brackets_and_spaces() {
        let stat = "7 (a) R (b c) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2 3";
        assert_eq!(parse(stat), Some(Entry { parent: 3, started: 4711 }));
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse(&stat.replace(") S", ") Z")), None);
        assert!(entry(std::process::id()).is_some_and(|own| own.started > 0));
    }

    #[test]
    fn descendants_are_ended_and_what_has_lost_its_parents_where_it_is_named() {
        // a child with a child, and one whose parent has gone; their numbers
        let script = "sleep 100 & echo $!; (sleep 100 & echo $!); wait";
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut number = || lines.next().unwrap().unwrap().parse::<u32>().unwrap();
        let (child, orphan) = (number(), number());
        let lives = |pid| entry(pid).is_some();
        let of_the_shell = entry(shell.id()).unwrap().started;
        assert_eq!(end_with_descendants(&[(shell.id(), Some(of_the_shell + 1))]), 0, "another process of this number");
        assert!(lives(child) && lives(orphan));
        let parent = |pid| Some(entry(pid)?.parent);
        while parent(orphan).and_then(parent) == Some(shell.id()) {
            sleep(Duration::from_millis(5));
        }
        assert_eq!(end_with_descendants(&[(shell.id(), Some(of_the_shell)), (orphan, None)]), 3);
        shell.wait().unwrap();
        for pid in [child, orphan] {
            for _ in 0..200 {
                if !lives(pid) {
                    break;
                }
                sleep(Duration::from_millis(10));
            }
            assert!(!lives(pid), "{pid}");
        }
    }
}
