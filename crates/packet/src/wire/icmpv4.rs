//! ICMP for IPv4 (RFC 792).

use super::error::{Header, WireError, header};

/// Types of messages (IANA: ICMP parameters).
pub mod icmpv4_type {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Source quench, deprecated.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp.
    pub const TIMESTAMP: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;
    /// Information request, deprecated.
    pub const INFORMATION_REQUEST: u8 = 15;
    /// Information reply, deprecated.
    pub const INFORMATION_REPLY: u8 = 16;
    /// Address mask request, deprecated.
    pub const ADDRESS_MASK_REQUEST: u8 = 17;
    /// Address mask reply, deprecated.
    pub const ADDRESS_MASK_REPLY: u8 = 18;
}

/// An ICMP message of IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv4Packet<'a> {
    header: &'a [u8; 8],
    payload: &'a [u8],
}

impl<'a> Icmpv4Packet<'a> {
    /// The length of the header, in bytes; all messages have this much.
    pub const HEADER_LENGTH: usize = 8;

    /// A view over a message.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when the header is not whole.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header(bytes, Header::Icmpv4)?;
        Ok(Self { header, payload: &bytes[Self::HEADER_LENGTH..] })
    }

    /// The type of the message, one of [`icmpv4_type`].
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

    /// Whether the message reports an error about a packet that was sent before (RFC 1122, 3.2.2).
    #[inline]
    #[must_use]
    pub const fn is_error(&self) -> bool {
        use icmpv4_type::*;
        matches!(
            self.message_type(),
            DESTINATION_UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }

    /// The identifier of an echo, or of its reply.
    #[inline]
    #[must_use]
    pub const fn identifier(&self) -> Option<u16> {
        match self.message_type() {
            icmpv4_type::ECHO | icmpv4_type::ECHO_REPLY => Some(u16::from_be_bytes([self.header[4], self.header[5]])),
            _ => None,
        }
    }

    /// The beginning of the packet that an error is about: its IPv4 header and at least eight bytes more.
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
    fn an_echo_has_an_identifier_and_no_original() {
        let bytes = [0x08, 0x00, 0x1a, 0x2b, 0x04, 0xd2, 0x00, 0x01, 0xaa];
        let message = Icmpv4Packet::new_checked(&bytes).unwrap();
        assert_eq!((message.message_type(), message.code()), (icmpv4_type::ECHO, 0));
        assert_eq!(message.identifier(), Some(1234));
        assert!(!message.is_error());
        assert_eq!(message.original_packet(), None);
        assert_eq!(message.payload(), [0xaa]);
    }

    #[test]
    fn an_error_carries_the_packet_it_is_about() {
        let bytes = [0x03, 0x03, 0, 0, 0, 0, 0, 0, 0x45, 0x00];
        let message = Icmpv4Packet::new_checked(&bytes).unwrap();
        assert!(message.is_error());
        assert_eq!(message.identifier(), None);
        assert_eq!(message.original_packet(), Some(&[0x45, 0x00][..]));
    }

    #[test]
    fn a_cut_header_is_an_error() {
        for length in 0..8 {
            assert_eq!(Icmpv4Packet::new_checked(&[8; 8][..length]).unwrap_err().offset, length);
        }
    }
}
