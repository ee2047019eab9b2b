//! A policy whose callouts are answered by a thread of the test's own.

use super::live::{Live, filter};
use openwfp_engine::{CalloutAction, Verdict, compile_objects};
use openwfp_kernel::{
    divert::{Answer, Asked, Callouts, Divert, Diverted, Fate, Figures, Injection, Pended, soft},
    options::Options,
};
use openwfp_model::{Action, CalloutKind, Filter, Guid, LayerId};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

/// The key of the callout with this number.
pub fn key(number: u8) -> Guid {
    Guid::from_u128(0x100 + u128::from(number))
}

/// A filter that names a callout.
pub fn asks(layer: LayerId, number: u8) -> openwfp_model::FilterBuilder {
    filter(layer, Action::Callout { callout: key(number), kind: CalloutKind::Terminating })
}

pub fn say(action: CalloutAction) -> Answer {
    Answer::Say(soft(action))
}

/// What a callout was asked and what became of the packet.
#[derive(Clone, Debug)]
pub struct Seen {
    pub layer: LayerId,
    pub bytes: Vec<u8>,
    pub frame: bool,
    pub inbound: bool,
    pub socket: u64,
    pub flow: u64,
    pub user: Option<u32>,
    pub mark: u32,
    pub segments: bool,
    pub injector: u32,
    pub generation: u32,
    pub callout: u32,
}

type Act = Box<dyn FnMut(&mut Diverted<'_>, &Asked) -> Answer + Send>;

/// The callouts of a test.
pub struct Served {
    act: Act,
    seen: Sender<Seen>,
    fates: Sender<Fate>,
    pended: Vec<Pended>,
}

impl Callouts for Served {
    fn classify(&mut self, packet: &mut Diverted<'_>, asked: &Asked) -> Answer {
        let record = packet.record();
        let owner = packet.identity();
        let _ = self.seen.send(Seen {
            layer: packet.layer().unwrap(),
            bytes: packet.bytes()[..packet.bytes().len().min(256)].to_vec(),
            frame: packet.has_frame(),
            inbound: packet.is_inbound(),
            socket: record.socket,
            flow: record.flow,
            user: (owner.process.started != 0).then_some(owner.user),
            mark: record.mark,
            segments: record.gso_size != 0,
            injector: record.injector,
            generation: record.generation,
            callout: asked.callout,
        });
        (self.act)(packet, asked)
    }

    fn pended(&mut self, packet: Pended) {
        self.pended.push(packet);
    }

    fn decided(&mut self, _: &Diverted<'_>, _: Option<&Verdict>, fate: Fate) {
        let _ = self.fates.send(fate);
    }
}

/// What the serving thread is to do besides.
pub enum Order {
    Inject(Injection),
    Complete(CalloutAction),
    /// Does nothing for so long, as if it hung.
    Hang(Duration),
}

/// The policy, and the thread that answers.
pub struct Diverting {
    pub live: Live,
    pub seen: Receiver<Seen>,
    pub fates: Receiver<Fate>,
    pub orders: Sender<Order>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Figures>>,
}

pub const RING: u32 = 1 << 22;

impl Diverting {
    pub fn with(
        filters: Vec<Filter>,
        options: Options,
        act: impl FnMut(&mut Diverted<'_>, &Asked) -> Answer + Send + 'static,
    ) -> Option<Self> {
        let registered: Vec<Guid> = (0..4).map(key).collect();
        let policy = compile_objects(1, &[], (1..).zip(filters).collect(), &registered).unwrap();
        let options = Options { diverted: if options.diverted == 0 { RING } else { options.diverted }, ..options };
        let mut live = Live::of_policy(policy, options)?;
        let divert = live.enforcement.divert().unwrap();
        let (seen_by, seen) = mpsc::channel();
        let (fate_of, fates) = mpsc::channel();
        let (orders, ordered) = mpsc::channel();
        let ends = Arc::new(AtomicBool::new(false));
        let ending = ends.clone();
        let served = Served { act: Box::new(act), seen: seen_by, fates: fate_of, pended: vec![] };
        let thread = std::thread::spawn(move || serve(divert, served, &ordered, &ending));
        Some(Self { live, seen, fates, orders, ends, thread: Some(thread) })
    }

    /// Everything that callouts were asked so far.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }

    /// Ends the thread; what it has done.
    pub fn end(&mut self) -> Figures {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map_or_else(Figures::default, |thread| thread.join().unwrap())
    }
}

fn serve(mut divert: Divert, mut served: Served, orders: &Receiver<Order>, ends: &AtomicBool) -> Figures {
    while !ends.load(Ordering::Relaxed) {
        divert.serve(&mut served, Duration::from_millis(10)).unwrap();
        for order in orders.try_iter() {
            match order {
                Order::Inject(injection) => divert.inject(injection).unwrap(),
                Order::Complete(action) => {
                    for packet in std::mem::take(&mut served.pended) {
                        divert.complete(packet, soft(action), &mut served).unwrap();
                    }
                }
                Order::Hang(time) => std::thread::sleep(time),
            }
        }
    }
    divert.figures()
}

impl Drop for Diverting {
    fn drop(&mut self) {
        self.end();
    }
}
