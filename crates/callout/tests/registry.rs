//! The registry: who answers, flow contexts, pended operations, limits, and callouts that misbehave.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Says, Scripted, classify, policy, terminating};
use openwfp_callout::{
    AddFilterError, Answer, Filter, FlowContextError, FlowHandle, InjectError, Injection, InjectionPoint, Injector,
    LayerData, Limits, PacketBuilder, PacketData, PendError, PendedOperation, RegisterError, Registry, UnregisterError,
};
use openwfp_engine::{Action, Reason};
use openwfp_model::{CalloutKind, FilterFlags, Guid, LayerId};

const LAYER: LayerId = LayerId::DATAGRAM_DATA_V4;
const NONE: FilterFlags = FilterFlags::empty();

fn packet() -> Vec<u8> {
    PacketBuilder::between("192.0.2.1:4000".parse().unwrap(), "192.0.2.80:53".parse().unwrap()).udp(b"abc").unwrap()
}

fn data(packet: &[u8]) -> LayerData<'_> {
    LayerData::Packet(PacketData::new(packet, 20, 28))
}

fn key(number: u128) -> Guid {
    Guid::from_u128(number)
}

#[test]
fn a_callout_that_panics_counts_as_unregistered_and_harms_nobody() {
    let permits = FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED;
    let cases = [
        (CalloutKind::Terminating, NONE, Action::Block, Reason::CalloutUnregistered),
        (CalloutKind::Unknown, NONE, Action::Block, Reason::CalloutUnregistered),
        (CalloutKind::Terminating, permits, Action::Permit, Reason::None),
        (CalloutKind::Inspection, NONE, Action::Permit, Reason::None),
    ];
    for (kind, flags, action, reason) in cases {
        let registry = Registry::new();
        registry.register(Arc::new(Scripted::new(1, |_, _| panic!("oh")))).unwrap();
        registry.register(Arc::new(Scripted::new(2, |_, out| out.permit()))).unwrap();
        let policy = policy(&registry, LAYER, &[Says::Callout(1, kind, flags), terminating(2)]);
        for _ in 0..2 {
            let outcome = classify(&registry, &policy, LAYER, 1, LayerData::None);
            assert_eq!((outcome.verdict.action, outcome.verdict.reason), (action, reason), "{kind:?} {flags:?}");
        }
        assert_eq!((registry.counts().panics, registry.keys()), (1, vec![key(2)]));
        let report = registry.next_report().unwrap();
        assert!(format!("{:?}", report.report).contains("panicked: oh"), "{report:?}");
    }
}

#[test]
fn a_callout_learns_the_filters_that_are_there_and_may_refuse_them() {
    let registry = Registry::new();
    let filter = |id, name: &str| Filter::new(id, key(id.into()), name, LAYER, CalloutKind::Terminating);
    registry.add_filter(key(1), filter(1, "before")).unwrap();
    let callout = Scripted::new(1, |_, _| {});
    let log = callout.log.clone();
    registry.register(Arc::new(callout)).unwrap();
    registry.add_filter(key(1), filter(2, "after")).unwrap();
    let error = registry.add_filter(key(1), filter(3, "refused")).unwrap_err();
    assert_eq!(error.to_string(), "the callout `callout 1` refuses it: no");
    assert_eq!(registry.add_filter(key(1), filter(2, "again")), Err(AddFilterError::Exists(2)));
    assert!(registry.delete_filter(1) && !registry.delete_filter(1) && !registry.delete_filter(3));
    assert_eq!(*log.lock().unwrap(), ["added before", "added after", "deleted before"]);
    // Refusing one that is there refuses the registration.
    registry.add_filter(key(2), filter(4, "refused")).unwrap();
    let error = registry.register(Arc::new(Scripted::new(2, |_, _| {}))).unwrap_err();
    assert!(matches!(error, RegisterError::Refused { .. }), "{error}");
    assert_eq!(registry.keys(), [key(1)]);
    assert_eq!(registry.register(Arc::new(Scripted::new(1, |_, _| {}))), Err(RegisterError::Exists(key(1))));
}

#[test]
fn a_callout_is_asked_at_its_layers_alone() {
    let registry = Registry::new();
    let mut callout = Scripted::new(1, |_, _| {});
    callout.registration = callout.registration.at([LayerId::STREAM_V4]);
    registry.register(Arc::new(callout)).unwrap();
    let filter = Filter::new(1, key(9), "f", LAYER, CalloutKind::Unknown);
    assert!(matches!(registry.add_filter(key(1), filter), Err(AddFilterError::Layer { .. })));
}

