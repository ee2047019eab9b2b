//! Incoming values: what a shim knows about one event at one layer, as a vector of words.
//!
//! Words of the fields that nearly every layer has stand at the same place in every layer, so that one shim can serve
//! several layers; the other fields of a layer follow in the layer's own order (see `Schema`).

/// How many words a vector of incoming values has.
pub const WORDS: usize = 64;

/// The layer has no such value for this event. It matches only an explicit "is empty".
pub const EMPTY: u64 = 1 << 32;

/// The value exists but is not known: not yet (late), or it could not be read.
///
/// A filter that tests it and matches otherwise answers "late" or "unreadable" instead of its own action.
pub const UNKNOWN: u64 = EMPTY + 1;

/// The numbers of the words that mean the same at every layer.
///
/// Everything is in host byte order. An address takes four words, the most significant first; IPv4 uses the first
/// alone and leaves the others empty.
pub mod words {
    /// `IP_PROTOCOL`.
    pub const IP_PROTOCOL: usize = 0;
    /// `IP_LOCAL_PORT`, and `ICMP_TYPE`, which is the same field.
    pub const IP_LOCAL_PORT: usize = 1;
    /// `IP_REMOTE_PORT`, and `ICMP_CODE`, which is the same field.
    pub const IP_REMOTE_PORT: usize = 2;
    /// `FLAGS`.
    pub const FLAGS: usize = 3;
    /// `IP_LOCAL_ADDRESS`, or `IP_SOURCE_ADDRESS` where a layer has that instead: four words.
    pub const IP_LOCAL_ADDRESS: usize = 4;
    /// `IP_REMOTE_ADDRESS`, or `IP_DESTINATION_ADDRESS`: four words.
    pub const IP_REMOTE_ADDRESS: usize = 8;
    /// `ALE_APP_ID`: a class number of the image; 0 is every application that no filter names.
    pub const ALE_APP_ID: usize = 12;
    /// `ALE_USER_ID`: the effective user id.
    pub const ALE_USER_ID: usize = 13;
    /// Which of the groups that the policy names the user is in: two words of bits.
    pub const GROUPS: usize = 14;
    /// Who acts, or owns the endpoint.
    pub const OWNER: [usize; 8] = [
        ALE_APP_ID,
        ALE_ORIGINAL_APP_ID,
        ALE_USER_ID,
        GROUPS,
        GROUPS + 1,
        LINUX_CGROUP,
        LINUX_SYSTEMD_UNIT,
        LINUX_CONTAINER,
    ];
    /// `INTERFACE_INDEX`.
    pub const INTERFACE_INDEX: usize = 16;
    /// `INTERFACE_TYPE`: the IANA ifType.
    pub const INTERFACE_TYPE: usize = 17;
    /// `TUNNEL_TYPE`.
    pub const TUNNEL_TYPE: usize = 18;
    /// `IP_LOCAL_INTERFACE`: a LUID, high word first.
    pub const IP_LOCAL_INTERFACE: usize = 19;
    /// `SUB_INTERFACE_INDEX`.
    pub const SUB_INTERFACE_INDEX: usize = 21;
    /// `IP_LOCAL_ADDRESS_TYPE`: 1 unicast, 2 anycast, 3 multicast, 4 broadcast.
    pub const IP_LOCAL_ADDRESS_TYPE: usize = 22;
    /// `IP_DESTINATION_ADDRESS_TYPE`.
    pub const IP_DESTINATION_ADDRESS_TYPE: usize = 23;
    /// `COMPARTMENT_ID`: the network namespace.
    pub const COMPARTMENT_ID: usize = 24;
    /// `DIRECTION`: 0 outbound, 1 inbound.
    pub const DIRECTION: usize = 25;
    /// `REAUTHORIZE_REASON`.
    pub const REAUTHORIZE_REASON: usize = 26;
    /// `ALE_ORIGINAL_APP_ID`: a class number, as [`ALE_APP_ID`].
    pub const ALE_ORIGINAL_APP_ID: usize = 27;
    /// `ARRIVAL_INTERFACE_INDEX`; where a packet is forwarded, `SOURCE_INTERFACE_INDEX`. Its type, tunnel type and LUID follow
    /// in [`INTERFACE_WORDS`] words, in the order of those from [`INTERFACE_INDEX`] on.
    pub const ARRIVAL_INTERFACE_INDEX: usize = 28;
    /// `ARRIVAL_INTERFACE_TYPE`.
    pub const ARRIVAL_INTERFACE_TYPE: usize = 29;
    /// `ARRIVAL_TUNNEL_TYPE`.
    pub const ARRIVAL_TUNNEL_TYPE: usize = 30;
    /// `IP_ARRIVAL_INTERFACE`, or `IP_PHYSICAL_ARRIVAL_INTERFACE`: a LUID, high word first.
    pub const IP_ARRIVAL_INTERFACE: usize = 31;
    /// `NEXTHOP_INTERFACE_INDEX`, or `DESTINATION_INTERFACE_INDEX`. The others follow as above.
    pub const NEXTHOP_INTERFACE_INDEX: usize = 33;
    /// `NEXTHOP_INTERFACE_TYPE`.
    pub const NEXTHOP_INTERFACE_TYPE: usize = 34;
    /// `NEXTHOP_TUNNEL_TYPE`.
    pub const NEXTHOP_TUNNEL_TYPE: usize = 35;
    /// `IP_NEXTHOP_INTERFACE`, or `IP_PHYSICAL_NEXTHOP_INTERFACE`: a LUID, high word first.
    pub const IP_NEXTHOP_INTERFACE: usize = 36;
    /// `NEXTHOP_SUB_INTERFACE_INDEX`, or `DESTINATION_SUB_INTERFACE_INDEX`.
    pub const NEXTHOP_SUB_INTERFACE_INDEX: usize = 38;
    /// `ORIGINAL_ICMP_TYPE`.
    pub const ORIGINAL_ICMP_TYPE: usize = 39;
    /// How many words an interface has: index, type, tunnel type, LUID.
    pub const INTERFACE_WORDS: usize = 5;
    /// The first word that means something else at every layer.
    pub const LAYER_OWN: usize = 40;
    /// `LINUX_CGROUP`: a class number, as those of the next two. The words of the fields that are ours stand last.
    pub const LINUX_CGROUP: usize = 60;
    /// `LINUX_SYSTEMD_UNIT`.
    pub const LINUX_SYSTEMD_UNIT: usize = 61;
    /// `LINUX_CONTAINER`.
    pub const LINUX_CONTAINER: usize = 62;
    /// `LINUX_NETWORK_NAMESPACE`: an inode number; live, 0 for a namespace that no filter names.
    pub const LINUX_NETWORK_NAMESPACE: usize = 63;
}

