//! IPv4 packets (RFC 791).

use core::net::Ipv4Addr;

use super::error::{Header, Malformation, WireError, header};
use super::fragment::Fragment;

/// An IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Packet<'a> {
    header: &'a [u8; 20],
    options: &'a [u8],
    payload: &'a [u8],
    payload_length: usize,
}

impl<'a> Ipv4Packet<'a> {
    /// The length of a header without options, in bytes.
    pub const MINIMUM_HEADER_LENGTH: usize = 20;

    /// A view over a packet.
    ///
    /// A total length of 0 is what a host that leaves segmentation to its network card shows for more than 65535
    /// bytes: the packet then goes to the end of the bytes.
    ///
    /// # Errors
    /// [`Malformation::IpVersion`], [`Malformation::Ipv4HeaderLength`], [`Malformation::Ipv4TotalLength`], and
    /// [`Malformation::Truncated`] when the header is not whole, options included.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header::<20>(bytes, Header::Ipv4)?;
        let (version, words) = (header[0] >> 4, header[0] & 0x0f);
        if version != 4 {
            return Err(WireError::new(0, Malformation::IpVersion(version)));
        }
        if words < 5 {
            return Err(WireError::new(0, Malformation::Ipv4HeaderLength(words)));
        }
        let needed = usize::from(words) * 4;
        let total = u16::from_be_bytes([header[2], header[3]]);
        if total != 0 && usize::from(total) < needed {
            let malformation = Malformation::Ipv4TotalLength { total, header: u16::from(words) * 4 };
            return Err(WireError::new(2, malformation));
        }
        let cut = Malformation::Truncated { header: Header::Ipv4, needed, available: bytes.len() };
        let rest = bytes.get(needed..).ok_or(WireError::new(bytes.len(), cut))?;
        let payload_length = if total == 0 { rest.len() } else { usize::from(total) - needed };
        Ok(Self {
            header,
            options: &bytes[Self::MINIMUM_HEADER_LENGTH..needed],
            payload: &rest[..rest.len().min(payload_length)],
            payload_length,
        })
    }

    /// The sender.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[12], self.header[13], self.header[14], self.header[15])
    }

    /// The receiver.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[16], self.header[17], self.header[18], self.header[19])
    }

    /// What the payload is, one of [`super::protocol`] for instance.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// The place in a datagram, when this is a fragment of one.
    #[inline]
    #[must_use]
    pub const fn fragment(&self) -> Option<Fragment> {
        let word = u16::from_be_bytes([self.header[6], self.header[7]]);
        let (more, at) = (word & 0x2000 != 0, (word & 0x1fff) * 8);
        if !more && at == 0 {
            return None;
        }
        let identification = u16::from_be_bytes([self.header[4], self.header[5]]) as u32;
        Some(Fragment { identification, at, more })
    }

    /// The length of the header with its options, in bytes.
    #[inline]
    #[must_use]
    pub const fn header_length(&self) -> usize {
        Self::MINIMUM_HEADER_LENGTH + self.options.len()
    }

    /// The options, one by one.
    #[must_use]
    pub const fn options(&self) -> Ipv4Options<'a> {
        Ipv4Options { rest: self.options, at: Self::MINIMUM_HEADER_LENGTH }
    }

    /// What follows the header, as far as it is there, and without what pads the frame.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// How long the payload is, in bytes, also where the capture cut it.
    #[inline]
    #[must_use]
    pub const fn payload_length(&self) -> usize {
        self.payload_length
    }
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Option<'a> {
    /// The kind (IANA: IP option numbers), with the copied flag and the class.
    pub kind: u8,
    /// What stands after kind and length.
    pub data: &'a [u8],
}