/// Associates a context at the first event, counts it up at the others.
fn counting() -> Scripted {
    Scripted::new(1, |event, out| {
        match event.flow_context::<u32>() {
            Some(count) => *count += 1,
            None => event.associate(0u32).unwrap(),
        }
        out.permit();
    })
}

#[test]
fn a_flow_context_comes_back_exactly_once_however_the_flow_ends() {
    let registry = Registry::new();
    let callout = counting();
    let log = callout.log.clone();
    let platform = callout.platform.clone();
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1)]);
    for flow in [1, 1, 1, 2, 3] {
        let _ = classify(&registry, &policy, LAYER, flow, LayerData::None);
    }
    assert_eq!(registry.unregister(key(1)), Err(UnregisterError::Busy { contexts: 3, pended: 0 }));
    let platform = platform.lock().unwrap().clone().unwrap();
    registry.flow_ended(FlowHandle::new(1));
    registry.flow_ended(FlowHandle::new(1));
    platform.remove_context(FlowHandle::new(2), LAYER).unwrap();
    assert_eq!(platform.remove_context(FlowHandle::new(2), LAYER), Err(FlowContextError::NotFound));
    registry.flow_ended(FlowHandle::new(2));
    registry.remove_contexts(key(1));
    let at = |flow, count| format!("flow {flow} at DATAGRAM_DATA_V4: {count}");
    assert_eq!(log.lock().unwrap()[1..], [at(1, 2), at(2, 0), at(3, 0)]);
    assert_eq!(registry.unregister(key(1)), Ok(()));
    assert_eq!(registry.unregister(key(1)), Err(UnregisterError::NotRegistered));
    let refused = platform.associate_context(FlowHandle::new(3), LAYER, Box::new(1u32)).unwrap_err().0;
    assert_eq!(refused, FlowContextError::NotRegistered);
    let outcome = classify(&registry, &policy, LAYER, 3, LayerData::None);
    assert_eq!(outcome.verdict.reason, Reason::CalloutUnregistered);
}

#[test]
fn a_context_that_is_removed_while_it_is_lent_goes_when_the_call_is_over() {
    let registry = Registry::new();
    let callout = Scripted::new(1, |event, _| {
        let flow = event.metadata.flow.unwrap();
        if event.has_flow_context() {
            event.platform.remove_context(flow, LAYER).unwrap();
            assert_eq!(event.platform.remove_context(flow, LAYER), Err(FlowContextError::NotFound));
            *event.flow_context::<u32>().unwrap() = 7;
        } else {
            event.associate(1u32).unwrap();
            assert_eq!(event.associate(2u32), Err(FlowContextError::Exists));
        }
    });
    let log = callout.log.clone();
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1)]);
    for _ in 0..2 {
        let _ = classify(&registry, &policy, LAYER, 1, LayerData::None);
    }
    assert_eq!(log.lock().unwrap()[1..], ["flow 1 at DATAGRAM_DATA_V4: 7"]);
    registry.all_flows_ended();
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[test]
fn contexts_are_bounded_and_belong_to_flows_that_exist() {
    let registry = Registry::new();
    let mut callout = Scripted::new(1, |event, _| {
        let expected = if event.metadata.flow.unwrap().get() <= 2 { Ok(()) } else { Err(FlowContextError::TooMany) };
        assert_eq!(event.associate(1u32), expected);
        let elsewhere = event.platform.associate_context(FlowHandle::new(99), LAYER, Box::new(1u32));
        assert_eq!(elsewhere.unwrap_err().0, FlowContextError::NoSuchFlow);
    });
    callout.registration.limits = Limits { flow_contexts: 2, ..Limits::default() };
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1)]);
    for flow in 1..=3 {
        let _ = classify(&registry, &policy, LAYER, flow, LayerData::None);
    }
    assert_eq!(registry.counts().panics, 0);
}

#[test]
fn a_conditional_callout_is_asked_about_its_flows_alone() {
    let registry = Registry::new();
    let mut conditional = Scripted::new(1, |_, out| out.block());
    conditional.registration = conditional.registration.conditional_on_flow();
    let platform = conditional.platform.clone();
    registry.register(Arc::new(conditional)).unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1)]);
    registry.flow_began(FlowHandle::new(2));
    let platform = platform.lock().unwrap().clone().unwrap();
    platform.associate_context(FlowHandle::new(2), LAYER, Box::new(0u32)).unwrap();
    for (flow, action) in [(1, Action::Permit), (2, Action::Block)] {
        assert_eq!(classify(&registry, &policy, LAYER, flow, LayerData::None).verdict.action, action);
    }
}

