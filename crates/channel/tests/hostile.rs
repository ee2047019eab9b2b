//! Rings and messages, also where the other side writes whatever it likes.

use openwfp_channel::{
    Action, Answer, AnswerFlags, Ear, Host, LONGEST_CONTROL, MessageError, OpenError, Parts, Received, Request,
    RequestFlags, RingError, VALUES, Wfp,
    layout::{ANSWERS, LINE, REQUESTS, SLOTS, Sizes},
};
use proptest::{collection::vec, prelude::*};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::{
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    thread,
    time::{Duration, Instant},
};

const SMALL: Sizes = Sizes { slot: 128, count: 4 };

/// Both ends, and the memory as a file, through which anything can be written.
fn channel(sizes: Sizes) -> (Wfp, Host, File) {
    let (wfp, parts) = Wfp::make(sizes).unwrap();
    let file = File::from(parts.memory.try_clone().unwrap());
    (wfp, Host::open(parts).unwrap(), file)
}

fn put(file: &File, at: usize, value: u64) {
    file.write_all_at(&value.to_le_bytes(), at as u64).unwrap();
}

fn request() -> Request {
    Request {
        number: 1,
        filter: 2,
        time: 3,
        flow: 4,
        endpoint: 5,
        compartment: 6,
        flags: RequestFlags(RequestFlags::INBOUND | RequestFlags::RIGHT),
        layer: 7,
        source_interface: 8,
        destination_interface: 9,
        transport: 1,
        payload: 2,
        process: 12,
        user: 13,
        group: 14,
        age: 15,
        name: *b"a thread\0\0\0\0\0\0\0\0",
        injectors: vec![1, 2],
        values: [1 << 32; VALUES],
    }
}

#[test]
fn messages_come_in_order_and_as_they_were() {
    let (mut wfp, mut host, _) = channel(SMALL);
    let mut message = vec![];
    for round in 0..100u8 {
        let texts: Vec<Vec<u8>> =
            (0..4).map(|number| vec![round ^ number; usize::from(round + number) % 121]).collect();
        for text in &texts {
            let (first, rest) = text.split_at(text.len() / 3);
            assert_eq!(wfp.requests.push(&[first, &[], rest]), Ok(true));
        }
        assert_eq!(wfp.requests.push(&[b"one too many"]), Ok(false));
        for text in &texts {
            assert_eq!(host.requests.pop(&mut message), Ok(true));
            assert_eq!(message, *text);
        }
        assert_eq!(host.requests.pop(&mut message), Ok(false));
    }
    assert_eq!(wfp.requests.push(&[&[0; 121]]), Err(RingError::Length), "a slot holds 120 bytes");
}

#[test]
fn counts_that_cannot_be_true_are_refused_by_both_sides() {
    let (mut wfp, mut host, file) = channel(SMALL);
    let mut message = vec![];
    for wrong in [5, 1 << 40, 1 << 63] {
        put(&file, REQUESTS, wrong);
        assert_eq!(host.requests.pop(&mut message), Err(RingError::Count));
        put(&file, ANSWERS, wrong);
        assert_eq!(wfp.answers.pop(&mut message), Err(RingError::Count));
        put(&file, REQUESTS + LINE, wrong);
        assert_eq!(wfp.requests.push(&[b"x"]), Err(RingError::Count));
        put(&file, ANSWERS + LINE, wrong);
        assert_eq!(host.answers.push(&[b"x"]), Err(RingError::Count));
    }
    // as many as can be, of which nothing was written
    put(&file, ANSWERS, 4);
    assert_eq!(wfp.answers.pop(&mut message), Ok(true));
    assert!(message.is_empty());
}

#[test]
fn a_length_beyond_the_slot_is_refused() {
    let (mut wfp, _host, file) = channel(SMALL);
    let mut message = vec![];
    put(&file, ANSWERS, 4);
    for wrong in [121, 1 << 20, u64::MAX] {
        put(&file, SMALL.answers(), wrong);
        assert_eq!(wfp.answers.pop(&mut message), Err(RingError::Length));
    }
    put(&file, SMALL.answers(), 120);
    assert_eq!(wfp.answers.pop(&mut message), Ok(true));
    assert_eq!(message.len(), 120);
}

#[test]
fn memory_that_is_not_a_channel_is_not_opened() {
    let parts = |memory: OwnedFd| {
        let (_, parts) = Wfp::make(SMALL).unwrap();
        Parts { memory, ..parts }
    };
    let unsealed = memfd_create("unsealed", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&unsealed, SMALL.total() as u64).unwrap();
    assert!(matches!(Host::open(parts(unsealed)), Err(OpenError::System(_))));
    let (_, own) = Wfp::make(SMALL).unwrap();
    let file = File::from(own.memory.try_clone().unwrap());
    for (at, wrong) in [(0, 1u64), (8, 2), (8, 1 | 127 << 32), (16, 3), (16, 1 << 20), (16, 8)] {
        let mut before = [0; 8];
        file.read_exact_at(&mut before, at).unwrap();
        put(&file, at as usize, wrong);
        let opened = Host::open(parts(own.memory.try_clone().unwrap()));
        assert!(matches!(opened, Err(OpenError::NotAChannel)), "{at} {wrong:x}");
        file.write_all_at(&before, at).unwrap();
    }
    assert!(Host::open(own).is_ok());
    assert!(file.set_len(0).is_err(), "it can not be cut off under the other side");
}

