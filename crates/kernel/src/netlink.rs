//! Netlink (netlink(7)): a socket in the network namespace of the thread that opens it, its requests and their answers.
//!
//! Numbers are in the machine's order. Everything that is read is checked for its length; what is cut short is passed over.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER: usize = 16;

/// The kernel fills no more than this with one part of a dump when it is offered.
const ROOM: usize = 1 << 15;

/// Things changed while they were listed (`NLM_F_DUMP_INTR`): the list is asked for again, but not for ever.
const TRIES: u32 = 16;

const DUMP_INTERRUPTED: u16 = 0x10;

/// A socket on which the kernel answers.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// A socket of one of the `NETLINK_*` protocols.
    pub fn open(protocol: i32) -> io::Result<Self> {
        // SAFETY: a new descriptor, which is owned from here on.
        unsafe {
            match libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) {
                -1 => Err(io::Error::last_os_error()),
                socket => Ok(Self(OwnedFd::from_raw_fd(socket))),
            }
        }
    }

    /// Asks for something to be done; the kernel says when it is.
    pub fn request(&self, kind: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, libc::NLM_F_ACK as u16, body)?;
        self.receive(&mut |_, _| {}).map(drop)
    }

    /// Asks for something to be made that is not there yet.
    pub fn create(&self, kind: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, (libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16, body)?;
        self.receive(&mut |_, _| {}).map(drop)
    }

    /// Asks for one answer: its body.
    pub fn get(&self, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = vec![];
        self.send(kind, libc::NLM_F_ACK as u16, body)?;
        self.receive(&mut |_, body| found.extend_from_slice(body))?;
        Ok(found)
    }

    /// Lists: the type and body of each thing that there is.
    pub fn dump(&self, kind: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        for _ in 0..TRIES {
            let mut all = vec![];
            self.send(kind, libc::NLM_F_DUMP as u16, body)?;
            if self.receive(&mut |kind, body| all.push((kind, body.to_vec())))? {
                return Ok(all);
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Has the kernel tell what happens in these groups (`RTMGRP_*`).
    pub fn subscribe(&self, groups: u32) -> io::Result<()> {
        // SAFETY: an address of zeros is a valid one.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: an address of this length.
        match unsafe { libc::bind(self.0.as_raw_fd(), ptr::from_ref(&address).cast(), length) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Takes what the kernel has told of groups, without waiting; whether there was something.
    pub fn takes_news(&self) -> bool {
        let mut some = false;
        let mut room = [0u8; 64];
        loop {
            let (place, flags) = (room.as_mut_ptr().cast(), libc::MSG_DONTWAIT);
            // SAFETY: the kernel writes at most as many bytes as it is told into our own memory, and drops the rest.
            let got = unsafe { libc::recv(self.0.as_raw_fd(), place, room.len(), flags) };
            let error = io::Error::last_os_error();
            match got {
                0.. => some = true,
                // there was more than there is room for
                _ if error.raw_os_error() == Some(libc::ENOBUFS) => some = true,
                _ if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return some,
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = vec![];
        message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
        // a sequence number and a port, which the kernel fills in
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        // SAFETY: the kernel reads as many bytes as it is told from our own memory.
        match unsafe { libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Hands on messages up to the end of the answer; whether they stand together: false when things changed meanwhile.
    fn receive(&self, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<bool> {
        let mut room = vec![0; ROOM];
        let mut whole = true;
        loop {
            let got = self.read(&mut room)?;
            for (kind, flags, body) in messages(&room[..got]) {
                whole &= flags & DUMP_INTERRUPTED == 0;
                match i32::from(kind) {
                    // both begin with an error, negative; 0: all is well
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return match body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                            code @ ..0 => Err(io::Error::from_raw_os_error(-code)),
                            _ => Ok(whole),
                        };
                    }
                    libc::NLMSG_NOOP | libc::NLMSG_OVERRUN => {}
                    _ => each(kind, body),
                }
            }
        }
    }

    /// One datagram of the kernel. Other processes may send to the socket too: that is passed over.
    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: an address of zeros is a valid one.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            let (place, from_place) = (room.as_mut_ptr().cast(), ptr::from_mut(&mut from).cast());
            // SAFETY: the kernel writes at most as many bytes as it is told into our own memory.
            let got = unsafe {
                libc::recvfrom(self.0.as_raw_fd(), place, room.len(), libc::MSG_TRUNC, from_place, &raw mut length)
            };
            match usize::try_from(got) {
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(io::Error::last_os_error()),
                Ok(_) if from.nl_pid != 0 => {}
                Ok(got) if got > room.len() => return Err(io::ErrorKind::InvalidData.into()),
                Ok(got) => return Ok(got),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The messages of a datagram: type, flags, body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = (HEADER..=bytes.len()).contains(&length).then(|| &bytes[..length])?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16_at(message, 4)?, u16_at(message, 6)?, &message[HEADER..]))
    })
}

/// The attributes of a message (`struct nlattr`): type, value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (4..=bytes.len()).contains(&length).then(|| &bytes[..length])?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // the two high bits say that it is nested, and in the network's order
        Some((u16_at(attribute, 2)? & 0x3fff, &attribute[4..]))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// An attribute, as it is sent.
pub(crate) fn to_attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = vec![];
    bytes.extend_from_slice(&(length as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The 16 bits at an offset.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// The 32 bits at an offset.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_their_padding() {
        let bytes = [to_attribute(1, b"lo\0"), to_attribute(0x8000 | 18, &7u32.to_ne_bytes())].concat();
        assert_eq!(bytes.len(), 16);
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(1, &b"lo\0"[..]), (18, &7u32.to_ne_bytes()[..])]);
        assert_eq!(attribute(&bytes, 18).and_then(|value| u32_at(value, 0)), Some(7));
        assert_eq!(attribute(&bytes, 2), None);
    }

    #[test]
    fn what_is_cut_short_ends_the_list() {
        let bytes = [to_attribute(1, b"lo\0"), to_attribute(2, &[1, 2, 3, 4])].concat();
        for length in 0..bytes.len() {
            let count = attributes(&bytes[..length]).count();
            assert_eq!(count, usize::from(length >= 7), "{length} bytes");
        }
        for length in [0u16, 3, u16::MAX] {
            assert_eq!(attributes(&[&length.to_ne_bytes()[..], &[0; 30]].concat()).count(), 0, "{length}");
        }
        let mut message = vec![0; 20];
        for length in [0u32, 15, 21, u32::MAX] {
            message[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&message).count(), 0, "{length}");
        }
        message[..4].copy_from_slice(&20u32.to_ne_bytes());
        assert_eq!(messages(&message).collect::<Vec<_>>(), [(0, 0, &[0; 4][..])]);
    }

    #[test]
    fn an_error_is_the_kernel_s() {
        let socket = Socket::open(libc::NETLINK_ROUTE).unwrap();
        // no interface has this index
        let body = [&[0; 4][..], &i32::MAX.to_ne_bytes(), &[0; 8]].concat();
        let error = socket.get(libc::RTM_GETLINK, &body).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
