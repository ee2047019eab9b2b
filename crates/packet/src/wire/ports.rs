//! The ports of SCTP, DCCP and UDP-Lite, which stand where UDP has them. The rest of these protocols is not looked at.

use super::error::{Header, WireError, header};

/// The beginning of an SCTP packet (RFC 9260), a DCCP packet (RFC 4340) or a UDP-Lite datagram (RFC 3828).
#[derive(Clone, Copy, Debug)]
pub struct PortsHeader<'a> {
    header: &'a [u8; 4],
}

impl<'a> PortsHeader<'a> {
    /// A view over a packet of one of these protocols.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when the ports are not there.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        Ok(Self { header: header(bytes, Header::Ports)? })
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_first_four_bytes() {
        let ports = PortsHeader::new_checked(&[0x0b, 0x59, 0x0b, 0x5a, 0xff]).unwrap();
        assert_eq!((ports.source_port(), ports.destination_port()), (2905, 2906));
        assert_eq!(PortsHeader::new_checked(&[1, 2, 3]).unwrap_err().offset, 3);
    }
}