/// Pends, and hands the operation to a thread that answers after a while.
fn pending(answer: fn() -> Option<Answer>, after: Duration) -> Scripted {
    Scripted::new(1, move |_, out| {
        let operation = out.pend().unwrap();
        assert_eq!(out.pend().unwrap_err(), PendError::Pended);
        out.permit();
        std::thread::spawn(move || {
            std::thread::sleep(after);
            match answer() {
                Some(answer) => operation.complete(answer),
                None => drop(operation),
            }
        });
    })
}

#[test]
fn a_pended_operation_is_answered_from_any_thread() {
    type Case = (fn() -> Option<Answer>, Action, bool);
    let cases: [Case; 4] = [
        (|| Some(Answer::permit()), Action::Permit, true),
        (|| Some(Answer::permit().hard()), Action::Permit, false),
        (|| Some(Answer::block()), Action::Block, true),
        (|| None, Action::Block, false),
    ];
    for (answer, action, soft) in cases {
        let registry = Registry::new();
        registry.register(Arc::new(pending(answer, Duration::from_millis(20)))).unwrap();
        let policy = policy(&registry, LAYER, &[terminating(1)]);
        let verdict = classify(&registry, &policy, LAYER, 1, LayerData::None).verdict;
        assert_eq!((verdict.action, verdict.soft), (action, soft));
        assert_eq!(registry.counts().unanswered, u64::from(answer().is_none()));
    }
}

#[test]
fn an_operation_that_nobody_answers_in_time_is_blocked_and_late_answers_change_nothing() {
    let registry = Registry::new();
    let mut callout = pending(|| Some(Answer::permit()), Duration::from_millis(400));
    callout.registration = callout.registration.pend_timeout(Duration::from_millis(50));
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1)]);
    let begun = Instant::now();
    let verdict = classify(&registry, &policy, LAYER, 1, LayerData::None).verdict;
    assert_eq!((verdict.action, verdict.soft), (Action::Block, false));
    assert!(begun.elapsed() >= Duration::from_millis(50) && begun.elapsed() < Duration::from_millis(390));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!((registry.counts().unanswered, registry.counts().late_answers), (1, 1));
}

#[test]
fn what_cannot_wait_is_not_pended() {
    let seen: Arc<Mutex<Vec<Result<u64, PendError>>>> = Arc::default();
    let said = seen.clone();
    let callout = Scripted::new(1, move |_, out| {
        let pended = out.pend();
        said.lock().unwrap().push(pended.as_ref().map(PendedOperation::operation).map_err(|error| *error));
        if let Ok(operation) = pended {
            operation.complete(Answer::permit());
        }
    });
    let registry = Registry::new();
    registry.register(Arc::new(callout)).unwrap();
    let established = LayerId::ALE_FLOW_ESTABLISHED_V4;
    let at_established = common::policy(&registry, established, &[terminating(1)]);
    let _ = classify(&registry, &at_established, established, 1, LayerData::None);
    assert!(registry.delete_filter(1));
    let inspects = common::policy(&registry, LAYER, &[Says::Callout(1, CalloutKind::Inspection, NONE)]);
    let _ = classify(&registry, &inspects, LAYER, 1, LayerData::None);
    assert!(registry.delete_filter(1));
    let below = common::policy(&registry, LAYER, &[Says::Block, terminating(1)]);
    let _ = classify(&registry, &below, LAYER, 1, LayerData::None);
    let expected = [PendError::CannotPend, PendError::Inspection, PendError::NoRight];
    assert_eq!(*seen.lock().unwrap(), expected.map(Err));
}

#[test]
fn injection_is_bounded_and_takes_packets_alone() {
    let registry = Registry::new();
    let mut callout = Scripted::new(1, |_, _| {});
    callout.registration.limits = Limits { injections: 3, ..Limits::default() };
    let platform = callout.platform.clone();
    registry.register(Arc::new(callout)).unwrap();
    let platform = platform.lock().unwrap().clone().unwrap();
    assert_eq!(platform.network_send(vec![0x45, 1, 2]), Err(InjectError::NotAPacket));
    assert_eq!(platform.mac_send(vec![1, 2, 3]), Err(InjectError::NotAPacket));
    let stream = platform.stream(FlowHandle::new(5), openwfp_callout::Direction::Outbound, vec![1]);
    assert_eq!(stream, Err(InjectError::NoSuchFlow));
    for _ in 0..3 {
        platform.transport_send(packet()).unwrap();
    }
    assert_eq!(platform.transport_send(packet()), Err(InjectError::TooMuch));
    let injected = registry.next_injection().unwrap();
    assert_eq!((injected.point, injected.data), (InjectionPoint::TransportSend, packet()));
    assert_eq!(platform.network_receive(packet()), Ok(()));
    let mut history = injected.history;
    for _ in 0..8 {
        history = history.injected_by(1);
    }
    let again = Injection::new(InjectionPoint::NetworkSend, packet()).cloned_from(&history);
    assert!(registry.next_injection().is_some());
    assert_eq!(platform.inject(again), Err(InjectError::TooOften));
    assert_eq!(registry.counts().injections_refused, 2);
    registry.unregister(key(1)).unwrap();
    assert_eq!(platform.network_send(packet()), Err(InjectError::NotRegistered));
    assert!(registry.next_injection().is_none(), "what it had waiting goes with it");
}

