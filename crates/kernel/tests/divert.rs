//! Packets that go to callouts in user space and come back. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_engine::CalloutAction;
use openwfp_kernel::{divert::Answer, options::Options};
use openwfp_model::LayerId;
use std::net::SocketAddr;
use support::{
    actor,
    diverting::{Diverting, asks, say},
    net::{alone, at},
    router::{LONG, PORT, Router, SHORT, bound, comes, layer},
};

#[test]
fn actor() {
    actor::act();
}

fn permit(_: &mut openwfp_kernel::divert::Diverted<'_>, _: &openwfp_kernel::divert::Asked) -> Answer {
    say(CalloutAction::Permit)
}

fn transport(way: &str, v6: bool) -> LayerId {
    layer(&format!("{way}_TRANSPORT"), v6)
}

#[test]
fn a_datagram_goes_out_by_way_of_a_callout() {
    alone(|| {
        let router = Router::make();
        for v6 in [false, true] {
            let filters = vec![asks(transport("OUTBOUND", v6), 2).build().unwrap()];
            let Some(mut diverting) = Diverting::with(filters, Options::default(), permit) else { return };
            let to = SocketAddr::new(at(1, 2, v6), PORT);
            let receiver = router.client.run(move || bound(to));
            assert_eq!(diverting.live.act(&format!("send {to}\nsend {to}")), ["ok", "ok"]);
            assert!(comes(&receiver, LONG) && comes(&receiver, LONG));
            assert!(!comes(&receiver, SHORT), "none comes twice");
            let seen = diverting.all();
            assert_eq!(seen.len(), 2);
            assert!(seen.iter().all(|seen| seen.callout == 2 && seen.socket != 0 && seen.user == Some(0)));
            assert!(seen.iter().all(|seen| seen.bytes.ends_with(b"hello") && !seen.frame && !seen.inbound));
            println!("{:?} {:?}", diverting.live.enforcement.failures(), diverting.end());
        }
    });
}
