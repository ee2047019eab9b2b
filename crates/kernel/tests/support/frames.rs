//! Frames of every kind, and what goes wrong with them: from a seed, the same each time.

use super::{
    net::station,
    wire::{DESTINATION, IPV4, IPV6, PORT, TAGS, UDP, checksum, repair, repair_checksum, tell_length},
};

/// Numbers that a seed determines (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

const ARP: u16 = 0x0806;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// Hop-by-hop options, routing, destination options, authentication, fragment.
const EXTENSIONS: [u8; 5] = [0, 43, DESTINATION, 51, FRAGMENT];
const FRAGMENT: u8 = 44;

/// Ports of senders, so that filters have something to choose from.
pub const PORTS: [u16; 4] = [5555, 5556, 5557, 5558];

/// The last number of the addresses of senders, which are nobody's: nobody answers an answer.
pub const SENDERS: std::ops::Range<u8> = 16..250;

/// Frames that are in order: from the stations of net 1 that nobody has, to its first.
pub struct Frames {
    pub random: Random,
}

impl Frames {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    /// A frame as it should be, of any kind.
    pub fn good(&mut self) -> Vec<u8> {
        let (kind, body) = match self.random.below(16) {
            0 => (ARP, self.arp()),
            // IEEE 802 local experimental, loopback test, MPLS, PPPoE, 802.3 with a length
            1 => (self.random.of(&[0x88b5, 0x9000, 0x8847, 0x8864, 46]), self.random.bytes(46)),
            2..9 => (IPV4, self.ipv4()),
            _ => (IPV6, self.ipv6()),
        };
        let mut frame = station(1, 1).to_be_bytes()[2..].to_vec();
        frame.extend(&station(1, self.sender()).to_be_bytes()[2..]);
        if self.random.one_in(8) {
            for _ in 0..self.random.of(&[1, 1, 2, 2, 3]) {
                frame.extend(self.random.of(&TAGS).to_be_bytes());
                frame.extend(self.random.of(&[0u16, 0, 5, 0x6000]).to_be_bytes());
            }
        }
        frame.extend(kind.to_be_bytes());
        frame.extend(body);
        frame
    }

    /// A frame in which something is wrong, mostly.
    pub fn any(&mut self) -> Vec<u8> {
        let mut frame = self.good();
        for _ in 0..self.random.of(&[0, 1, 1, 1, 2]) {
            self.spoil(&mut frame);
        }
        if !self.random.one_in(4) {
            repair_checksum(&mut frame);
        }
        frame
    }

    /// A good frame, cut at every length: as it is, and with the length of the packet told anew.
    pub fn cuts(&mut self) -> Vec<Vec<u8>> {
        let frame = self.good();
        let mut all = vec![];
        for length in 14..=frame.len() {
            all.push(frame[..length].to_vec());
            let mut told = frame[..length].to_vec();
            repair(&mut told);
            all.push(told);
        }
        all
    }

    fn sender(&mut self) -> u8 {
        SENDERS.start + self.random.below(SENDERS.len()) as u8
    }

