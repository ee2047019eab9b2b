//! A host over its channel: asked as `wfp` asks, without a kernel.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use openwfp_callout::host::control::{FromHost, ToHost, Wanted};
use openwfp_callout::host::{serve_builtin, serve_on};
use openwfp_callout::{
    Answer, Callout, Classification, ClassifyOut, Filter, FlowContext, FlowHandle, InjectError, Injector, Limits,
    Notification, PacketBuilder, Refused, Registration, Report,
};
use openwfp_channel::{
    self as channel, Action, AnswerFlags, Received, Request, RequestFlags, VALUES, Wfp, layout::Sizes,
};
use openwfp_model::{CalloutKind, Data, Guid, LayerId};

/// How long it is waited for what is pended, and how many packets may be.
const TIME: Duration = Duration::from_millis(600);
const MOST: usize = 3;

/// What a callout of a test does, by the payload of the datagram.
struct ByPayload;

impl Callout for ByPayload {
    fn registration(&self) -> Registration {
        let limits = Limits { pended: MOST, ..Limits::default() };
        Registration::new(Guid::named("test", "by payload"), "by-payload").pend_timeout(TIME).limits(limits)
    }

    fn notify(&self, notification: Notification<'_>) -> Result<(), Refused> {
        match notification {
            Notification::FilterAdded(filter) if filter.name == "wrong" => Err(Refused::new("it is wrong")),
            _ => Ok(()),
        }
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        let packet = event.packet().unwrap();
        let said = match packet.payload() {
            b"permit" => return out.permit(),
            b"block" => return out.block(),
            b"absorb" => {
                out.absorb();
                return;
            }
            b"change" if event.injection_state().is_own() => return out.permit(),
            b"change" => {
                out.replace_payload(&packet, b"longer than before");
                return;
            }
            b"panic" => panic!("as it was told to"),
            b"pend" => {
                let operation = out.pend().unwrap();
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(300));
                    operation.complete(Answer::permit());
                });
                return;
            }
            b"forget" => match out.pend() {
                Ok(operation) => return std::mem::forget(operation),
                Err(error) => format!("{error:?}"),
            },
            b"inject" => {
                assert_eq!(event.platform.network_send(packet.bytes.to_vec()), Err(InjectError::Unsupported));
                "refused".to_owned()
            }
            b"associate" => format!("{:?}", event.associate(7u32)),
            b"context" => format!("{:?}", event.flow_context::<u32>()),
            b"who" => format!("{:?} {:?}", event.metadata.process, event.metadata.ttl),
            _ => return,
        };
        event.platform.report(Report::entries([("said", Data::Text(said))]));
    }

    fn flow_delete(&self, _: LayerId, flow: FlowHandle, context: FlowContext) {
        assert!(flow.get() == 9 && context.is::<u32>());
    }
}

struct Asking {
    wfp: Wfp,
    host: Option<JoinHandle<bool>>,
    number: u64,
    message: Vec<u8>,
}

fn filter(id: u64, name: &str) -> Filter {
    Filter::new(id, Guid::named("test", name), name, LayerId::DATAGRAM_DATA_V4, CalloutKind::Unknown)
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    let (from, to) = ("192.0.2.1:1000".parse().unwrap(), "192.0.2.2:2000".parse().unwrap());
    PacketBuilder::between(from, to).udp(payload).unwrap()
}

impl Asking {
    fn begin(said: &[ToHost], serve: impl FnOnce(openwfp_channel::Parts) -> ExitCode + Send + 'static) -> Self {
        let (wfp, parts) = Wfp::make(Sizes { slot: 4096, count: 4 }).unwrap();
        for said in said {
            assert!(wfp.control.send(&said.encode()).unwrap());
        }
        let host = thread::spawn(move || serve(parts) == ExitCode::SUCCESS);
        Self { wfp, host: Some(host), number: 0, message: vec![] }
    }

