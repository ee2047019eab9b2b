//! Bytes of frames: what has to be right in them, and what the kernel takes them for.

use super::net::station;

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
/// The types of frames with a tag: IEEE 802.1Q and 802.1ad.
pub const TAGS: [u16; 2] = [0x8100, 0x88a8];

pub const UDP: u8 = 17;
/// Destination options.
pub const DESTINATION: u8 = 60;

/// The port of the receiver.
pub const PORT: u16 = 4711;

/// The Internet checksum.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Lets the header of an untagged packet tell the length that it has.
pub fn tell_length(frame: &mut [u8]) {
    let packet = frame.len() - 14;
    match frame[12..14].try_into().map(u16::from_be_bytes) {
        Ok(IPV4) if packet >= 4 => frame[16..18].copy_from_slice(&(packet as u16).to_be_bytes()),
        Ok(IPV6) if packet >= 40 => frame[18..20].copy_from_slice(&(packet as u16 - 40).to_be_bytes()),
        _ => {}
    }
}

/// Lets the checksum of an untagged IPv4 header be right.
pub fn repair_checksum(frame: &mut [u8]) {
    let header = frame.get(14).map_or(0, |first| usize::from(first & 15) * 4);
    if frame[12..14] == IPV4.to_be_bytes() && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What the kernel takes a frame that comes in for, as far as programs at devices see it; `None`: it drops it before.
pub fn seen_as(frame: &[u8]) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let kind = word(12)?;
    // a tag is taken out, if there is a type behind it, and two bytes of what that is of
    if TAGS.contains(&kind) { word(18).and(word(16)) } else { Some(kind) }
}

/// Whether a frame that comes in holds a packet of IP for the programs.
pub fn is_ip(frame: &[u8]) -> bool {
    matches!(seen_as(frame), Some(IPV4 | IPV6))
}

/// Whether the kernel finds a packet in a frame that comes in, behind two tags that name no VLAN, which programs see as a frame alone.
pub fn hides_a_packet(frame: &[u8]) -> bool {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let names_none = |tag: u16| tag & 0xfff == 0;
    seen_as(frame).is_some_and(|kind| TAGS.contains(&kind))
        && word(14).is_some_and(names_none)
        && word(18).is_some_and(names_none)
        && word(20).is_some_and(|kind| [IPV4, IPV6].contains(&kind) || TAGS.contains(&kind))
}

/// A datagram that is in order, from an address of net 1.
pub fn datagram(from: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 33, 0, 1, 0, 0, 64, UDP, 0, 0];
    packet.extend(from.into_iter().chain([10, 9, 1, 1]));
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    // no checksum
    packet.extend([port, PORT, 13, 0].iter().flat_map(|word| word.to_be_bytes()));
    packet.extend(b"hello");
    let mut frame = station(1, 1).to_be_bytes()[2..].to_vec();
    frame.extend(&station(1, from[3]).to_be_bytes()[2..]);
    frame.extend(IPV4.to_be_bytes());
    frame.extend(packet);
    frame
}

/// The same from fd09::1:2, with so many extension headers.
pub fn datagram_v6(extensions: usize, port: u16) -> Vec<u8> {
    let [source, destination] = [2u8, 1].map(|last| [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, last]);
    let mut datagram: Vec<u8> = [port, PORT, 13, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
    datagram.extend(b"hello");
    let sum = checksum(&[&source[..], &destination, &[0, UDP, 0, 13], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((datagram.len() as u16 + 8 * extensions as u16).to_be_bytes());
    packet.extend([if extensions == 0 { UDP } else { DESTINATION }, 64]);
    packet.extend(source.into_iter().chain(destination));
    for left in (0..extensions).rev() {
        packet.extend([if left == 0 { UDP } else { DESTINATION }, 0, 1, 4, 0, 0, 0, 0]);
    }
    packet.extend(datagram);
    let mut frame = station(1, 1).to_be_bytes()[2..].to_vec();
    frame.extend(&station(1, 2).to_be_bytes()[2..]);
    frame.extend(IPV6.to_be_bytes());
    frame.extend(packet);
    frame
}

/// Lets a packet tell the length that it has, with a checksum that is right.
pub fn repair(frame: &mut [u8]) {
    tell_length(frame);
    repair_checksum(frame);
}
