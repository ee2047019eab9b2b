//! Whatever callouts answer and bytes hold: nothing panics, what makes no sense is blocked, contexts come back once.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Scripted, classify, policy, terminating};
use openwfp_callout::{
    Answer, CalloutAction, Direction, FlowHandle, LayerData, PacketBuilder, PacketData, Question, Registry,
    StreamAction, StreamData, StreamFlags, mend,
};
use openwfp_model::{CalloutKind, Guid, LayerId};
use openwfp_packet::link::LinkType;
use openwfp_packet::packet::{Frame, Packet};
use proptest::prelude::*;

fn kinds() -> impl Strategy<Value = CalloutKind> {
    prop_oneof![Just(CalloutKind::Terminating), Just(CalloutKind::Inspection), Just(CalloutKind::Unknown)]
}

fn answers() -> impl Strategy<Value = Answer> {
    let action = prop_oneof![Just(Answer::permit()), Just(Answer::block()), Just(Answer::continue_())];
    let stream = prop_oneof![
        Just(StreamAction::None),
        Just(StreamAction::AllowConnection),
        any::<usize>().prop_map(StreamAction::NeedMoreData),
        Just(StreamAction::DropConnection),
        Just(StreamAction::Defer),
    ];
    let packet = proptest::option::of(prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(|payload| datagram(&payload)),
    ]);
    let bytes = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
    (action, any::<(bool, bool)>(), packet, stream, 0usize..40, bytes).prop_map(
        |(mut answer, (clears, absorbs), packet, stream, enforced, replacement)| {
            (answer.clear_action_right, answer.absorb, answer.packet) = (clears, absorbs, packet);
            (answer.stream, answer.enforced, answer.replacement) = (stream, enforced, replacement);
            answer
        },
    )
}

fn datagram(payload: &[u8]) -> Vec<u8> {
    PacketBuilder::between("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap()).udp(payload).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_counts_of_an_answer_is_allowed(
        answer in answers(), kind in kinds(), right: bool, discard: bool, what in 0..3, last: bool, inbound: bool,
    ) {
        let packet = datagram(b"abc");
        let direction = if inbound { Direction::Inbound } else { Direction::Outbound };
        let end = if last { StreamFlags::disconnect(direction) } else { StreamFlags::empty() };
        let flags = StreamFlags::of(direction) | end;
        let data = match what {
            0 => LayerData::None,
            1 => LayerData::Packet(PacketData::new(&packet, 20, 28)),
            _ => LayerData::Stream(StreamData { bytes: b"0123456789", offset: 0, direction, flags, missed: 0 }),
        };
        let question = Question { kind, right, data, frame: false, discard, redirect: None };
        let changes = answer.absorb || answer.packet.is_some() || answer.replacement.is_some();
        let (settled, nonsense) = answer.clone().settle(&question);
        if kind == CalloutKind::Inspection {
            prop_assert!(settled.action == CalloutAction::Continue && !settled.absorb && settled.packet.is_none());
            prop_assert!(matches!(settled.stream, StreamAction::None | StreamAction::AllowConnection));
            return Ok(());
        }
        let hard_block = settled.action == CalloutAction::Block && settled.clear_action_right;
        if settled.absorb || settled.packet.is_some() || settled.replacement.is_some() {
            prop_assert!(right && settled.action == CalloutAction::Block, "{settled:?}");
        }
        if settled.absorb || settled.packet.is_some() {
            prop_assert!(hard_block && !discard);
        }
        // What was to go on changed never goes on as it was.
        let undecided = matches!(settled.stream, StreamAction::NeedMoreData(_) | StreamAction::Defer);
        if changes && settled.stream != StreamAction::AllowConnection && !undecided {
            prop_assert_eq!(settled.action, CalloutAction::Block, "{:?} from {:?}, {:?}", &settled, answer, nonsense);
        }
        if let Some(packet) = &settled.packet {
            prop_assert!(matches!(Packet::parse(LinkType::RAW, packet), Ok(Frame::Ip(_))));
        }
        prop_assert!(settled.enforced <= 10);
        if undecided {
            prop_assert!(what == 2 && !last);
        }
        // What is settled once stays.
        let (again, nonsense) = settled.clone().settle(&question);
        prop_assert_eq!((&again, nonsense), (&settled, None));
    }
}

proptest! {
    #[test]
    fn bytes_that_are_no_packet_are_refused_or_mended(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..8, frame: bool) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | *first & 15;
        }
        if mend(frame, &mut bytes).is_ok() {
            let once = bytes.clone();
            prop_assert!(mend(frame, &mut bytes).is_ok());
            prop_assert_eq!(bytes, once);
        }
    }

    #[test]
    fn each_context_comes_back_once(steps in proptest::collection::vec((0u8..5, 0u64..4), 0..60)) {
        /// Counts when it is dropped.
        struct Counted(Arc<AtomicU32>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (made, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (making, dropping) = (made.clone(), dropped.clone());
        let layer = LayerId::DATAGRAM_DATA_V4;
        let registry = Registry::new();
        let callout = Scripted::new(1, move |event, _| {
            if !event.has_flow_context() && event.associate(Counted(dropping.clone())).is_ok() {
                making.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (platform, log) = (callout.platform.clone(), callout.log.clone());
        registry.register(Arc::new(callout)).unwrap();
        let policy = policy(&registry, layer, &[terminating(1)]);
        let platform = platform.lock().unwrap().clone().unwrap();
        for (step, flow) in steps {
            match step {
                0..=1 => {
                    let _ = classify(&registry, &policy, layer, flow, LayerData::None);
                }
                2 => {
                    let _ = platform.remove_context(FlowHandle::new(flow), layer);
                }
                3 => registry.flow_ended(FlowHandle::new(flow)),
                _ => registry.remove_contexts(Guid::from_u128(1)),
            }
            let here = registry.context_count(Guid::from_u128(1));
            let (made, dropped) = (made.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
            prop_assert_eq!(made, dropped + here as u32);
        }
        registry.all_flows_ended();
        let told = log.lock().unwrap().iter().filter(|line| line.starts_with("flow")).count() as u32;
        let (made, dropped) = (made.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
        prop_assert_eq!((made, made), (dropped, told));
    }
}
