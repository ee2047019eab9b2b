//! ALE_RESOURCE_ASSIGNMENT: a local endpoint is asked for, by `bind()` or by a call that needs one.

use crate::{
    address::Address,
    layers::{BIND_REDIRECT, IS_IMPLICIT_BIND, IS_LOOPBACK, IS_WILDCARD_BIND, RESOURCE_ASSIGNMENT, RESOURCE_RELEASE},
    report::About,
    storage::bits,
    work::{self, Outcome, Work},
};
use openwfp_abi::flow::{ASSIGNED, Endpoint};
use openwfp_engine::words;

/// A local endpoint that is asked for.
#[repr(C)]
pub struct Local {
    pub address: Address,
    /// 0: the kernel chooses one later.
    pub port: u32,
    pub protocol: u32,
    /// The interface that the socket is bound to; 0: none.
    pub device: u32,
    /// Flags beyond those that follow from the address.
    pub flags: u32,
    pub spare: u32,
}

impl Local {
    /// What a socket gets that connects, sends or listens without having been bound.
    #[inline(always)]
    pub fn implicit(address: Address, port: u32, protocol: u32, device: u32) -> Self {
        Self { address, port, protocol, device, flags: IS_IMPLICIT_BIND, spare: 0 }
    }
}

/// ALE_RESOURCE_ASSIGNMENT, and before it ALE_BIND_REDIRECT of what has no `bind()`, with the identity in `work`.
#[inline(always)]
pub fn assigned(work: &mut Work, endpoint: *mut Endpoint, local: &Local, cookie: u64) -> Outcome {
    // SAFETY: memory that is claimed, a valid map value, and our own.
    Outcome::of_number(unsafe { assign_resource(work, endpoint, local, cookie) })
}

/// [`assigned`], verified once.
///
/// # Safety
/// `work` is claimed memory; the others are valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn assign_resource(
    work: *mut Work,
    endpoint: *mut Endpoint,
    local: *const Local,
    cookie: u64,
) -> u32 {
    if work.is_null() || endpoint.is_null() || local.is_null() {
        return work::CLOSED.number();
    }
    // SAFETY: the caller's.
    let (work, local, namespace) = unsafe { (&mut *work, &*local, (*endpoint).compartment) };
    work.write_identity();
    write_endpoint(work, local.address, local.port, local.device, namespace);
    work.values.set(words::IP_PROTOCOL, local.protocol);
    let flags = work.values.get(words::FLAGS) as u32 | local.flags;
    work.values.set(words::FLAGS, flags);
    let v6 = local.address.is_v6();
    if local.flags & IS_IMPLICIT_BIND != 0 {
        let outcome = work.decide(&About { layer: BIND_REDIRECT.of(v6), socket: cookie, flow: 0, flags: 0 });
        if outcome != Outcome::Permitted {
            return outcome.number();
        }
    }
    let outcome = work.decide(&About { layer: RESOURCE_ASSIGNMENT.of(v6), socket: cookie, flow: 0, flags: 0 });
    if outcome == Outcome::Permitted {
        // SAFETY: a valid map value.
        unsafe { bits::set(&raw mut (*endpoint).flags, ASSIGNED) };
    }
    outcome.number()
}

/// Whether sockets that were not bound have to be asked for.
#[inline(always)]
pub fn asks_implicit(work: &Work, v6: bool) -> bool {
    [BIND_REDIRECT, RESOURCE_ASSIGNMENT, RESOURCE_RELEASE].into_iter().any(|layers| work.is_active(layers.of(v6)))
}

/// The values of a local endpoint.
#[inline(always)]
pub fn write_endpoint(work: &mut Work, address: Address, port: u32, device: u32, namespace: u64) {
    address.write(work, words::IP_LOCAL_ADDRESS);
    work.values.set(words::IP_LOCAL_PORT, port);
    let mut flags = 0;
    if address.is_unspecified() {
        flags |= IS_WILDCARD_BIND;
    } else {
        work.values.set(words::IP_LOCAL_ADDRESS_TYPE, address.kind());
        if address.is_loopback() {
            flags |= IS_LOOPBACK;
        }
    }
    work.values.set(words::FLAGS, flags);
    work.write_compartment(namespace);
    if device != 0 {
        work.write_interface(words::INTERFACE_INDEX, device, namespace);
    } else if !address.is_unspecified() {
        address.write_interface(work, namespace);
    }
}
