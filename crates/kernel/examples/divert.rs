//! A permit-all callout at OUTBOUND_TRANSPORT_V4 for datagrams of a group to one port, and what it costs. Needs root and BPF.
//!
//! `divert GROUP PORT MILLISECONDS [poll]`: GROUP is the folder of a control group. With `poll`, it looks for packets without
//! sleeping. At the end it prints how many there were, and what processor time it took.

use openwfp_engine::{CalloutAction, compile_objects};
use openwfp_kernel::{
    divert::{Answer, Asked, Callouts, Diverted, soft},
    enforcement::Enforcement,
    group::Group,
    options::Options,
};
use openwfp_model::{Action, CalloutKind, FieldId, Filter, Guid, LayerId, MatchType, Value};
use std::{error::Error, path::Path, time::Duration};

struct Permit {
    looked_at: u64,
}

impl Callouts for Permit {
    fn classify(&mut self, packet: &mut Diverted<'_>, _: &Asked) -> Answer {
        self.looked_at += packet.bytes().first().map_or(0, |first| u64::from(first >> 4));
        Answer::Say(soft(CalloutAction::Permit))
    }
}

/// The processor time of this process so far, in seconds.
fn processor() -> f64 {
    // SAFETY: zeros are a valid structure, which is our own.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut used);
        used
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, group, port, milliseconds, rest @ ..] = &words[..] else {
        return Err("divert GROUP PORT MILLISECONDS [poll]".into());
    };
    let callout = Guid::from_u128(1);
    let filter = Filter::builder("datagrams", LayerId::OUTBOUND_TRANSPORT_V4)
        .action(Action::Callout { callout, kind: CalloutKind::Terminating })
        .when(FieldId::IP_PROTOCOL, MatchType::Equal, Value::Uint8(17))
        .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(port.parse()?))
        .build()
        .map_err(|errors| format!("{errors:?}"))?;
    let policy = compile_objects(1, &[], vec![(1, filter)], &[callout])?;
    let options = Options { diverted: 1 << 24, ..Options::default() };
    let mut enforcement = Enforcement::prepare(&policy, &Group::open(Path::new(group))?, options)?;
    enforcement.attach()?;
    let mut divert = enforcement.divert()?;
    let time = Duration::from_millis(milliseconds.parse()?);
    if !rest.is_empty() {
        divert.set_patience(time);
    }
    println!("ready");
    let (before, mut permit) = (processor(), Permit { looked_at: 0 });
    divert.serve(&mut permit, time)?;
    let used = processor() - before;
    let figures = divert.figures();
    println!("packets {} processor {used:.6} looked {}", figures.read, permit.looked_at);
    eprintln!("{figures:?} {:?}", enforcement.failures());
    Ok(())
}
