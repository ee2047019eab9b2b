//! Reading captures: formats, byte orders, time stamps, interfaces, and every way in which a file can be broken.

mod common;

use common::{capture_path, packets};
use openwfp_packet::capture::{CaptureError, CaptureProblem, CaptureReader, Part};
use openwfp_packet::link::{LinkDirection, LinkType};

/// What a test compares of a record.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    frame: u64,
    nanoseconds: u64,
    link_type: LinkType,
    interface: Option<u32>,
    direction: Option<LinkDirection>,
    data: Vec<u8>,
    original_length: u32,
}

fn read(file: &[u8]) -> (Vec<Seen>, Option<CaptureError>) {
    // One byte at a time, as a slow pipe gives them.
    struct Trickle<'a>(&'a [u8]);
    impl std::io::Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }
    let mut seen = Vec::new();
    let mut reader = match CaptureReader::new(Trickle(file)) {
        Ok(reader) => reader,
        Err(error) => return (seen, Some(error)),
    };
    while let Some(record) = reader.next_record() {
        match record {
            Ok(record) => seen.push(Seen {
                frame: record.frame,
                nanoseconds: record.time.nanoseconds(),
                link_type: record.link_type,
                interface: record.interface,
                direction: record.direction,
                data: record.data.to_vec(),
                original_length: record.original_length,
            }),
            Err(error) => {
                assert!(reader.next_record().is_none(), "nothing comes after an error");
                return (seen, Some(error));
            }
        }
    }
    (seen, None)
}

