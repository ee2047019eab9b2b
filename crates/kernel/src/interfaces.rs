//! Network interfaces and addresses of the caller's network namespace, as incoming values name them.
//!
//! An interface that appears is unknown to the programs (unreadable) until [`write`] is called again. In another
//! network namespace indexes and addresses mean others; to its sockets, interfaces are unknown.

use crate::{
    links::{self, Link},
    load::LoadError,
    records::Record,
};
use aya::{
    Ebpf,
    maps::{HashMap, MapError},
};
use openwfp_abi::flow::Interface;
use std::{
    collections::HashMap as StdHashMap,
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
};

/// The interfaces of the caller's network namespace.
pub(crate) fn of_namespace() -> Result<Vec<Link>, LoadError> {
    links::links().map_err(|source| LoadError::System { what: "cannot list network interfaces", source })
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

/// What came of writing the maps of interfaces and addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    /// How many did not fit.
    pub refused: usize,
    /// Whether something else stands there than before.
    pub changed: bool,
}

/// Brings the maps of interfaces and addresses up to date; the interfaces are these.
pub(crate) fn write(ebpf: &mut Ebpf, links: &[Link]) -> Result<Written, LoadError> {
    let system = |source| LoadError::System { what: "cannot list network interfaces", source };
    let entry = |link: &Link| {
        let (kind, tunnel) = link.kind();
        (link.index, Interface::new(link.index, kind, tunnel, link.address))
    };
    let interfaces: StdHashMap<u32, Interface> = links.iter().map(entry).collect();
    let addresses: StdHashMap<[u32; 4], u32> =
        links::addresses().map_err(system)?.into_iter().map(|(address, index)| (words(address), index)).collect();

    let name = "INTERFACES";
    let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
    let map = ebpf.map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = HashMap::<_, u32, Record<Interface>>::try_from(map).map_err(failed)?;
    let gone: Vec<u32> = map.keys().filter_map(Result::ok).filter(|index| !interfaces.contains_key(index)).collect();
    gone.iter().for_each(|index| drop(map.remove(index)));
    let mut written = Written { refused: 0, changed: !gone.is_empty() };
    for (index, interface) in &interfaces {
        if map.get(index, 0).is_ok_and(|Record(before)| before == *interface) {
            continue;
        }
        match map.insert(index, Record(*interface), 0) {
            Ok(()) => written.changed = true,
            Err(_) => written.refused += 1,
        }
    }

    let name = "ADDRESSES";
    let failed = |source: MapError| LoadError::Map { name, source: Box::new(source) };
    let map = ebpf.map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = HashMap::<_, [u32; 4], u32>::try_from(map).map_err(failed)?;
    let gone: Vec<[u32; 4]> =
        map.keys().filter_map(Result::ok).filter(|address| !addresses.contains_key(address)).collect();
    gone.iter().for_each(|address| drop(map.remove(address)));
    written.changed |= !gone.is_empty();
    for (address, index) in &addresses {
        if map.get(address, 0).is_ok_and(|before| before == *index) {
            continue;
        }
        match map.insert(address, index, 0) {
            Ok(()) => written.changed = true,
            Err(_) => written.refused += 1,
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn an_address_stands_in_four_words() {
        assert_eq!(words(Ipv4Addr::LOCALHOST.into()), [0x7f00_0001, 0, 0, 0]);
        assert_eq!(words(Ipv6Addr::LOCALHOST.into()), [0, 0, 0, 1]);
    }
}
