//! What goes through the rings. Every number is little-endian; places are in bytes from the beginning of the message.

use crate::layout::LONGEST_PACKET;

/// How many words the incoming values have.
pub const VALUES: usize = 64;
/// So many injections of one packet are told at most.
pub const MOST_INJECTORS: usize = 8;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It ends too early, or goes on behind its end.
    #[error("a message has not the length that it says")]
    Length,
    /// A number stands for nothing.
    #[error("a message has a number in it that stands for nothing: {0}")]
    Number(&'static str),
}

/// Bits of a [`Request`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(pub u32);

impl RequestFlags {
    /// The packet comes in.
    pub const INBOUND: u32 = 1;
    /// It begins with the header of its frame; without, with that of IP.
    pub const FRAME: u32 = 1 << 1;
    /// The owner of the socket is known.
    pub const PROCESS: u32 = 1 << 2;
    /// The action may be written.
    pub const RIGHT: u32 = 1 << 3;
    /// It is permitted so far.
    pub const PERMITTED: u32 = 1 << 4;
    /// It is blocked so far.
    pub const BLOCKED: u32 = 1 << 5;
    const ALL: u32 = (1 << 6) - 1;

    /// Whether a bit is set.
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

/// A packet that has met a filter which names the callout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request in its answer.
    pub number: u64,
    /// The filter's id.
    pub filter: u64,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The flow; 0: none.
    pub flow: u64,
    /// The socket's cookie; 0: none.
    pub endpoint: u64,
    /// The inode number of the network namespace; 0: not known.
    pub compartment: u64,
    /// Bits.
    pub flags: RequestFlags,
    /// The layer's runtime id.
    pub layer: u32,
    /// The index of the device by which the packet came; 0: not known.
    pub source_interface: u32,
    /// The index of the device by which it leaves; 0: not known.
    pub destination_interface: u32,
    /// Where the transport header begins in the packet.
    pub transport: u32,
    /// Where the payload of the transport header begins.
    pub payload: u32,
    /// The process, its effective user and group, where they are known.
    pub process: u32,
    /// See [`process`](Self::process).
    pub user: u32,
    /// See [`process`](Self::process).
    pub group: u32,
    /// Nanoseconds since the process was started.
    pub age: u64,
    /// The name of the thread, padded with zeros.
    pub name: [u8; 16],
    /// The callouts that have injected the packet so far, from the first to the last: 1 is the callout that is asked; others have
    /// other numbers. At most [`MOST_INJECTORS`].
    pub injectors: Vec<u32>,
    /// The incoming values: known up to 2³²-1; 2³² is empty, 2³²+1 unknown.
    pub values: [u64; VALUES],
}

impl Request {
    /// How many bytes stand before the packet.
    pub const HEADER: usize = 664;

    /// The bytes before a packet of this length.
    #[must_use]
    pub fn encode(&self, packet: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER);
        let all = [self.number, self.filter, self.time, self.flow, self.endpoint, self.compartment];
        all.into_iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        let injectors = &self.injectors[..self.injectors.len().min(MOST_INJECTORS)];
        let some = [
            self.flags.0,
            self.layer,
            self.source_interface,
            self.destination_interface,
            self.transport,
            self.payload,
            self.process,
            self.user,
            self.group,
            injectors.len() as u32,
        ];
        some.into_iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        let padded = injectors.iter().copied().chain(std::iter::repeat(0)).take(MOST_INJECTORS);
        padded.for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.extend(self.name);
        bytes.extend(self.age.to_le_bytes());
        bytes.extend((VALUES as u32).to_le_bytes());
        bytes.extend((packet as u32).to_le_bytes());
        self.values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        debug_assert_eq!(bytes.len(), Self::HEADER);
        bytes
    }

    /// The request, and the packet behind it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), MessageError> {
        let mut from = Reader(message);
        let [number, filter, time, flow, endpoint, compartment] = from.longs()?;
        let [flags, layer, source_interface, destination_interface, transport, payload, process, user, group, count] =
            from.words()?;
        let injectors: [u32; MOST_INJECTORS] = from.words()?;
        let name = from.take()?;
        let [age] = from.longs()?;
        let [values_count, length] = from.words()?;
        if values_count as usize != VALUES {
            return Err(MessageError::Number("how many values there are"));
        }
        let values = from.longs()?;
        let injectors = injectors.get(..count as usize).ok_or(MessageError::Number("how many injected"))?.to_vec();
        if flags & !RequestFlags::ALL != 0 {
            return Err(MessageError::Number("the flags of a request"));
        }
        if values.iter().any(|value| *value > (1 << 32) + 1) {
            return Err(MessageError::Number("an incoming value"));
        }
        let packet = from.0;
        if packet.len() != length as usize || packet.len() > LONGEST_PACKET {
            return Err(MessageError::Length);
        }
        if transport > payload || payload as usize > packet.len() {
            return Err(MessageError::Number("where the headers end"));
        }
        let flags = RequestFlags(flags);
        let request = Self {
            number,
            filter,
            time,
            flow,
            endpoint,
            compartment,
            flags,
            layer,
            source_interface,
            destination_interface,
            transport,
            payload,
            process,
            user,
            group,
            age,
            name,
            injectors,
            values,
        };
        Ok((request, packet))
    }
}

