//! The beginning of a TLS connection: the name that the client asks for.

/// A ClientHello may be so long; longer ones are taken for none.
const LONGEST: usize = 1 << 16;

/// What the beginning of a stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello<'a> {
    /// It is no TLS handshake.
    NotTls,
    /// So many bytes more are needed, at least.
    Needs(usize),
    /// The client asks for this name.
    Name(&'a [u8]),
    /// The client names nobody.
    Nameless,
    /// It begins like a handshake, and cannot be read.
    Broken,
}

/// Reads the name out of the records of a handshake (RFC 8446, section 4.1.2; RFC 6066, section 3). `joined` is working memory for a
/// ClientHello that comes in several records.
pub(super) fn client_hello<'a>(bytes: &[u8], joined: &'a mut Vec<u8>) -> Hello<'a> {
    const RECORD: usize = 5;
    joined.clear();
    let mut rest = bytes;
    loop {
        match rest {
            [22, 3, _, ..] | [22, 3] | [22] | [] => {}
            _ if joined.is_empty() => return Hello::NotTls,
            _ => return Hello::Broken,
        }
        let Some(header) = rest.get(..RECORD) else { return Hello::Needs(RECORD - rest.len()) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 {
            return Hello::Broken;
        }
        let fragment = &rest[RECORD..];
        joined.extend_from_slice(&fragment[..fragment.len().min(length)]);
        if joined.first().is_some_and(|&kind| kind != 1) || joined.len() > LONGEST {
            return Hello::Broken;
        }
        let needed = match joined.get(1..4) {
            Some(size) => 4 + (usize::from(size[0]) << 16 | usize::from(size[1]) << 8 | usize::from(size[2])),
            None => 4,
        };
        if needed > LONGEST {
            return Hello::Broken;
        }
        if joined.len() >= needed && needed > 4 {
            return name(&joined[4..needed]).unwrap_or(Hello::Broken);
        }
        if fragment.len() <= length {
            // The rest of the record, or the header of the next.
            return Hello::Needs((length - fragment.len()).max(1));
        }
        rest = &fragment[length..];
    }
}

/// Takes `count` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8], count: usize) -> Option<usize> {
    Some(take(bytes, count)?.iter().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

fn name(mut hello: &[u8]) -> Option<Hello<'_>> {
    let hello = &mut hello;
    take(hello, 2 + 32)?;
    for size in [1, 2, 1] {
        let length = number(hello, size)?;
        take(hello, length)?;
    }
    if hello.is_empty() {
        return Some(Hello::Nameless);
    }
    let length = number(hello, 2)?;
    let mut extensions = take(hello, length)?;
    while !extensions.is_empty() {
        let kind = number(&mut extensions, 2)?;
        let length = number(&mut extensions, 2)?;
        let mut extension = take(&mut extensions, length)?;
        if kind == 0 {
            let length = number(&mut extension, 2)?;
            let mut list = take(&mut extension, length)?;
            while !list.is_empty() {
                let kind = number(&mut list, 1)?;
                let length = number(&mut list, 2)?;
                let found = take(&mut list, length)?;
                if kind == 0 {
                    return Some(Hello::Name(found));
                }
            }
        }
    }
    Some(Hello::Nameless)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ClientHello for that name, in one record.
    pub(in super::super) fn hello(name: Option<&str>) -> Vec<u8> {
        let mut extensions = vec![0, 23, 0, 0];
        if let Some(name) = name {
            let length = name.len() as u16;
            extensions.extend([0, 0]);
            extensions.extend((length + 5).to_be_bytes());
            extensions.extend((length + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend(length.to_be_bytes());
            extensions.extend(name.as_bytes());
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut handshake = vec![1, 0];
        handshake.extend((body.len() as u16).to_be_bytes());
        handshake.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend((handshake.len() as u16).to_be_bytes());
        record.extend(handshake);
        record
    }

    #[test]
    fn the_name_is_read() {
        let mut joined = Vec::new();
        assert_eq!(client_hello(&hello(Some("www.example.com")), &mut joined), Hello::Name(b"www.example.com"));
        assert_eq!(client_hello(&hello(None), &mut joined), Hello::Nameless);
        assert_eq!(client_hello(b"GET / HTTP/1.1", &mut joined), Hello::NotTls);
    }

    #[test]
    fn every_beginning_asks_for_more_and_the_whole_is_read() {
        let whole = hello(Some("www.example.com"));
        let mut joined = Vec::new();
        for end in 0..whole.len() {
            match client_hello(&whole[..end], &mut joined) {
                Hello::Needs(more) => assert!(more > 0 && end + more <= whole.len(), "{end} {more}"),
                other => panic!("{end}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_hello_in_many_records_is_read() {
        let whole = hello(Some("www.example.com"));
        let mut records = Vec::new();
        for part in whole[5..].chunks(3) {
            records.extend([22, 3, 1, 0, part.len() as u8]);
            records.extend(part);
        }
        assert_eq!(client_hello(&records, &mut Vec::new()), Hello::Name(b"www.example.com"));
    }

    #[test]
    fn what_is_cut_or_changed_is_broken_or_another_name() {
        let whole = hello(Some("www.example.com"));
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            let _ = client_hello(&changed, &mut Vec::new());
        }
        assert_eq!(client_hello(&[22, 3, 1, 0, 0, 1], &mut Vec::new()), Hello::Broken);
        assert_eq!(client_hello(&[22, 3, 1, 0, 4, 2, 0, 0, 9], &mut Vec::new()), Hello::Broken);
    }
}
