//! Addresses, networks and ranges of addresses as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{IpVersion, Value};

use super::diagnostic::{Diagnostic, Span};
use super::operand::{Operand, Shape};

/// The operand that a text stands for: an address, `address/prefix` or `address-address`.
pub(super) fn parse(text: &str, span: Span) -> Result<Operand, Diagnostic> {
    if let Some((address, prefix)) = text.split_once('/') {
        return network(address, prefix, span);
    }
    if let Some((low, high)) = text.split_once('-') {
        return range(address(low.trim(), span)?, address(high.trim(), span)?, span);
    }
    Ok(one(address(text, span)?))
}

/// An address as the only value.
fn one(address: IpAddr) -> Operand {
    Operand { version: Some(version(address)), shape: Shape::One(value(address)) }
}

fn range(low: IpAddr, high: IpAddr, span: Span) -> Result<Operand, Diagnostic> {
    if version(low) != version(high) {
        let error = Diagnostic::error(span, "range over two versions of IP", "one end is IPv4, the other IPv6");
        return Err(error);
    }
    if low > high {
        let error = Diagnostic::error(span, "range upside down", format!("{low} is above {high}"));
        return Err(error.help(format!("write `{high}-{low}`")));
    }
    Ok(Operand { version: Some(version(low)), shape: Shape::Range(value(low), value(high)) })
}

fn network(address_text: &str, prefix_text: &str, span: Span) -> Result<Operand, Diagnostic> {
    let address = address(address_text, span)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let digits = !prefix_text.is_empty() && prefix_text.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = match prefix_text.parse::<u8>() {
        Ok(prefix) if digits && prefix <= width => prefix,
        _ => {
            let label = format!("the length of the prefix is a number from 0 to {width}");
            return Err(Diagnostic::error(span, "invalid network", label));
        }
    };
    let masked = mask(address, prefix);
    if masked != address {
        let label = format!("{address} has bits set beyond the first {prefix}");
        let error = Diagnostic::error(span, "network with host bits", label);
        return Err(error.help(format!("the network is `{masked}/{prefix}`, the one address is `{address}`")));
    }
    let value = match address {
        IpAddr::V4(address) => Value::V4AddrMask { addr: address.to_bits(), prefix },
        IpAddr::V6(address) => Value::V6AddrMask { addr: address.to_bits(), prefix },
    };
    Ok(Operand { version: Some(version(address)), shape: Shape::One(value) })
}

fn address(text: &str, span: Span) -> Result<IpAddr, Diagnostic> {
    text.parse().map_err(|_| {
        let error =
            Diagnostic::error(span, "not an address", format!("`{text}` is neither an IPv4 nor an IPv6 address"));
        match text.split_once('%') {
            Some((before, _)) if before.parse::<Ipv6Addr>().is_ok() => {
                error.help("a zone is not part of an address: test the interface by a condition of its own")
            }
            _ if text.contains(|letter: char| letter.is_ascii_alphabetic()) && !text.contains(':') => {
                error.help("names of hosts are not looked up: give the addresses")
            }
            _ => error,
        }
    })
}

/// The address with the bits beyond the prefix cleared.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

fn version(address: IpAddr) -> IpVersion {
    if address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 }
}

fn value(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Uint32(address.to_bits()),
        IpAddr::V6(address) => Value::ByteArray16(address.octets()),
    }
}

/// The text that `parse` reads as the value.
pub(super) fn text(value: &Value) -> Option<String> {
    match *value {
        Value::Uint32(address) => Some(Ipv4Addr::from_bits(address).to_string()),
        Value::ByteArray16(octets) => Some(Ipv6Addr::from(octets).to_string()),
        Value::V4AddrMask { addr, prefix } => {
            Some(format!("{}/{prefix}", mask(Ipv4Addr::from_bits(addr).into(), prefix)))
        }
        Value::V6AddrMask { addr, prefix } => {
            Some(format!("{}/{prefix}", mask(Ipv6Addr::from_bits(addr).into(), prefix)))
        }
        _ => None,
    }
}

/// The network of every address of a version.
pub(super) fn everything(version: IpVersion) -> Value {
    match version {
        IpVersion::V4 => Value::V4AddrMask { addr: 0, prefix: 0 },
        IpVersion::V6 => Value::V6AddrMask { addr: 0, prefix: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Shape, String> {
        match parse(text, Span::default()) {
            Ok(operand) => Ok(operand.shape),
            Err(error) => Err(error.title),
        }
    }

    #[test]
    fn addresses_networks_and_ranges() {
        assert_eq!(read("192.0.2.1"), Ok(Shape::One(Value::Uint32(0xc000_0201))));
        assert_eq!(read("10.0.0.0/8"), Ok(Shape::One(Value::V4AddrMask { addr: 0x0a00_0000, prefix: 8 })));
        assert_eq!(read("0.0.0.0/0"), Ok(Shape::One(Value::V4AddrMask { addr: 0, prefix: 0 })));
        assert_eq!(read("fe80::/10"), Ok(Shape::One(Value::V6AddrMask { addr: 0xfe80 << 112, prefix: 10 })));
        assert_eq!(
            read("192.0.2.1-192.0.2.9"),
            Ok(Shape::Range(Value::Uint32(0xc000_0201), Value::Uint32(0xc000_0209)))
        );
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(read("::1"), Ok(Shape::One(Value::ByteArray16(loopback))));
    }

    #[test]
    fn mistakes() {
        for (text, title) in [
            ("", "not an address"),
            ("192.0.2", "not an address"),
            ("192.0.2.256", "not an address"),
            ("example.com", "not an address"),
            ("fe80::1%eth0", "not an address"),
            ("10.0.0.0/33", "invalid network"),
            ("10.0.0.0/+8", "invalid network"),
            ("10.0.0.0/", "invalid network"),
            ("::/129", "invalid network"),
            ("10.0.0.1/8", "network with host bits"),
            ("fe80::1/10", "network with host bits"),
            ("192.0.2.9-192.0.2.1", "range upside down"),
            ("192.0.2.9-::1", "range over two versions of IP"),
            ("10.0.0.0/8-10.0.0.0/9", "invalid network"),
        ] {
            assert_eq!(read(text), Err(title.to_owned()), "{text}");
        }
    }
}
