//! UDP datagrams (RFC 768).

use super::error::{Header, Malformation, WireError, header};

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct UdpDatagram<'a> {
    header: &'a [u8; 8],
    payload: &'a [u8],
}

impl<'a> UdpDatagram<'a> {
    /// The length of the header, in bytes.
    pub const HEADER_LENGTH: usize = 8;

    /// A view over a datagram.
    ///
    /// The length 0 stands for a jumbogram (RFC 2675): the payload goes to the end of the bytes.
    ///
    /// # Errors
    /// [`Malformation::Truncated`] when the header is not whole, [`Malformation::UdpLength`] when its length is less
    /// than itself.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header::<8>(bytes, Header::Udp)?;
        let payload = &bytes[Self::HEADER_LENGTH..];
        let payload = match u16::from_be_bytes([header[4], header[5]]) {
            0 => payload,
            length @ 1..8 => return Err(WireError::new(4, Malformation::UdpLength(length))),
            length => &payload[..payload.len().min(usize::from(length) - Self::HEADER_LENGTH)],
        };
        Ok(Self { header, payload })
    }

    /// The sender's port.
    #[inline]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The receiver's port.
    #[inline]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The length of header and payload, as the header states it.
    #[inline]
    #[must_use]
    pub const fn length(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// The data, as far as they are there.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 13] = [0xd4, 0x31, 0x00, 0x35, 0x00, 0x0c, 0xfe, 0x1f, b'a', b'b', b'c', b'd', 0];

    #[test]
    fn the_payload_ends_where_the_length_says() {
        let datagram = UdpDatagram::new_checked(&DATAGRAM).unwrap();
        assert_eq!((datagram.source_port(), datagram.destination_port()), (54321, 53));
        assert_eq!(datagram.length(), 12);
        assert_eq!(datagram.payload(), b"abcd");
    }

    #[test]
    fn a_cut_payload_ends_where_the_bytes_end() {
        assert_eq!(UdpDatagram::new_checked(&DATAGRAM[..10]).unwrap().payload(), b"ab");
        assert!(UdpDatagram::new_checked(&DATAGRAM[..7]).is_err());
    }

    #[test]
    fn a_length_inside_the_header_is_named() {
        for length in 0..8u8 {
            let mut bytes = DATAGRAM;
            bytes[5] = length;
            let outcome = UdpDatagram::new_checked(&bytes).map(|datagram| datagram.payload().len());
            match length {
                0 => assert_eq!(outcome, Ok(5)),
                length => assert_eq!(outcome, Err(WireError::new(4, Malformation::UdpLength(length.into())))),
            }
        }
    }
}