/// The options of a packet; padding and what follows the end of the list are left out.
#[derive(Clone, Debug)]
pub struct Ipv4Options<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Result<Ipv4Option<'a>, WireError>;

    /// The next option, or once, as the last item, why what follows is none: [`Malformation::Ipv4OptionLength`].
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.rest {
                [] | [0, ..] => return None,
                [1, ref rest @ ..] => {
                    self.rest = rest;
                    self.at += 1;
                }
                [kind, ref rest @ ..] => {
                    let room = self.rest.len();
                    let length = rest.first().copied().unwrap_or(0);
                    let Some(data) = self.rest.get(2..usize::from(length)) else {
                        self.rest = &[];
                        // There are at most 40 bytes of options.
                        let room = u8::try_from(room).unwrap_or(u8::MAX);
                        return Some(Err(WireError::new(self.at, Malformation::Ipv4OptionLength { length, room })));
                    };
                    self.rest = &self.rest[usize::from(length)..];
                    self.at += usize::from(length);
                    return Some(Ok(Ipv4Option { kind, data }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP datagram of four bytes to 192.0.2.1, in a frame that pads it with two zeros.
    const PACKET: [u8; 34] = [
        0x45, 0x00, 0x00, 0x20, 0x8a, 0x3b, 0x40, 0x00, 0x40, 0x11, 0x2e, 0x00, 0xc6, 0x33, 0x64, 0x07, 0xc0, 0x00,
        0x02, 0x01, 0xd4, 0x31, 0x00, 0x35, 0x00, 0x0c, 0xfe, 0x1f, b'a', b'b', b'c', b'd', 0x00, 0x00,
    ];

    #[test]
    fn fields_stand_where_rfc_791_puts_them() {
        let packet = Ipv4Packet::new_checked(&PACKET).unwrap();
        assert_eq!(packet.source(), Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!(packet.destination(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(packet.protocol(), 17);
        assert_eq!(packet.fragment(), None);
        assert_eq!(packet.header_length(), 20);
        assert_eq!(packet.payload_length(), 12);
        assert_eq!(packet.payload(), &PACKET[20..32], "the frame's padding is no payload");
    }

    #[test]
    fn a_cut_payload_keeps_its_stated_length() {
        let packet = Ipv4Packet::new_checked(&PACKET[..24]).unwrap();
        assert_eq!((packet.payload().len(), packet.payload_length()), (4, 12));
        for length in 0..20 {
            assert_eq!(Ipv4Packet::new_checked(&PACKET[..length]).unwrap_err().offset, length);
        }
    }

    #[test]
    fn the_two_flags_and_the_offset_make_a_fragment() {
        let cases = [
            (0x4000u16, None),
            (0x0000, None),
            (0x2000, Some((0, true))),
            (0x20b9, Some((1480, true))),
            (0x1fff, Some((65528, false))),
        ];
        for (word, expected) in cases {
            let mut bytes = PACKET;
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            let fragment = Ipv4Packet::new_checked(&bytes).unwrap().fragment();
            assert_eq!(fragment.map(|fragment| (fragment.at, fragment.more)), expected);
            assert!(fragment.is_none_or(|fragment| fragment.identification == 0x8a3b));
        }
    }

    #[test]
    fn each_bad_length_has_a_name() {
        let cases: [(usize, &[u8], Malformation); 4] = [
            (0, &[0x65], Malformation::IpVersion(6)),
            (0, &[0x44], Malformation::Ipv4HeaderLength(4)),
            (2, &[0x00, 0x13], Malformation::Ipv4TotalLength { total: 19, header: 20 }),
            (0, &[0x4f], Malformation::Ipv4TotalLength { total: 32, header: 60 }),
        ];
        for (at, replacement, expected) in cases {
            let mut bytes = PACKET;
            bytes[at..at + replacement.len()].copy_from_slice(replacement);
            assert_eq!(Ipv4Packet::new_checked(&bytes).unwrap_err().malformation, expected);
        }
    }

    #[test]
    fn a_total_length_of_nothing_is_a_segment_that_the_card_cuts_later() {
        let mut bytes = PACKET;
        bytes[2..4].fill(0);
        assert_eq!(Ipv4Packet::new_checked(&bytes).unwrap().payload_length(), 14);
    }

    #[test]
    fn options_are_listed_until_the_first_bad_one() {
        let mut bytes = [0; 32];
        bytes[..20].copy_from_slice(&PACKET[..20]);
        bytes[0] = 0x48;
        // No operation, router alert, then a record route that is longer than the header.
        bytes[20..28].copy_from_slice(&[0x01, 0x94, 0x04, 0x00, 0x00, 0x07, 0x27, 0x04]);
        let packet = Ipv4Packet::new_checked(&bytes).unwrap();
        assert_eq!(packet.header_length(), 32);
        let options: Vec<_> = packet.options().collect();
        let alert = Ipv4Option { kind: 0x94, data: &[0, 0] };
        let bad = WireError::new(25, Malformation::Ipv4OptionLength { length: 0x27, room: 7 });
        assert_eq!(options, [Ok(alert), Err(bad)]);
    }
}