#[test]
fn nonsense_is_blocked_and_counted() {
    type Says = fn(&mut openwfp_callout::ClassifyOut);
    let cases: [Says; 5] = [
        |out| {
            out.replace_packet(vec![1, 2, 3]);
        },
        |out| {
            out.replace_packet(Vec::new());
        },
        |out| {
            out.permit();
            out.stream(openwfp_callout::StreamAction::Defer);
        },
        |out| {
            let request = openwfp_callout::RedirectRequest::bind("192.0.2.1:1".parse().unwrap());
            out.redirect(request);
        },
        |out| {
            out.replace_packet(vec![0x45; 70_000]);
        },
    ];
    for (number, says) in cases.into_iter().enumerate() {
        let registry = Registry::new();
        registry.register(Arc::new(Scripted::new(1, move |_, out| says(out)))).unwrap();
        let policy = policy(&registry, LAYER, &[terminating(1)]);
        let bytes = packet();
        let outcome = classify(&registry, &policy, LAYER, 1, data(&bytes));
        let verdict = outcome.verdict;
        assert_eq!((verdict.action, verdict.soft, outcome.packet), (Action::Block, false, None), "{number}");
    }
}

#[test]
fn a_changed_packet_is_absorbed_and_comes_back_with_a_history() {
    let registry = Registry::new();
    let number = registry
        .register(Arc::new(Scripted::new(1, |event, out| {
            let packet = event.packet().unwrap();
            assert!(out.replace_payload(&packet, b"another payload"));
        })))
        .unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1), Says::Permit(FilterFlags::CLEAR_ACTION_RIGHT)]);
    let bytes = packet();
    let outcome = classify(&registry, &policy, LAYER, 1, data(&bytes));
    assert!(outcome.absorbed && outcome.verdict.action == Action::Block && !outcome.verdict.soft);
    let (changed, history) = outcome.packet.unwrap();
    let expected = PacketBuilder::between("192.0.2.1:4000".parse().unwrap(), "192.0.2.80:53".parse().unwrap());
    assert_eq!(changed, expected.udp(b"another payload").unwrap());
    assert_eq!(history.injectors(), [number]);
    assert!(history.state_for(number).is_own() && !history.state_for(number + 1).is_own());
}

#[test]
fn without_the_right_a_change_is_a_veto() {
    let registry = Registry::new();
    let callout = Scripted::new(1, |event, out| {
        assert!(!out.has_right());
        let packet = event.packet().unwrap();
        assert!(!out.replace_payload(&packet, b"x"));
    });
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LAYER, &[Says::Permit(FilterFlags::CLEAR_ACTION_RIGHT), terminating(1)]);
    let bytes = packet();
    let outcome = classify(&registry, &policy, LAYER, 1, data(&bytes));
    assert_eq!((outcome.verdict.action, outcome.verdict.reason), (Action::Block, Reason::Veto));
    assert!(!outcome.absorbed && outcome.packet.is_none());
    assert_eq!(registry.counts().panics, 0);
}

#[test]
fn callouts_that_change_what_others_change_come_to_an_end() {
    let registry = Registry::new();
    registry
        .register(Arc::new(Scripted::new(1, |event, out| {
            let packet = event.packet().unwrap();
            out.replace_payload(&packet, b"x");
        })))
        .unwrap();
    let policy = policy(&registry, LAYER, &[terminating(1)]);
    let (values, metadata) = (openwfp_engine::Values::new(), common::metadata(1));
    let (mut bytes, mut history) = (packet(), openwfp_callout::InjectionHistory::EMPTY);
    let mut times = 0;
    loop {
        let mut event = openwfp_callout::LayerEvent::new(LAYER, &values, &metadata, data(&bytes));
        event.history = &history;
        let Some(next) = registry.classify(&policy, &event).packet else { break };
        (bytes, history) = next;
        times += 1;
    }
    assert_eq!((times, registry.counts().injected_too_often), (8, 1));
}

