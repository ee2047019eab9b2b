//! Packets whose bytes were changed or made: lengths and checksums that fit, and packets that are longer than their device takes.

use super::packet::Offload;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Where the headers of an IP packet stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Where that of IP begins.
    pub ip: usize,
    /// Whether it is IPv6.
    pub v6: bool,
    /// The protocol of what it carries, behind all extension headers.
    pub protocol: u8,
    /// Where the transport header begins; of a fragment that is not the first, where its data does.
    pub transport: usize,
    /// Whether it is a fragment.
    pub fragment: bool,
    /// Whether it is the first or only one.
    pub first: bool,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn put(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

impl Headers {
    /// Finds the headers of the IP packet that begins at `ip`. `None`: they are cut short.
    #[must_use]
    pub fn find(packet: &[u8], ip: usize) -> Option<Self> {
        let first = *packet.get(ip)?;
        match first >> 4 {
            4 => {
                let transport = ip + usize::from(first & 15) * 4;
                let place = word(packet, ip + 6)?;
                let protocol = *packet.get(ip + 9)?;
                (transport >= ip + 20 && packet.len() >= transport).then_some(Self {
                    ip,
                    v6: false,
                    protocol,
                    transport,
                    fragment: place & 0x3fff != 0,
                    first: place & 0x1fff == 0,
                })
            }
            6 => {
                let mut headers = Self {
                    ip,
                    v6: true,
                    protocol: *packet.get(ip + 6)?,
                    transport: ip + 40,
                    fragment: false,
                    first: true,
                };
                packet.get(ip + 39)?;
                loop {
                    let at = headers.transport;
                    let length = match headers.protocol {
                        0 | 43 | 60 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
                        51 => (usize::from(*packet.get(at + 1)?) + 2) * 4,
                        44 => {
                            headers.fragment = true;
                            headers.first = word(packet, at + 2)? & 0xfff8 == 0;
                            8
                        }
                        _ => return Some(headers),
                    };
                    headers.protocol = *packet.get(at)?;
                    headers.transport += length;
                    packet.get(..headers.transport)?;
                    if !headers.first {
                        return Some(headers);
                    }
                }
            }
            _ => None,
        }
    }

    /// How long the transport header is; `None`: it is cut short, or of a protocol whose header is not known.
    fn transport_bytes(&self, packet: &[u8]) -> Option<usize> {
        let length = match self.protocol {
            TCP => usize::from(*packet.get(self.transport + 12)? >> 4) * 4,
            UDP => 8,
            _ => return None,
        };
        packet.get(self.transport + length..).map(|_| length)
    }

    /// Where the payload of a TCP segment or UDP datagram begins.
    #[must_use]
    pub fn payload(&self, packet: &[u8]) -> Option<usize> {
        self.first.then(|| self.transport_bytes(packet)).flatten().map(|length| self.transport + length)
    }

    /// Where the checksum stands in the transport header.
    fn sum_offset(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(16),
            UDP => Some(6),
            _ => None,
        }
    }

    /// The sum of the pseudo-header over a transport part of this length.
    fn pseudo(&self, packet: &[u8], length: usize) -> u32 {
        let addresses = if self.v6 { self.ip + 8..self.ip + 40 } else { self.ip + 12..self.ip + 20 };
        sum(&packet[addresses]) + u32::from(self.protocol) + (length as u32 & 0xffff) + (length as u32 >> 16)
    }
}

/// The sum of bytes as 16-bit words, before it is folded.
fn sum(bytes: &[u8]) -> u32 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut all = 0u64;
    for pair in pairs {
        all += u64::from(u16::from_be_bytes(*pair));
    }
    all += rest.first().map_or(0, |last| u64::from(*last) << 8);
    let all = (all & 0xffff_ffff) + (all >> 32);
    u32::from(fold(all as u32))
}

/// A sum in 16 bits.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the packet ends whose IP header begins at `ip`, by its own word: a frame may be longer. `None`: it does not say.
pub(super) fn end(packet: &[u8], ip: usize) -> Option<usize> {
    let length = match *packet.get(ip)? >> 4 {
        4 => usize::from(word(packet, ip + 2)?),
        _ => usize::from(word(packet, ip + 4)?).checked_sub(1)? + 41,
    };
    (length >= 20 && ip + length <= packet.len()).then_some(ip + length)
}

