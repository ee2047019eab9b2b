//! A channel: its two ends, and how the host's is handed over.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::bell::{self, Bell, Ear};
use crate::control::Control;
use crate::layout::{ANSWERS, BEAT, MAGIC, REQUESTS, SLOTS, Sizes, VERSION};
use crate::memory::{self, Memory};
use crate::ring::{self, Consumer, Producer};

/// The environment variable in which a host finds the version of the protocol and the numbers of its descriptors:
/// `VERSION:CONTROL:MEMORY:REQUESTS:ANSWERS`.
pub const VARIABLE: &str = "OPENWFP_HOST";

/// The descriptors of a host.
#[derive(Debug)]
pub struct Parts {
    /// The control socket (sequenced packets of the Unix family).
    pub control: OwnedFd,
    /// The shared memory.
    pub memory: OwnedFd,
    /// Readable when the host is to wake: the reading end of a pipe.
    pub requests: OwnedFd,
    /// Wakes `wfp`: the writing end of a pipe.
    pub answers: OwnedFd,
}

/// Why a process finds no channel.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Nobody handed it one.
    #[error(
        "nobody has handed this program a channel ({VARIABLE}): `wfp run` starts it, for a policy that names it as a `host`"
    )]
    NotStarted,
    /// The variable makes no sense.
    #[error("{VARIABLE} is `{0}`, which is not VERSION:CONTROL:MEMORY:REQUESTS:ANSWERS")]
    Malformed(String),
    /// The other side speaks another version.
    #[error("wfp speaks version {found} of the callout protocol, and this host speaks {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It was taken already.
    #[error("the channel was taken over before")]
    Taken,
    /// One of the numbers stands for no descriptor.
    #[error("descriptor {0} is not open")]
    Closed(RawFd),
}

/// Why a channel cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refuses.
    #[error("the channel cannot be opened: {0}")]
    System(#[from] io::Error),
    /// It is no channel, or one of another version.
    #[error("the shared memory is not that of a channel of version {VERSION}")]
    NotAChannel,
}

impl Parts {
    /// Sends all but the control socket over the control socket of the other end, and hands out that: for a process that is started
    /// with it alone, as its standard input, and takes the rest with [`from_control`](Self::from_control).
    ///
    /// # Errors
    /// What the system says.
    pub fn into_control(self, wfp: &Wfp) -> io::Result<OwnedFd> {
        let rest = [self.memory.as_fd(), self.requests.as_fd(), self.answers.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&rest));
        sendmsg(&wfp.control, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(self.control)
    }

    /// Takes what [`into_control`](Self::into_control) has sent.
    ///
    /// # Errors
    /// Nobody is there who sends it, or what else the system says.
    pub fn from_control(control: OwnedFd) -> io::Result<Self> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        retry_on_intr(|| {
            recvmsg(&control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        let mut rest = vec![];
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                rest.extend(descriptors);
            }
        }
        let rest = <[OwnedFd; 3]>::try_from(rest).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let [memory, requests, answers] = rest;
        Ok(Self { control, memory, requests, answers })
    }

    /// The numbers, as they stand in [`VARIABLE`]; the descriptors stay open at exec from here on.
    ///
    /// # Errors
    /// What the system says.
    pub fn announce(&self) -> io::Result<String> {
        let all = [&self.control, &self.memory, &self.requests, &self.answers];
        all.iter().try_for_each(|descriptor| fcntl_setfd(descriptor, FdFlags::empty()))?;
        let numbers: Vec<String> = all.iter().map(|descriptor| descriptor.as_raw_fd().to_string()).collect();
        Ok(format!("{VERSION}:{}", numbers.join(":")))
    }

    /// Takes over what this process was started with; once.
    ///
    /// # Errors
    /// Why there is nothing.
    pub fn from_environment() -> Result<Self, AdoptError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let text = std::env::var(VARIABLE).map_err(|_| AdoptError::NotStarted)?;
        let (version, numbers) = announced(&text).ok_or_else(|| AdoptError::Malformed(text.clone()))?;
        if version != VERSION {
            return Err(AdoptError::Version { found: version });
        }
        let numbers = numbers.ok_or(AdoptError::Malformed(text))?;
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(AdoptError::Taken);
        }
        let take = |number: RawFd| {
            let descriptor = memory::adopt(number).ok_or(AdoptError::Closed(number))?;
            // what the host starts has no part in it
            let _ = fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
            Ok(descriptor)
        };
        let [control, memory, requests, answers] = numbers;
        Ok(Self { control: take(control)?, memory: take(memory)?, requests: take(requests)?, answers: take(answers)? })
    }
}

/// The version, and where it is ours the numbers.
fn announced(text: &str) -> Option<(u32, Option<[RawFd; 4]>)> {
    let (version, rest) = text.split_once(':')?;
    let numbers: Option<Vec<RawFd>> = rest.split(':').map(|number| number.parse().ok()).collect();
    let numbers = numbers.and_then(|numbers| <[RawFd; 4]>::try_from(numbers).ok());
    let differ = |numbers: &[RawFd; 4]| (1..4).all(|at| !numbers[..at].contains(&numbers[at]));
    Some((version.parse().ok()?, numbers.filter(differ)))
}

