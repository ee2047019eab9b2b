//! TCP segments (RFC 9293).

use super::error::{Header, Malformation, WireError, header};

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers: the opening of a connection.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Deliver promptly.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);

    /// The bits of byte 13 of the header.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The bits as they stand in byte 13 of the header.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all bits of `other` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct TcpSegment<'a> {
    header: &'a [u8; 20],
    payload: &'a [u8],
}

impl<'a> TcpSegment<'a> {
    /// The length of a header without options, in bytes.
    pub const MINIMUM_HEADER_LENGTH: usize = 20;

    /// A view over a segment.
    ///
    /// # Errors
    /// [`Malformation::TcpDataOffset`] when the header says that it is shorter than any can be,
    /// [`Malformation::Truncated`] when it is not whole, options included.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header::<20>(bytes, Header::Tcp)?;
        let words = header[12] >> 4;
        if words < 5 {
            return Err(WireError::new(12, Malformation::TcpDataOffset(words)));
        }
        let needed = usize::from(words) * 4;
        let cut = Malformation::Truncated { header: Header::Tcp, needed, available: bytes.len() };
        let payload = bytes.get(needed..).ok_or(WireError::new(bytes.len(), cut))?;
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

    /// The sequence number.
    #[inline]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// The acknowledgment number, which counts where [`TcpFlags::ACK`] is set.
    #[inline]
    #[must_use]
    pub const fn acknowledgment(&self) -> u32 {
        u32::from_be_bytes([self.header[8], self.header[9], self.header[10], self.header[11]])
    }

    /// The control bits.
    #[inline]
    #[must_use]
    pub const fn flags(&self) -> TcpFlags {
        TcpFlags(self.header[13])
    }

    /// The length of the header with its options, in bytes.
    #[inline]
    #[must_use]
    pub const fn header_length(&self) -> usize {
        (self.header[12] >> 4) as usize * 4
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

    /// The SYN of a connection from port 40072 to port 80, with the options of Linux.
    const SYN: [u8; 40] = [
        0x9c, 0x88, 0x00, 0x50, 0x1f, 0x4b, 0x7f, 0x2e, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xff, 0xd7, 0xfe, 0x30,
        0x00, 0x00, 0x02, 0x04, 0xff, 0xd7, 0x04, 0x02, 0x08, 0x0a, 0x6d, 0x1f, 0x53, 0x2b, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x03, 0x03, 0x0a,
    ];

    #[test]
    fn fields_stand_where_rfc_9293_puts_them() {
        let segment = TcpSegment::new_checked(&SYN).unwrap();
        assert_eq!((segment.source_port(), segment.destination_port()), (40072, 80));
        assert_eq!((segment.sequence(), segment.acknowledgment()), (0x1f4b_7f2e, 0));
        assert_eq!(segment.flags(), TcpFlags::SYN);
        assert!(!segment.flags().contains(TcpFlags::ACK));
        assert_eq!(segment.header_length(), 40);
        assert!(segment.payload().is_empty());
    }

    #[test]
    fn every_cut_is_an_error_until_the_options_are_whole() {
        for length in 0..40 {
            let error = TcpSegment::new_checked(&SYN[..length]).unwrap_err();
            let needed = if length < 20 { 20 } else { 40 };
            assert_eq!(error.malformation, Malformation::Truncated { header: Header::Tcp, needed, available: length });
        }
    }

    #[test]
    fn a_data_offset_inside_the_header_is_named() {
        let mut bytes = SYN;
        bytes[12] = 0x40;
        let error = TcpSegment::new_checked(&bytes).unwrap_err();
        assert_eq!((error.offset, error.malformation), (12, Malformation::TcpDataOffset(4)));
    }
}
