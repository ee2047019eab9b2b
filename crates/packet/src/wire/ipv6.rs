//! IPv6 packets and their extension headers (RFC 8200).

use core::net::Ipv6Addr;

use super::error::{Header, Malformation, WireError, header};
use super::fragment::Fragment;

/// How many extension headers are followed. A stack sends three or four at most.
pub const MAX_EXTENSION_HEADERS: usize = 16;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// An IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6Packet<'a> {
    header: &'a [u8; 40],
    payload: &'a [u8],
    payload_length: usize,
}

impl<'a> Ipv6Packet<'a> {
    /// The length of the header without extensions, in bytes.
    pub const HEADER_LENGTH: usize = 40;

    /// A view over a packet.
    ///
    /// A payload length of 0 stands for a jumbogram (RFC 2675), which goes to the end of the bytes.
    ///
    /// # Errors
    /// [`Malformation::IpVersion`], and [`Malformation::Truncated`] when the header is not whole.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header::<40>(bytes, Header::Ipv6)?;
        let version = header[0] >> 4;
        if version != 6 {
            return Err(WireError::new(0, Malformation::IpVersion(version)));
        }
        let rest = &bytes[Self::HEADER_LENGTH..];
        let payload_length = match u16::from_be_bytes([header[4], header[5]]) {
            0 => rest.len(),
            length => usize::from(length),
        };
        Ok(Self { header, payload: &rest[..rest.len().min(payload_length)], payload_length })
    }

    /// The sender.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        address(self.header, 8)
    }

    /// The receiver.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        address(self.header, 24)
    }

    /// What follows the header: an extension header or a protocol.
    #[inline]
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.header[6]
    }

    /// What follows the header, extension headers included, as far as it is there.
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

    /// Walks the extension headers.
    ///
    /// # Errors
    /// As [`Ipv6Chain::walk`].
    #[inline]
    pub fn chain(&self) -> Result<Ipv6Chain<'a>, WireError> {
        Ipv6Chain::walk(self.next_header(), self.payload)
    }
}

#[inline]
fn address(header: &[u8; 40], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// What stands at the end of a chain of extension headers.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6Chain<'a> {
    protocol: u8,
    fragment: Option<Fragment>,
    payload: &'a [u8],
    length: usize,
}

