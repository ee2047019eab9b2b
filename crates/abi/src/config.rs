//! What the programs are to do, in the one entry of the `CONFIG` map.

/// Block nothing; decide and report as if.
pub const DRY_RUN: u64 = 1;
/// The policy has changed: authorized flows are to be looked at.
pub const CHANGED: u64 = 1 << 1;
/// Connects may have been left to their first packet.
pub const LATE: u64 = 1 << 2;
/// Established flows may have been refused: look at every packet's socket.
pub const REFUSED_FLOWS: u64 = 1 << 3;
/// A socket must not accept before its listen was permitted: the policy has filters at AUTH_LISTEN, or needs memory with
/// each accepted socket, which comes from the listening one.
pub const LISTEN_FILTERS: u64 = 1 << 4;

/// Packets meet layers of their own.
pub const PACKET_LAYERS: u64 = 1 << 5;
/// Packets of TCP that leave meet layers of their own, those that arrive; packets of UDP likewise. Whatever meets none of them, and
/// opens nothing, is let through before it is looked at.
pub const TCP_LEAVES: u64 = 1 << 14;
/// See [`TCP_LEAVES`].
pub const TCP_ARRIVES: u64 = 1 << 15;
/// See [`TCP_LEAVES`].
pub const UDP_LEAVES: u64 = 1 << 16;
/// See [`TCP_LEAVES`].
pub const UDP_ARRIVES: u64 = 1 << 17;
/// IP packets and transport layers are met at the devices of the network namespace, not at sockets.
pub const AT_DEVICES: u64 = 1 << 7;
/// Filters that authorize look at the local address or port: flows of datagrams that differ there are different flows.
pub const BY_LOCAL: u64 = 1 << 8;
/// Filters that authorize look at interfaces: likewise.
pub const BY_INTERFACE: u64 = 1 << 9;
/// What comes in is authorized: datagrams that leave keep their flows, so that the answers belong to them.
pub const INBOUND_ASKED: u64 = 1 << 10;
/// The policy names callouts to which packets go.
pub const DIVERTS: u64 = 1 << 13;
/// Nobody asks who connected, nor will: a TCP connect that is permitted at once leaves nothing with its socket, which costs
/// more than all the rest of an authorization.
pub const FORGETS: u64 = 1 << 11;
/// There were connections of which nothing was kept. One of which nothing is known is one of them: where its endpoint was bound by
/// another socket it was accepted, else it was a connect.
pub const FORGOTTEN: u64 = 1 << 12;
/// The ends of flows are to be reported.
pub const FLOWS_RECORDED: u64 = 1 << 6;

/// How many layers can be switched on and off for recording.
pub const LAYERS: usize = 128;

/// The settings that can change while the programs are attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where the image begins in the `CELLS` map (low 32 bits), and its generation (high 32 bits): one word, so that a
    /// program reads both at once.
    pub image: u64,
    /// Bits such as [`DRY_RUN`].
    pub flags: u64,
    /// A bit for each layer, by its runtime id: classifications there are reported as events.
    pub recorded: [u64; LAYERS / 64],
    /// A bit for each layer that has filters or is recorded. At the others everything is permitted.
    pub active: [u64; LAYERS / 64],
    /// A bit for each word of the values that a filter at a layer of packets or frames tests, each bit where one of those
    /// layers is recorded: the others need not be found out for a packet that only meets such layers.
    pub packet_words: u64,
    /// The same for the filters at the ALE layers: what is not looked at need not be found out for a call.
    pub call_words: u64,
    /// The cookie of the network namespace whose interfaces and addresses the programs know.
    pub namespace: u64,
    /// For each of [`AUTHORIZATIONS`]: the generation in which the filters there changed last. Flows that were authorized
    /// before have to be authorized again.
    pub changed: [u32; AUTHORIZATIONS],
    /// When that was, in nanoseconds of the monotonic clock; 0: never.
    pub changed_at: [u64; AUTHORIZATIONS],
    /// How often the interfaces or addresses have changed. Flows that were authorized under another number have to be
    /// authorized again.
    pub network: u32,
    /// Always 0.
    pub spare: u32,
    /// When they changed last, in nanoseconds of the monotonic clock; 0: never.
    pub network_at: u64,
}

/// The layers that authorize flows: AUTH_CONNECT of IPv4 and IPv6, AUTH_RECV_ACCEPT of both.
pub const AUTHORIZATIONS: usize = 4;

impl Config {
    /// The word for an image at `base`.
    #[must_use]
    pub const fn image_word(base: u32, generation: u32) -> u64 {
        base as u64 | (generation as u64) << 32
    }

    /// Switches recording of a layer on.
    pub const fn record(&mut self, layer: u16) {
        self.recorded[layer as usize / 64 % (LAYERS / 64)] |= 1 << (layer % 64);
        self.activate(layer);
    }

    /// Lets the programs classify at a layer.
    pub const fn activate(&mut self, layer: u16) {
        self.active[layer as usize / 64 % (LAYERS / 64)] |= 1 << (layer % 64);
    }
}

/// What happened at a layer so far, in the `TOTALS` map, for each CPU and layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that were permitted.
    pub permitted: u64,
    /// Events that were blocked.
    pub blocked: u64,
}