#[test]
fn nobody_is_woken_who_is_awake_and_nobody_sleeps_over_a_message() {
    let (mut wfp, mut host, _) = channel(SMALL);
    assert_eq!(wfp.requests.push(&[b"x"]), Ok(true));
    assert!(!wfp.requests.reader_sleeps(), "it is awake");
    assert!(!host.requests.begin_sleep(), "there is something");
    assert_eq!(host.requests.pop(&mut vec![]), Ok(true));
    assert!(host.requests.begin_sleep());
    assert_eq!(wfp.requests.push(&[b"x"]), Ok(true));
    assert!(wfp.requests.reader_sleeps());
    assert!(!wfp.requests.reader_sleeps(), "it was woken already");
    host.requests.end_sleep();
    for _ in 0..100_000 {
        wfp.bell.ring().unwrap();
    }
    host.ear.silence().unwrap();
}

#[test]
fn two_threads_never_lose_a_message_nor_a_wake_up() {
    let (mut wfp, mut host, _) = channel(SMALL);
    let count = 20_000u32;
    let answers = thread::spawn(move || {
        let mut message = vec![];
        for number in 0..count {
            while !host.requests.pop(&mut message).unwrap() {
                if host.requests.begin_sleep() {
                    wait(&host.ear);
                    host.requests.end_sleep();
                    host.ear.silence().unwrap();
                }
            }
            assert_eq!(message, number.to_le_bytes());
            while !host.answers.push(&[&message]).unwrap() {}
            if host.answers.reader_sleeps() {
                host.bell.ring().unwrap();
            }
        }
    });
    let (mut sent, mut received, mut message) = (0, 0, vec![]);
    while received < count {
        while sent < count && wfp.requests.push(&[&sent.to_le_bytes()]).unwrap() {
            sent += 1;
            if wfp.requests.reader_sleeps() {
                wfp.bell.ring().unwrap();
            }
        }
        while wfp.answers.pop(&mut message).unwrap() {
            assert_eq!(message, received.to_le_bytes());
            received += 1;
        }
        let nothing_to_do = received < count && (sent == count || wfp.requests.room().unwrap() == 0);
        if nothing_to_do && wfp.answers.begin_sleep() {
            wait(&wfp.ear);
            wfp.answers.end_sleep();
            wfp.ear.silence().unwrap();
        }
    }
    answers.join().unwrap();
}

fn wait(ear: &Ear) {
    let begun = Instant::now();
    openwfp_channel::wait(&[ear.as_fd()], Duration::from_secs(10)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "a wake-up was lost");
}

#[test]
fn the_control_socket_keeps_packets_whole_and_tells_of_the_end() {
    let (wfp, host, _) = channel(SMALL);
    assert_eq!(wfp.control.receive().unwrap(), Received::Nothing);
    for packet in [&b"one"[..], b"two", &[7; LONGEST_CONTROL]] {
        assert!(host.control.send(packet).unwrap());
        assert_eq!(wfp.control.receive().unwrap(), Received::Packet(packet.to_vec()));
    }
    assert!(host.control.send(&[0; LONGEST_CONTROL + 1]).is_err());
    let sent = (0..1000).take_while(|_| host.control.send(&[0; 10_000]).unwrap()).count();
    assert!(sent < 1000, "what nobody takes waits for nobody");
    drop(host);
    let received = (0..sent).filter(|_| matches!(wfp.control.receive(), Ok(Received::Packet(_)))).count();
    assert_eq!(received, sent);
    assert_eq!(wfp.control.receive().unwrap(), Received::Closed);
    assert!(!wfp.control.send(b"x").unwrap());
}

#[test]
fn requests_and_answers_come_back_as_they_were() {
    let request = request();
    let mut message = request.encode(3);
    assert_eq!(message.len(), Request::HEADER);
    message.extend(b"abc");
    assert_eq!(Request::decode(&message), Ok((request.clone(), &b"abc"[..])));
    // places of the page in docs/
    assert_eq!(message[8..16], 2u64.to_le_bytes());
    assert_eq!(message[52..56], 7u32.to_le_bytes());
    assert_eq!(message[148..152], 3u32.to_le_bytes());
    assert_eq!(message[152..160], (1u64 << 32).to_le_bytes());
    for (action, flags, packet) in
        [(Action::Permit, 0, None), (Action::Block, AnswerFlags::PACKET | AnswerFlags::ABSORB, Some(&b"abcd"[..]))]
    {
        let answer = Answer { number: 99, action, flags: AnswerFlags(flags) };
        let bytes = packet.unwrap_or_default();
        let message = [&answer.encode(bytes.len())[..], bytes].concat();
        assert_eq!(Answer::decode(&message), Ok((answer, packet)));
    }
}