impl<'a> Ipv6Chain<'a> {
    /// Walks extension headers from `next_header` on, the first of which begins `bytes`.
    ///
    /// The walk ends at the first protocol, or after the header of a fragment: what follows that is part of a datagram.
    /// A fragment that is the whole datagram (RFC 6946) is passed over like any other extension.
    ///
    /// # Errors
    /// [`Malformation::Truncated`] when the bytes end inside an extension header,
    /// [`Malformation::Ipv6ExtensionCount`] when there are more than [`MAX_EXTENSION_HEADERS`].
    #[inline]
    pub fn walk(next_header: u8, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut chain = Self { protocol: next_header, fragment: None, payload: bytes, length: 0 };
        for _ in 0..MAX_EXTENSION_HEADERS {
            let length = match chain.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8 + chain.length_field()? * 8,
                AUTHENTICATION => 8 + chain.length_field()? * 4,
                FRAGMENT => {
                    if chain.pass_fragment_header()? {
                        return Ok(chain);
                    }
                    continue;
                }
                _ => return Ok(chain),
            };
            chain.pass(length)?;
        }
        match chain.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT => {
                Err(WireError::new(chain.length, Malformation::Ipv6ExtensionCount(MAX_EXTENSION_HEADERS)))
            }
            _ => Ok(chain),
        }
    }

    fn length_field(&self) -> Result<usize, WireError> {
        let [_, length] =
            header::<2>(self.payload, Header::Ipv6Extension).map_err(|error| error.within(self.length))?;
        Ok(usize::from(*length))
    }

    fn pass(&mut self, needed: usize) -> Result<(), WireError> {
        let available = self.payload.len();
        let (Some(&next), Some(rest)) = (self.payload.first(), self.payload.get(needed..)) else {
            let cut = Malformation::Truncated { header: Header::Ipv6Extension, needed, available };
            return Err(WireError::new(self.length + available, cut));
        };
        self.protocol = next;
        self.payload = rest;
        self.length += needed;
        Ok(())
    }

    /// Passes a fragment header; whether it makes the packet a fragment.
    fn pass_fragment_header(&mut self) -> Result<bool, WireError> {
        let header = header::<8>(self.payload, Header::Ipv6Extension).map_err(|error| error.within(self.length))?;
        let word = u16::from_be_bytes([header[2], header[3]]);
        let (at, more) = (word & 0xfff8, word & 1 != 0);
        let identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        self.pass(8)?;
        if at == 0 && !more {
            return Ok(false);
        }
        self.fragment = Some(Fragment { identification, at, more });
        Ok(true)
    }

    /// What the payload is; in a fragment, what the datagram begins with.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The place in a datagram, when this is a fragment of one.
    #[inline]
    #[must_use]
    pub const fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// What follows the extension headers.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The length of all extension headers that were passed, in bytes.
    #[inline]
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header for 8 bytes of payload from fe80::1 to ff02::fb, next header UDP.
    const HEADER: [u8; 40] = [
        0x60, 0x0d, 0x3f, 0x2a, 0x00, 0x08, 0x11, 0xff, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0xff,
        0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb,
    ];

    #[test]
    fn fields_stand_where_rfc_8200_puts_them() {
        let mut bytes = HEADER.to_vec();
        bytes.extend([0x14, 0xe9, 0x14, 0xe9, 0x00, 0x08, 0x00, 0x00, 0xee]);
        let packet = Ipv6Packet::new_checked(&bytes).unwrap();
        assert_eq!(packet.source(), "fe80::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(packet.destination(), "ff02::fb".parse::<Ipv6Addr>().unwrap());
        assert_eq!(packet.next_header(), 17);
        assert_eq!((packet.payload().len(), packet.payload_length()), (8, 8));
        let chain = packet.chain().unwrap();
        assert_eq!((chain.protocol(), chain.length(), chain.fragment()), (17, 0, None));
    }

    #[test]
    fn cut_headers_and_other_versions_are_named() {
        for length in 0..40 {
            assert_eq!(Ipv6Packet::new_checked(&HEADER[..length]).unwrap_err().offset, length);
        }
        let mut bytes = HEADER;
        bytes[0] = 0x45;
        assert_eq!(Ipv6Packet::new_checked(&bytes).unwrap_err().malformation, Malformation::IpVersion(4));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        // Hop-by-hop with a router alert, destination options of 16 bytes, authentication of 24, then ICMPv6.
        let mut bytes = vec![60, 0, 5, 2, 0, 0, 1, 0];
        bytes.extend([51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([58, 4]);
        bytes.extend([0; 22]);
        bytes.push(0x80);
        let chain = Ipv6Chain::walk(HOP_BY_HOP, &bytes).unwrap();
        assert_eq!((chain.protocol(), chain.length()), (58, 48));
        assert_eq!(chain.payload(), [0x80]);
        for length in 0..48 {
            let error = Ipv6Chain::walk(HOP_BY_HOP, &bytes[..length]).unwrap_err();
            assert!(matches!(error.malformation, Malformation::Truncated { header: Header::Ipv6Extension, .. }));
            assert_eq!(error.offset, length);
        }
    }

    #[test]
    fn a_fragment_header_ends_the_walk() {
        let bytes = [17, 0, 0x05, 0xa9, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3];
        let chain = Ipv6Chain::walk(FRAGMENT, &bytes).unwrap();
        assert_eq!(chain.protocol(), 17);
        assert_eq!(chain.fragment(), Some(Fragment { identification: 0xdead_beef, at: 1448, more: true }));
        assert_eq!(chain.payload(), [1, 2, 3]);
    }

    #[test]
    fn a_fragment_that_is_the_whole_datagram_is_none() {
        let bytes = [17, 0, 0, 0, 0, 0, 0, 1, 0xaa];
        let chain = Ipv6Chain::walk(FRAGMENT, &bytes).unwrap();
        assert_eq!((chain.protocol(), chain.fragment()), (17, None));
        assert_eq!(chain.payload(), [0xaa]);
    }

    #[test]
    fn a_chain_without_end_is_named() {
        let endless = [60, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSION_HEADERS + 1);
        let error = Ipv6Chain::walk(DESTINATION_OPTIONS, &endless).unwrap_err();
        assert_eq!(error.malformation, Malformation::Ipv6ExtensionCount(MAX_EXTENSION_HEADERS));
        assert_eq!(error.offset, 8 * MAX_EXTENSION_HEADERS);
    }
}