#[test]
fn an_inspection_callout_changes_nothing() {
    let registry = Registry::new();
    let callout = Scripted::new(1, |event, out| {
        let packet = event.packet().unwrap();
        out.replace_payload(&packet, b"x");
    });
    registry.register(Arc::new(callout)).unwrap();
    let policy = policy(&registry, LAYER, &[Says::Callout(1, CalloutKind::Inspection, NONE)]);
    let bytes = packet();
    let outcome = classify(&registry, &policy, LAYER, 1, data(&bytes));
    assert_eq!((outcome.verdict.action, outcome.absorbed, outcome.packet), (Action::Permit, false, None));
    assert_eq!(registry.counts().nonsense, 1);
}

#[test]
fn the_flag_of_the_filter_clears_the_right() {
    for (flags, soft) in [(FilterFlags::CLEAR_ACTION_RIGHT, false), (NONE, true)] {
        let registry = Registry::new();
        registry.register(Arc::new(Scripted::new(1, |_, out| out.permit()))).unwrap();
        let policy = policy(&registry, LAYER, &[Says::Callout(1, CalloutKind::Terminating, flags)]);
        assert_eq!(classify(&registry, &policy, LAYER, 1, LayerData::None).verdict.soft, soft);
    }
}

#[test]
fn redirections_go_down_the_sublayers_and_are_carried_out_where_permitted() {
    let layer = LayerId::ALE_CONNECT_REDIRECT_V4;
    let (asked, proxy) = ("198.51.100.9:80".parse().unwrap(), "127.0.0.1:3128".parse().unwrap());
    let request = openwfp_callout::RedirectRequest::connect(None, asked);
    for (below, redirected) in [(Says::Permit(NONE), true), (Says::Block, false)] {
        let registry = Registry::new();
        let number = registry
            .register(Arc::new(Scripted::new(1, move |event, out| {
                if event.redirect_state() != openwfp_callout::RedirectState::NotRedirected {
                    return out.permit();
                }
                let mut request = out.redirect_request().unwrap();
                request.context = request.remote.unwrap().to_string().into_bytes();
                request.remote = Some(proxy);
                assert!(out.redirect(request));
            })))
            .unwrap();
        let policy = policy(&registry, layer, &[terminating(1), below]);
        let (values, metadata) = (openwfp_engine::Values::new(), common::metadata(1));
        let mut event = openwfp_callout::LayerEvent::new(layer, &values, &metadata, LayerData::None);
        event.redirect = Some(&request);
        let outcome = registry.classify(&policy, &event);
        let expected = redirected.then(|| {
            let mut changed = request.clone();
            (changed.remote, changed.context) = (Some(proxy), b"198.51.100.9:80".to_vec());
            (changed, number)
        });
        assert_eq!(outcome.redirect, expected);
        // Once more, as the proxy's own connection: it is left alone.
        let record = openwfp_callout::RedirectRecord { redirected_by: vec![number], ..Default::default() };
        event.redirected = &record;
        assert_eq!(registry.classify(&policy, &event).redirect, None);
    }
}

#[test]
fn answers_arrive_while_others_classify() {
    let registry = Registry::new();
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let (now, top) = (running.clone(), most.clone());
    let callout = Scripted::new(1, move |event, out| {
        let at = now.fetch_add(1, Ordering::SeqCst) + 1;
        top.fetch_max(at, Ordering::SeqCst);
        match event.flow_context::<u32>() {
            Some(count) => *count += 1,
            None => {
                let _ = event.associate(1u32);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        now.fetch_sub(1, Ordering::SeqCst);
        out.permit();
    });
    let log = callout.log.clone();
    registry.register(Arc::new(callout)).unwrap();
    let policy = Arc::new(policy(&registry, LAYER, &[terminating(1)]));
    let threads: Vec<_> = (0..4u64)
        .map(|flow| {
            let (registry, policy) = (registry.clone(), policy.clone());
            std::thread::spawn(move || {
                for _ in 0..20 {
                    let _ = classify(&registry, &policy, LAYER, flow % 2, LayerData::None);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    registry.all_flows_ended();
    assert_eq!(log.lock().unwrap().len(), 3, "one context for each flow: {log:?}");
    assert!(most.load(Ordering::SeqCst) >= 2, "calls for different flows go on side by side");
}