/// The end of `wfp`.
pub struct Wfp {
    /// What is asked.
    pub requests: Producer,
    /// What is answered.
    pub answers: Consumer,
    /// Wakes the host.
    pub bell: Bell,
    /// Readable when there are answers, after [`Consumer::begin_sleep`].
    pub ear: Ear,
    /// What goes beside the rings: packets of JSON.
    pub control: Control,
    memory: Arc<Memory>,
}

impl Wfp {
    /// Makes a channel; the other end is for a host.
    ///
    /// # Errors
    /// What the system says, also of sizes that cannot be.
    pub fn make(sizes: Sizes) -> io::Result<(Self, Parts)> {
        if !sizes.are_valid() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (descriptor, memory) = Memory::make(sizes.total())?;
        let mut header = [0; 24];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(sizes.slot as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(sizes.count as u32).to_le_bytes());
        for (word, bytes) in memory.iter().zip(header.as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::SeqCst);
        }
        let memory = Arc::new(memory);
        let (requests, _) = ring::ends(&memory, REQUESTS, SLOTS, sizes);
        let (_, answers) = ring::ends(&memory, ANSWERS, sizes.answers(), sizes);
        let flags = SocketFlags::CLOEXEC;
        let (control, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let (bell, heard) = bell::make()?;
        let (rung, ear) = bell::make()?;
        let parts = Parts {
            control: other,
            memory: descriptor,
            requests: heard.into_descriptor(),
            answers: rung.into_descriptor(),
        };
        Ok((Self { requests, answers, bell, ear, control: Control::of(control), memory }, parts))
    }

    /// The heartbeat: a number that changes as long as the host lives.
    #[must_use]
    pub fn beat(&self) -> u64 {
        u64::from_le(self.memory[BEAT / 8].load(Ordering::Relaxed))
    }
}

/// The end of a host.
pub struct Host {
    /// What is asked.
    pub requests: Consumer,
    /// What is answered.
    pub answers: Producer,
    /// Wakes `wfp`.
    pub bell: Bell,
    /// Readable when there are requests, after [`Consumer::begin_sleep`].
    pub ear: Ear,
    /// What goes beside the rings: packets of JSON.
    pub control: Control,
    memory: Arc<Memory>,
}

impl Host {
    /// Opens the channel.
    ///
    /// # Errors
    /// It is none.
    pub fn open(parts: Parts) -> Result<Self, OpenError> {
        let memory = Arc::new(Memory::map(parts.memory.as_fd())?);
        let sizes = sizes(&memory).ok_or(OpenError::NotAChannel)?;
        let (_, requests) = ring::ends(&memory, REQUESTS, SLOTS, sizes);
        let (answers, _) = ring::ends(&memory, ANSWERS, sizes.answers(), sizes);
        let (bell, ear) = (Bell::of(parts.answers), Ear::of(parts.requests));
        Ok(Self { requests, answers, bell, ear, control: Control::of(parts.control), memory })
    }

    /// Sets the heartbeat.
    pub fn set_beat(&self, beat: u64) {
        self.memory[BEAT / 8].store(beat.to_le(), Ordering::Relaxed);
    }
}

/// The sizes that stand in the memory, where they fit it.
fn sizes(memory: &Memory) -> Option<Sizes> {
    let mut header = [0; 24];
    for (word, bytes) in memory.iter().zip(header.as_chunks_mut::<8>().0) {
        *bytes = word.load(Ordering::SeqCst).to_ne_bytes();
    }
    let number = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let (slot, count) = (number(12)? as usize, number(16)? as usize);
    let sizes = Sizes { slot, count };
    let fits = header.starts_with(&MAGIC) && number(8)? == VERSION && sizes.are_valid();
    (fits && sizes.total() <= memory.len() * 8).then_some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_comes_through_the_control_socket() {
        let (wfp, parts) = Wfp::make(Sizes { slot: 128, count: 2 }).unwrap();
        let control = parts.into_control(&wfp).unwrap();
        let host = Host::open(Parts::from_control(control).unwrap()).unwrap();
        host.set_beat(3);
        assert_eq!(wfp.beat(), 3);
        let (wfp, parts) = Wfp::make(Sizes { slot: 128, count: 2 }).unwrap();
        drop(wfp);
        assert!(Parts::from_control(parts.control).is_err(), "nobody is there");
    }

    #[test]
    fn what_is_announced_is_read_or_refused() {
        assert_eq!(announced("1:3:4:5:6"), Some((1, Some([3, 4, 5, 6]))));
        // of another version only that is understood
        assert_eq!(announced("2:3:4"), Some((2, None)));
        assert_eq!(announced("1:3:4:5:5"), Some((1, None)), "one descriptor twice");
        for text in ["", "1", "x:1:2:3:4", ":"] {
            assert_eq!(announced(text), None, "{text}");
        }
    }
}