/// A callout may pend so many requests.
pub const MOST_PENDED: usize = 1024;

/// What a callout says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nobody answers for the callout (any more): as if it was not registered.
    Unavailable,
    /// Permit.
    Permit,
    /// Block.
    Block,
    /// The next filter says.
    Continue,
    /// It is pended: another answer to the same request follows.
    Later,
}

impl Action {
    const ALL: [Self; 5] = [Self::Unavailable, Self::Permit, Self::Block, Self::Continue, Self::Later];
}

/// Bits of an [`Answer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerFlags(pub u32);

impl AnswerFlags {
    /// The right to write the action is withdrawn from those below.
    pub const CLEAR_RIGHT: u32 = 1;
    /// A block that nobody hears of.
    pub const ABSORB: u32 = 1 << 1;
    /// A packet follows that goes on in the place of the one at hand.
    pub const PACKET: u32 = 1 << 2;
    const ALL: u32 = (1 << 3) - 1;

    /// Whether a bit is set.
    #[must_use]
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the request.
    pub number: u64,
    /// What is said.
    pub action: Action,
    /// Bits.
    pub flags: AnswerFlags,
}

/// The kind of message that an answer is.
const ANSWER: u32 = 1;

impl Answer {
    /// How many bytes stand before the packet.
    pub const HEADER: usize = 24;

    /// The bytes before a packet of this length; 0 where none follows.
    #[must_use]
    pub fn encode(&self, packet: usize) -> [u8; Self::HEADER] {
        let mut bytes = [0; Self::HEADER];
        bytes[..4].copy_from_slice(&ANSWER.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.action as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[20..].copy_from_slice(&(packet as u32).to_le_bytes());
        bytes
    }

    /// The answer, and the packet that goes on in the place of the one at hand.
    ///
    /// # Errors
    /// What is wrong.
    pub fn decode(message: &[u8]) -> Result<(Self, Option<&[u8]>), MessageError> {
        let mut from = Reader(message);
        let [kind, action] = from.words()?;
        let [number] = from.longs()?;
        let [flags, length] = from.words()?;
        if kind != ANSWER {
            return Err(MessageError::Number("the kind of a message"));
        }
        let action = Action::ALL.get(action as usize).copied().ok_or(MessageError::Number("an action"))?;
        if flags & !AnswerFlags::ALL != 0 {
            return Err(MessageError::Number("the flags of an answer"));
        }
        let (flags, packet) = (AnswerFlags(flags), from.0);
        if packet.len() != length as usize || packet.len() > LONGEST_PACKET {
            return Err(MessageError::Length);
        }
        if !flags.has(AnswerFlags::PACKET) && !packet.is_empty() {
            return Err(MessageError::Length);
        }
        Ok((Self { number, action, flags }, flags.has(AnswerFlags::PACKET).then_some(packet)))
    }
}

/// Reads numbers one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(MessageError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn words<const N: usize>(&mut self) -> Result<[u32; N], MessageError> {
        let mut all = [0; N];
        for word in &mut all {
            *word = u32::from_le_bytes(self.take()?);
        }
        Ok(all)
    }

    fn longs<const N: usize>(&mut self) -> Result<[u64; N], MessageError> {
        let mut all = [0; N];
        for long in &mut all {
            *long = u64::from_le_bytes(self.take()?);
        }
        Ok(all)
    }
}
