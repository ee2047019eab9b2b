//! System calls on sockets as they are, without the standard library's opinion of them.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

/// The result of a call that answers -1 on error.
pub fn check(result: impl Into<i64>) -> io::Result<i64> {
    let result = result.into();
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An address as the kernel takes it, so that it can lie about itself.
#[derive(Clone, Debug)]
pub struct Address(pub Vec<u8>);

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = Vec::new();
        match address {
            SocketAddr::V4(address) => {
                bytes.extend((libc::AF_INET as u16).to_ne_bytes());
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(address) => {
                bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.flowinfo().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.extend(address.scope_id().to_ne_bytes());
            }
        }
        Self(bytes)
    }
}

impl Address {
    /// The same bytes under another family.
    pub fn with_family(mut self, family: i32) -> Self {
        self.0[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        self
    }

    /// `AF_UNSPEC`: connecting to it undoes a connection.
    pub fn none() -> Self {
        Self(vec![0; 16])
    }
}

/// An IPv4 address in the form that IPv6 sockets take.
pub fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    }
}

/// No address in particular, and no port, of the same version.
pub fn any(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}

/// A piece of control data: level, type, bytes.
pub type Control = (i32, i32, Vec<u8>);

/// A socket.
#[derive(Debug)]
pub struct Socket(pub OwnedFd);

impl From<OwnedFd> for Socket {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl Socket {
    /// `socket(2)`. Nothing that is done with it waits for longer than a second and a half.
    pub fn new(family: i32, kind: i32, protocol: i32) -> io::Result<Self> {
        // SAFETY: numbers.
        let number = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
        // SAFETY: the descriptor is new.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(number as RawFd) });
        socket.limit(Duration::from_millis(1500))?;
        Ok(socket)
    }

    /// A TCP socket for an address.
    pub fn stream(address: SocketAddr) -> io::Result<Self> {
        Self::new(family(address), libc::SOCK_STREAM, 0)
    }

    /// A UDP socket for an address.
    pub fn datagram(address: SocketAddr) -> io::Result<Self> {
        Self::new(family(address), libc::SOCK_DGRAM, 0)
    }

