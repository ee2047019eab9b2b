//! Packets that cannot be read to their end, and packets that are not where one looks for them, at the devices of a network
//! namespace. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_kernel::options::Options;
use openwfp_model::{Action, LayerId};
use std::{net::UdpSocket, time::Duration};
use support::{
    live::{Live, filter},
    net::alone,
    router::{LONG, Router, SHORT, comes},
    wire::{PORT, datagram, datagram_v6, repair},
};

fn under(layer: LayerId, action: Action) -> Option<Live> {
    Live::with(vec![filter(layer, action).build().unwrap()], Options { devices: true, ..Options::default() })
}

/// Whether the machine's socket gets what is in a frame of the client's.
fn arrives(router: &Router, frame: &[u8], wait: Duration) -> bool {
    let socket = UdpSocket::bind(("::", PORT)).unwrap();
    router.client_tap.send(frame);
    comes(&socket, wait)
}

#[test]
fn tags_that_name_no_vlan_hide_no_packet() {
    alone(|| {
        let router = Router::make();
        let tagged = |tags: &[u16]| {
            let mut frame = datagram([10, 9, 1, 2], 4000);
            let tags: Vec<u8> = tags.iter().flat_map(|tag| [[0x81, 0], tag.to_be_bytes()].concat()).collect();
            frame.splice(12..12, tags);
            frame
        };
        // priorities alone: the kernel looks through any number of them
        let hide: [&[u16]; 4] = [&[0], &[0, 0], &[0x6000, 0xe000], &[0, 0, 0]];
        for tags in hide {
            assert!(arrives(&router, &tagged(tags), LONG), "{tags:?}, without a policy");
        }
        for layer in [LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_TRANSPORT_V4] {
            let Some(_live) = under(layer, Action::Block) else { return };
            for tags in hide {
                assert!(!arrives(&router, &tagged(tags), SHORT), "{tags:?} {layer}");
            }
        }
        let live = under(LayerId::INBOUND_IPPACKET_V4, Action::Permit).unwrap();
        assert!(arrives(&router, &tagged(&[0]), LONG));
        assert_eq!(live.enforcement.failures().packets_unreadable, 0);
        assert!(!arrives(&router, &tagged(&[0, 0]), SHORT));
        assert_eq!(live.enforcement.failures().packets_unreadable, 1);
        drop(live);
        // where no layer of packets looks, nothing is held back
        let _live = under(LayerId::INBOUND_MAC_FRAME_ETHERNET, Action::Permit).unwrap();
        assert!(arrives(&router, &tagged(&[0, 0]), LONG));
    });
}

#[test]
fn sixteen_extension_headers_are_followed() {
    alone(|| {
        let router = Router::make();
        let chained = |count| datagram_v6(count, 4000);
        for count in [0, 1, 16, 17] {
            assert!(arrives(&router, &chained(count), LONG), "{count}, without a policy");
        }
        let Some(live) = under(LayerId::INBOUND_TRANSPORT_V6, Action::Permit) else { return };
        for count in [0, 1, 16] {
            assert!(arrives(&router, &chained(count), LONG), "{count}");
        }
        assert_eq!(live.enforcement.failures().packets_unreadable, 0);
        assert!(!arrives(&router, &chained(17), SHORT));
        assert_eq!(live.enforcement.failures().packets_unreadable, 1);
        drop(live);
        // of the other version alone
        let _live = under(LayerId::INBOUND_TRANSPORT_V4, Action::Permit).unwrap();
        assert!(arrives(&router, &chained(17), LONG));
    });
}

/// A packet whose transport header is cut meets the layers of IP packets, and is dropped where layers of transport look.
#[test]
fn a_cut_transport_header_is_no_matter_of_ip_packets() {
    alone(|| {
        let router = Router::make();
        let mut cut = datagram([10, 9, 1, 2], 4000);
        // three bytes of the ports
        cut.truncate(14 + 20 + 3);
        repair(&mut cut);
        for (layer, unreadable) in [(LayerId::INBOUND_IPPACKET_V4, 0), (LayerId::INBOUND_TRANSPORT_V4, 1)] {
            let Some(live) = under(layer, Action::Permit) else { return };
            router.client_tap.send(&cut);
            assert!(arrives(&router, &datagram([10, 9, 1, 2], 4000), LONG));
            assert_eq!(live.enforcement.failures().packets_unreadable, unreadable, "{layer}");
            let totals = live.enforcement.totals().unwrap();
            let met = totals.iter().find(|totals| totals.layer == layer).unwrap();
            assert_eq!((met.permitted, met.blocked), (2 - unreadable, 0), "{layer}");
        }
    });
}
