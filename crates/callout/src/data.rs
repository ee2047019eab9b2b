//! Layer data: the bytes that a layer shows.

use openwfp_packet::flow::Direction;

/// What a layer shows of the traffic. Bytes are borrowed: nothing is copied for a callout that only looks.
#[derive(Clone, Copy, Debug)]
pub enum LayerData<'a> {
    /// The layer has no bytes for this event.
    None,
    /// A packet, at the layers that see packets.
    Packet(PacketData<'a>),
    /// A portion of a stream, at STREAM.
    Stream(StreamData<'a>),
}

/// A packet (`NET_BUFFER_LIST`).
///
/// At the MAC layers `bytes` begin with the frame's header, at all others with the IP header, and hold the whole packet
/// with nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketData<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Where the transport header begins; where the IP header does, at the MAC layers. Not after the end of `bytes`.
    pub transport: usize,
    /// Where the payload of the transport header begins. Not before `transport`, nor after the end.
    pub payload: usize,
}

impl<'a> PacketData<'a> {
    /// A packet; places after the end of the bytes are moved to the end.
    #[must_use]
    pub fn new(bytes: &'a [u8], transport: usize, payload: usize) -> Self {
        let transport = transport.min(bytes.len());
        Self { bytes, transport, payload: payload.clamp(transport, bytes.len()) }
    }

    /// The IP header with its options and extension headers; the frame's header, at the MAC layers.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        &self.bytes[..self.transport]
    }

    /// The transport header and what follows.
    #[must_use]
    pub fn transport(&self) -> &'a [u8] {
        &self.bytes[self.transport..]
    }

    /// What follows the transport header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload..]
    }
}

bitflags::bitflags! {
    /// What characterizes a portion of a stream (`FWPS_STREAM_FLAG_*`). The flags of sending and receiving stand apart.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StreamFlags: u32 {
        /// The data are received.
        const RECEIVE = 0x0000_0001;
        /// They hold urgent data.
        const RECEIVE_EXPEDITED = 0x0000_0002;
        /// The sender has sent its last byte.
        const RECEIVE_DISCONNECT = 0x0000_0004;
        /// The sender has reset the connection.
        const RECEIVE_ABORT = 0x0000_0008;
        /// The data are sent.
        const SEND = 0x0001_0000;
        /// They hold urgent data.
        const SEND_EXPEDITED = 0x0002_0000;
        /// They should not be kept waiting.
        const SEND_NODELAY = 0x0004_0000;
        /// No more data will be sent.
        const SEND_DISCONNECT = 0x0008_0000;
        /// The connection is reset.
        const SEND_ABORT = 0x0010_0000;
    }
}

impl StreamFlags {
    /// The flag of the direction.
    #[must_use]
    pub const fn of(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::SEND,
            Direction::Inbound => Self::RECEIVE,
        }
    }

    /// The flag that says that no more data come in this direction.
    #[must_use]
    pub const fn disconnect(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::SEND_DISCONNECT,
            Direction::Inbound => Self::RECEIVE_DISCONNECT,
        }
    }

    /// The flag of urgent data.
    #[must_use]
    pub const fn expedited(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::SEND_EXPEDITED,
            Direction::Inbound => Self::RECEIVE_EXPEDITED,
        }
    }
}

/// A portion of one direction of a stream (`FWPS_STREAM_DATA`): what has not been decided yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamData<'a> {
    /// The bytes, in order. Empty where the stream ends and nothing is undecided.
    pub bytes: &'a [u8],
    /// The place of the first of them in the stream; the first byte that was ever sent in this direction has 0.
    pub offset: u64,
    /// Which way they go.
    pub direction: Direction,
    /// What characterizes them.
    pub flags: StreamFlags,
    /// How many bytes before them this callout has not seen: because a filter that is asked earlier kept them from it, or because
    /// they were lost to whoever watches.
    pub missed: u64,
}

impl StreamData<'_> {
    /// Whether these are the last bytes of this direction.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        let last = StreamFlags::RECEIVE_DISCONNECT
            .union(StreamFlags::SEND_DISCONNECT)
            .union(StreamFlags::RECEIVE_ABORT)
            .union(StreamFlags::SEND_ABORT);
        self.flags.intersects(last)
    }
}
