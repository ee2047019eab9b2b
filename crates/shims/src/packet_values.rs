//! The incoming values of a packet.

use crate::{
    address::LOOPBACK_INTERFACE,
    header::Header,
    kept::Kept,
    layers::{IS_FRAGMENT, IS_LOOPBACK, IS_RAW_ENDPOINT},
    work::{OF_INTERFACES, Work, bit},
};
use openwfp_abi::flow::RAW;
use openwfp_engine::words;

/// The packet arrives.
const ARRIVES: u32 = 1;
/// It arrives in a frame that was sent to everybody.
const ARRIVES_FOR_ALL: u32 = 2;

/// Which way a packet goes, for [`write_packet`].
#[inline(always)]
pub fn way(inbound: bool, packet_type: u32) -> u32 {
    const PACKET_BROADCAST: u32 = 1;
    match inbound {
        true if packet_type == PACKET_BROADCAST => ARRIVES | ARRIVES_FOR_ALL,
        true => ARRIVES,
        false => 0,
    }
}

/// The incoming values of a packet, with the owner's identity in `work`; its [`way`]. Verified once.
///
/// # Safety
/// `work` is claimed memory; the others are valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn write_packet(
    work: *mut Work,
    header: *const Header,
    kept: *const Kept,
    interface: u32,
    way: u32,
) -> u32 {
    if work.is_null() || header.is_null() || kept.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let (work, header, kept) = unsafe { (&mut *work, &*header, &*kept) };
    let inbound = way & ARRIVES != 0;
    let (local, remote) = match inbound {
        true => (header.destination, header.source),
        false => (header.source, header.destination),
    };
    work.clear();
    work.kept = kept.flags;
    work.compartment = kept.compartment;
    work.write_identity();
    work.values.set(words::IP_PROTOCOL, header.protocol as u32);
    local.write(work, words::IP_LOCAL_ADDRESS);
    remote.write(work, words::IP_REMOTE_ADDRESS);
    let destination = header.destination.kind_in_frame(way & ARRIVES_FOR_ALL != 0);
    work.values.set(words::IP_LOCAL_ADDRESS_TYPE, if inbound { destination } else { local.kind() });
    work.values.set(words::IP_DESTINATION_ADDRESS_TYPE, destination);
    header.write_ports(work, inbound);
    if work.asks(OF_INTERFACES) {
        work.write_interface(words::INTERFACE_INDEX, interface, kept.compartment);
        work.values.copy(words::INTERFACE_INDEX, words::SUB_INTERFACE_INDEX);
        if inbound {
            work.copy_interface(words::INTERFACE_INDEX, words::ARRIVAL_INTERFACE_INDEX);
        } else {
            work.copy_interface(words::INTERFACE_INDEX, words::NEXTHOP_INTERFACE_INDEX);
            work.values.copy(words::INTERFACE_INDEX, words::NEXTHOP_SUB_INTERFACE_INDEX);
        }
    }
    let mut flags = 0;
    let ask_flags = work.asks(bit(words::FLAGS));
    if interface == LOOPBACK_INTERFACE || ask_flags && remote.is_local(work, kept.compartment) {
        flags |= IS_LOOPBACK;
    }
    if kept.flags & RAW != 0 {
        flags |= IS_RAW_ENDPOINT;
    }
    // for INBOUND_IPPACKET, which comes first; no other layer has the flag
    if inbound && header.fragment {
        flags |= IS_FRAGMENT;
    }
    work.values.set(words::FLAGS, flags);
    work.values.set(words::REAUTHORIZE_REASON, 0);
    work.write_compartment(kept.compartment);
    1
}
