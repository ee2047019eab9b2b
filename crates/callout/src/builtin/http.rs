//! The head of an HTTP request: the host that it is for.

/// A head may be so long; longer ones are taken for broken.
const LONGEST: usize = 64 << 10;

const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// What the beginning of a stream, or of a portion of it, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head<'a> {
    /// It is no request.
    NotHttp,
    /// It is the beginning of one.
    Needs,
    /// A request for these hosts, without ports, whose head takes so many bytes: that of the address, that of the header.
    Hosts([Option<&'a [u8]>; 2], usize),
    /// It begins like a request, and cannot be read.
    Broken,
}

/// Reads the head of a request (RFC 9112).
pub(super) fn request(bytes: &[u8]) -> Head<'_> {
    let begins = |method: &&[u8]| bytes.starts_with(method) || method.starts_with(bytes);
    if !METHODS.iter().any(begins) {
        return Head::NotHttp;
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > LONGEST { Head::Broken } else { Head::Needs };
    };
    let mut lines = bytes[..end].split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let of_target = match method {
        b"CONNECT" => Some(target),
        _ => after(target, b"://").map(|rest| rest.split(|&byte| byte == b'/').next().unwrap_or_default()),
    };
    let mut of_header = None;
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        if line[..colon].eq_ignore_ascii_case(b"host") {
            if of_header.is_some() {
                // Which of two would count is anybody's guess.
                return Head::Broken;
            }
            of_header = Some(line[colon + 1..].trim_ascii());
        }
    }
    Head::Hosts([of_target.map(without_port), of_header.map(without_port)], end + 4)
}

fn after<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some(&bytes[at + mark.len()..])
}

fn without_port(host: &[u8]) -> &[u8] {
    let host = after(host, b"@").unwrap_or(host);
    match host {
        [b'[', ..] => host,
        _ => host.split(|&byte| byte == b':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        type Case<'a> = (&'a [u8], [Option<&'a [u8]>; 2]);
        let cases: [Case<'_>; 5] = [
            (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", [None, Some(b"example.com")]),
            (b"POST /x HTTP/1.1\r\na: b\r\nhOsT:example.com:8080 \r\n\r\n", [None, Some(b"example.com")]),
            (b"GET http://a.test/x HTTP/1.1\r\nHost: b.test\r\n\r\n", [Some(b"a.test"), Some(b"b.test")]),
            (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", [Some(b"a.test"), None]),
            (b"GET / HTTP/1.0\r\n\r\n", [None, None]),
        ];
        for (bytes, hosts) in cases {
            assert_eq!(request(bytes), Head::Hosts(hosts, bytes.len()), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_beginning_asks_for_more() {
        let whole = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(request(&whole[..end]), Head::Needs, "{end}");
        }
        assert_eq!(request(b"SSH-2.0-x"), Head::NotHttp);
        assert_eq!(request(b"GETTER"), Head::NotHttp);
    }

    #[test]
    fn two_hosts_and_endless_heads_are_broken() {
        assert_eq!(request(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Head::Broken);
        let endless = [b"GET /".to_vec(), vec![b'a'; LONGEST]].concat();
        assert_eq!(request(&endless), Head::Broken);
    }
}
