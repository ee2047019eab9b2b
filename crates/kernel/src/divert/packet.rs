//! A packet that waits for a callout, and what can be done with it.

use super::{
    finish::{Asked, Walk},
    mend::{self, Headers},
};
use openwfp_abi::{
    divert::{DivertRecord, FRAME, INBOUND},
    identity::Identity,
};
use openwfp_engine::Values;
use openwfp_model::LayerId;
use std::{borrow::Cow, mem, sync::Arc};

/// So many packets may be injected together with one.
pub const MOST_INJECTIONS: usize = 64;

/// How many bytes the header of an Ethernet frame has.
pub(super) const FRAME_HEADER: usize = 14;

/// What the device still has to do to a packet. Offsets count from the packet's first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Where the part begins whose checksum is still to be computed, and where in it that goes; the sum of the pseudo-header
    /// stands there.
    pub sum: Option<(usize, usize)>,
    /// The packet stands for several.
    pub segments: Option<Segments>,
}

/// How a packet is cut into those for which it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// `VIRTIO_NET_HDR_GSO_*` (linux/virtio_net.h).
    pub kind: u8,
    /// How many bytes each carries.
    pub size: u16,
    /// How many bytes of headers each has.
    pub header: usize,
}

/// `CHECKSUM_PARTIAL` of the kernel.
const PARTIAL: u8 = 3;

// `SKB_GSO_*` of the kernel.
const GSO_TCPV4: u32 = 1;
const GSO_DODGY: u32 = 1 << 1;
const GSO_ECN: u32 = 1 << 2;
const GSO_TCPV6: u32 = 1 << 4;
const GSO_UDP: u32 = 1 << 17;

impl Offload {
    /// As the kernel has it; `None`: in a form that cannot be sent back.
    fn of_record(record: &DivertRecord, packet: &[u8]) -> Option<Self> {
        let sum = (record.summed == PARTIAL).then(|| (usize::from(record.sum_start), usize::from(record.sum_offset)));
        let segments = if record.gso_size == 0 {
            None
        } else {
            let (kind, length) = match record.gso_type & !(GSO_DODGY | GSO_ECN) {
                GSO_UDP => (5, 8),
                kind @ (GSO_TCPV4 | GSO_TCPV6) => {
                    let header = usize::from(*packet.get(sum?.0 + 12)? >> 4) * 4;
                    (if kind == GSO_TCPV4 { 1 } else { 4 }, header)
                }
                _ => return None,
            };
            let kind = if record.gso_type & GSO_ECN != 0 { kind | 0x80 } else { kind };
            Some(Segments { kind, size: record.gso_size, header: sum?.0 + length })
        };
        Some(Self { sum, segments })
    }
}

/// The packet's bytes: where the kernel has written them, or a copy.
pub(super) enum Bytes<'a> {
    Ring(&'a [u8]),
    Own(Vec<u8>),
}

/// A packet that is diverted. It is out of the stack: what is not sent back is gone.
pub struct Diverted<'a> {
    pub(super) record: Cow<'a, DivertRecord>,
    pub(super) bytes: Bytes<'a>,
    pub(super) walk: Walk,
    pub(super) changed: bool,
    pub(super) injections: Vec<Injection>,
}

impl Diverted<'_> {
    /// The layer.
    #[must_use]
    pub fn layer(&self) -> Option<LayerId> {
        LayerId::new(self.record.layer)
    }

    /// The incoming values, as the engine has them.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.walk.values
    }

    /// The packet: from the header of its frame on where [`has_frame`](Self::has_frame), else from that of IP.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Ring(bytes) => bytes,
            Bytes::Own(bytes) => bytes,
        }
    }

    /// The packet, to be changed: any byte, longer or shorter. Lengths and checksums of IPv4, IPv6, TCP, UDP and ICMP are made
    /// right when it is sent on; one of SCTP, whose checksum is not known here, is dropped.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.changed = true;
        if let Bytes::Ring(bytes) = self.bytes {
            // without what only fills a frame that would be too short
            let end = self.ip_offset().and_then(|ip| mend::end(bytes, ip)).unwrap_or(bytes.len());
            self.bytes = Bytes::Own(bytes[..end].to_vec());
        }
        match &mut self.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Ring(_) => unreachable!("it was copied just now"),
        }
    }

    /// Whether the packet begins with the header of an Ethernet frame.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        self.record.flags & FRAME != 0
    }

    /// Where the packet's headers stand; `None`: it is not one of IP, or cut short.
    #[must_use]
    pub fn headers(&self) -> Option<Headers> {
        Headers::find(self.bytes(), self.ip_offset()?)
    }

    /// Where the IP header begins, if the packet is one of IP.
    pub(super) fn ip_offset(&self) -> Option<usize> {
        if !self.has_frame() {
            return Some(0);
        }
        let kind = self.bytes().get(12..14)?;
        (kind == [8, 0] || kind == [0x86, 0xdd]).then_some(FRAME_HEADER)
    }

    /// Whether it comes in.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.record.flags & INBOUND != 0
    }

    /// What the device still has to do to it; `None`: in a form that cannot be sent back.
    #[must_use]
    pub fn offload(&self) -> Option<Offload> {
        Offload::of_record(&self.record, self.bytes())
    }

    /// Everything else that is known: flow, socket, owner, devices, mark, priority, VLAN, time.
    #[must_use]
    pub fn record(&self) -> &DivertRecord {
        &self.record
    }

    /// Who owns the socket; zeros where nobody is known.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.record.identity
    }

    /// Who has injected the packet; 0: nobody, it is the machine's.
    #[must_use]
    pub fn injector(&self) -> u32 {
        self.record.injector
    }

    /// A copy of the packet as it is now, to be injected at the layer where it is, or changed before.
    #[must_use]
    pub fn again(&self, injector: u32) -> Injection {
        Injection { bytes: self.bytes().to_vec(), like: Box::new(*self.record), stage: self.record.stage, injector }
    }

    /// Injects a packet, together with what becomes of this one. Whether there was room: at most [`MOST_INJECTIONS`] belong to one.
    pub fn inject(&mut self, injection: Injection) -> bool {
        let room = self.injections.len() < MOST_INJECTIONS;
        if room {
            self.injections.push(injection);
        }
        room
    }

    /// Keeps the packet beyond the call, for [`Answer::Pend`](super::Answer::Pend).
    pub(super) fn detach(&mut self, asked: Asked, counted: Arc<()>) -> Pended {
        let bytes = match mem::replace(&mut self.bytes, Bytes::Ring(&[])) {
            Bytes::Ring(bytes) => bytes.to_vec(),
            Bytes::Own(bytes) => bytes,
        };
        Pended {
            record: Box::new(*self.record),
            bytes,
            walk: self.walk.clone(),
            changed: self.changed,
            injections: vec![],
            asked,
            _counted: counted,
        }
    }
}

