//! A datagram in a frame that bears a tag of a priority alone, without a VLAN (IEEE 802.1p): every kernel takes it, devices for VLANs or not.

use openwfp_attacks::world::send_frame;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// Priority 3, no VLAN.
const TAG: [u8; 4] = [0x81, 0x00, 0x60, 0x00];

/// Sends it from the peer's device.
pub fn send(from: SocketAddr, to: SocketAddr, text: &[u8]) -> io::Result<()> {
    send_frame("wfp-in", &frame(from, to, text))
}

fn frame(from: SocketAddr, to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let length = (8 + text.len()) as u16;
    let mut datagram = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(text);
    let [source, destination] = [from, to].map(|address| match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    });
    let ends = [&source[..], &destination].concat();
    let pseudo = [&ends[..], &[0, 17], &length.to_be_bytes(), &datagram].concat();
    let sum = checksum(&pseudo);
    datagram[6..8].copy_from_slice(&sum);
    let (kind, mut header) = match from.is_ipv4() {
        true => {
            let total = (20 + length).to_be_bytes();
            ([0x08, 0x00], vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, 17, 0, 0])
        }
        false => {
            let length = length.to_be_bytes();
            ([0x86, 0xdd], vec![0x60, 0, 0, 0, length[0], length[1], 17, 64])
        }
    };
    header.extend(ends);
    if from.is_ipv4() {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
    }
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &TAG, &kind, &header, &datagram].concat()
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum + (sum >> 16)) as u16).to_be_bytes()
}
