//! ICMP for IPv6 (RFC 4443).

use super::error::{Header, WireError, header};

/// Types of messages (IANA: ICMPv6 parameters). Types below 128 report errors.
pub mod icmpv6_type {
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbor solicitation (RFC 4861).
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Neighbor advertisement (RFC 4861).
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// Redirect (RFC 4861).
    pub const REDIRECT: u8 = 137;
}

/// An ICMP message of IPv6.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6Packet<'a> {
    header: &'a [u8; 8],
    payload: &'a [u8],
}

impl<'a> Icmpv6Packet<'a> {
    /// The length of the header, in bytes; all messages have this much.
    pub const HEADER_LENGTH: usize = 8;

    /// A view over a message.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when the header is not whole.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header(bytes, Header::Icmpv6)?;
        Ok(Self { header, payload: &bytes[Self::HEADER_LENGTH..] })
    }

    /// The type of the message, one of [`icmpv6_type`].
    #[inline]
    #[must_use]
    pub const fn message_type(&self) -> u8 {
        self.header[0]
    }

    /// The code, whose meaning depends on the type.
    #[inline]
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.header[1]
    }

    /// Whether the message reports an error about a packet that was sent before.
    #[inline]
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.message_type() < 128
    }

    /// The identifier of an echo request, or of its reply.
    #[inline]
    #[must_use]
    pub const fn identifier(&self) -> Option<u16> {
        match self.message_type() {
            icmpv6_type::ECHO_REQUEST | icmpv6_type::ECHO_REPLY => {
                Some(u16::from_be_bytes([self.header[4], self.header[5]]))
            }
            _ => None,
        }
    }

    /// The beginning of the packet that an error is about: as much as fits into 1280 bytes.
    #[inline]
    #[must_use]
    pub const fn original_packet(&self) -> Option<&'a [u8]> {
        if self.is_error() { Some(self.payload) } else { None }
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_has_an_identifier() {
        let bytes = [0x81, 0x00, 0x1a, 0x2b, 0x04, 0xd2, 0x00, 0x01];
        let message = Icmpv6Packet::new_checked(&bytes).unwrap();
        assert_eq!((message.message_type(), message.code()), (icmpv6_type::ECHO_REPLY, 0));
        assert_eq!(message.identifier(), Some(1234));
        assert!(!message.is_error());
    }

    #[test]
    fn an_error_carries_the_packet_it_is_about() {
        let bytes = [0x01, 0x04, 0, 0, 0, 0, 0, 0, 0x60];
        let message = Icmpv6Packet::new_checked(&bytes).unwrap();
        assert_eq!(message.original_packet(), Some(&[0x60][..]));
        assert_eq!(message.identifier(), None);
        assert!(Icmpv6Packet::new_checked(&bytes[..7]).is_err());
    }
}
