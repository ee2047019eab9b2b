//! Packets into the stack: sent in batches on the device of our own, each with a token that says where it goes on.

use super::{
    device::Device,
    memory::Entries,
    packet::{FRAME_HEADER, Offload},
};
use openwfp_abi::divert::{FRAME, INBOUND, TOKENS, Token};
use std::{
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering, fence},
};

/// How many packets one system call sends.
pub(super) const BATCH: usize = 64;

/// `struct virtio_net_hdr` (linux/virtio_net.h), in the machine's order.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct VirtioHeader {
    flags: u8,
    segments: u8,
    header: u16,
    size: u16,
    sum_start: u16,
    sum_offset: u16,
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_SUM: u8 = 1;

/// Room for one control message of four bytes, aligned as the kernel wants it.
const CONTROL: usize = 24;

/// Where the bytes of a packet stand until they are sent.
pub(super) enum Payload<'a> {
    /// In the ring buffer.
    Ring(&'a [u8]),
    /// In memory of their own.
    Own(Vec<u8>),
}

impl Payload<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Payload::Ring(bytes) => bytes,
            Payload::Own(bytes) => bytes,
        }
    }
}

/// A packet on its way.
pub(super) struct Outgoing<'a> {
    /// Everything but the token itself and the sign.
    pub token: Token,
    /// The type of the frame, in host order.
    pub protocol: u16,
    /// The addresses of the frame, where the packet has none: destination, then source.
    pub addresses: Option<[u8; 12]>,
    pub payload: Payload<'a>,
    pub offload: Offload,
}

/// Sends.
pub(super) struct Injector {
    socket: OwnedFd,
    tokens: Entries<Token>,
    next: u32,
    lots: Lots,
    room: Option<Box<Room>>,
}

/// What a batch is told by, kept from one to the next.
struct Room {
    headers: [VirtioHeader; BATCH],
    frames: [[u8; FRAME_HEADER]; BATCH],
    controls: [[u64; CONTROL / 8]; BATCH],
    vectors: [[libc::iovec; 3]; BATCH],
    messages: [libc::mmsghdr; BATCH],
}

// SAFETY: its pointers are written before each use, and mean nothing afterwards.
unsafe impl Send for Room {}

impl Default for Room {
    fn default() -> Self {
        // SAFETY: zeros are empty headers, vectors and messages.
        unsafe { mem::zeroed() }
    }
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub sent: u64,
    pub refused: u64,
}

