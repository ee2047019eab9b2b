//! Prefixes: which addresses are local, as a user says it.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use thiserror::Error;

/// All addresses that begin with the same bits; `192.0.2.0/24`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// The part before the slash is no address.
    #[error("`{0}` is no IPv4 or IPv6 address")]
    Address(String),
    /// The part after the slash is no number of bits that such an address has.
    #[error("`{length}` is no prefix length between 0 and {most}")]
    Length {
        /// What stands after the slash.
        length: String,
        /// How many bits the address has.
        most: u8,
    },
}

impl Prefix {
    /// The addresses that share their first `length` bits with `address`; `None` when it has fewer bits.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(address)).then_some(Self { address, length })
    }

    /// Whether an address begins with these bits.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let differing = u32::from(mine) ^ u32::from(other);
                differing.checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let differing = u128::from(mine) ^ u128::from(other);
                differing.checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address(address.to_owned()))?;
        let most = bits(address);
        let Some(length) = length else { return Ok(Self { address, length: most }) };
        let number = length.parse().ok().and_then(|length| Self::new(address, length));
        number.ok_or_else(|| PrefixError::Length { length: length.to_owned(), most })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_what_begins_with_its_bits() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.77/24", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "fe80::1", true),
            ("::1", "::1", true),
        ];
        for (prefix, address, expected) in cases {
            let parsed: Prefix = prefix.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), expected, "{address} in {prefix}");
        }
    }

    #[test]
    fn what_is_no_prefix_says_why() {
        let cases = [
            ("192.0.2", "`192.0.2` is no IPv4 or IPv6 address"),
            ("192.0.2.0/33", "`33` is no prefix length between 0 and 32"),
            ("::/129", "`129` is no prefix length between 0 and 128"),
            ("::/", "`` is no prefix length between 0 and 128"),
            ("192.0.2.0/-1", "`-1` is no prefix length between 0 and 32"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), expected);
        }
    }
}
