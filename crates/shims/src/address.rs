//! Addresses: what kind they are, and whether they are this machine's own.

use crate::{maps::ADDRESSES, work::Work};
use openwfp_engine::words;

/// An address as the words of incoming values.
///
/// A structure rather than an enum: every word has a value in either case, and the verifier refuses to copy one that has
/// none.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Address {
    /// IPv6: the most significant word first; IPv4: in the first word, the others 0. Each in host order.
    words: [u32; 4],
    /// 1: IPv6. Not a truth value: those are read from memory with a test.
    v6: u32,
}

/// The index of the loopback interface, in every network namespace.
pub const LOOPBACK_INTERFACE: u32 = 1;

/// `NlatUnicast` and so on.
const UNICAST: u32 = 1;
const MULTICAST: u32 = 3;
const BROADCAST: u32 = 4;

impl Address {
    /// An IPv4 address in host order.
    #[inline(always)]
    pub fn v4(address: u32) -> Self {
        // LLVM would make a call to `memset` of three zeros that it knows
        let zero = core::hint::black_box(0);
        Self { words: [address, zero, zero, zero], v6: 0 }
    }

    /// No address.
    #[inline(always)]
    pub fn unspecified(v6: bool) -> Self {
        let zero = core::hint::black_box(0);
        Self { words: [zero, zero, zero, zero], v6: v6 as u32 }
    }

    /// IPv6 words as a packet has them, in network order.
    #[inline(always)]
    pub fn v6(network: [u32; 4]) -> Self {
        let [a, b, c, d] = network;
        Self { words: [u32::from_be(a), u32::from_be(b), u32::from_be(c), u32::from_be(d)], v6: 1 }
    }

    /// IPv6 words as a socket has them, in network order. A mapped IPv4 address is IPv4.
    #[inline(always)]
    pub fn of_socket(network: [u32; 4]) -> Self {
        let [a, b, c, d] = network;
        if a == 0 && b == 0 && c == 0xffffu32.to_be() {
            return Self::v4(u32::from_be(d));
        }
        Self::v6(network)
    }

    /// Whether it is IPv6.
    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        self.v6 != 0
    }

    /// The same of one in memory of which the verifier is to know nothing.
    ///
    /// # Safety
    /// It is valid.
    #[inline(always)]
    pub unsafe fn is_v6_at(address: *const Self) -> bool {
        // SAFETY: the caller's.
        unsafe { (&raw const (*address).v6).read_volatile() != 0 }
    }

    /// Whether no address is given.
    #[inline(always)]
    pub fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.words;
        a | b | c | d == 0
    }

    /// As map keys have it: four words, of which IPv4 uses the first.
    #[inline(always)]
    pub fn key(&self) -> [u32; 4] {
        self.words
    }

    /// The address type.
    #[inline(always)]
    pub fn kind(&self) -> u32 {
        let first = self.words[0];
        if self.is_v6() {
            return if first >> 24 == 0xff { MULTICAST } else { UNICAST };
        }
        match first {
            u32::MAX => BROADCAST,
            _ if first >> 28 == 14 => MULTICAST,
            _ => UNICAST,
        }
    }

    /// The address type of a destination; `broadcast`: the frame was sent to everybody, so an IPv4 address is a subnet's.
    #[inline(always)]
    pub fn kind_in_frame(&self, broadcast: bool) -> u32 {
        if broadcast && !self.is_v6() && self.is_unicast() { BROADCAST } else { self.kind() }
    }

    /// Whether it is neither multicast nor IPv4's address of everybody.
    #[inline(always)]
    pub fn is_unicast(&self) -> bool {
        self.kind() == UNICAST
    }

    /// The address of the loopback interface.
    #[inline(always)]
    pub fn loopback(v6: bool) -> Self {
        let zero = core::hint::black_box(0);
        if v6 { Self { words: [zero, zero, zero, 1], v6: 1 } } else { Self::v4(0x7f00_0001) }
    }

    /// Whether it is known as an address of this machine.
    #[inline(always)]
    pub fn is_own(&self) -> bool {
        self.owner().is_some()
    }

    /// The index of the interface that has this address of the machine.
    #[inline(always)]
    fn owner(&self) -> Option<u32> {
        // a copy in this function's own memory: Linux 6.1 takes no key of a map from another's
        let mut key = [0; 4];
        for (word, copy) in self.words.iter().zip(&mut key) {
            // SAFETY: references.
            unsafe { (&raw mut *copy).write_volatile(*word) };
        }
        // SAFETY: a valid map value.
        ADDRESSES.get_ptr(&key).map(|index| unsafe { *index })
    }

    /// Writes the interface that has this address of the machine; one that no interface has is unknown.
    #[inline(always)]
    pub fn write_interface(&self, work: &mut Work, namespace: u64) {
        let index = match self.owner() {
            Some(index) => index,
            None if self.is_loopback() => LOOPBACK_INTERFACE,
            None => 0,
        };
        if index == 0 {
            work.unknown_interface(words::INTERFACE_INDEX);
        } else {
            work.write_interface(words::INTERFACE_INDEX, index, namespace);
        }
    }

    /// Whether it is an address of the loopback interface.
    #[inline(always)]
    pub fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.words;
        if self.is_v6() { a | b | c == 0 && d == 1 } else { a >> 24 == 127 }
    }

    /// Whether what is sent there from a network namespace stays on this machine. Of other namespaces than that whose
    /// addresses are known, only the addresses that are local everywhere are.
    #[inline(always)]
    pub fn is_local(&self, work: &Work, namespace: u64) -> bool {
        self.is_loopback() || self.is_unspecified() || (work.knows(namespace) && self.is_own())
    }

    /// Writes it into four words.
    #[inline(always)]
    pub fn write(&self, work: &mut Work, word: usize) {
        if self.is_v6() {
            work.values.set_v6(word, self.words);
        } else {
            work.values.set_v4(word, self.words[0]);
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