/// Makes lengths and checksums fit the bytes from the IP header on. What the device computes is left to it, as
/// [`Offload::sum`] says. `None`: the headers are cut short, or the checksum is of a kind that is not known here.
pub(super) fn mend(packet: &mut [u8], ip: usize, offload: &mut Offload) -> Option<()> {
    let headers = Headers::find(packet, ip)?;
    let length = packet.len() - ip;
    offload.sum = None;
    if headers.v6 {
        // 0 stands for a length that does not fit, as the kernel writes it for what is to be segmented
        put(packet, ip + 4, u16::try_from(length - 40).unwrap_or(0))?;
    } else {
        put(packet, ip + 2, u16::try_from(length).unwrap_or(0))?;
        put(packet, ip + 10, 0)?;
        let sum = !fold(sum(&packet[ip..headers.transport]));
        put(packet, ip + 10, sum)?;
    }
    // of a fragment the checksum counts what others carry
    if headers.fragment {
        offload.segments = None;
        return Some(());
    }
    let (transport, carried) = (headers.transport, packet.len() - headers.transport);
    match headers.protocol {
        TCP | UDP => {
            let bytes = headers.transport_bytes(packet)?;
            if headers.protocol == UDP {
                put(packet, transport + 4, u16::try_from(carried).unwrap_or(0))?;
            }
            let offset = headers.sum_offset()?;
            let pseudo = fold(headers.pseudo(packet, carried));
            put(packet, transport + offset, pseudo)?;
            offload.sum = Some((transport, offset));
            if let Some(segments) = &mut offload.segments {
                if carried - bytes <= usize::from(segments.size) {
                    offload.segments = None;
                } else {
                    segments.header = transport + bytes;
                }
            }
            return Some(());
        }
        ICMP if !headers.v6 => {
            put(packet, transport + 2, 0)?;
            let sum = !fold(sum(&packet[transport..]));
            put(packet, transport + 2, sum)?;
        }
        ICMPV6 => {
            put(packet, transport + 2, 0)?;
            let sum = !fold(sum(&packet[transport..]) + headers.pseudo(packet, carried));
            put(packet, transport + 2, sum)?;
        }
        SCTP => return None,
        _ => {}
    }
    offload.segments = None;
    Some(())
}

/// Computes the checksum that was left to the device.
fn complete(packet: &mut [u8], offload: &mut Offload) -> Option<()> {
    if let Some((start, offset)) = offload.sum.take() {
        // what stands there is the sum of the pseudo-header
        let all = !fold(sum(packet.get(start..)?));
        // 0 says of UDP that there is none
        put(packet, start + offset, if all == 0 { 0xffff } else { all })?;
    }
    Some(())
}

/// What becomes of a packet that its device may not take as it is.
pub(super) enum Fitted {
    /// It is sent as it is.
    Whole,
    /// It is sent in these pieces instead.
    Pieces(Vec<Vec<u8>>),
}

/// Makes a packet, from its IP header on, fit a device. A TCP segment is cut by whoever segments for the device; everything else
/// is cut into fragments of IP. `None`: it may not be, or cannot.
pub(super) fn fit(packet: &mut [u8], mtu: usize, offload: &mut Offload, even_if_not_allowed: bool) -> Option<Fitted> {
    if packet.len() <= mtu || offload.segments.is_some() {
        return Some(Fitted::Whole);
    }
    let headers = Headers::find(packet, 0)?;
    if headers.protocol == TCP && !headers.fragment {
        let header = headers.payload(packet)?;
        let size = u16::try_from(mtu.checked_sub(header)?).ok()?;
        offload.segments = Some(super::packet::Segments { kind: segments_of(headers.v6), size, header });
        return Some(Fitted::Whole);
    }
    complete(packet, offload)?;
    if headers.v6 {
        fragments_v6(packet, mtu, &headers)
    } else {
        fragments_v4(packet, mtu, &headers, even_if_not_allowed)
    }
    .map(Fitted::Pieces)
}

/// `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`.
const fn segments_of(v6: bool) -> u8 {
    if v6 { 4 } else { 1 }
}

fn fragments_v4(packet: &[u8], mtu: usize, headers: &Headers, even_if_not_allowed: bool) -> Option<Vec<Vec<u8>>> {
    const DO_NOT: u16 = 0x4000;
    const MORE: u16 = 0x2000;
    let place = word(packet, 6)?;
    if place & DO_NOT != 0 && !even_if_not_allowed {
        return None;
    }
    let (header, data) = packet.split_at_checked(headers.transport)?;
    let room = mtu.checked_sub(header.len())? & !7;
    if room == 0 {
        return None;
    }
    let last = data.len().div_ceil(room) - 1;
    let pieces = data.chunks(room).enumerate().map(|(number, data)| {
        let mut piece = [header, data].concat();
        let more = if number == last { place & MORE } else { MORE };
        let at = (place & 0x1fff) + (number * room / 8) as u16;
        put(&mut piece, 2, (header.len() + data.len()) as u16)?;
        put(&mut piece, 6, place & DO_NOT | more | at)?;
        put(&mut piece, 10, 0)?;
        let sum = !fold(sum(&piece[..header.len()]));
        put(&mut piece, 10, sum)?;
        Some(piece)
    });
    pieces.collect()
}

