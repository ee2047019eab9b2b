//! Messages of the domain name system, as far as a monitor needs them (RFC 1035).

use std::net::{Ipv4Addr, Ipv6Addr};

/// So many records of an answer are looked at.
const MOST_ANSWERS: usize = 64;
/// A name has at most so many bytes on the wire.
const LONGEST_NAME: usize = 255;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub id: u16,
    pub is_response: bool,
    pub code: u8,
    pub name: String,
    pub record_type: u16,
    pub answers: Vec<String>,
}

/// Reads a message with a question; none where it is no such. Answers that cannot be read end the list.
pub(super) fn read(bytes: &[u8]) -> Option<Message> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (id, flags, questions, answers) = (word(0)?, word(2)?, word(4)?, word(6)?);
    // Anything but a query is no question: zone transfers, updates.
    if questions == 0 || flags >> 11 & 15 != 0 {
        return None;
    }
    let (name, mut at) = name(bytes, 12)?;
    let record_type = word(at)?;
    word(at + 2)?;
    at += 4;
    for _ in 1..questions {
        at = self::name(bytes, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..usize::from(answers).min(MOST_ANSWERS) {
        let Some((text, next)) = answer(bytes, at) else { break };
        found.extend(text);
        at = next;
    }
    let (is_response, code) = (flags & 0x8000 != 0, (flags & 15) as u8);
    Some(Message { id, is_response, code, name, record_type, answers: found })
}

/// A record: what it holds as text, where that is of interest, and where the next begins.
fn answer(bytes: &[u8], at: usize) -> Option<(Option<String>, usize)> {
    let (_, at) = name(bytes, at)?;
    let header = bytes.get(at..at + 10)?;
    let (record_type, length) =
        (u16::from_be_bytes([header[0], header[1]]), usize::from(u16::from_be_bytes([header[8], header[9]])));
    let begin = at + 10;
    let data = bytes.get(begin..begin + length)?;
    let text = match record_type {
        1 => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
        28 => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
        2 | 5 | 12 | 39 => name(bytes, begin).map(|(name, _)| name),
        15 => name(bytes, begin + 2).map(|(name, _)| name),
        33 => name(bytes, begin + 6).map(|(name, _)| name),
        16 => data.split_first().map(|(&length, text)| printable(&text[..text.len().min(usize::from(length))])),
        // What only accompanies an answer: signatures, options.
        _ => None,
    };
    Some((text, begin + length))
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A name, and where what follows it begins. Pointers lead to earlier places alone, so that none goes in a circle.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut text, mut length, mut after, mut lowest) = (String::new(), 0, None, at);
    loop {
        let first = *bytes.get(at)?;
        match first >> 6 {
            0 if first == 0 => return Some((text, after.unwrap_or(at + 1))),
            0 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(first))?;
                length += label.len() + 1;
                if length > LONGEST_NAME {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                // A dot inside a label is none between labels.
                text.push_str(&printable(label).replace('.', "\\."));
                at += 1 + label.len();
            }
            3 => {
                let target = usize::from(first & 63) << 8 | usize::from(*bytes.get(at + 1)?);
                after.get_or_insert(at + 2);
                if target >= lowest {
                    return None;
                }
                (at, lowest) = (target, target);
            }
            _ => return None,
        }
    }
}

/// The name of a type.
pub(super) fn type_name(number: u16) -> String {
    let known = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        43 => "DS",
        48 => "DNSKEY",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        257 => "CAA",
        _ => return format!("TYPE{number}"),
    };
    known.to_owned()
}

/// The name of a response code.
pub(super) fn code_name(number: u8) -> String {
    let known = match number {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        9 => "NOTAUTH",
        _ => return format!("RCODE{number}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with a CNAME and an address, with pointers as name servers write them.
    const ANSWER: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03cdn\xc0\x10\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x50";

    #[test]
    fn an_answer_is_read() {
        let message = read(ANSWER).unwrap();
        assert_eq!((message.id, message.is_response, message.code), (0x1234, true, 0));
        assert_eq!((message.name.as_str(), message.record_type), ("www.example.com", 1));
        assert_eq!(message.answers, ["cdn.example.com", "192.0.2.80"]);
    }

    #[test]
    fn names_that_go_in_circles_or_too_far_are_none() {
        let question = |name: &[u8]| [b"\0\x01\x01\0\0\x01\0\0\0\0\0\0", name, b"\0\x01\0\x01"].concat();
        assert_eq!(read(&question(b"\xc0\x0c")), None);
        assert_eq!(read(&question(b"\x01a\xc0\x0c")), None);
        assert_eq!(read(&question(b"\xc0\x10\x01a\xc0\x0c\0")), None);
        assert_eq!(read(&question(&[[63; 64].as_slice(); 4].concat())), None);
        assert_eq!(read(&question(b"\x03a.b\x01c\0")).unwrap().name, "a\\.b.c");
        assert_eq!(read(&question(b"\0")).unwrap().name, "");
    }

    #[test]
    fn cut_answers_are_read_as_far_as_they_go() {
        for end in 0..ANSWER.len() {
            let message = read(&ANSWER[..end]);
            assert_eq!(message.is_some(), end >= 33, "{end}");
            assert!(message.is_none_or(|message| message.answers.len() < 2));
        }
        for at in 0..ANSWER.len() {
            let mut changed = ANSWER.to_vec();
            changed[at] ^= 0xff;
            let _ = read(&changed);
        }
    }
}
