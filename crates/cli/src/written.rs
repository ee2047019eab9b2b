//! What passes in a replay, written down as a capture (pcapng).

use openwfp_packet::{link::LinkType, time::Timestamp};
use std::io::{self, Write};

/// Writes packets of any link type: each has an interface of its own.
pub(crate) struct CaptureWriter<W> {
    out: W,
    interfaces: Vec<LinkType>,
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture.
    pub fn new(mut out: W) -> io::Result<Self> {
        // Byte order, version 1.0, and a section of unknown length.
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]);
        body.extend([0xff; 8]);
        block(&mut out, 0x0a0d_0d0a, &body)?;
        Ok(Self { out, interfaces: Vec::new() })
    }

    /// Writes a packet.
    pub fn packet(&mut self, link_type: LinkType, time: Timestamp, bytes: &[u8]) -> io::Result<()> {
        let known = self.interfaces.iter().position(|known| *known == link_type);
        let interface = match known {
            Some(interface) => interface,
            None => {
                // The link type, no limit, times in nanoseconds (option 9), no more options.
                let mut body = link_type.0.to_le_bytes().to_vec();
                body.extend([0; 6]);
                body.extend([9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
                block(&mut self.out, 1, &body)?;
                self.interfaces.push(link_type);
                self.interfaces.len() - 1
            }
        };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut body = u32::try_from(interface).unwrap_or(0).to_le_bytes().to_vec();
        body.extend(((time.nanoseconds() >> 32) as u32).to_le_bytes());
        body.extend((time.nanoseconds() as u32).to_le_bytes());
        body.extend(length);
        body.extend(length);
        body.extend(bytes);
        block(&mut self.out, 6, &body)
    }

    /// Ends the capture.
    pub fn end(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let padding = body.len().wrapping_neg() & 3;
    let length = u32::try_from(12 + body.len() + padding).map_err(io::Error::other)?.to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&[0; 3][..padding])?;
    out.write_all(&length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_packet::capture::CaptureReader;

    #[test]
    fn what_is_written_is_read() {
        let packets: [(LinkType, u64, &[u8]); 3] = [
            (LinkType::ETHERNET, 1_767_323_045_678_901_234, b"frame"),
            (LinkType::RAW, 7, b"ip"),
            (LinkType::ETHERNET, 8, b""),
        ];
        let mut file = Vec::new();
        let mut writer = CaptureWriter::new(&mut file).unwrap();
        for (link_type, time, bytes) in packets {
            writer.packet(link_type, Timestamp::from_nanoseconds(time), bytes).unwrap();
        }
        writer.end().unwrap();
        let mut reader = CaptureReader::new(file.as_slice()).unwrap();
        for (link_type, time, bytes) in packets {
            let record = reader.next_record().unwrap().unwrap();
            assert_eq!((record.link_type, record.time.nanoseconds(), record.data), (link_type, time, bytes));
        }
        assert!(reader.next_record().is_none());
    }
}
