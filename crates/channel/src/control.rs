//! The control socket: what goes beside the rings, in packets that stay whole.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// The longest packet that is taken, in bytes.
pub const LONGEST_CONTROL: usize = 128 << 10;

/// One end of a control socket.
#[derive(Debug)]
pub struct Control(OwnedFd);

/// What came on a control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A packet.
    Packet(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// Nothing will come any more: the other side is gone.
    Closed,
}

impl Control {
    pub(crate) const fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Sends a packet without waiting; false where there is no room, or nobody to receive it.
    ///
    /// # Errors
    /// It is too long, or what else the system says.
    pub fn send(&self, packet: &[u8]) -> io::Result<bool> {
        if packet.len() > LONGEST_CONTROL {
            return Err(Errno::MSGSIZE.into());
        }
        match retry_on_intr(|| send(&self.0, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::PIPE | Errno::CONNRESET) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the next packet, without waiting.
    ///
    /// # Errors
    /// It is too long, or what else the system says.
    pub fn receive(&self) -> io::Result<Received> {
        let mut packet = vec![0; LONGEST_CONTROL];
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        match retry_on_intr(|| recv(&self.0, &mut packet[..], flags)) {
            Ok((0, 0)) | Err(Errno::CONNRESET) => Ok(Received::Closed),
            Ok((_, length)) if length > LONGEST_CONTROL => Err(Errno::MSGSIZE.into()),
            Ok((length, _)) => {
                packet.truncate(length);
                Ok(Received::Packet(packet))
            }
            Err(Errno::AGAIN) => Ok(Received::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of these can be read, or its other side is gone, or so much time has passed.
///
/// # Errors
/// What the system says.
pub fn wait(descriptors: &[BorrowedFd<'_>], longest: Duration) -> io::Result<()> {
    let mut waits: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN)).collect();
    match poll(&mut waits, Timespec::try_from(longest).ok().as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