    /// The descriptor's number.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn limit(&self, time: Duration) -> io::Result<()> {
        let time = libc::timeval { tv_sec: time.as_secs() as i64, tv_usec: time.subsec_micros().into() };
        for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
            // SAFETY: two numbers without padding.
            let bytes = unsafe { mem::transmute::<libc::timeval, [u8; 16]>(time) };
            self.set_bytes(libc::SOL_SOCKET, option, &bytes)?;
        }
        Ok(())
    }

    /// Sets an option that is a number.
    pub fn set(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        self.set_bytes(level, option, &value.to_ne_bytes())
    }

    /// Sets an option.
    pub fn set_bytes(&self, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
        let length = value.len() as u32;
        // SAFETY: our own memory of this length.
        check(unsafe { libc::setsockopt(self.number(), level, option, value.as_ptr().cast(), length) }).map(drop)
    }

    /// Calls do not wait.
    pub fn unblock(&self) -> io::Result<()> {
        // SAFETY: numbers.
        check(unsafe { libc::fcntl(self.number(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
    }

    /// `bind(2)`.
    pub fn bind(&self, address: impl Into<Address>) -> io::Result<()> {
        let address = address.into().0;
        // SAFETY: our own memory of this length.
        check(unsafe { libc::bind(self.number(), address.as_ptr().cast(), address.len() as u32) }).map(drop)
    }

    /// `connect(2)`.
    pub fn connect(&self, address: impl Into<Address>) -> io::Result<()> {
        let address = address.into().0;
        // SAFETY: our own memory of this length.
        check(unsafe { libc::connect(self.number(), address.as_ptr().cast(), address.len() as u32) }).map(drop)
    }

    /// `listen(2)`.
    pub fn listen(&self) -> io::Result<()> {
        // SAFETY: numbers.
        check(unsafe { libc::listen(self.number(), 8) }).map(drop)
    }

    /// `accept(2)`.
    pub fn accept(&self) -> io::Result<Self> {
        let none = std::ptr::null_mut();
        // SAFETY: no memory is handed over.
        let number = check(unsafe { libc::accept4(self.number(), none, none.cast(), libc::SOCK_CLOEXEC) })?;
        // SAFETY: the descriptor is new.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number as RawFd) }))
    }

    /// `send(2)`.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: our own memory of this length.
        let sent = unsafe { libc::send(self.number(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        check(sent as i64).map(drop)
    }

    /// `sendto(2)`.
    pub fn send_to(&self, bytes: &[u8], flags: i32, address: impl Into<Address>) -> io::Result<()> {
        let address = address.into().0;
        // SAFETY: our own memory of these lengths.
        let sent = unsafe {
            let flags = flags | libc::MSG_NOSIGNAL;
            let to = address.as_ptr().cast();
            libc::sendto(self.number(), bytes.as_ptr().cast(), bytes.len(), flags, to, address.len() as u32)
        };
        check(sent as i64).map(drop)
    }

    /// `recv(2)`, without waiting.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 2048];
        // SAFETY: our own memory of this length.
        let got = unsafe { libc::recv(self.number(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        bytes.truncate(check(got as i64)? as usize);
        Ok(bytes)
    }

    /// `recvfrom(2)`, without waiting: what came, and the address that it bears.
    pub fn receive_from(&self) -> io::Result<(Vec<u8>, Address)> {
        let (mut bytes, mut from) = (vec![0; 1 << 16], vec![0u8; 128]);
        let mut length = from.len() as u32;
        // SAFETY: our own memory of these lengths.
        let got = unsafe {
            let (into, place) = (bytes.as_mut_ptr().cast(), from.as_mut_ptr().cast());
            libc::recvfrom(self.number(), into, bytes.len(), libc::MSG_DONTWAIT, place, &raw mut length)
        };
        bytes.truncate(check(got as i64)? as usize);
        from.truncate(length as usize);
        Ok((bytes, Address(from)))
    }

    /// `recvmsg(2)`, without waiting: what came, the address that it bears, and the data of its first piece of control data.
    pub fn receive_message(&self) -> io::Result<(Vec<u8>, Address, Vec<u8>)> {
        let (mut bytes, mut from, mut control) = (vec![0u8; 1 << 16], vec![0u8; 128], vec![0u64; 16]);
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: zeros are an empty header.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = from.as_mut_ptr().cast();
        header.msg_namelen = from.len() as u32;
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control.len() * 8;
        // SAFETY: our own memory of these lengths.
        let got = unsafe { libc::recvmsg(self.number(), &raw mut header, libc::MSG_DONTWAIT) };
        bytes.truncate(check(got as i64)? as usize);
        from.truncate(header.msg_namelen as usize);
        // a length in eight bytes, level and type in four each
        let length = if header.msg_controllen < 16 { 16 } else { control[0] as usize };
        let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(length).skip(16).collect();
        Ok((bytes, Address(from), control))
    }

    /// `sendmsg(2)` with control data.
    pub fn send_message(&self, bytes: &[u8], to: Option<Address>, control: &[Control]) -> io::Result<()> {
        let mut message = Message::new(bytes, to, control);
        // SAFETY: the message points to its own memory.
        check(unsafe { libc::sendmsg(self.number(), message.header(), libc::MSG_NOSIGNAL) } as i64).map(drop)
    }

    /// `sendmmsg(2)`: all of them in one call. How many were sent.
    pub fn send_messages(&self, messages: &[(&[u8], Address)]) -> io::Result<usize> {
        let mut messages: Vec<Message> =
            messages.iter().map(|(bytes, to)| Message::new(bytes, Some(to.clone()), &[])).collect();
        let mut headers: Vec<libc::mmsghdr> = messages
            .iter_mut()
            // SAFETY: a copy of a header, whose memory lives as long as `messages`.
            .map(|message| libc::mmsghdr { msg_hdr: unsafe { *message.header() }, msg_len: 0 })
            .collect();
        // SAFETY: as above.
        let sent = unsafe { libc::sendmmsg(self.number(), headers.as_mut_ptr(), headers.len() as u32, 0) };
        check(sent).map(|sent| sent as usize)
    }

    /// What went wrong with the socket since it was asked last.
    pub fn error(&self) -> io::Result<()> {
        let (mut error, mut length) = (0i32, 4u32);
        // SAFETY: our own memory of this length.
        check(unsafe {
            let place = (&raw mut error).cast();
            libc::getsockopt(self.number(), libc::SOL_SOCKET, libc::SO_ERROR, place, &raw mut length)
        })?;
        if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Whether there is something to read, or somebody to accept.
    pub fn is_ready(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.number(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    /// Waits until it can be written, or something is wrong with it.
    pub fn wait_to_write(&self) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.number(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one structure.
        match check(unsafe { libc::poll(&raw mut poll, 1, 1500) })? {
            0 => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            _ => self.error(),
        }
    }
}

/// The family of an address.
pub fn family(address: SocketAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// A message with all its memory.
struct Message {
    bytes: Vec<u8>,
    to: Option<Address>,
    control: Vec<u8>,
    part: libc::iovec,
    header: libc::msghdr,
}

impl Message {
    fn new(bytes: &[u8], to: Option<Address>, control: &[Control]) -> Self {
        let control = control.iter().flat_map(|(level, kind, data)| {
            let mut piece = (16 + data.len()).to_ne_bytes().to_vec();
            piece.extend(level.to_ne_bytes());
            piece.extend(kind.to_ne_bytes());
            piece.extend(data);
            piece.resize(piece.len().next_multiple_of(8), 0);
            piece
        });
        // SAFETY: zeros are an empty header.
        let (part, header) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self { bytes: bytes.to_vec(), to, control: control.collect(), part, header }
    }

    /// The header, which points into this message where it stands now.
    fn header(&mut self) -> *const libc::msghdr {
        self.part = libc::iovec { iov_base: self.bytes.as_mut_ptr().cast(), iov_len: self.bytes.len() };
        self.header.msg_iov = &raw mut self.part;
        self.header.msg_iovlen = 1;
        if let Some(Address(to)) = &mut self.to {
            self.header.msg_name = to.as_mut_ptr().cast();
            self.header.msg_namelen = to.len() as u32;
        }
        if !self.control.is_empty() {
            self.header.msg_control = self.control.as_mut_ptr().cast();
            self.header.msg_controllen = self.control.len();
        }
        &raw const self.header
    }
}
