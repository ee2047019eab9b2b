//! What must hold for any bytes that are given to the reader of captures. Run by the fuzzer and, over the seeds, by a test.

use crate::replay::Audit;
use openwfp_packet::capture::{CaptureReader, MAX_PACKET_LENGTH};
use openwfp_packet::local::{Inference, LocalSide};
use openwfp_packet::packet::{Frame, Packet};
use openwfp_packet::unheard::Unheard;

/// Panics where a promise of the reader or of a replay is broken.
pub fn check(bytes: &[u8]) {
    let mut reader = match CaptureReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(error.offset == 0 && error.frame == 1, "{error}");
            return;
        }
    };
    let local = LocalSide::Inferred(Inference::new().conclude());
    let mut audits = [0, 3].map(|blocks| Audit::new(local.clone(), blocks).expecting(unheard(bytes)));
    let mut frames = 0;
    while let Some(record) = reader.next_record() {
        match record {
            Ok(record) => {
                frames += 1;
                assert_eq!(record.frame, frames);
                assert!(record.data.len() <= MAX_PACKET_LENGTH as usize);
                let (file, data) = (bytes.len(), record.data.len());
                assert!(data <= file, "{data} bytes out of a file of {file}");
                for audit in &mut audits {
                    audit.packet(&record);
                }
            }
            Err(error) => {
                assert_eq!(error.frame, frames + 1);
                assert!(error.offset <= bytes.len() as u64, "{error}");
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(reader.next_record().is_none(), "the end is the end");
    assert!(reader.position() <= bytes.len() as u64);
    for audit in &mut audits {
        audit.finish();
    }
}

/// What nobody listens to in a capture.
fn unheard(bytes: &[u8]) -> Unheard {
    let mut unheard = Unheard::new();
    if let Ok(mut reader) = CaptureReader::new(bytes) {
        while let Some(Ok(record)) = reader.next_record() {
            if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
                unheard.observe(&packet);
            }
        }
    }
    unheard
}
