//! What wakes the other side: a pipe.
//!
//! An event descriptor would be one open file for both sides, whose flags either can change, and a host could have `wfp` wait in
//! the middle of a write. The ends of a pipe are two files: who never waits at his own, never waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};

/// The end that wakes.
#[derive(Debug)]
pub struct Bell(OwnedFd);

/// The end that is woken: readable once it was rung, until it is silenced.
#[derive(Debug)]
pub struct Ear(OwnedFd);

/// A new bell, whose ends never wait.
///
/// # Errors
/// The system has no more of them.
pub fn make() -> io::Result<(Bell, Ear)> {
    let (ear, bell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((Bell(bell), Ear(ear)))
}

impl Bell {
    pub(crate) const fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Rings. Where it was rung so often that no more goes in, it is heard anyway; where nobody is there to hear it, nothing happens.
    ///
    /// # Errors
    /// It is no bell.
    pub fn ring(&self) -> io::Result<()> {
        match retry_on_intr(|| write(&self.0, &[1])) {
            Ok(_) | Err(Errno::AGAIN | Errno::PIPE) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Ear {
    pub(crate) const fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.0
    }

    /// Forgets how often was rung so far.
    ///
    /// # Errors
    /// It is no bell.
    pub fn silence(&self) -> io::Result<()> {
        match retry_on_intr(|| read(&self.0, &mut [0; 4096])) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