/// Numbers in the order of a file.
#[derive(Clone, Copy)]
struct Order {
    big_endian: bool,
}

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u64(self, number: u64) -> [u8; 8] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn pcap_header(self, magic: u32, link_type: u32) -> Vec<u8> {
        let mut file = self.u32(magic).to_vec();
        file.extend(self.u16(2));
        file.extend(self.u16(4));
        file.extend([0; 8]);
        file.extend(self.u32(262_144));
        file.extend(self.u32(link_type));
        file
    }

    fn pcap_record(self, seconds: u32, part: u32, data: &[u8], original: u32) -> Vec<u8> {
        let mut record = Vec::new();
        for number in [seconds, part, data.len() as u32, original] {
            record.extend(self.u32(number));
        }
        record.extend(data);
        record
    }

    fn block(self, kind: u32, content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        content.resize(content.len().next_multiple_of(4), 0);
        let length = 12 + content.len() as u32;
        let mut block = self.u32(kind).to_vec();
        block.extend(self.u32(length));
        block.extend(content);
        block.extend(self.u32(length));
        block
    }

    fn section(self) -> Vec<u8> {
        let mut content = self.u32(0x1a2b_3c4d).to_vec();
        content.extend(self.u16(1));
        content.extend(self.u16(0));
        content.extend([0xff; 8]);
        self.block(0x0a0d_0d0a, &content)
    }

    fn interface(self, link_type: u16, snap_length: u32, options: &[u8]) -> Vec<u8> {
        let mut content = self.u16(link_type).to_vec();
        content.extend([0; 2]);
        content.extend(self.u32(snap_length));
        content.extend(options);
        self.block(1, &content)
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = self.u16(code).to_vec();
        option.extend(self.u16(value.len() as u16));
        option.extend(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn packet(self, interface: u32, time: u64, data: &[u8], original: u32, options: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        for number in [interface, (time >> 32) as u32, time as u32, data.len() as u32, original] {
            content.extend(self.u32(number));
        }
        content.extend(data);
        content.resize(content.len().next_multiple_of(4), 0);
        content.extend(options);
        self.block(6, &content)
    }
}

const ORDERS: [Order; 2] = [Order { big_endian: false }, Order { big_endian: true }];

fn seen(frame: u64, nanoseconds: u64, link_type: LinkType, interface: impl Into<Option<u32>>, data: &[u8]) -> Seen {
    let original_length = data.len() as u32;
    let interface = interface.into();
    Seen { frame, nanoseconds, link_type, interface, direction: None, data: data.to_vec(), original_length }
}

#[test]
fn pcap_comes_in_two_orders_and_two_precisions() {
    for order in ORDERS {
        for (magic, nanoseconds) in [(0xa1b2_c3d4, 7_000_005_000), (0xa1b2_3c4d, 7_000_000_005)] {
            let mut file = order.pcap_header(magic, 1);
            file.extend(order.pcap_record(7, 5, b"one", 3));
            file.extend(order.pcap_record(7, 5, b"", 1500));
            let (records, error) = read(&file);
            assert!(error.is_none(), "{error:?}");
            let empty = Seen { original_length: 1500, ..seen(2, nanoseconds, LinkType::ETHERNET, None, b"") };
            assert_eq!(records, [seen(1, nanoseconds, LinkType::ETHERNET, None, b"one"), empty]);
        }
    }
}

#[test]
fn the_length_of_a_check_sequence_is_no_part_of_the_link_type() {
    let file = ORDERS[0].pcap_header(0xa1b2_c3d4, 0x4400_0001);
    assert_eq!(CaptureReader::new(&file[..]).unwrap().link_type(), Some(LinkType::ETHERNET));
}

#[test]
fn pcapng_interfaces_have_their_own_link_types_clocks_and_snap_lengths() {
    for order in ORDERS {
        let nanoseconds = order.option(9, &[9]);
        let binary = [order.option(9, &[0x8a]), order.option(14, &order.u64(100))].concat();
        let mut file = order.section();
        file.extend(order.interface(1, 0, &[]));
        file.extend(order.interface(101, 65535, &nanoseconds));
        file.extend(order.interface(276, 0, &binary));
        // A block that is not looked into: name resolution.
        file.extend(order.block(4, &[0; 8]));
        file.extend(order.packet(0, 1_000_001, b"ethernet", 8, &[]));
        file.extend(order.packet(1, 2_000_000_002, b"raw", 3, &order.option(2, &order.u32(1))));
        file.extend(order.packet(2, 1024 + 512, b"cooked", 6, &order.option(2, &order.u32(2))));
        let (records, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        let incoming = Some(LinkDirection::Incoming);
        let outgoing = Some(LinkDirection::Outgoing);
        assert_eq!(
            records,
            [
                seen(1, 1_000_001_000, LinkType::ETHERNET, 0, b"ethernet"),
                Seen { direction: incoming, ..seen(2, 2_000_000_002, LinkType::RAW, 1, b"raw") },
                Seen { direction: outgoing, ..seen(3, 101_500_000_000, LinkType::LINUX_SLL2, 2, b"cooked") },
            ]
        );
    }
}

#[test]
fn a_new_section_may_have_another_order_and_forgets_the_interfaces() {
    let [little, big] = ORDERS;
    let mut file = [little.section(), little.interface(1, 0, &[]), little.packet(0, 0, b"one", 3, &[])].concat();
    file.extend([big.section(), big.interface(101, 0, &[]), big.packet(0, 0, b"two", 3, &[])].concat());
    file.extend([little.section(), little.packet(0, 0, b"x", 1, &[])].concat());
    let (records, error) = read(&file);
    assert_eq!(records, [seen(1, 0, LinkType::ETHERNET, 0, b"one"), seen(2, 0, LinkType::RAW, 0, b"two")]);
    let error = error.unwrap();
    assert_eq!(error.frame, 3);
    assert!(matches!(error.problem, CaptureProblem::UnknownInterface { interface: 0, described: 0 }), "{error}");
}

#[test]
fn simple_and_obsolete_packets_are_read_too() {
    for order in ORDERS {
        let mut file = [order.section(), order.interface(1, 4, &[]), order.packet(0, 5, b"abcd", 4, &[])].concat();
        // A simple packet of ten bytes, of which the interface stores four.
        file.extend(order.block(3, &[&order.u32(10)[..], b"abcd"].concat()));
        let mut obsolete = [order.u16(0), order.u16(0)].concat();
        for number in [0, 9, 3, 77] {
            obsolete.extend(order.u32(number));
        }
        obsolete.extend(b"abc");
        file.extend(order.block(2, &obsolete));
        let (records, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(
            records,
            [
                seen(1, 5_000, LinkType::ETHERNET, 0, b"abcd"),
                Seen { original_length: 10, ..seen(2, 5_000, LinkType::ETHERNET, 0, b"abcd") },
                Seen { original_length: 77, ..seen(3, 9_000, LinkType::ETHERNET, 0, b"abc") },
            ]
        );
    }
}

#[test]
fn a_file_that_is_no_capture_says_what_it_is() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "at byte 0: the capture is empty"),
        (b"\xd4\xc3", "at byte 0: the capture ends inside a file header: 4 bytes are needed, 2 are there"),
        (b"\xd4\xc3\xb2\xa1\x02", "at byte 0: the capture ends inside a file header: 24 bytes are needed, 5 are there"),
        (b"\x1f\x8b\x08\x00", "at byte 0: compressed with gzip: decompress it first"),
        (b"\x28\xb5\x2f\xfd", "at byte 0: compressed with zstd: decompress it first"),
        (b"%PDF-1.7", "at byte 0: neither pcap nor pcapng: it begins with [25, 50, 44, 46]"),
        (b"\x0a\x0d\x0d\x0a", "at byte 0: the capture ends inside a block header: 8 bytes are needed, 4 are there"),
    ];
    for (file, expected) in cases {
        assert_eq!(read(file).1.unwrap().to_string(), expected);
    }
    let mut old = ORDERS[0].pcap_header(0xa1b2_c3d4, 1);
    old[4] = 1;
    assert_eq!(read(&old).1.unwrap().to_string(), "at byte 0: version 1.4 of pcap is not known");
}