    fn of(filters: &[Filter]) -> Self {
        let wanted = Wanted::new(Guid::named("policy", "x"), "x".into(), None, Default::default());
        let mut said = vec![ToHost::Callout(wanted)];
        said.extend(filters.iter().cloned().map(ToHost::Filter));
        said.push(ToHost::Start);
        Self::begin(&said, |parts| serve_on(parts, |_| Ok(Arc::new(ByPayload))))
    }

    fn heard(&self) -> FromHost {
        let begun = Instant::now();
        loop {
            match self.wfp.control.receive().unwrap() {
                Received::Packet(packet) => return FromHost::decode(&packet).unwrap(),
                Received::Closed => panic!("the host is gone"),
                Received::Nothing => thread::sleep(Duration::from_millis(1)),
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "nothing is said");
        }
    }

    fn said(&self) -> String {
        match self.heard() {
            FromHost::Report(_, _, Report::Callout(entries)) => match &entries["said"] {
                Data::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, payload: &[u8]) -> (Action, AnswerFlags, Option<Vec<u8>>) {
        self.ask_with(payload, |_| {})
    }

    fn ask_with(
        &mut self,
        payload: &[u8],
        change: impl FnOnce(&mut Request),
    ) -> (Action, AnswerFlags, Option<Vec<u8>>) {
        self.number += 1;
        let packet = datagram(payload);
        let mut request = Request {
            number: self.number,
            filter: 5,
            time: 1,
            flow: 9,
            endpoint: 0,
            compartment: 0,
            flags: RequestFlags(RequestFlags::RIGHT),
            layer: u32::from(LayerId::DATAGRAM_DATA_V4.get()),
            source_interface: 0,
            destination_interface: 1,
            transport: 20,
            payload: 28,
            process: 0,
            user: 0,
            group: 0,
            age: 0,
            name: [0; 16],
            injectors: vec![],
            values: [1 << 32; VALUES],
        };
        change(&mut request);
        assert!(self.wfp.requests.push(&[&request.encode(packet.len()), &packet]).unwrap());
        if self.wfp.requests.reader_sleeps() {
            self.wfp.bell.ring().unwrap();
        }
        self.answer(self.number)
    }

    fn answer(&mut self, number: u64) -> (Action, AnswerFlags, Option<Vec<u8>>) {
        let begun = Instant::now();
        while !self.wfp.answers.pop(&mut self.message).unwrap() {
            assert!(begun.elapsed() < Duration::from_secs(10), "no answer");
            thread::sleep(Duration::from_micros(100));
        }
        let (answer, packet) = channel::Answer::decode(&self.message).unwrap();
        assert_eq!(answer.number, number);
        (answer.action, answer.flags, packet.map(<[u8]>::to_vec))
    }

    /// Ends; whether the host ended well.
    fn end(mut self) -> bool {
        let host = self.host.take().unwrap();
        drop(self);
        host.join().unwrap()
    }
}

#[test]
fn answers_come_as_the_callout_gives_them() {
    let mut asking = Asking::of(&[filter(5, "any")]);
    assert_eq!(asking.heard(), FromHost::Ready);
    assert_eq!(asking.ask(b"permit"), (Action::Permit, AnswerFlags(0), None));
    assert_eq!(asking.ask(b"block"), (Action::Block, AnswerFlags(0), None));
    assert_eq!(asking.ask(b"neither"), (Action::Continue, AnswerFlags(0), None));
    let hard = AnswerFlags::CLEAR_RIGHT | AnswerFlags::ABSORB;
    assert_eq!(asking.ask(b"absorb"), (Action::Block, AnswerFlags(hard), None));
    let changed = datagram(b"longer than before");
    assert_eq!(asking.ask(b"change"), (Action::Block, AnswerFlags(hard | AnswerFlags::PACKET), Some(changed)));
    let own = asking.ask_with(b"change", |request| request.injectors = vec![1]);
    assert_eq!(own.0, Action::Permit, "it knows its own");
    let other = asking.ask_with(b"change", |request| request.injectors = vec![2]);
    assert_eq!(other.0, Action::Block);
    // without the right, what is left is a veto
    let vetoed = asking.ask_with(b"change", |request| request.flags = RequestFlags(RequestFlags::PERMITTED));
    assert_eq!(vetoed, (Action::Block, AnswerFlags(0), None));
    assert!(asking.end());
}

#[test]
fn what_cannot_be_had_in_a_host_is_refused_to_the_callout() {
    let mut asking = Asking::of(&[filter(5, "any")]);
    assert_eq!(asking.heard(), FromHost::Ready);
    asking.ask(b"inject");
    assert_eq!(asking.said(), "refused");
    assert!(asking.end());
}

#[test]
fn what_is_pended_is_answered_when_it_is_completed_or_has_taken_too_long() {
    let mut asking = Asking::of(&[filter(5, "any")]);
    assert_eq!(asking.heard(), FromHost::Ready);
    assert_eq!(asking.ask(b"pend"), (Action::Later, AnswerFlags(0), None));
    let pended = asking.number;
    assert_eq!(asking.ask(b"block").0, Action::Block, "nobody waits for it");
    assert_eq!(asking.answer(pended), (Action::Permit, AnswerFlags(0), None));
    let begun = Instant::now();
    assert_eq!(asking.ask(b"forget").0, Action::Later);
    let closed = (Action::Block, AnswerFlags(AnswerFlags::CLEAR_RIGHT), None);
    assert_eq!(asking.answer(asking.number), closed);
    assert!(begun.elapsed() >= TIME, "{:?}", begun.elapsed());
    // more than may be pended are refused to the callout
    let first = asking.number + 1;
    for _ in 0..MOST {
        assert_eq!(asking.ask(b"forget").0, Action::Later);
    }
    assert_eq!(asking.ask(b"forget").0, Action::Continue);
    assert_eq!(asking.said(), "TooMany");
    for number in first..first + MOST as u64 {
        asking.answer(number);
    }
    assert_eq!(asking.ask(b"pend").0, Action::Later, "there is room again");
    assert!(asking.end());
}

#[test]
fn contexts_stay_with_a_flow_until_it_ends() {
    let mut asking = Asking::of(&[filter(5, "any")]);
    assert_eq!(asking.heard(), FromHost::Ready);
    let mut say = |payload| {
        asking.ask(payload);
        asking.said()
    };
    assert_eq!(say(b"context"), "None");
    assert_eq!(say(b"associate"), "Ok(())");
    assert_eq!(say(b"context"), "Some(7)");
    asking.wfp.control.send(&ToHost::FlowEnded(FlowHandle::new(9)).encode()).unwrap();
    thread::sleep(Duration::from_millis(300));
    asking.ask(b"context");
    assert_eq!(asking.said(), "None");
    asking.ask_with(b"who", |request| {
        (request.process, request.user, request.name[0]) = (4711, 33, b'x');
        request.flags = RequestFlags(RequestFlags::RIGHT | RequestFlags::PROCESS);
    });
    let said = asking.said();
    assert!(said.contains("pid: 4711") && said.contains("Some(\"x\")") && said.contains("uid: Some(33)"), "{said}");
    assert!(said.ends_with("Some(64)"), "{said}");
    assert!(asking.end());
}

#[test]
fn filters_come_and_go_and_are_refused() {
    let mut asking = Asking::of(&[filter(5, "any")]);
    assert_eq!(asking.heard(), FromHost::Ready);
    assert_eq!(asking.ask_with(b"permit", |request| request.filter = 6).0, Action::Unavailable);
    // said and asked at once: it is heard before the answer
    asking.wfp.control.send(&ToHost::Filter(filter(6, "later")).encode()).unwrap();
    assert_eq!(asking.ask_with(b"permit", |request| request.filter = 6).0, Action::Permit);
    asking.wfp.control.send(&ToHost::Filter(filter(7, "wrong")).encode()).unwrap();
    assert!(matches!(asking.heard(), FromHost::FilterRefused(7, why) if why.contains("it is wrong")));
    assert_eq!(asking.ask_with(b"permit", |request| request.filter = 7).0, Action::Unavailable);
    assert!(asking.end());

    let asking = Asking::of(&[filter(7, "wrong")]);
    assert!(matches!(asking.heard(), FromHost::Refused(why) if why.contains("it is wrong")));
    assert!(!asking.end());
}

#[test]
fn a_panic_ends_the_host_after_it_was_told() {
    let mut asking = Asking::of(&[filter(5, "any")]);
    assert_eq!(asking.heard(), FromHost::Ready);
    assert_eq!(asking.ask(b"panic").0, Action::Unavailable);
    assert!(matches!(asking.heard(), FromHost::Report(..)));
    assert_eq!(asking.heard(), FromHost::Failed);
    assert!(!asking.end());
}

#[test]
fn what_makes_no_sense_ends_the_host() {
    for message in [&b"short"[..], &[0xff; 700]] {
        let mut asking = Asking::of(&[filter(5, "any")]);
        assert_eq!(asking.heard(), FromHost::Ready);
        assert!(asking.wfp.requests.push(&[message]).unwrap());
        let _ = asking.wfp.bell.ring();
        let host = asking.host.take().unwrap();
        assert!(!host.join().unwrap());
    }
    let asking = Asking::of(&[]);
    assert_eq!(asking.heard(), FromHost::Ready);
    asking.wfp.control.send(b"{\"what\":1}").unwrap();
    let _ = asking.wfp.bell.ring();
    assert!(!asking.end());
}

#[test]
fn the_heart_beats_while_there_is_nothing_to_do() {
    let asking = Asking::of(&[]);
    assert_eq!(asking.heard(), FromHost::Ready);
    let before = asking.wfp.beat();
    thread::sleep(Duration::from_millis(500));
    assert!(asking.wfp.beat() > before + 1);
    assert!(asking.end());
}

#[test]
fn a_built_in_callout_is_served_with_its_settings() {
    let wanted = |settings: &[(&str, Data)]| {
        let settings = settings.iter().map(|(name, data)| ((*name).to_owned(), data.clone())).collect();
        ToHost::Callout(Wanted::new(
            Guid::named("policy", "c"),
            "c".into(),
            Some("openwfp.datagram-cipher".into()),
            settings,
        ))
    };
    let key = ("key", Data::Bytes(vec![7; 32]));
    let mut asking = Asking::begin(&[wanted(&[key]), ToHost::Filter(filter(5, "any")), ToHost::Start], serve_builtin);
    assert_eq!(asking.heard(), FromHost::Ready);
    let udp = |request: &mut Request| request.values[0] = 17;
    let (action, flags, sealed) = asking.ask_with(b"secret", udp);
    assert_eq!((action, flags.has(AnswerFlags::PACKET)), (Action::Block, true));
    let sealed = sealed.unwrap();
    assert_eq!(sealed.len(), 28 + 6 + 40);
    assert!(!sealed.windows(6).any(|window| window == b"secret"));
    let (_, flags, opened) = asking.ask_with(&sealed[28..], |request| {
        udp(request);
        request.flags = RequestFlags(RequestFlags::RIGHT | RequestFlags::INBOUND);
    });
    assert!(flags.has(AnswerFlags::PACKET) && opened.unwrap().ends_with(b"secret"));
    assert!(asking.end());

    let asking = Asking::begin(&[wanted(&[]), ToHost::Filter(filter(5, "any")), ToHost::Start], serve_builtin);
    assert!(matches!(asking.heard(), FromHost::Refused(why) if why.contains("key")));
    assert!(!asking.end());
}
