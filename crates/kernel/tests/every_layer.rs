//! Every layer that is enforced is met by real traffic: those of sockets in a group, those of devices in a network namespace.
//! Needs root, BPF and Linux 6.6.

mod support;

use openwfp_kernel::hooks::Hook;
use openwfp_model::{Action, Filter, Layer, LayerId};
use std::{collections::BTreeSet, net::SocketAddr, thread, time::Duration};
use support::{
    actor,
    live::{Live, filter},
    net::{alone, at},
    router::{CLOSED, PORT, Router, at_devices, device_layers, is_refused},
};

#[test]
fn actor() {
    actor::act();
}

fn group_layers() -> Vec<LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|layer| !Hook::of_layer(*layer).is_empty()).collect()
}

/// What a layer that has a discard layer is filtered with, for each family one policy: both versions are blocked.
fn blocks(layers: &[LayerId]) -> Vec<Vec<Filter>> {
    let with_discard = |v4: &&LayerId| Layer::find(&format!("{v4}_DISCARD")).is_some();
    let v4 = layers.iter().filter(|layer| layer.name().ends_with("_V4")).filter(with_discard);
    let both = |v4: &LayerId| {
        let v6 = Layer::find(&v4.name().replace("_V4", "_V6")).unwrap().id;
        [*v4, v6].map(|layer| filter(layer, Action::Block).build().unwrap()).to_vec()
    };
    v4.map(both).collect()
}

/// Both ends of a connection, of datagrams, and errors, all over the loopback device of a namespace of its own.
const SCRIPT: &str = "own-network
listen 127.0.0.1:4711
tcp 127.0.0.1:4711
close
close
bind 127.0.0.1:4711
send 127.0.0.1:4711
close
listen [::1]:4711
tcp [::1]:4711
close
close
bind [::1]:4711
send [::1]:4711
close
icmp 3
icmp6 1";

fn recorded(live: &Live) -> impl Iterator<Item = LayerId> {
    live.events
        .iter()
        .filter(|event| event.kind == openwfp_kernel::events::EventKind::Classify)
        .map(|event| event.layer)
}

fn assert_all_met(layers: &[LayerId], met: &BTreeSet<LayerId>) {
    let missing: Vec<&LayerId> = layers.iter().filter(|layer| !met.contains(layer)).collect();
    assert!(missing.is_empty(), "nothing has met {missing:?}");
}

#[test]
fn every_layer_of_a_group_is_met() {
    let layers = group_layers();
    let mut met = BTreeSet::new();
    let mut policies = blocks(&layers);
    policies.push(vec![]);
    for policy in policies {
        let Some(mut live) = Live::new(policy, &layers) else { return };
        live.act(SCRIPT);
        met.extend(recorded(&live));
    }
    assert_all_met(&layers, &met);
}

#[test]
fn every_layer_of_devices_is_met() {
    alone(|| {
        let layers = device_layers();
        let mut met = BTreeSet::new();
        let router = Router::make();
        let mut policies = blocks(&layers);
        policies.push(vec![]);
        for policy in policies {
            let Some(mut live) = at_devices(policy, false) else { return };
            let wait = Duration::from_millis(100);
            for v6 in [false, true] {
                let (ours, theirs) = (at(1, 1, v6), at(1, 2, v6));
                // each is answered with an error, unless something is blocked
                is_refused(ours, SocketAddr::new(theirs, CLOSED), wait);
                router.client.run(move || is_refused(theirs, SocketAddr::new(ours, CLOSED), wait));
                router.client_sends(SocketAddr::new(at(2, 2, v6), PORT), "through");
            }
            // what is under way arrives
            thread::sleep(wait);
            live.drain();
            met.extend(recorded(&live));
        }
        assert_all_met(&layers, &met);
    });
}
