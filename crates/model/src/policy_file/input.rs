//! What a file is, by its content.

use super::diagnostic::{Diagnostic, Span};

/// The syntax of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Toml,
    Json,
    /// With the place of the first `<`.
    Xml(Span),
}

impl Input {
    /// JSON starts with `{`, XML with `<`, and TOML can start with neither.
    pub fn of(text: &str) -> Input {
        let start = text.len() - text.trim_start().len();
        match text[start..].chars().next() {
            Some('{') => Input::Json,
            Some('<') => Input::Xml(Span::new(start, start + 1)),
            _ => Input::Toml,
        }
    }
}

/// The error for a dump of Windows.
pub(super) fn is_xml(at: Span) -> Diagnostic {
    Diagnostic::error(at, "this is XML, not a policy file", "a policy file is TOML or JSON")
        .note("dumps of Windows (`netsh wfp show filters`, `netsh wfp show state`) cannot be read yet")
        .help("write the filters that matter as a policy file")
}

/// The text of a file in UTF-8, or in UTF-16 with a byte order mark; with an error, the text up to the mistake.
pub(super) fn decode(bytes: &[u8]) -> (String, Option<Diagnostic>) {
    let utf16 = match bytes {
        [0xff, 0xfe, rest @ ..] => Some((rest, u16::from_le_bytes as fn([u8; 2]) -> u16)),
        [0xfe, 0xff, rest @ ..] => Some((rest, u16::from_be_bytes as fn([u8; 2]) -> u16)),
        _ => None,
    };
    if let Some((rest, unit)) = utf16 {
        let (pairs, odd) = rest.as_chunks::<2>();
        let mut text = String::new();
        for decoded in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
            match decoded {
                Ok(letter) => text.push(letter),
                Err(_) => return not_text(text, "UTF-16"),
            }
        }
        return if odd.is_empty() { (text, None) } else { not_text(text, "UTF-16") };
    }
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            not_text(String::from_utf8_lossy(good).into_owned(), "UTF-8")
        }
    }
}

fn not_text(good: String, coding: &str) -> (String, Option<Diagnostic>) {
    let end = Span::new(good.len(), good.len());
    let error = Diagnostic::error(end, "not text", format!("the next bytes are not {coding}"));
    (good, Some(error.help("save the file as UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn told_apart_by_content() {
        assert_eq!(Input::of(""), Input::Toml);
        assert_eq!(Input::of("# {\n[[filter]]"), Input::Toml);
        assert_eq!(Input::of(" \n{}"), Input::Json);
        assert_eq!(Input::of("\n<?xml?>"), Input::Xml(Span::new(1, 2)));
    }

    #[test]
    fn utf8_and_utf16() {
        let text = "\u{feff}name = \"é😀\"";
        assert_eq!(decode(text.as_bytes()), (text.to_owned(), None));
        let expected = (text.trim_start_matches('\u{feff}').to_owned(), None);
        assert_eq!(decode(&utf16(text, u16::to_le_bytes)), expected);
        assert_eq!(decode(&utf16(text, u16::to_be_bytes)), expected);
    }

    #[test]
    fn bytes_that_are_no_text() {
        for (bytes, good) in
            [(&b"ab\xffcd"[..], "ab"), (b"\xff\xfea\0b", "a"), (b"\xff\xfea\0\x00\xd8", "a"), (b"\xff\xff", "")]
        {
            let (text, error) = decode(bytes);
            assert_eq!(
                (text.as_str(), error.map(|error| error.title).as_deref()),
                (good, Some("not text")),
                "{bytes:?}"
            );
        }
    }
}
