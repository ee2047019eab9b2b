//! The runtime ids of the layers that the programs classify at, and the flags and reasons that they fill in.

/// A layer for each version of IP.
#[derive(Clone, Copy)]
pub struct Layers {
    v4: u16,
    v6: u16,
}

impl Layers {
    /// The layer for a version.
    #[inline(always)]
    pub fn of(self, v6: bool) -> u16 {
        if v6 { self.v6 } else { self.v4 }
    }
}

pub const INBOUND_IPPACKET: Layers = Layers { v4: 0, v6: 2 };
pub const OUTBOUND_IPPACKET: Layers = Layers { v4: 4, v6: 6 };
pub const INBOUND_TRANSPORT: Layers = Layers { v4: 12, v6: 14 };
pub const OUTBOUND_TRANSPORT: Layers = Layers { v4: 16, v6: 18 };
pub const DATAGRAM_DATA: Layers = Layers { v4: 24, v6: 26 };
pub const INBOUND_ICMP_ERROR: Layers = Layers { v4: 28, v6: 30 };
pub const OUTBOUND_ICMP_ERROR: Layers = Layers { v4: 32, v6: 34 };
pub const RESOURCE_ASSIGNMENT: Layers = Layers { v4: 36, v6: 38 };
pub const AUTH_LISTEN: Layers = Layers { v4: 40, v6: 42 };
pub const AUTH_RECV_ACCEPT: Layers = Layers { v4: 44, v6: 46 };
pub const AUTH_CONNECT: Layers = Layers { v4: 48, v6: 50 };
pub const FLOW_ESTABLISHED: Layers = Layers { v4: 52, v6: 54 };
pub const RESOURCE_RELEASE: Layers = Layers { v4: 62, v6: 63 };
pub const ENDPOINT_CLOSURE: Layers = Layers { v4: 64, v6: 65 };
pub const CONNECT_REDIRECT: Layers = Layers { v4: 66, v6: 67 };
pub const BIND_REDIRECT: Layers = Layers { v4: 68, v6: 69 };
pub const STREAM_PACKET: Layers = Layers { v4: 70, v6: 71 };

pub const IPFORWARD: Layers = Layers { v4: 8, v6: 10 };

pub const INBOUND_MAC_FRAME_ETHERNET: u16 = 56;
pub const OUTBOUND_MAC_FRAME_ETHERNET: u16 = 57;

/// Words of both MAC layers alone: they follow from the order of the layers' fields.
pub mod mac {
    /// Two words, as for every MAC address: a number of 48 bits, the high word first.
    pub const INTERFACE_MAC_ADDRESS: usize = 40;
    pub const MAC_LOCAL_ADDRESS: usize = 42;
    pub const MAC_REMOTE_ADDRESS: usize = 44;
    pub const MAC_LOCAL_ADDRESS_TYPE: usize = 46;
    pub const MAC_REMOTE_ADDRESS_TYPE: usize = 47;
    pub const ETHER_TYPE: usize = 48;
    pub const VLAN_ID: usize = 49;
    pub const NDIS_PORT: usize = 50;
    pub const L2_FLAGS: usize = 51;
}

/// Words of IPFORWARD alone.
pub mod forward {
    /// Two words, as every LUID; the word that it has elsewhere is `IP_LOCAL_INTERFACE`, which this layer has too.
    pub const IP_FORWARD_INTERFACE: usize = 40;
}

/// Words of INBOUND_ICMP_ERROR alone. What follows the address stands further back where that has four words.
pub mod embedded {
    pub const EMBEDDED_PROTOCOL: usize = 40;
    pub const EMBEDDED_REMOTE_ADDRESS: usize = 41;

    /// `EMBEDDED_LOCAL_ADDRESS_TYPE`, then `EMBEDDED_LOCAL_PORT` and `EMBEDDED_REMOTE_PORT`.
    #[inline(always)]
    pub fn behind_address(v6: bool) -> usize {
        EMBEDDED_REMOTE_ADDRESS + if v6 { 4 } else { 1 }
    }
}

/// `FWP_CONDITION_L2_IS_NATIVE_ETHERNET`.
pub const IS_NATIVE_ETHERNET: u32 = 1;

/// Up to here every layer with an even id is followed by its _DISCARD layer.
const LAST_WITH_DISCARD: u16 = 54;

/// The layer at which is classified what a layer has blocked.
#[inline(always)]
pub fn discard(layer: u16) -> Option<u16> {
    if layer <= LAST_WITH_DISCARD && layer.is_multiple_of(2) { Some(layer + 1) } else { None }
}

/// Which layer authorizes a flow: as [`Flow::authorization`](openwfp_abi::flow::Flow::authorization) has it.
#[inline(always)]
pub fn authorization(inbound: bool, v6: bool) -> u32 {
    (inbound as u32) << 1 | v6 as u32
}

/// The layer of an authorization.
#[inline(always)]
pub fn authorizes(authorization: u32) -> u16 {
    let v6 = authorization & 1 != 0;
    if authorization & 2 != 0 { AUTH_RECV_ACCEPT.of(v6) } else { AUTH_CONNECT.of(v6) }
}

/// `FWP_CONDITION_FLAG_IS_LOOPBACK`.
pub const IS_LOOPBACK: u32 = 1;
/// `FWP_CONDITION_FLAG_IS_REAUTHORIZE`.
pub const IS_REAUTHORIZE: u32 = 4;
/// `FWP_CONDITION_FLAG_IS_WILDCARD_BIND`.
pub const IS_WILDCARD_BIND: u32 = 8;
/// `FWP_CONDITION_FLAG_IS_RAW_ENDPOINT`.
pub const IS_RAW_ENDPOINT: u32 = 16;
/// `FWP_CONDITION_FLAG_IS_FRAGMENT`.
pub const IS_FRAGMENT: u32 = 32;
/// `FWP_CONDITION_FLAG_REQUIRES_ALE_CLASSIFY`.
pub const REQUIRES_ALE_CLASSIFY: u32 = 256;
/// `FWP_CONDITION_FLAG_IS_IMPLICIT_BIND`.
pub const IS_IMPLICIT_BIND: u32 = 512;

/// `FWP_CONDITION_REAUTHORIZE_REASON_POLICY_CHANGE`.
pub const POLICY_CHANGE: u32 = 1;
/// `FWP_CONDITION_REAUTHORIZE_REASON_NEW_ARRIVAL_INTERFACE`.
pub const NEW_ARRIVAL_INTERFACE: u32 = 2;
/// `FWP_CONDITION_REAUTHORIZE_REASON_NEW_NEXTHOP_INTERFACE`.
pub const NEW_NEXTHOP_INTERFACE: u32 = 4;

/// `FWP_DIRECTION_OUTBOUND`.
pub const OUTBOUND: u32 = 0;
/// `FWP_DIRECTION_INBOUND`.
pub const INBOUND: u32 = 1;
