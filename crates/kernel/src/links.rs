//! The network interfaces and addresses of the caller's network namespace, as the kernel lists them (rtnetlink(7)).
//!
//! /sys/class/net is of no use: it shows the namespace from which it was mounted, and an index means another interface there.

use crate::netlink::{self, Socket};
use std::{collections::HashSet, io, net::IpAddr};

/// IANA ifType: `other`, `ethernetCsmacd`, `ppp`, `softwareLoopback`, `ieee80211`, `tunnel`, `ieee1394`, `infiniband`.
mod kind {
    pub const OTHER: u32 = 1;
    pub const ETHERNET: u32 = 6;
    pub const PPP: u32 = 23;
    pub const LOOPBACK: u32 = 24;
    pub const WIRELESS: u32 = 71;
    pub const TUNNEL: u32 = 131;
    pub const FIREWIRE: u32 = 144;
    pub const INFINIBAND: u32 = 199;
}

/// IANA tunnelType: `direct`, `gre` and `udp`.
mod tunnel {
    pub const NONE: u32 = 0;
    pub const DIRECT: u32 = 2;
    pub const GRE: u32 = 3;
    pub const UDP: u32 = 8;
}

/// What Linux says of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// Its MAC address, as a number of 48 bits; 0: it has none of six bytes.
    pub address: u64,
    /// Its hardware type (`ARPHRD_*`, linux/if_arp.h).
    pub hardware: u16,
    /// The name of its driver's kind (`ip link add type …`), such as `wireguard`; empty where it has none.
    pub driver: String,
    /// Whether it is a wireless one.
    pub wireless: bool,
    /// The longest packet that it takes, in bytes from the IP header on; 0: it does not say.
    pub mtu: u32,
}

impl Link {
    /// The IANA ifType and tunnel type.
    ///
    /// The type is that of the link layer: what tunnels Ethernet frames (VXLAN, GRETAP, TAP) is Ethernet.
    pub fn kind(&self) -> (u32, u32) {
        match self.hardware {
            1 if self.wireless => (kind::WIRELESS, tunnel::NONE),
            1 => (kind::ETHERNET, tunnel::NONE),
            24 => (kind::FIREWIRE, tunnel::NONE),
            32 => (kind::INFINIBAND, tunnel::NONE),
            512 => (kind::PPP, tunnel::NONE),
            768 | 769 | 776 => (kind::TUNNEL, tunnel::DIRECT),
            772 => (kind::LOOPBACK, tunnel::NONE),
            778 | 823 => (kind::TUNNEL, tunnel::GRE),
            801..=803 => (kind::WIRELESS, tunnel::NONE),
            65534 if ["wireguard", "ovpn", "bareudp", "gtp"].contains(&&*self.driver) => (kind::TUNNEL, tunnel::UDP),
            // TUN devices, XFRM interfaces
            65534 => (kind::TUNNEL, tunnel::DIRECT),
            _ => (kind::OTHER, tunnel::NONE),
        }
    }
}

/// rtnetlink(7).
mod route {
    /// `IFLA_ADDRESS`, `IFLA_IFNAME`.
    pub const ADDRESS: u16 = 1;
    pub const NAME: u16 = 3;
    /// `IFLA_MTU`.
    pub const MTU: u16 = 4;
    /// `IFLA_LINKINFO`, and `IFLA_INFO_KIND` in it.
    pub const LINK_INFO: u16 = 18;
    pub const INFO_KIND: u16 = 1;
    /// `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`: no counters.
    pub const EXTENSIONS: u16 = 29;
    pub const SKIP_STATISTICS: u32 = 8;
    /// `struct ifinfomsg`: family, padding, hardware type, index, flags, changed flags.
    pub const LINK_HEADER: usize = 16;
    /// `struct ifaddrmsg`: family, prefix, flags, scope, index.
    pub const ADDRESS_HEADER: usize = 8;
}