/// The incoming values of one event at one layer.
///
/// A word that is known is at most `u32::MAX`; [`EMPTY`] and [`UNKNOWN`] are the two other states.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    words: [u64; WORDS],
}

impl Default for Values {
    fn default() -> Self {
        Self::new()
    }
}

impl Values {
    /// Values of which every one is empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [EMPTY; WORDS] }
    }

    /// The word at `word`; the number is taken modulo [`WORDS`].
    #[inline(always)]
    #[must_use]
    pub fn get(&self, word: usize) -> u64 {
        self.words[word % WORDS]
    }

    /// Sets one word to a known value.
    #[inline(always)]
    pub fn set(&mut self, word: usize, value: u32) {
        self.words[word % WORDS] = value as u64;
    }

    /// Sets one word to what another is.
    #[inline(always)]
    pub fn copy(&mut self, from: usize, to: usize) {
        self.words[to % WORDS] = self.words[from % WORDS];
    }

    /// Sets one word to [`EMPTY`].
    #[inline(always)]
    pub fn set_empty(&mut self, word: usize) {
        self.words[word % WORDS] = EMPTY;
    }

    /// Sets one word to [`UNKNOWN`].
    #[inline(always)]
    pub fn set_unknown(&mut self, word: usize) {
        self.words[word % WORDS] = UNKNOWN;
    }

    /// Sets two words to a 64-bit value, high word first.
    #[inline(always)]
    pub fn set_u64(&mut self, word: usize, value: u64) {
        self.set(word, (value >> 32) as u32);
        self.set(word + 1, value as u32);
    }

    /// Sets an address to an IPv4 address: one word, and three that stay empty.
    #[inline(always)]
    pub fn set_v4(&mut self, word: usize, address: u32) {
        self.set(word, address);
        self.set_empty(word + 1);
        self.set_empty(word + 2);
        self.set_empty(word + 3);
    }

    /// Sets an address to an IPv6 address: four words, the most significant first.
    #[inline(always)]
    pub fn set_v6(&mut self, word: usize, address: [u32; 4]) {
        self.set(word, address[0]);
        self.set(word + 1, address[1]);
        self.set(word + 2, address[2]);
        self.set(word + 3, address[3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_vector_is_empty_and_words_keep_their_states() {
        let mut values = Values::new();
        assert!((0..WORDS).all(|word| values.get(word) == EMPTY));
        values.set(words::FLAGS, u32::MAX);
        values.set_unknown(words::ALE_APP_ID);
        assert_eq!(values.get(words::FLAGS), u32::MAX as u64);
        assert_eq!(values.get(words::ALE_APP_ID), UNKNOWN);
        values.set_u64(words::IP_LOCAL_INTERFACE, 0x0018_0000_0100_0000);
        assert_eq!(values.get(words::IP_LOCAL_INTERFACE), 0x0018_0000);
        assert_eq!(values.get(words::IP_LOCAL_INTERFACE + 1), 0x0100_0000);
    }
}