fn fragments_v6(packet: &[u8], mtu: usize, headers: &Headers) -> Option<Vec<Vec<u8>>> {
    // one that is a fragment already was cut by its sender; extension headers that every fragment would need are not looked for
    if headers.fragment || headers.transport != 40 {
        return None;
    }
    let (header, data) = packet.split_at_checked(40)?;
    let room = mtu.checked_sub(48)? & !7;
    if room == 0 {
        return None;
    }
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0x1357_9bdf);
    let number = NUMBER.fetch_add(0x9e37_79b9, std::sync::atomic::Ordering::Relaxed).to_be_bytes();
    let last = data.len().div_ceil(room) - 1;
    let pieces = data.chunks(room).enumerate().map(|(count, data)| {
        let place = (count * room) as u16 | u16::from(count != last);
        let mut piece = header.to_vec();
        put(&mut piece, 4, (8 + data.len()) as u16)?;
        piece[6] = 44;
        piece.extend([headers.protocol, 0]);
        piece.extend(place.to_be_bytes());
        piece.extend(number);
        piece.extend(data);
        Some(piece)
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo request and a datagram as `tcpdump` shows them (10.9.1.1 to 10.9.1.2), with their checksums.
    const ECHO: &str = "4500001c000040004001248b 0a090101 0a090102 0800f7fd00010001";
    const DATAGRAM: &str = "4500002100010000401164680a0901010a09010230391267000df5b668656c6c6f";

    fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn a_broken_echo_request_is_mended() {
        let whole = bytes(ECHO);
        let mut broken = whole.clone();
        broken[2..4].fill(0xff);
        broken[10..12].fill(0xff);
        broken[22..24].fill(0xff);
        let mut offload = Offload::default();
        mend(&mut broken, 0, &mut offload).unwrap();
        assert_eq!(fold(sum(&broken[..20])), 0xffff, "the sum of a right header");
        assert_eq!(fold(sum(&broken[20..])), 0xffff);
        assert_eq!(broken[2..4], [0, 28]);
        assert_eq!(offload, Offload::default());
    }

    #[test]
    fn a_datagram_is_left_to_the_device_or_completed() {
        let mut packet = bytes(DATAGRAM);
        packet.extend(b" and more");
        let mut offload = Offload::default();
        mend(&mut packet, 0, &mut offload).unwrap();
        assert_eq!(packet[2..4], [0, 42]);
        assert_eq!(packet[24..26], [0, 22]);
        assert_eq!(offload.sum, Some((20, 6)));
        complete(&mut packet, &mut offload).unwrap();
        let headers = Headers::find(&packet, 0).unwrap();
        assert_eq!(fold(sum(&packet[20..]) + headers.pseudo(&packet, 22)), 0xffff);
        assert_eq!(headers.payload(&packet), Some(28));
    }

    #[test]
    fn fragments_carry_everything_once() {
        for (v6, mtu) in [(false, 1500), (true, 1280)] {
            let mut packet = if v6 {
                let mut header = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
                header.resize(40, 1);
                [header, vec![0; 8], (0..6000u32).map(|n| n as u8).collect()].concat()
            } else {
                [bytes(DATAGRAM)[..28].to_vec(), (0..6000u32).map(|n| n as u8).collect()].concat()
            };
            let mut offload = Offload::default();
            mend(&mut packet, 0, &mut offload).unwrap();
            let start = Headers::find(&packet, 0).unwrap().transport;
            let Some(Fitted::Pieces(pieces)) = fit(&mut packet, mtu, &mut offload, false) else { panic!() };
            assert!(pieces.iter().all(|piece| piece.len() <= mtu));
            let found: Vec<Headers> = pieces.iter().map(|piece| Headers::find(piece, 0).unwrap()).collect();
            assert!(found.iter().all(|headers| headers.fragment && headers.protocol == 17));
            assert_eq!(found.iter().filter(|headers| headers.first).count(), 1);
            let data: Vec<u8> =
                pieces.iter().zip(&found).flat_map(|(piece, headers)| piece[headers.transport..].to_vec()).collect();
            assert_eq!(data, packet[start..]);
        }
    }

    #[test]
    fn what_fills_a_frame_is_no_part_of_its_packet() {
        let mut packet = bytes(DATAGRAM);
        let length = packet.len();
        packet.extend([0; 13]);
        assert_eq!(end(&packet, 0), Some(length));
        packet[2..4].fill(0);
        assert_eq!(end(&packet, 0), None);
        let v6 = [vec![0x60, 0, 0, 0, 0, 2], vec![0; 40]].concat();
        assert_eq!(end(&v6, 0), Some(42));
    }

    #[test]
    fn what_may_not_be_cut_is_not() {
        let mut packet = [bytes(DATAGRAM)[..28].to_vec(), vec![0; 6000]].concat();
        packet[6] = 0x40;
        let mut offload = Offload::default();
        assert!(fit(&mut packet, 1500, &mut offload, false).is_none());
        assert!(fit(&mut packet, 1500, &mut offload, true).is_some());
    }

    #[test]
    fn what_is_cut_short_is_refused_everywhere() {
        for whole in [bytes(ECHO), bytes(DATAGRAM)] {
            for length in 0..whole.len() {
                let mut packet = whole[..length].to_vec();
                let _ = mend(&mut packet, 0, &mut Offload::default());
                let _ = fit(&mut packet, 24, &mut Offload::default(), false);
            }
        }
    }
}
