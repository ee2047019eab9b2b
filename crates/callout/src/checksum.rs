//! Lengths and checksums of packets, put right.

use openwfp_packet::wire::{EtherType, EthernetFrame, Ipv4Packet, Ipv6Packet, TcpSegment, VlanTags, protocol};

/// Frames are filled up to so many bytes on the wire, without the check sequence.
const SHORTEST_FRAME: usize = 60;

/// The longest IP packet that has its length in its header.
const LONGEST: usize = u16::MAX as usize;

/// Why bytes cannot be put right: they are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum MendError {
    /// Neither IPv4 nor IPv6, or a header that is cut or contradicts itself.
    #[error("the IP header is none, or is cut")]
    Network,
    /// The transport header is cut, or contradicts its own length.
    #[error("the transport header is cut")]
    Transport,
    /// Longer than IP can say.
    #[error("the packet is longer than 65,535 bytes")]
    TooLong,
    /// The frame is shorter than its header.
    #[error("the frame is shorter than its header")]
    Frame,
}

/// Puts the lengths and checksums of IP, TCP, UDP, ICMP and ICMPv6 right, so that they fit the bytes. `frame` says that a frame's header
/// stands before the packet; a frame of another protocol than IP is left as it is.
///
/// Fragments have no checksum of their own beyond that of the IP header. A UDP checksum of zero in IPv4, which says that there is
/// none, stays.
///
/// # Errors
/// What is wrong with the bytes; they may have been changed in part.
pub fn mend(frame: bool, bytes: &mut [u8]) -> Result<(), MendError> {
    if !frame {
        return mend_ip(bytes, false);
    }
    let (at, ether_type) = {
        let ethernet = EthernetFrame::new_checked(bytes).map_err(|_| MendError::Frame)?;
        let tags = VlanTags::new_checked(ethernet.ether_type(), ethernet.payload()).map_err(|_| MendError::Frame)?;
        (bytes.len() - tags.payload().len(), tags.ether_type())
    };
    let padded = bytes.len() <= SHORTEST_FRAME;
    match ether_type {
        EtherType::IPV4 | EtherType::IPV6 => mend_ip(&mut bytes[at..], padded),
        _ => Ok(()),
    }
}

fn mend_ip(bytes: &mut [u8], padded: bool) -> Result<(), MendError> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => mend_ipv4(bytes, padded),
        Some(6) => mend_ipv6(bytes, padded),
        _ => Err(MendError::Network),
    }
}

/// How long the packet is: as long as the bytes, unless these may be filled up.
fn length(bytes: &[u8], said: usize, least: usize, padded: bool) -> Result<usize, MendError> {
    let length = if padded && said >= least && said <= bytes.len() { said } else { bytes.len() };
    if length > LONGEST { Err(MendError::TooLong) } else { Ok(length) }
}

fn mend_ipv4(bytes: &mut [u8], padded: bool) -> Result<(), MendError> {
    let header = usize::from(bytes[0] & 15) * 4;
    if header < 20 || bytes.len() < header {
        return Err(MendError::Network);
    }
    let said = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let length = length(bytes, said, header, padded)?;
    let bytes = &mut bytes[..length];
    put(bytes, 2, length as u16);
    put(bytes, 10, 0);
    let checksum = finish(sum(0, &bytes[..header]));
    put(bytes, 10, checksum);
    let (is_fragment, protocol) = {
        let ip = Ipv4Packet::new_checked(bytes).map_err(|_| MendError::Network)?;
        (ip.fragment().is_some(), ip.protocol())
    };
    if is_fragment {
        return Ok(());
    }
    let (head, payload) = bytes.split_at_mut(header);
    mend_transport(&head[12..20], protocol, true, payload)
}

fn mend_ipv6(bytes: &mut [u8], padded: bool) -> Result<(), MendError> {
    const HEADER: usize = Ipv6Packet::HEADER_LENGTH;
    if bytes.len() < HEADER {
        return Err(MendError::Network);
    }
    let said = HEADER + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let whole = length(&bytes[HEADER..], said - HEADER, 0, padded)?;
    let bytes = &mut bytes[..HEADER + whole];
    put(bytes, 4, whole as u16);
    let (at, is_fragment, protocol) = {
        let ip = Ipv6Packet::new_checked(bytes).map_err(|_| MendError::Network)?;
        let chain = ip.chain().map_err(|_| MendError::Network)?;
        (HEADER + chain.length(), chain.fragment().is_some(), chain.protocol())
    };
    if is_fragment {
        return Ok(());
    }
    let (head, payload) = bytes.split_at_mut(at.min(HEADER + whole));
    mend_transport(&head[8..40], protocol, false, payload)
}

