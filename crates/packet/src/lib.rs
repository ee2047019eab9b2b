//! Packets of openwfp: from the bytes of a capture to the incoming values of every layer that they meet.
//!
//! In the order in which one meets them:
//!
//! 1. [`capture`]: pcap and pcapng files, read as a stream, each packet with its time and link type.
//! 2. [`link`]: what stands before the IP packet, and what that tells about it.
//! 3. [`wire`]: checked views over the bytes, one protocol a file.
//! 4. [`packet`]: the packet as far as classification needs it.
//! 5. [`local`]: which side of the capture is the local machine: as given, or as the capture shows.
//! 6. [`fragments`]: datagrams in pieces.
//! 7. [`flow`]: what belongs together, and who opened it.
//! 8. [`stream`]: the data of connections, in order.
//! 9. [`unheard`]: what nobody listened to.
//! 10. [`replay`]: all of it in the order of the platform, asking a classifier at every layer.
//!
//! ```
//! use openwfp_packet::capture::CaptureReader;
//! use openwfp_packet::local::LocalSide;
//! use openwfp_packet::replay::{Decision, Replay, ReplaySettings, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let file: &[u8] = include_bytes!("../../../captures/http.pcap");
//! let local = LocalSide::Given(vec!["192.0.2.1".parse()?]);
//! let mut replay = Replay::new(local, ReplaySettings::default());
//! let mut capture = CaptureReader::new(file)?;
//! while let Some(record) = capture.next_record() {
//!     replay.packet(&record?, &mut |step: &Step<'_>| {
//!         println!("packet {} at {}", step.packet, step.layer);
//!         Decision::Permit
//!     });
//! }
//! assert_eq!(replay.summary().flows, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here opens a file, reads a clock or draws a random number: bytes, times and seeds come in as arguments, so that
//! every replay can be repeated. Whatever the bytes are, nothing panics, and memory is bounded.

pub mod capture;
pub mod flow;
pub mod fragments;
pub mod link;
pub mod local;
pub mod packet;
pub mod replay;
pub mod stream;
pub mod time;
pub mod unheard;
pub mod wire;
