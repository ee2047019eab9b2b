//! The runtime ids of the layers that the programs classify at.

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

pub const RESOURCE_ASSIGNMENT: Layers = Layers { v4: 36, v6: 38 };
pub const AUTH_LISTEN: Layers = Layers { v4: 40, v6: 42 };
pub const AUTH_RECV_ACCEPT: Layers = Layers { v4: 44, v6: 46 };
pub const AUTH_CONNECT: Layers = Layers { v4: 48, v6: 50 };
pub const FLOW_ESTABLISHED: Layers = Layers { v4: 52, v6: 54 };

/// `FWP_CONDITION_FLAG_IS_LOOPBACK`.
pub const IS_LOOPBACK: u32 = 1;
/// `FWP_CONDITION_FLAG_IS_WILDCARD_BIND`.
pub const IS_WILDCARD_BIND: u32 = 8;
/// `FWP_CONDITION_FLAG_IS_RAW_ENDPOINT`.
pub const IS_RAW_ENDPOINT: u32 = 16;

/// `FWP_DIRECTION_OUTBOUND`.
pub const OUTBOUND: u32 = 0;
/// `FWP_DIRECTION_INBOUND`.
pub const INBOUND: u32 = 1;

/// Words of AUTH_RECV_ACCEPT alone, the same for both versions of IP: they follow from the order of the layer's fields.
pub mod recv_accept {
    /// `IP_ARRIVAL_INTERFACE`: a LUID, high word first.
    pub const IP_ARRIVAL_INTERFACE: usize = 32;
    /// `ARRIVAL_INTERFACE_TYPE`.
    pub const ARRIVAL_INTERFACE_TYPE: usize = 34;
    /// `ARRIVAL_TUNNEL_TYPE`.
    pub const ARRIVAL_TUNNEL_TYPE: usize = 35;
    /// `ARRIVAL_INTERFACE_INDEX`.
    pub const ARRIVAL_INTERFACE_INDEX: usize = 36;
}