fn mend_transport(addresses: &[u8], protocol: u8, v4: bool, payload: &mut [u8]) -> Result<(), MendError> {
    let length = payload.len();
    let pseudo = |protocol: u8| {
        let begin = sum(u32::from(protocol), addresses);
        // A length of 16 bits is one word; an IPv6 pseudo header of 32 has zeros before it.
        begin + length as u32
    };
    match protocol {
        protocol::TCP => {
            TcpSegment::new_checked(payload).map_err(|_| MendError::Transport)?;
            put(payload, 16, 0);
            let checksum = finish(sum(pseudo(protocol), payload));
            put(payload, 16, checksum);
        }
        protocol::UDP => {
            if length < 8 {
                return Err(MendError::Transport);
            }
            let had_none = payload[6..8] == [0, 0] && v4;
            put(payload, 4, length as u16);
            put(payload, 6, 0);
            if !had_none {
                let checksum = finish(sum(pseudo(protocol), payload));
                put(payload, 6, if checksum == 0 { 0xffff } else { checksum });
            }
        }
        protocol::ICMP if v4 => {
            if length < 4 {
                return Err(MendError::Transport);
            }
            put(payload, 2, 0);
            let checksum = finish(sum(0, payload));
            put(payload, 2, checksum);
        }
        protocol::ICMPV6 if !v4 => {
            if length < 4 {
                return Err(MendError::Transport);
            }
            put(payload, 2, 0);
            let checksum = finish(sum(pseudo(protocol), payload));
            put(payload, 2, checksum);
        }
        _ => {}
    }
    Ok(())
}

fn put(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

/// Adds the words of `bytes` (RFC 1071). At most 65,535 bytes, so that nothing overflows.
fn sum(begin: u32, bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let mut sum = begin;
    for word in &mut words {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    match words.remainder() {
        [last] => sum + u32::from(*last) * 256,
        _ => sum,
    }
}

fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    // An ICMP echo as Linux sends it, checksums included.
    const ECHO: [u8; 32] = [
        0x45, 0, 0, 0x20, 0x12, 0x34, 0x40, 0, 64, 1, 0xe0, 0xc2, 192, 0, 2, 1, 198, 51, 100, 9, 8, 0, 0x0c, 0x9d,
        0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g',
    ];

    /// Adds a packet's words as its receiver does: a right checksum makes the sum all ones.
    fn is_right(pseudo: u32, bytes: &[u8]) -> bool {
        finish(sum(pseudo, bytes)) == 0
    }

    #[test]
    fn a_changed_echo_is_right_again() {
        let mut packet = ECHO.to_vec();
        packet[28] = b'P';
        packet.extend_from_slice(b" pong");
        mend(false, &mut packet).unwrap();
        assert_eq!(packet[2..4], [0, 37]);
        assert!(is_right(0, &packet[..20]) && is_right(0, &packet[20..]));
    }

    #[test]
    fn what_is_right_stays() {
        let mut packet = ECHO.to_vec();
        mend(false, &mut packet).unwrap();
        let once = packet.clone();
        mend(false, &mut packet).unwrap();
        assert_eq!(packet, once);
        assert!(is_right(0, &packet[..20]) && is_right(0, &packet[20..]));
    }

    #[test]
    fn the_checksum_of_udp_counts_the_addresses() {
        let payload = [0x9c, 0x40, 0, 53, 0, 0, 0xff, 0xff, b'a', b'b', b'c'];
        let mut v4 = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 80];
        v4.extend_from_slice(&payload);
        mend(false, &mut v4).unwrap();
        assert_eq!(v4[24..26], [0, 11]);
        assert!(is_right(17 + 11 + sum(0, &v4[12..20]), &v4[20..]));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        v6.extend_from_slice(&[0x20; 32]);
        v6.extend_from_slice(&payload);
        mend(false, &mut v6).unwrap();
        assert_eq!(v6[4..6], [0, 11]);
        assert!(is_right(17 + 11 + sum(0, &v6[8..40]), &v6[40..]));
    }

    #[test]
    fn a_udp_checksum_that_is_none_stays_none_over_ipv4_alone() {
        let mut v4 = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 80];
        v4.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0]);
        mend(false, &mut v4).unwrap();
        assert_eq!(v4[26..28], [0, 0]);
        let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        v6.extend_from_slice(&[0x20; 32]);
        v6.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0]);
        mend(false, &mut v6).unwrap();
        assert_ne!(v6[46..48], [0, 0]);
    }

    #[test]
    fn a_frame_keeps_what_it_was_filled_up_with() {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend_from_slice(&ECHO);
        frame.resize(60, 0);
        mend(true, &mut frame).unwrap();
        assert_eq!(frame[16..18], [0, 32]);
        let mut arp = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 9, 9];
        let before = arp.clone();
        mend(true, &mut arp).unwrap();
        assert_eq!(arp, before);
    }

    #[test]
    fn a_fragment_is_mended_as_far_as_its_ip_header() {
        let mut first = ECHO.to_vec();
        (first[6], first[22], first[23]) = (0x20, 0xaa, 0xbb);
        mend(false, &mut first).unwrap();
        assert_eq!(first[22..24], [0xaa, 0xbb]);
        assert!(is_right(0, &first[..20]));
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert_eq!(mend(false, &mut []), Err(MendError::Network));
        assert_eq!(mend(false, &mut [0x45; 19]), Err(MendError::Network));
        assert_eq!(mend(false, &mut [0x60; 39]), Err(MendError::Network));
        assert_eq!(mend(true, &mut [0; 13]), Err(MendError::Frame));
        let mut tcp = ECHO.to_vec();
        tcp[9] = 6;
        assert_eq!(mend(false, &mut tcp), Err(MendError::Transport));
        let mut long = ECHO.to_vec();
        long.resize(65536, 0);
        assert_eq!(mend(false, &mut long), Err(MendError::TooLong));
    }
}