#[test]
fn messages_that_make_no_sense_are_refused() {
    let good = [&request().encode(2)[..], b"ab"].concat();
    let with = |at: usize, value: u32| {
        let mut message = good.clone();
        message[at..at + 4].copy_from_slice(&value.to_le_bytes());
        Request::decode(&message).err()
    };
    assert_eq!(with(48, 1 << 6), Some(MessageError::Number("the flags of a request")));
    assert_eq!(with(64, 3), Some(MessageError::Number("where the headers end")));
    assert_eq!(with(68, 3), Some(MessageError::Number("where the headers end")));
    assert_eq!(with(84, 9), Some(MessageError::Number("how many injected")));
    assert_eq!(with(144, 65), Some(MessageError::Number("how many values there are")));
    assert_eq!(with(148, 1), Some(MessageError::Length));
    assert_eq!(with(156, 2), Some(MessageError::Number("an incoming value")));
    let answer = Answer { number: 1, action: Action::Permit, flags: AnswerFlags(0) }.encode(0);
    let with = |at: usize, value: u32| {
        let mut message = answer;
        message[at..at + 4].copy_from_slice(&value.to_le_bytes());
        Answer::decode(&message).err()
    };
    for at in [0, 4, 16] {
        assert!(matches!(with(at, 99), Some(MessageError::Number(_))), "{at}");
    }
    assert_eq!(with(20, 1), Some(MessageError::Length));
    assert_eq!(Answer::decode(&[&answer[..], b"x"].concat()), Err(MessageError::Length));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever stands in the memory: nothing panics, and nobody reads more than a slot.
    #[test]
    fn no_memory_harms_who_reads_it(words in vec((0usize..(SMALL.total() / 8), any::<u64>()), 0..64), small in vec((0usize..9, 0u64..8), 0..9)) {
        let (mut wfp, mut host, file) = channel(SMALL);
        words.iter().for_each(|(at, value)| put(&file, at * 8, *value));
        small.iter().for_each(|(line, value)| put(&file, line * LINE, *value));
        let mut message = vec![];
        for _ in 0..8 {
            for popped in [wfp.answers.pop(&mut message), host.requests.pop(&mut message)] {
                if popped == Ok(true) {
                    prop_assert!(message.len() <= SMALL.slot - 8);
                    let _ = Answer::decode(&message);
                    let _ = Request::decode(&message);
                }
            }
            let _ = wfp.requests.push(&[b"x"]);
            let _ = host.answers.push(&[b"x"]);
            let _ = (wfp.requests.reader_sleeps(), host.answers.reader_sleeps(), wfp.answers.begin_sleep());
        }
    }

    /// Bytes that nobody wrote are understood or refused; what is understood means the same when it is written again.
    #[test]
    fn no_bytes_harm_who_reads_them(bytes in vec(any::<u8>(), 0..1024), few in vec(0u32..9, 4)) {
        let _ = Request::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let mut message: Vec<u8> = [1, few[0], few[1], 0, few[2], few[3]].into_iter().flat_map(u32::to_le_bytes).collect();
        message.extend(&bytes);
        if let Ok((answer, packet)) = Answer::decode(&message) {
            let packet = packet.unwrap_or_default();
            prop_assert_eq!(&[&answer.encode(packet.len())[..], packet].concat(), &message);
        }
        let header = [&request().encode(bytes.len())[..], &bytes].concat();
        match Request::decode(&header) {
            Ok((read, packet)) => prop_assert!(read == request() && packet == bytes),
            Err(error) => prop_assert!(bytes.len() < 2, "{}", error),
        }
    }
}

#[test]
fn slots_stand_where_the_layout_says() {
    let (mut wfp, mut host, file) = channel(SMALL);
    assert_eq!(wfp.requests.push(&[b"abc"]), Ok(true));
    assert_eq!(host.answers.push(&[b"defg"]), Ok(true));
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, SLOTS as u64).unwrap();
    assert_eq!(&bytes, b"\x03\0\0\0\0\0\0\0abc\0\0\0\0\0");
    file.read_exact_at(&mut bytes, (SLOTS + 4 * 128) as u64).unwrap();
    assert_eq!(&bytes, b"\x04\0\0\0\0\0\0\0defg\0\0\0\0");
    host.set_beat(7);
    assert_eq!(wfp.beat(), 7);
    file.read_exact_at(&mut bytes[..8], 64).unwrap();
    assert_eq!(bytes[..8], 7u64.to_le_bytes());
}
