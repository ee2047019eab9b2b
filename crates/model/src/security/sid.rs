//! Security identifiers.

use std::fmt;
use std::str::FromStr;

/// A security identifier: an authority (48 bits) and up to 15 numbers below it.
///
/// Its text is `S-1-AUTHORITY-NUMBER-…`, where 1 is the only revision there is.
///
/// Linux users and groups have SIDs by the convention of Samba: the user of uid *u* is `S-1-22-1-u`, the group of gid *g*
/// is `S-1-22-2-g`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid {
    authority: u64,
    numbers: Vec<u32>,
}

/// The most numbers below an authority (`SID_MAX_SUB_AUTHORITIES`).
const MAX_NUMBERS: usize = 15;
const MAX_AUTHORITY: u64 = 0xffff_ffff_ffff;

/// Samba's authority for identities of Unix.
const UNIX: u64 = 22;
const UNIX_USERS: u32 = 1;
const UNIX_GROUPS: u32 = 2;

impl Sid {
    /// A SID from its parts; none if the authority has more than 48 bits, or there are more than 15 numbers.
    pub fn new(authority: u64, numbers: &[u32]) -> Option<Sid> {
        let valid = authority <= MAX_AUTHORITY && numbers.len() <= MAX_NUMBERS;
        valid.then(|| Sid { authority, numbers: numbers.to_vec() })
    }

    /// Everyone (`S-1-1-0`).
    pub fn everyone() -> Sid {
        Sid { authority: 1, numbers: vec![0] }
    }

    /// The user of that uid.
    pub fn from_uid(uid: u32) -> Sid {
        Sid { authority: UNIX, numbers: vec![UNIX_USERS, uid] }
    }

    /// The group of that gid.
    pub fn from_gid(gid: u32) -> Sid {
        Sid { authority: UNIX, numbers: vec![UNIX_GROUPS, gid] }
    }

    /// The uid, if this is a user of Linux.
    pub fn uid(&self) -> Option<u32> {
        match (self.authority, self.numbers.as_slice()) {
            (UNIX, [UNIX_USERS, uid]) => Some(*uid),
            _ => None,
        }
    }

    /// The gid, if this is a group of Linux.
    pub fn gid(&self) -> Option<u32> {
        match (self.authority, self.numbers.as_slice()) {
            (UNIX, [UNIX_GROUPS, gid]) => Some(*gid),
            _ => None,
        }
    }

    /// The authority.
    pub fn authority(&self) -> u64 {
        self.authority
    }

    /// The numbers below the authority.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Authorities that do not fit into 32 bits are written in hexadecimal.
        match u32::try_from(self.authority) {
            Ok(authority) => write!(f, "S-1-{authority}")?,
            Err(_) => write!(f, "S-1-{:#014x}", self.authority)?,
        }
        self.numbers.iter().try_for_each(|number| write!(f, "-{number}"))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a SID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a SID: it reads S-1-AUTHORITY and up to 15 numbers, as in S-1-22-1-1000 for the user of uid 1000"
)]
pub struct SidError(String);

impl FromStr for Sid {
    type Err = SidError;

    fn from_str(text: &str) -> Result<Sid, SidError> {
        parse(text).ok_or_else(|| SidError(crate::names::excerpt(text)))
    }
}

fn parse(text: &str) -> Option<Sid> {
    let rest = text.strip_prefix("S-1-").or_else(|| text.strip_prefix("s-1-"))?;
    let mut parts = rest.split('-');
    let authority = number(parts.next()?)?;
    let numbers: Vec<u32> = parts
        .take(MAX_NUMBERS + 1)
        .map(|part| number(part).and_then(|number| u32::try_from(number).ok()))
        .collect::<Option<_>>()?;
    Sid::new(authority, &numbers)
}

/// Digits alone: the signs that Rust's own parser would take do not belong here.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let valid = digits.chars().all(|digit| digit.is_digit(radix));
    valid.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MS docs: Well-known SIDs; SID components.
    #[test]
    fn text_and_back() {
        for text in [
            "S-1-0-0",
            "S-1-1-0",
            "S-1-5-18",
            "S-1-5-32-544",
            "S-1-5-21-397955417-626881126-188441444-512",
            "S-1-5-80-2009329905-444645132-2728249442-922493431-93864177",
            "S-1-22-1-1000",
            "S-1-5",
            "S-1-0x00ffffffffff-7",
            "S-1-1-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15",
        ] {
            let sid: Sid = text.parse().unwrap();
            assert_eq!(sid.to_string(), text);
        }
        assert_eq!("s-1-0x5-0x12".parse(), "S-1-5-18".parse::<Sid>());
    }

    #[test]
    fn what_is_not_a_sid() {
        for text in [
            "",
            "S",
            "S-1",
            "S-1-",
            "S-2-5-18",
            "S-1-5-",
            "S-1-5--18",
            "S-1-+5-18",
            "S-1-5-4294967296",
            "S-1-0x1000000000000-1",
            "S-1-5-18 ",
            "S-1-1-1-2-3-4-5-6-7-8-9-10-11-12-13-14-15-16",
        ] {
            assert!(text.parse::<Sid>().is_err(), "{text}");
        }
        let long = format!("S-1-5{}", "-1".repeat(1_000_000));
        assert!(long.parse::<Sid>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn users_and_groups_of_linux() {
        assert_eq!(Sid::from_uid(1000).to_string(), "S-1-22-1-1000");
        assert_eq!(Sid::from_gid(100).to_string(), "S-1-22-2-100");
        assert_eq!(Sid::from_uid(u32::MAX).uid(), Some(u32::MAX));
        assert_eq!(Sid::from_gid(0).gid(), Some(0));
        assert_eq!(Sid::from_gid(0).uid(), None);
        assert_eq!(Sid::everyone().uid(), None);
        assert_eq!(Sid::new(22, &[1, 2, 3]).unwrap().uid(), None);
        assert_eq!(Sid::new(1 << 48, &[]), None);
        assert_eq!(Sid::new(5, &[0; 16]), None);
    }
}