#[test]
fn a_capture_cut_in_the_middle_is_read_as_far_as_it_goes() {
    let (records, error) = read(&std::fs::read(capture_path("cut.pcap")).unwrap());
    assert_eq!(records.len(), 7);
    let whole = packets("http.pcap");
    assert!(records.iter().zip(&whole).all(|(record, packet)| record.data == packet.data));
    let offset = 24 + whole[..7].iter().map(|packet| 16 + packet.data.len()).sum::<usize>();
    let expected = format!(
        "frame 8, at byte {offset}: the capture ends inside a packet: {} bytes are needed, 20 are there",
        whole[7].data.len()
    );
    assert_eq!(error.unwrap().to_string(), expected);
}

#[test]
fn every_prefix_of_a_capture_gives_whole_packets_and_then_an_error_or_the_end() {
    for name in ["dns.pcapng", "two-interfaces.pcapng", "refused.pcap"] {
        let file = std::fs::read(capture_path(name)).unwrap();
        let (all, error) = read(&file);
        assert!(error.is_none());
        for length in 0..file.len() {
            let (records, error) = read(&file[..length]);
            assert!(records.len() <= all.len());
            assert_eq!(records, all[..records.len()]);
            if let Some(error) = error {
                assert!(error.offset <= length as u64);
                assert_eq!(error.frame, records.len() as u64 + 1);
                let cut = matches!(error.problem, CaptureProblem::Truncated { .. } | CaptureProblem::Empty);
                assert!(cut, "{name} cut at {length}: {error}");
            }
        }
    }
}

#[test]
fn each_way_to_break_a_record_has_a_name() {
    let order = ORDERS[0];
    let pcap = order.pcap_header(0xa1b2_c3d4, 1);
    let mut long = pcap.clone();
    for number in [0, 0, 262_145, 262_145] {
        long.extend(order.u32(number));
    }
    let error = read(&long).1.unwrap();
    assert!(matches!(error.problem, CaptureProblem::PacketTooLong { length: 262_145, limit: 262_144 }), "{error}");
    assert_eq!((error.frame, error.offset), (1, 24));

    let head = [order.section(), order.interface(1, 0, &[])].concat();
    let good = order.packet(0, 0, b"abcd", 4, &[]);
    let broken = |at: usize, number: u32| {
        let mut file = head.clone();
        let mut packet = good.clone();
        packet[at..at + 4].copy_from_slice(&order.u32(number));
        file.extend(packet);
        read(&file).1.unwrap()
    };
    assert!(matches!(broken(4, 35).problem, CaptureProblem::BlockLength { block: 6, length: 35 }));
    assert!(matches!(broken(4, 8).problem, CaptureProblem::BlockLength { block: 6, length: 8 }));
    assert!(matches!(broken(4, 0x7fff_fffc).problem, CaptureProblem::BlockLength { block: 6, .. }));
    assert!(matches!(
        broken(4, 40).problem,
        CaptureProblem::Truncated { part: Part::Block, needed: 40, available: 36 }
    ));
    assert!(matches!(broken(32, 40).problem, CaptureProblem::BlockLengthsDiffer { block: 6, before: 36, after: 40 }));
    assert!(matches!(broken(8, 1).problem, CaptureProblem::UnknownInterface { interface: 1, described: 1 }));
    assert!(matches!(broken(20, 5).problem, CaptureProblem::BlockContent { block: 6 }));

    let clock = order.interface(1, 0, &order.option(9, &[20]));
    let error = read(&[order.section(), clock].concat()).1.unwrap();
    assert!(matches!(error.problem, CaptureProblem::TimestampResolution(20)), "{error}");
    let mut future = order.section();
    future[12] = 2;
    assert_eq!(read(&future).1.unwrap().to_string(), "at byte 0: version 2.0 of pcapng is not known");
}

#[test]
fn a_reader_that_fails_is_no_end_of_file() {
    struct Fails(usize);
    impl std::io::Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let file = ORDERS[0].pcap_header(0xa1b2_c3d4, 1);
            let rest = &file[self.0..];
            if rest.is_empty() {
                return Err(std::io::Error::other("the disk is gone"));
            }
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            self.0 += length;
            Ok(length)
        }
    }
    let mut reader = CaptureReader::new(Fails(0)).unwrap();
    let error = reader.next_record().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "frame 1, at byte 24: cannot be read: the disk is gone");
}