impl Injector {
    /// By a socket that is bound to the device.
    pub fn new(device: &Device, socket: OwnedFd, tokens: Entries<Token>) -> io::Result<Self> {
        // SAFETY: zeros are an address.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = device.index.cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: an address of this length. Protocol 0: nothing is received.
        match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
            0 => Ok(Self { socket, tokens, next: 0, lots: Lots::default(), room: None }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Writes the token of a packet; its mark. `None`: too many packets are under way.
    fn give(&mut self, mut token: Token, sign: u64) -> io::Result<Option<u32>> {
        let place = self.next & (TOKENS - 1);
        self.next = self.next.wrapping_add(1);
        let mark = loop {
            let mark = self.lots.draw()? & !(TOKENS - 1) | place;
            if mark >= TOKENS {
                break mark;
            }
        };
        let entry = self.tokens.at(place as usize);
        // SAFETY: within the mapping, aligned. A token that was not used by its packet, which was dropped on its way, is taken
        // away first.
        unsafe {
            let word = AtomicU32::from_ptr(&raw mut (*entry).token);
            word.store(0, Ordering::SeqCst);
            (token.token, token.under_way, token.sign) = (0, 0, sign);
            entry.write_volatile(token);
            fence(Ordering::SeqCst);
            word.store(mark, Ordering::SeqCst);
        }
        Ok(Some(mark))
    }

    /// Sends packets, at most [`BATCH`].
    pub fn send(&mut self, packets: &[Outgoing<'_>]) -> io::Result<Sent> {
        let mut room = mem::take(&mut self.room).unwrap_or_default();
        let Room { headers, frames, controls, vectors, messages } = &mut *room;
        let mut count = 0;
        for (at, packet) in packets.iter().take(BATCH).enumerate() {
            let bytes = packet.payload.bytes();
            let shift = if packet.addresses.is_some() { FRAME_HEADER } else { 0 };
            headers[at] = virtio(&packet.offload, shift);
            if let Some(addresses) = packet.addresses {
                frames[at][..12].copy_from_slice(&addresses);
                frames[at][12..].copy_from_slice(&packet.protocol.to_be_bytes());
            }
            let offset = FRAME_HEADER - shift + Token::sign(packet.protocol) as usize;
            let sign =
                bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            let Some(mark) = self.give(packet.token, sign)? else { continue };
            let vector = |base: *const u8, length| libc::iovec { iov_base: base.cast_mut().cast(), iov_len: length };
            vectors[at] = [
                vector((&raw const headers[at]).cast(), size_of::<VirtioHeader>()),
                vector(frames[at].as_ptr(), shift),
                vector(bytes.as_ptr(), bytes.len()),
            ];
            let message = &mut messages[at].msg_hdr;
            message.msg_iov = vectors[at].as_mut_ptr();
            message.msg_iovlen = 3;
            message.msg_control = controls[at].as_mut_ptr().cast();
            message.msg_controllen = CONTROL;
            // SAFETY: the control buffer has room for one message of four bytes.
            unsafe {
                let control = libc::CMSG_FIRSTHDR(message);
                (*control).cmsg_level = libc::SOL_SOCKET;
                (*control).cmsg_type = libc::SO_MARK;
                (*control).cmsg_len = libc::CMSG_LEN(4) as usize;
                libc::CMSG_DATA(control).cast::<u32>().write_unaligned(mark);
            }
            count = at + 1;
        }
        let sent = self.transmit(&mut messages[..count]);
        self.room = Some(room);
        Ok(sent)
    }

    fn transmit(&self, messages: &mut [libc::mmsghdr]) -> Sent {
        let mut sent = Sent::default();
        let mut rest = messages;
        while !rest.is_empty() {
            // SAFETY: as many messages as are told; what they point to lives until the call returns.
            let done = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            let step = match usize::try_from(done) {
                Ok(done) => {
                    sent.sent += done as u64;
                    done
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => 0,
                // the first one is refused, the others are not tried yet
                Err(_) => {
                    sent.refused += 1;
                    1
                }
            };
            rest = rest.split_at_mut(step).1;
        }
        sent
    }
}

fn virtio(offload: &Offload, shift: usize) -> VirtioHeader {
    let mut header = VirtioHeader::default();
    if let Some((start, offset)) = offload.sum {
        header.flags = NEEDS_SUM;
        header.sum_start = (start + shift) as u16;
        header.sum_offset = offset as u16;
    }
    if let Some(segments) = offload.segments {
        header.segments = segments.kind;
        header.size = segments.size;
        header.header = (segments.header + shift) as u16;
    }
    header
}

/// The frame's addresses for a packet that had no frame. On its way out the next hop's address is found by the kernel, but for
/// what goes to many.
pub(super) fn addresses(token: &Token, kind: u8, own: u64, destination: &[u8]) -> [u8; 12] {
    /// `PACKET_BROADCAST`, `PACKET_MULTICAST`.
    const BROADCAST: u8 = 1;
    const MULTICAST: u8 = 2;
    let mut all = [0; 12];
    let own: [u8; 6] = own.to_be_bytes()[2..].try_into().unwrap_or_default();
    if token.flags & (INBOUND | FRAME) == INBOUND {
        let to = match (kind, destination) {
            (BROADCAST, _) => [0xff; 6],
            (MULTICAST, [_, b, c, d]) => [1, 0, 0x5e, b & 0x7f, *c, *d],
            (MULTICAST, [.., a, b, c, d]) => [0x33, 0x33, *a, *b, *c, *d],
            _ => own,
        };
        all[..6].copy_from_slice(&to);
    } else {
        all[6..].copy_from_slice(&own);
    }
    all
}

/// Random numbers of the system, fetched many at once.
struct Lots {
    numbers: [u32; 256],
    left: usize,
}

impl Default for Lots {
    fn default() -> Self {
        Self { numbers: [0; 256], left: 0 }
    }
}

impl Lots {
    fn draw(&mut self) -> io::Result<u32> {
        if self.left == 0 {
            let length = size_of_val(&self.numbers);
            // SAFETY: as many bytes of our own as are told.
            let got = unsafe { libc::getrandom(ptr::from_mut(&mut self.numbers).cast(), length, 0) };
            if usize::try_from(got) != Ok(length) {
                return Err(io::Error::last_os_error());
            }
            self.left = self.numbers.len();
        }
        self.left -= 1;
        Ok(self.numbers[self.left])
    }
}
