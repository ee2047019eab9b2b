//! The keyed hash under which both sides know a path: SipHash-2-4 with 128 bits of output.
//!
//! The key is drawn at random for each load, so nobody who does not know it can look for two paths
//! with the same hash, and 128 bits make an accident out of the question. SipHash needs additions,
//! rotations and xors alone, which eBPF has, and takes 8 bytes at a step.
//!
//! The message is the path's bytes *from the last to the first*: the kernel writes a path from the
//! end of a buffer towards its start, so that its words are aligned counted from the end.

/// The state of a hash under way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SipHash {
    v: [u64; 4],
}

impl SipHash {
    /// Starts a hash under a key.
    #[inline(always)]
    pub const fn new(key: [u64; 2]) -> Self {
        Self {
            v: [
                0x736f_6d65_7073_6575 ^ key[0],
                // 0xee tells the variant with 128 bits from the one with 64
                0x646f_7261_6e64_6f6d ^ key[1] ^ 0xee,
                0x6c79_6765_6e65_7261 ^ key[0],
                0x7465_6462_7974_6573 ^ key[1],
            ],
        }
    }

    #[inline(always)]
    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    /// Takes in eight bytes: the first of the message in the lowest byte.
    #[inline(always)]
    pub const fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    /// Takes in the `length % 8` bytes that are left (the lowest bytes of `rest`; what stands above
    /// them is not looked at), then the length of the whole message, and gives the hash.
    #[inline(always)]
    pub const fn finish(mut self, rest: u64, length: u64) -> [u64; 2] {
        let left = ((1u64 << (8 * (length & 7))) - 1) & rest;
        self.word(left | length << 56);
        self.v[2] ^= 0xee;
        self.last_rounds();
        let low = self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3];
        self.v[1] ^= 0xdd;
        self.last_rounds();
        let high = self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3];
        [low, high]
    }

    #[inline(always)]
    const fn last_rounds(&mut self) {
        self.round();
        self.round();
        self.round();
        self.round();
    }
}

/// The hash of a path, under the key that the loader set for the programs.
pub fn path_hash(key: [u64; 2], path: &[u8]) -> [u64; 2] {
    let mut hash = SipHash::new(key);
    let mut words = path.rchunks_exact(8);
    for word in words.by_ref() {
        hash.word(word.iter().fold(0, |all, &byte| all << 8 | u64::from(byte)));
    }
    let rest = words.remainder().iter().fold(0, |all, &byte| all << 8 | u64::from(byte));
    hash.finish(rest, path.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key 00 01 … 0f and message 00 01 02 …, from the reference implementation
    /// (`vectors_sip128` of `veorq/SipHash`). The message is reversed here, as `path_hash` reads it.
    #[test]
    fn the_reference_vectors_hold() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let table: [(usize, [u8; 16]); 4] = [
            (0, *b"\xa3\x81\x7f\x04\xba\x25\xa8\xe6\x6d\xf6\x72\x14\xc7\x55\x02\x93"),
            (1, *b"\xda\x87\xc1\xd8\x6b\x99\xaf\x44\x34\x76\x59\x11\x9b\x22\xfc\x45"),
            (8, *b"\x3b\x62\xa9\xba\x62\x58\xf5\x61\x0f\x83\xe2\x64\xf3\x14\x97\xb4"),
            (15, *b"\x54\x93\xe9\x99\x33\xb0\xa8\x11\x7e\x08\xec\x0f\x97\xcf\xc3\xd9"),
        ];
        for (length, expected) in table {
            let mut message = [0u8; 15];
            (0..).zip(message[..length].iter_mut().rev()).for_each(|(n, byte)| *byte = n);
            let [low, high] = path_hash(key, &message[..length]);
            let mut actual = [0; 16];
            actual[..8].copy_from_slice(&low.to_le_bytes());
            actual[8..].copy_from_slice(&high.to_le_bytes());
            assert_eq!(actual, expected, "{length} bytes");
        }
    }

    #[test]
    fn key_length_and_every_byte_count() {
        let path = b"/usr/lib/firefox/firefox";
        let hash = path_hash([1, 2], path);
        assert_ne!(hash, path_hash([1, 3], path));
        assert_ne!(hash, path_hash([1, 2], &path[1..]));
        for at in 0..path.len() {
            let mut other = *path;
            other[at] ^= 1;
            assert_ne!(hash, path_hash([1, 2], &other), "byte {at}");
        }
    }
}
