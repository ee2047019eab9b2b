//! Keys of objects.

use std::fmt;
use std::str::FromStr;

/// A 128-bit key, in the order of its text: the first digits are the most significant bits.
///
/// Its text is lower case, with hyphens and braces; it is read with or without braces, in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(u128);

/// The name space of the keys that openwfp makes from names.
const OPENWFP: Guid = Guid::from_u128(0xb5d6_0d44_4c1c_4d0e_9a58_6f70_656e_7766);

impl Guid {
    /// The key of all zeros (`IID_NULL`), which names no object.
    pub const ZERO: Guid = Guid(0);

    /// A key from its number.
    pub const fn from_u128(number: u128) -> Guid {
        Guid(number)
    }

    /// The number.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The key of an object that is known by a name alone, the same on every machine and in every run.
    ///
    /// `namespace` keeps names apart that may be equal, such as those of filters and of sublayers. A name-based UUID (version 5)
    /// in the sense of RFC 9562.
    pub fn named(namespace: &str, name: &str) -> Guid {
        OPENWFP.child(namespace).child(name)
    }

    fn child(self, name: &str) -> Guid {
        let mut hash = sha1_smol::Sha1::from(self.0.to_be_bytes());
        hash.update(name.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.digest().bytes()[..16]);
        bytes[6] = (bytes[6] & 0x0f) | 0x50;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Guid(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let (a, b, c) = ((n >> 96) as u32, (n >> 80) as u16, (n >> 64) as u16);
        let (d, e) = ((n >> 48) as u16, n as u64 & 0xffff_ffff_ffff);
        write!(f, "{{{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}}}")
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a GUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a GUID: it reads 8-4-4-4-12 hexadecimal digits, with or without braces")]
pub struct GuidError(String);

impl FromStr for Guid {
    type Err = GuidError;

    fn from_str(text: &str) -> Result<Guid, GuidError> {
        let error = || GuidError(crate::names::excerpt(text));
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').ok_or_else(error)?,
            None => text,
        };
        let mut number = 0;
        let mut groups = inner.split('-');
        for digits in [8, 4, 4, 4, 12] {
            let group = groups.next().ok_or_else(error)?;
            if group.len() != digits || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(error());
            }
            let value = u128::from_str_radix(group, 16).map_err(|_| error())?;
            number = number << (4 * digits) | value;
        }
        match groups.next() {
            None => Ok(Guid(number)),
            Some(_) => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        // FWPM_LAYER_ALE_AUTH_CONNECT_V4
        let key = Guid::from_u128(0xc38d57d1_05a7_4c33_904f_7fbceee60e82);
        assert_eq!(key.to_string(), "{c38d57d1-05a7-4c33-904f-7fbceee60e82}");
        for text in [
            "{c38d57d1-05a7-4c33-904f-7fbceee60e82}",
            "c38d57d1-05a7-4c33-904f-7fbceee60e82",
            "{C38D57D1-05A7-4C33-904F-7FBCEEE60E82}",
        ] {
            assert_eq!(text.parse(), Ok(key));
        }
    }

    #[test]
    fn what_is_not_a_guid() {
        for text in [
            "",
            "{}",
            "{c38d57d1-05a7-4c33-904f-7fbceee60e82",
            "c38d57d1-05a7-4c33-904f-7fbceee60e82}",
            "c38d57d105a74c33904f7fbceee60e82",
            "c38d57d1-05a7-4c33-904f-7fbceee60e8",
            "c38d57d1-05a7-4c33-904f-7fbceee60e82-",
            "c38d57d1-05a7-4c33-904f-+fbceee60e82",
            "ü38d57d1-05a7-4c33-904f-7fbceee60e8",
        ] {
            assert!(text.parse::<Guid>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_give_keys_that_differ_by_name_and_by_namespace() {
        let key = Guid::named("filter", "no telnet");
        assert_eq!(key, Guid::named("filter", "no telnet"));
        assert_ne!(key, Guid::named("filter", "no telnet "));
        assert_ne!(key, Guid::named("sublayer", "no telnet"));
        let text = key.to_string();
        assert_eq!(&text[15..16], "5", "the version of a name-based UUID: {text}");
        assert!(matches!(&text[20..21], "8" | "9" | "a" | "b"), "the variant: {text}");
    }
}
