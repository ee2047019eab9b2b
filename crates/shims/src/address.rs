//! Addresses: what kind they are, and whether they are this machine's own.

use crate::{maps::ADDRESSES, work::Work};
use openwfp_engine::words;

/// An address as the words of incoming values.
#[derive(Clone, Copy)]
pub enum Address {
    /// IPv4, in host order.
    V4(u32),
    /// IPv6, the most significant word first, each in host order.
    V6([u32; 4]),
}

/// `NlatUnicast` and so on.
const UNICAST: u32 = 1;
const MULTICAST: u32 = 3;
const BROADCAST: u32 = 4;

impl Address {
    /// IPv6 words as a socket has them, in network order. A mapped IPv4 address is IPv4.
    #[inline(always)]
    pub fn from_v6(network: [u32; 4]) -> Self {
        let [a, b, c, d] = network;
        if a == 0 && b == 0 && c == 0xffffu32.to_be() {
            return Self::V4(u32::from_be(d));
        }
        Self::V6([u32::from_be(a), u32::from_be(b), u32::from_be(c), u32::from_be(d)])
    }

    /// Whether it is IPv6.
    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        matches!(self, Self::V6(_))
    }

    /// Whether no address is given.
    #[inline(always)]
    pub fn is_unspecified(&self) -> bool {
        match self {
            Self::V4(address) => *address == 0,
            Self::V6([a, b, c, d]) => a | b | c | d == 0,
        }
    }

    /// As map keys have it: four words, of which IPv4 uses the first.
    #[inline(always)]
    pub fn key(&self) -> [u32; 4] {
        match self {
            Self::V4(address) => [*address, 0, 0, 0],
            Self::V6(address) => *address,
        }
    }

    /// The address type.
    #[inline(always)]
    pub fn kind(&self) -> u32 {
        match self {
            Self::V4(u32::MAX) => BROADCAST,
            Self::V4(address) if address >> 28 == 14 => MULTICAST,
            Self::V6(address) if address[0] >> 24 == 0xff => MULTICAST,
            _ => UNICAST,
        }
    }

    /// Whether what is sent there stays on this machine. To connect to no address is to connect to oneself.
    #[inline(always)]
    pub fn is_local(&self) -> bool {
        let loopback = match self {
            Self::V4(address) => address >> 24 == 127,
            Self::V6([a, b, c, d]) => a | b | c == 0 && *d == 1,
        };
        loopback || self.is_unspecified() || ADDRESSES.get_ptr(&self.key()).is_some()
    }

    /// Writes it into four words.
    #[inline(always)]
    pub fn write(&self, work: &mut Work, word: usize) {
        match self {
            Self::V4(address) => work.values.set_v4(word, *address),
            Self::V6(address) => work.values.set_v6(word, *address),
        }
    }
}

/// The local address exists, but is not chosen yet.
#[inline(always)]
pub fn unknown_local(work: &mut Work, v6: bool) {
    work.values.set_unknown(words::IP_LOCAL_ADDRESS);
    if v6 {
        for word in 1..4 {
            work.values.set_unknown(words::IP_LOCAL_ADDRESS + word);
        }
    }
}
