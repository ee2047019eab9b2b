//! Socket families by name: what `socket()` may be asked for.

use std::fmt;
use std::str::FromStr;

/// The family of a socket, the first argument of socket(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(u32);

/// Names without `AF_`, with the kernel's numbers.
const NAMES: [(&str, i32); 31] = [
    ("UNIX", libc::AF_UNIX),
    ("LOCAL", libc::AF_LOCAL),
    ("INET", libc::AF_INET),
    ("INET6", libc::AF_INET6),
    ("NETLINK", libc::AF_NETLINK),
    ("PACKET", libc::AF_PACKET),
    ("XDP", libc::AF_XDP),
    ("VSOCK", libc::AF_VSOCK),
    ("BLUETOOTH", libc::AF_BLUETOOTH),
    ("CAN", libc::AF_CAN),
    ("ALG", libc::AF_ALG),
    ("KEY", libc::AF_KEY),
    ("TIPC", libc::AF_TIPC),
    ("RDS", libc::AF_RDS),
    ("SMC", 43),
    ("QIPCRTR", 42),
    ("KCM", 41),
    ("MCTP", 45),
    ("AX25", libc::AF_AX25),
    ("IPX", libc::AF_IPX),
    ("APPLETALK", libc::AF_APPLETALK),
    ("X25", libc::AF_X25),
    ("LLC", libc::AF_LLC),
    ("PPPOX", libc::AF_PPPOX),
    ("IB", libc::AF_IB),
    ("RXRPC", libc::AF_RXRPC),
    ("IUCV", libc::AF_IUCV),
    ("PHONET", libc::AF_PHONET),
    ("IEEE802154", libc::AF_IEEE802154),
    ("CAIF", libc::AF_CAIF),
    ("NFC", libc::AF_NFC),
];

impl Family {
    /// `AF_UNIX`
    pub const UNIX: Self = Self(libc::AF_UNIX.cast_unsigned());
    /// `AF_INET`
    pub const INET: Self = Self(libc::AF_INET.cast_unsigned());
    /// `AF_INET6`
    pub const INET6: Self = Self(libc::AF_INET6.cast_unsigned());
    /// `AF_NETLINK`
    pub const NETLINK: Self = Self(libc::AF_NETLINK.cast_unsigned());
    /// `AF_PACKET`
    pub const PACKET: Self = Self(libc::AF_PACKET.cast_unsigned());
    /// `AF_SMC`
    pub const SMC: Self = Self(43);

    /// The families that a command may always use. The filters see what INET and INET6 sockets do; UNIX and NETLINK
    /// sockets stay on the machine.
    pub const ALWAYS: [Self; 4] = [Self::UNIX, Self::INET, Self::INET6, Self::NETLINK];

    /// The kernel's number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Family {
    /// `AF_INET`; a number for one that has no name here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| number.cast_unsigned() == self.0) {
            Some((name, _)) => write!(f, "AF_{name}"),
            None => write!(f, "socket family {}", self.0),
        }
    }
}

/// A word that names no socket family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a socket family: names are those of address_families(7), such as AF_PACKET or packet, or a number below 64"
)]
pub struct UnknownFamily(String);

impl FromStr for Family {
    type Err = UnknownFamily;

    /// `AF_PACKET`, `packet`, in any case of letters, or the number. Linux has 46 families; 64 keep the filter short.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("AF_").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(number.cast_unsigned()));
        }
        let number = text.parse::<u8>().ok().filter(|&number| number < 64);
        number.map(|number| Self(number.into())).ok_or_else(|| UnknownFamily(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        for (text, number) in [("AF_PACKET", 17), ("packet", 17), ("Xdp", 44), ("local", 1), ("vsock", 40), ("43", 43)]
        {
            assert_eq!(text.parse::<Family>().unwrap().number(), number, "{text}");
        }
        for text in ["", "AF_", "pac ket", "64", "256", "-1", "tcp"] {
            assert!(text.parse::<Family>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_family_says_its_name() {
        assert_eq!(Family::UNIX.to_string(), "AF_UNIX");
        assert_eq!("60".parse::<Family>().unwrap().to_string(), "socket family 60");
    }
}