/// nl80211, a family of generic netlink.
mod wireless {
    /// `GENL_ID_CTRL`, and its `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`, `CTRL_ATTR_FAMILY_ID`.
    pub const CONTROLLER: u16 = 16;
    pub const GET_FAMILY: u8 = 3;
    pub const FAMILY_NAME: u16 = 2;
    pub const FAMILY_ID: u16 = 1;
    /// `NL80211_CMD_GET_INTERFACE`, `NL80211_ATTR_IFINDEX`.
    pub const GET_INTERFACE: u8 = 5;
    pub const INDEX: u16 = 3;
    /// `struct genlmsghdr`: command, version, reserved.
    pub const HEADER: usize = 4;
}

/// The indexes of the wireless interfaces; none where the kernel knows no wireless ones.
fn wireless() -> io::Result<HashSet<u32>> {
    let socket = match Socket::open(libc::NETLINK_GENERIC) {
        Ok(socket) => socket,
        // a kernel without generic netlink
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let name = netlink::to_attribute(wireless::FAMILY_NAME, b"nl80211\0");
    let family = match socket.get(wireless::CONTROLLER, &[&[wireless::GET_FAMILY, 1, 0, 0][..], &name].concat()) {
        Ok(family) => family,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let value = |body: &[u8], wanted| netlink::attribute(body.get(wireless::HEADER..)?, wanted).map(<[u8]>::to_vec);
    let Some(family) = value(&family, wireless::FAMILY_ID).and_then(|id| netlink::u16_at(&id, 0)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let all = socket.dump(family, &[wireless::GET_INTERFACE, 0, 0, 0])?;
    Ok(all.iter().filter_map(|(_, body)| netlink::u32_at(&value(body, wireless::INDEX)?, 0)).collect())
}

/// The interfaces of the caller's network namespace.
pub fn links() -> io::Result<Vec<Link>> {
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let skip = netlink::to_attribute(route::EXTENSIONS, &route::SKIP_STATISTICS.to_ne_bytes());
    let wireless = wireless()?;
    let link = |body: &[u8]| {
        let hardware = netlink::u16_at(body, 2)?;
        let index = netlink::u32_at(body, 4)?;
        let attributes = body.get(route::LINK_HEADER..)?;
        let bytes = |from, wanted| netlink::attribute(from, wanted).unwrap_or_default();
        let text = |from, wanted| String::from_utf8_lossy(bytes(from, wanted)).trim_end_matches('\0').to_owned();
        let address = bytes(attributes, route::ADDRESS);
        let number = || address.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        Some(Link {
            index,
            name: text(attributes, route::NAME),
            address: if address.len() == 6 { number() } else { 0 },
            hardware,
            driver: text(bytes(attributes, route::LINK_INFO), route::INFO_KIND),
            wireless: wireless.contains(&index),
            mtu: netlink::u32_at(bytes(attributes, route::MTU), 0).unwrap_or(0),
        })
    };
    let all = socket.dump(libc::RTM_GETLINK, &[&[0; route::LINK_HEADER][..], &skip].concat())?;
    Ok(all.iter().filter(|(kind, _)| *kind == libc::RTM_NEWLINK).filter_map(|(_, body)| link(body)).collect())
}

/// The addresses of the caller's network namespace, each with the index of its interface.
pub fn addresses() -> io::Result<Vec<(IpAddr, u32)>> {
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let address = |body: &[u8]| {
        let attributes = body.get(route::ADDRESS_HEADER..)?;
        // of a point-to-point link, IFA_ADDRESS is the other end
        let local = netlink::attribute(attributes, libc::IFA_LOCAL);
        let bytes = local.or_else(|| netlink::attribute(attributes, libc::IFA_ADDRESS))?;
        let address = match i32::from(*body.first()?) {
            libc::AF_INET => bytes.first_chunk().map(|bytes: &[u8; 4]| IpAddr::from(*bytes)),
            libc::AF_INET6 => bytes.first_chunk().map(|bytes: &[u8; 16]| IpAddr::from(*bytes)),
            _ => None,
        };
        Some((address?, netlink::u32_at(body, 4)?))
    };
    let all = socket.dump(libc::RTM_GETADDR, &[0; route::ADDRESS_HEADER])?;
    Ok(all.iter().filter(|(kind, _)| *kind == libc::RTM_NEWADDR).filter_map(|(_, body)| address(body)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, net::Ipv6Addr, process::Command, thread};

    #[test]
    fn hardware_types_become_the_public_numbers() {
        let table = [
            (772, "", false, (24, 0)),
            (1, "", false, (6, 0)),
            (1, "", true, (71, 0)),
            (1, "vxlan", false, (6, 0)),
            (512, "", false, (23, 0)),
            (778, "gre", false, (131, 3)),
            (65534, "tun", false, (131, 2)),
            (65534, "wireguard", false, (131, 8)),
            (4711, "", false, (1, 0)),
        ];
        for (hardware, driver, wireless, expected) in table {
            let link = Link { index: 1, hardware, driver: driver.to_owned(), wireless, ..Link::default() };
            assert_eq!(link.kind(), expected, "{link:?}");
        }
    }

    #[test]
    fn the_loopback_interface_is_listed() {
        let links = links().unwrap();
        assert!(links.iter().any(|link| link.hardware == 772), "{links:?}");
        let mut indexes: Vec<u32> = links.iter().map(|link| link.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        assert_eq!(indexes.len(), links.len());
    }

    /// Where root may make network namespaces: the interfaces are those of the thread's own, whatever /sys shows.
    #[test]
    fn interfaces_are_those_of_the_caller_s_network_namespace() {
        let in_another = || {
            // SAFETY: only this thread moves, and it ends here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return crate::skips::skipped(io::Error::last_os_error());
            }
            let links_at_first = links().unwrap();
            let ip =
                |arguments: &str| Command::new("ip").args(arguments.split(' ')).status().is_ok_and(|s| s.success());
            if !(ip("link set lo up") && ip("address add 192.0.2.7 peer 192.0.2.8 dev lo")) {
                return crate::skips::skipped("no ip(8)");
            }
            let loopback = links_at_first.iter().find(|link| link.hardware == 772).unwrap().index;
            let (found, of): (Vec<IpAddr>, Vec<u32>) = addresses().unwrap().into_iter().unzip();
            assert!(of.iter().all(|index| *index == loopback), "{of:?}");
            assert!(found.contains(&Ipv4Addr::LOCALHOST.into()) && found.contains(&Ipv6Addr::LOCALHOST.into()));
            assert!(found.contains(&Ipv4Addr::new(192, 0, 2, 7).into()), "{found:?}");
            assert!(!found.contains(&Ipv4Addr::new(192, 0, 2, 8).into()), "the other end is not ours: {found:?}");
            assert_eq!(found.len(), 3, "{found:?}");
            // tun(4) needs its device; the others are in most kernels
            for (make, driver, kind) in [
                ("tuntap add mode tun name t1", "tun", (131, 2)),
                ("tuntap add mode tap name t2", "tun", (6, 0)),
                ("link add t3 type bridge", "bridge", (6, 0)),
                ("link add t4 type wireguard", "wireguard", (131, 8)),
            ] {
                if !ip(make) {
                    crate::skips::kernel_lacks(format_args!("what `ip {make}` makes"));
                    continue;
                }
                let link = links().unwrap().into_iter().max_by_key(|link| link.index).unwrap();
                assert_eq!((&*link.driver, link.kind()), (driver, kind), "{make}");
            }
            assert!(!links_at_first.iter().any(|link| link.hardware == 1), "{links_at_first:?}");
        };
        thread::spawn(in_another).join().unwrap();
    }
}
