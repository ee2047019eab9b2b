//! Injection: packets and stream data that callouts bring in.

use openwfp_packet::flow::Direction;

use crate::FlowHandle;

/// Where something is injected. It is classified from there on, by every filter, that of the injecting callout included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InjectionPoint {
    /// As if an endpoint had sent it: from DATAGRAM_DATA on, and for TCP from OUTBOUND_TRANSPORT on (`FwpsInjectTransportSendAsync`).
    TransportSend,
    /// As if the network layer had received it: from INBOUND_TRANSPORT on (`FwpsInjectTransportReceiveAsync`).
    TransportReceive,
    /// From OUTBOUND_IPPACKET on (`FwpsInjectNetworkSendAsync`).
    NetworkSend,
    /// From INBOUND_IPPACKET on (`FwpsInjectNetworkReceiveAsync`).
    NetworkReceive,
    /// From IPFORWARD on, on its way out (`FwpsInjectForwardAsync`).
    Forward,
    /// A frame, at OUTBOUND_MAC_FRAME_ETHERNET (`FwpsInjectMacSendAsync`).
    MacSend,
    /// A frame, from INBOUND_MAC_FRAME_ETHERNET on (`FwpsInjectMacReceiveAsync`).
    MacReceive,
    /// Data into a stream, after what has been decided so far of this direction (`FwpsStreamInjectAsync`).
    Stream {
        /// The connection.
        flow: FlowHandle,
        /// Which way.
        direction: Direction,
    },
}

/// Something to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injection {
    /// Where.
    pub point: InjectionPoint,
    /// A whole IP packet; a frame at the MAC points; bytes of a stream. Lengths and checksums of IP, TCP, UDP and ICMP are mended.
    pub data: Vec<u8>,
    /// By which interface; the one that the routes give without.
    pub interface: Option<u32>,
    /// Who injected before what this was made of.
    pub history: InjectionHistory,
}

impl Injection {
    /// To be injected there.
    #[must_use]
    pub fn new(point: InjectionPoint, data: Vec<u8>) -> Self {
        Self { point, data, interface: None, history: InjectionHistory::default() }
    }

    /// The same by an interface.
    #[must_use]
    pub fn by_interface(mut self, interface: u32) -> Self {
        self.interface = Some(interface);
        self
    }

    /// The same as a clone, changed or not, of something with that history: whoever injected that will recognise it.
    #[must_use]
    pub fn cloned_from(mut self, history: &InjectionHistory) -> Self {
        self.history = history.clone();
        self
    }
}

/// Who injected a packet on its way so far, from the first to the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InjectionHistory(Vec<u32>);

impl InjectionHistory {
    /// That of what nobody injected.
    pub const EMPTY: Self = Self(Vec::new());

    /// The history with these injectors, by the numbers of their callouts. For hosts.
    #[must_use]
    pub fn new(injectors: Vec<u32>) -> Self {
        Self(injectors)
    }

    /// The numbers of the callouts that injected. For hosts.
    #[must_use]
    pub fn injectors(&self) -> &[u32] {
        &self.0
    }

    /// How often it was injected.
    #[must_use]
    pub fn generations(&self) -> usize {
        self.0.len()
    }

    /// The same history with one more injection. For hosts.
    #[must_use]
    pub fn injected_by(mut self, callout: u32) -> Self {
        self.0.push(callout);
        self
    }

    /// What the callout of that number is told.
    #[must_use]
    pub fn state_for(&self, callout: u32) -> PacketInjectionState {
        match self.0.split_last() {
            None => PacketInjectionState::NotInjected,
            Some((&last, _)) if last == callout => PacketInjectionState::InjectedBySelf,
            Some((_, before)) if before.contains(&callout) => PacketInjectionState::PreviouslyInjectedBySelf,
            Some(_) => PacketInjectionState::InjectedByOther,
        }
    }
}

/// Whether a packet was injected, as one callout sees it (`FWPS_PACKET_INJECTION_STATE`). A callout that injects permits what it
/// injected itself, or it loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PacketInjectionState {
    /// Nobody did.
    #[default]
    NotInjected,
    /// This callout did.
    InjectedBySelf,
    /// Another callout did.
    InjectedByOther,
    /// This callout did, and another injected it once more after that.
    PreviouslyInjectedBySelf,
}

impl PacketInjectionState {
    /// Whether this callout had a hand in it.
    #[must_use]
    pub const fn is_own(self) -> bool {
        matches!(self, Self::InjectedBySelf | Self::PreviouslyInjectedBySelf)
    }
}

/// Why something is not injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// The bytes are no packet (`STATUS_INVALID_PARAMETER`): headers that contradict their lengths, or too long a packet.
    #[error("the bytes are no whole packet")]
    NotAPacket,
    /// There is no such flow, or its connection is at its end (`STATUS_NOT_FOUND`).
    #[error("there is no such flow")]
    NoSuchFlow,
    /// Nothing can be injected there by this host.
    #[error("this host cannot inject there")]
    Unsupported,
    /// As much waits as the callout's limits allow (`STATUS_INSUFFICIENT_RESOURCES`).
    #[error("too much of what the callout injected waits to be classified")]
    TooMuch,
    /// It was injected as often as may be: callouts go on changing what the others changed.
    #[error("the packet was injected too often on its way")]
    TooOften,
    /// The callout is not registered, or not any more.
    #[error("the callout is not registered")]
    NotRegistered,
}

/// Injects, from inside a classification and from outside, from any thread.
pub trait Injector {
    /// Injects. What was taken is classified from the point of injection on, after the event at hand.
    ///
    /// # Errors
    /// Why it was not taken; nothing of it is injected then.
    fn inject(&self, injection: Injection) -> Result<(), InjectError>;

    /// Injects an IP packet as if an endpoint had sent it.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn transport_send(&self, packet: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::TransportSend, packet))
    }

    /// Injects an IP packet as if it had come up from the network layer.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn transport_receive(&self, packet: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::TransportReceive, packet))
    }

    /// Injects an IP packet on its way out.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn network_send(&self, packet: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::NetworkSend, packet))
    }

    /// Injects an IP packet as if it had arrived.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn network_receive(&self, packet: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::NetworkReceive, packet))
    }

    /// Injects an IP packet as one that is forwarded.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn forward(&self, packet: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::Forward, packet))
    }

    /// Injects a frame on its way out.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn mac_send(&self, frame: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::MacSend, frame))
    }

    /// Injects a frame as if it had arrived.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn mac_receive(&self, frame: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::MacReceive, frame))
    }

    /// Injects data into a stream.
    ///
    /// # Errors
    /// As [`inject`](Self::inject).
    fn stream(&self, flow: FlowHandle, direction: Direction, data: Vec<u8>) -> Result<(), InjectError> {
        self.inject(Injection::new(InjectionPoint::Stream { flow, direction }, data))
    }
}
