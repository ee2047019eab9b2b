//! Network interfaces and addresses of the caller's network namespace, as incoming values name them.
//!
//! An interface that appears later is unknown to the programs (unreadable) until [`write`] is called again. In another
//! network namespace indexes and addresses mean others; to its sockets, interfaces are unknown.

use crate::{load::LoadError, records::Record};
use aya::{
    Ebpf,
    maps::{HashMap, MapError},
};
use openwfp_abi::flow::Interface;
use std::{
    collections::HashMap as StdHashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    ptr,
};

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

/// IANA tunnelType: `direct` and `gre`.
mod tunnel {
    pub const NONE: u32 = 0;
    pub const DIRECT: u32 = 2;
    pub const GRE: u32 = 3;
}

/// The IANA ifType and tunnel type for a hardware type of Linux (`ARPHRD_*`, linux/if_arp.h).
pub fn kind_of(hardware: u32, wireless: bool) -> (u32, u32) {
    match hardware {
        1 if wireless => (kind::WIRELESS, tunnel::NONE),
        1 => (kind::ETHERNET, tunnel::NONE),
        24 => (kind::FIREWIRE, tunnel::NONE),
        32 => (kind::INFINIBAND, tunnel::NONE),
        512 => (kind::PPP, tunnel::NONE),
        768 | 769 | 776 => (kind::TUNNEL, tunnel::DIRECT),
        772 => (kind::LOOPBACK, tunnel::NONE),
        778 | 823 => (kind::TUNNEL, tunnel::GRE),
        801..=803 => (kind::WIRELESS, tunnel::NONE),
        // TUN devices, WireGuard
        65534 => (kind::TUNNEL, tunnel::DIRECT),
        _ => (kind::OTHER, tunnel::NONE),
    }
}

/// The interfaces, by index. One that goes away while it is looked at is passed over.
pub fn list() -> io::Result<Vec<(u32, Interface)>> {
    let number =
        |folder: &Path, name: &str| -> Option<u32> { fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok() };
    let mut all = vec![];
    for entry in fs::read_dir("/sys/class/net")? {
        let folder = entry?.path();
        let (Some(index), Some(hardware)) = (number(&folder, "ifindex"), number(&folder, "type")) else {
            continue;
        };
        let wireless = folder.join("phy80211").exists() || folder.join("wireless").exists();
        let (kind, tunnel) = kind_of(hardware, wireless);
        all.push((index, Interface::new(index, kind, tunnel)));
    }
    Ok(all)
}

/// The addresses of the interfaces, and the index of the interface that has each.
pub fn addresses() -> io::Result<Vec<(IpAddr, u32)>> {
    let mut first = ptr::null_mut();
    // SAFETY: the function writes a pointer to a list, which is given back below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut all = vec![];
    let mut next = first;
    // SAFETY: an entry of the list, which ends with null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: null, or the entry's address; its family says which kind.
        let Some(address) = (unsafe { entry.ifa_addr.as_ref() }) else { continue };
        // SAFETY: the entry's name. 0: the interface is gone.
        let index = unsafe { libc::if_nametoindex(entry.ifa_name) };
        match i32::from(address.sa_family) {
            libc::AF_INET => {
                // SAFETY: an address of this family.
                let address = unsafe { &*ptr::from_ref(address).cast::<libc::sockaddr_in>() };
                all.push((Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into(), index));
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let address = unsafe { &*ptr::from_ref(address).cast::<libc::sockaddr_in6>() };
                all.push((Ipv6Addr::from(address.sin6_addr.s6_addr).into(), index));
            }
            _ => {}
        }
    }
    // SAFETY: the list's beginning, given back once.
    unsafe { libc::freeifaddrs(first) };
    Ok(all)
}

/// The cookie of the network namespace that this thread is in: that of the interfaces and addresses.
pub(crate) fn namespace() -> Result<u64, LoadError> {
    let system = |source| LoadError::System { what: "cannot tell the network namespace", source };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .map_err(system)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: a socket of our own; the option is one number of this length (Linux 5.14).
    let result = unsafe {
        let place = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, place, &raw mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(system(io::Error::last_os_error())) }
}

/// The socket option that tells the namespace's cookie (asm-generic/socket.h).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// An address as the words of incoming values, IPv4 in the first.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [u32::from(address), 0, 0, 0],
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32]
        }
    }
}

/// Brings the maps of interfaces and addresses up to date; how many did not fit.
pub(crate) fn write(ebpf: &mut Ebpf) -> Result<usize, LoadError> {
    let system = |source| LoadError::System { what: "cannot list network interfaces", source };
    let interfaces: StdHashMap<u32, Interface> = list().map_err(system)?.into_iter().collect();
    let addresses: StdHashMap<[u32; 4], u32> =
        addresses().map_err(system)?.into_iter().map(|(address, index)| (words(address), index)).collect();

    let name = "INTERFACES";
    let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
    let map = ebpf.map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = HashMap::<_, u32, Record<Interface>>::try_from(map).map_err(failed)?;
    let gone: Vec<u32> = map.keys().filter_map(Result::ok).filter(|index| !interfaces.contains_key(index)).collect();
    gone.iter().for_each(|index| drop(map.remove(index)));
    let mut refused = 0;
    for (index, interface) in &interfaces {
        refused += usize::from(map.insert(index, Record(*interface), 0).is_err());
    }

    let name = "ADDRESSES";
    let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
    let map = ebpf.map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = HashMap::<_, [u32; 4], u32>::try_from(map).map_err(failed)?;
    let gone: Vec<[u32; 4]> =
        map.keys().filter_map(Result::ok).filter(|address| !addresses.contains_key(address)).collect();
    gone.iter().for_each(|address| drop(map.remove(address)));
    for (address, index) in &addresses {
        refused += usize::from(map.insert(address, index, 0).is_err());
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_types_become_the_public_numbers() {
        let table = [
            (772, false, (24, 0)),
            (1, false, (6, 0)),
            (1, true, (71, 0)),
            (512, false, (23, 0)),
            (778, false, (131, 3)),
            (65534, false, (131, 2)),
            (4711, false, (1, 0)),
        ];
        for (hardware, wireless, expected) in table {
            assert_eq!(kind_of(hardware, wireless), expected, "ARPHRD {hardware}");
        }
    }

    #[test]
    fn an_address_stands_in_four_words() {
        assert_eq!(words(Ipv4Addr::LOCALHOST.into()), [0x7f00_0001, 0, 0, 0]);
        assert_eq!(words(Ipv6Addr::LOCALHOST.into()), [0, 0, 0, 1]);
    }
}