/// A packet that waits for an answer that comes later. Dropped without, it is gone.
pub struct Pended {
    pub(super) record: Box<DivertRecord>,
    pub(super) bytes: Vec<u8>,
    pub(super) walk: Walk,
    pub(super) changed: bool,
    pub(super) injections: Vec<Injection>,
    /// Which callout was asked.
    pub asked: Asked,
    /// One reference for each packet that waits.
    pub(super) _counted: Arc<()>,
}

impl Pended {
    /// The packet, to be looked at.
    #[must_use]
    pub fn packet(&self) -> Diverted<'_> {
        Diverted {
            record: Cow::Borrowed(&self.record),
            bytes: Bytes::Ring(&self.bytes),
            walk: self.walk.clone(),
            changed: self.changed,
            injections: vec![],
        }
    }

    /// Everything else that is known of it.
    #[must_use]
    pub fn record(&self) -> &DivertRecord {
        &self.record
    }

    /// A packet that goes on in the place of this one, at the layer where it is.
    #[must_use]
    pub fn replaced(&self, bytes: Vec<u8>, injector: u32) -> Injection {
        Injection { bytes, like: self.record.clone(), stage: self.record.stage, injector }
    }

    /// Injects a packet, together with what becomes of this one, if the answer counts: an answer to a question of another policy
    /// does not. Whether there was room: at most [`MOST_INJECTIONS`] belong to one.
    pub fn inject(&mut self, injection: Injection) -> bool {
        let room = self.injections.len() < MOST_INJECTIONS;
        if room {
            self.injections.push(injection);
        }
        room
    }

    pub(super) fn attach(self) -> (Diverted<'static>, Asked) {
        let bytes = Bytes::Own(self.bytes);
        let packet = Diverted {
            record: Cow::Owned(*self.record),
            bytes,
            walk: self.walk,
            changed: self.changed,
            injections: self.injections,
        };
        (packet, self.asked)
    }
}

/// A packet that is injected. It meets the filters of its layer and those after it, as one of the machine's would.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Its bytes, from the frame's header or from that of IP on, as the packet that it is like. Lengths and checksums are
    /// filled in.
    pub bytes: Vec<u8>,
    like: Box<DivertRecord>,
    stage: u16,
    injector: u32,
}

impl Injection {
    pub(super) fn parts(self) -> (DivertRecord, Vec<u8>, u16, u32) {
        (*self.like, self.bytes, self.stage, self.injector)
    }

    /// A packet made from nothing, from the IP header on. It has no socket and no owner.
    #[must_use]
    pub fn new(bytes: Vec<u8>, place: Place, injector: u32) -> Self {
        // SAFETY: integers alone, for which zeros are values.
        let mut like: DivertRecord = unsafe { std::mem::zeroed() };
        like.interface = place.interface;
        like.compartment = 0;
        like.flags = if place.inbound { INBOUND } else { 0 };
        like.protocol = if bytes.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
        Self { bytes, like: Box::new(like), stage: place.stage, injector }
    }
}

/// Where a packet that is made from nothing goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The index of the device by which it leaves or comes.
    pub interface: u32,
    /// Whether it comes in.
    pub inbound: bool,
    /// The first layer that it meets: a number of [`openwfp_abi::divert::stage`].
    pub stage: u16,
}