    fn arp(&mut self) -> Vec<u8> {
        let sender = self.sender();
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, self.random.of(&[1, 2])];
        body.extend(&station(1, sender).to_be_bytes()[2..]);
        body.extend([10, 9, 1, sender]);
        body.extend([0; 6]);
        body.extend([10, 9, 1, 1]);
        body
    }

    fn ipv4(&mut self) -> Vec<u8> {
        let mut options: Vec<u8> = vec![];
        if self.random.one_in(4) {
            // nothing; record route; loose source route; timestamp; router alert; security; one of 0 bytes
            let options_of: [&[u8]; 7] = [
                &[1, 1, 1, 1],
                &[7, 7, 4, 0, 0, 0, 0, 0],
                &[131, 7, 4, 10, 9, 1, 9, 0],
                &[68, 8, 5, 0, 0, 0, 0, 0],
                &[148, 4, 0, 0],
                &[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[9, 0, 0, 0],
            ];
            for _ in 0..self.random.of(&[1, 1, 2, 3]) {
                options.extend(self.random.of(&options_of));
            }
        }
        let (source, destination) = ([10, 9, 1, self.sender()], [10, 9, 1, 1]);
        let protocol = self.random.of(&[UDP, UDP, UDP, TCP, TCP, ICMP, ICMP, 47, 50, 132]);
        let payload = self.transport(protocol, &source, &destination);
        let (mut identification, mut fragment) = (self.random.next() as u16, 0u16);
        if self.random.one_in(5) {
            // of few datagrams, so that they meet: first ones, later ones, that overlap, and that lie beyond every datagram
            identification = self.random.below(64) as u16;
            let more = self.random.of(&[0, 0x2000, 0x2000]);
            fragment = more | self.random.of(&[0, 0, 1, 2, 3, 185, 8190, 0x1fff]);
        }
        let length = (20 + options.len() + payload.len()) as u16;
        let mut packet = vec![0x40 | (5 + options.len() as u8 / 4), self.random.of(&[0, 0xb8])];
        packet.extend(length.to_be_bytes());
        packet.extend(identification.to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        packet.extend([self.random.of(&[64, 1, 255]), protocol, 0, 0]);
        packet.extend(source.into_iter().chain(destination));
        packet.extend(options);
        packet.extend(payload);
        let header = usize::from(packet[0] & 15) * 4;
        let sum = checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn ipv6(&mut self) -> Vec<u8> {
        let address = |last: u8| {
            let text = format!("fd09::1:{last:x}");
            text.parse::<std::net::Ipv6Addr>().unwrap().octets()
        };
        let (source, destination) = (address(self.sender()), address(1));
        let protocol = self.random.of(&[UDP, UDP, UDP, TCP, TCP, ICMPV6, ICMPV6, 47, 59]);
        let payload = self.transport(protocol, &source, &destination);
        let mut chain: Vec<u8> = vec![];
        if self.random.one_in(2) {
            let count = self.random.of(&[1, 1, 2, 3, 4, 15, 16, 17, 40]);
            // hop-by-hop options stand first, or nowhere
            chain = (0..count).map(|_| self.random.of(&EXTENSIONS[1..])).collect();
            if self.random.one_in(3) {
                chain[0] = 0;
            }
        }
        let mut bytes = vec![];
        for (at, kind) in chain.iter().enumerate() {
            let next = chain.get(at + 1).copied().unwrap_or(protocol);
            bytes.extend(self.extension(*kind, next));
        }
        bytes.extend(payload);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((bytes.len() as u16).to_be_bytes());
        packet.extend([chain.first().copied().unwrap_or(protocol), self.random.of(&[64, 1, 255])]);
        packet.extend(source.into_iter().chain(destination));
        packet.extend(bytes);
        packet
    }

    fn extension(&mut self, kind: u8, next: u8) -> Vec<u8> {
        match kind {
            FRAGMENT => {
                let more = u16::from(self.random.one_in(2));
                let fragment = self.random.of(&[0u16, 0, 0, 8, 16, 1480, 0xfff8]) | more;
                let mut header = vec![next, 0];
                header.extend(fragment.to_be_bytes());
                header.extend([0, 0, 0, self.random.below(64) as u8]);
                header
            }
            // of four words
            51 => [&[next, 2][..], &[0; 14]].concat(),
            // type 0 or 2, none left or one
            43 => {
                let left = self.random.of(&[0, 0, 0, 1]);
                let mut header = vec![next, 2, self.random.of(&[0, 2, 4]), left, 0, 0, 0, 0];
                header.extend([0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
                header
            }
            // padding
            _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
        }
    }

    fn transport(&mut self, protocol: u8, source: &[u8], destination: &[u8]) -> Vec<u8> {
        let data = self.random.below(40);
        let data = self.random.bytes(data);
        // few of those that filters name, and many others
        let port = if self.random.one_in(2) { self.random.of(&PORTS) } else { self.random.next() as u16 };
        let mut bytes = match protocol {
            UDP => {
                let to = self.random.of(&[PORT, PORT, PORT, 4712]);
                let length = (8 + data.len()) as u16;
                [port, to, length, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
            }
            TCP => {
                let flags = self.random.of(&[2, 2, 16, 18, 4, 1, 0, 0xff]);
                let mut header: Vec<u8> = [port, PORT].iter().flat_map(|word| word.to_be_bytes()).collect();
                header.extend(self.random.bytes(8));
                header.extend([0x60, flags, 0xff, 0xff, 0, 0, 0, 0]);
                // options: the segment's size; one of 0 bytes
                header.extend(self.random.of(&[[2, 4, 5, 0xb4], [3, 0, 0, 0]]));
                header
            }
            ICMP | ICMPV6 => {
                let echo = if protocol == ICMP { 8 } else { 128 };
                let kind = self.random.of(&[echo, echo, 1, 3, 4, 11, 12, 133, 137]);
                let mut message = vec![kind, self.random.of(&[0, 1, 3, 4]), 0, 0, 0, 0, 5, 0];
                if kind < 128 && kind != 8 {
                    // what an error quotes: a packet of this machine
                    message.extend(self.quoted(destination, source));
                }
                message
            }
            _ => vec![0, 0, IPV4.to_be_bytes()[0], 0],
        };
        bytes.extend(data);
        // of IPv4 the sum of UDP may be left out
        let place = match protocol {
            UDP if source.len() == 16 => 6,
            TCP => 16,
            ICMP | ICMPV6 => 2,
            _ => return bytes,
        };
        let mut pseudo = vec![];
        if protocol != ICMP {
            pseudo.extend(source.iter().chain(destination));
            pseudo.extend([0, protocol]);
            pseudo.extend((bytes.len() as u16).to_be_bytes());
        }
        pseudo.extend(&bytes);
        let sum = checksum(&pseudo).max(1);
        bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn quoted(&mut self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let udp = [PORT, 5555, 8, 0].iter().flat_map(|word| word.to_be_bytes());
        let mut packet: Vec<u8> = if from.len() == 4 {
            vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0]
        } else {
            vec![0x60, 0, 0, 0, 0, 8, UDP, 64]
        };
        packet.extend(from.iter().chain(to));
        packet.extend(udp);
        let length = self.random.of(&[packet.len(), packet.len(), 4, 20]);
        packet.truncate(length);
        packet
    }

    /// Makes one thing wrong.
    fn spoil(&mut self, frame: &mut Vec<u8>) {
        let packet = 14;
        match self.random.below(9) {
            0 => frame.truncate(14 + self.random.below(frame.len() - 13)),
            1 => {
                frame.truncate(14 + self.random.below(frame.len() - 13));
                tell_length(frame);
            }
            2 => (0..4).for_each(|_| self.overwrite(frame, 12..usize::MAX)),
            // version and length of the header
            3 => self.overwrite(frame, packet..packet + 1),
            // lengths of the packet: total (IPv4), payload (IPv6)
            4 => self.overwrite(frame, packet + 2..packet + 6),
            // a header that is said to be another: protocol, next header, and what stands at the beginning of extensions
            5 => {
                let at = self.random.of(&[packet + 6, packet + 9, packet + 40, packet + 48, packet + 56, packet + 64]);
                let kind = self.random.of(&[0, 43, 44, 51, 60, 59, 135, 255]);
                frame.get_mut(at).into_iter().for_each(|byte| *byte = kind);
            }
            // lengths of extensions, of UDP, of TCP's header
            6 => self.overwrite(frame, packet + 20..packet + 64),
            // fragments
            7 => self.overwrite(frame, packet + 6..packet + 8),
            _ => {
                let more = self.random.of(&[1, 7, 100, 1400]);
                let more = self.random.bytes(more);
                frame.extend(more);
                frame.truncate(1514);
            }
        }
    }

    /// Another byte somewhere in the range.
    fn overwrite(&mut self, frame: &mut [u8], range: std::ops::Range<usize>) {
        let end = range.end.min(frame.len());
        if range.start < end {
            frame[range.start + self.random.below(end - range.start)] = self.random.next() as u8;
        }
    }
}
