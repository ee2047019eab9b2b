//! Values of conditions.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{DataType, FieldType, LayerField, SecurityDescriptor, Sid};

/// The value of a condition (`FWP_CONDITION_VALUE0`). Integers and addresses are in host order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// No value: with EQUAL, the field must be explicitly empty.
    Empty,
    /// 8 bits.
    Uint8(u8),
    /// 16 bits.
    Uint16(u16),
    /// 32 bits; an IPv4 address is one.
    Uint32(u32),
    /// 64 bits.
    Uint64(u64),
    /// 16 bytes in network order: an IPv6 address, or a GUID.
    ByteArray16([u8; 16]),
    /// 6 bytes: a MAC address.
    ByteArray6([u8; 6]),
    /// Bytes of any number.
    ByteBlob(Vec<u8>),
    /// A security identifier.
    Sid(Sid),
    /// A security descriptor: matches whom it grants the right [`AccessRights::MATCH_FILTER`](crate::security::AccessRights).
    SecurityDescriptor(SecurityDescriptor),
    /// Text; on fields of blobs, the text that the blob holds.
    UnicodeString(String),
    /// Ours: the executable at that absolute path, on the fields of applications.
    Application(String),
    /// Ours: a user by uid, on the fields of users.
    User(u32),
    /// Ours: a group by gid, on the fields of users: whoever is in it.
    Group(u32),
    /// An IPv4 network.
    V4AddrMask {
        /// Its address; bits beyond the prefix are ignored.
        addr: u32,
        /// The length of the prefix, 0 to 32.
        prefix: u8,
    },
    /// An IPv6 network.
    V6AddrMask {
        /// Its address, whose first byte is the most significant; bits beyond the prefix are ignored.
        addr: u128,
        /// The length of the prefix, 0 to 128.
        prefix: u8,
    },
    /// From the first to the second, both included.
    Range(Box<Value>, Box<Value>),
}

impl Value {
    /// A range, both ends included.
    pub fn range(low: Value, high: Value) -> Value {
        Value::Range(Box::new(low), Box::new(high))
    }

    /// The value that is one IPv6 address.
    pub fn v6_address(address: Ipv6Addr) -> Value {
        Value::ByteArray16(address.octets())
    }

    /// The value that is one IPv4 address.
    pub fn v4_address(address: Ipv4Addr) -> Value {
        Value::Uint32(address.to_bits())
    }

    /// The public type. The values that are ours have the type of what they stand for.
    pub fn data_type(&self) -> DataType {
        match self {
            Value::Empty => DataType::Empty,
            Value::Uint8(_) => DataType::Uint8,
            Value::Uint16(_) => DataType::Uint16,
            Value::Uint32(_) => DataType::Uint32,
            Value::Uint64(_) => DataType::Uint64,
            Value::ByteArray16(_) => DataType::ByteArray16,
            Value::ByteArray6(_) => DataType::ByteArray6,
            Value::ByteBlob(_) | Value::Application(_) => DataType::ByteBlob,
            Value::Sid(_) => DataType::Sid,
            Value::SecurityDescriptor(_) | Value::User(_) | Value::Group(_) => DataType::SecurityDescriptor,
            Value::UnicodeString(_) => DataType::UnicodeString,
            Value::V4AddrMask { .. } => DataType::V4AddrMask,
            Value::V6AddrMask { .. } => DataType::V6AddrMask,
            Value::Range(..) => DataType::Range,
        }
    }

    /// The number of an unsigned integer.
    pub fn as_integer(&self) -> Option<u64> {
        match *self {
            Value::Uint8(number) => Some(number.into()),
            Value::Uint16(number) => Some(number.into()),
            Value::Uint32(number) => Some(number.into()),
            Value::Uint64(number) => Some(number),
            _ => None,
        }
    }

    /// The value as people write it for this field: addresses as such, bits and enumerations by name.
    pub fn display<'a>(&'a self, field: &'a LayerField) -> impl fmt::Display + 'a {
        InField { value: self, field }
    }
}

/// Without knowledge of the field, integers are numbers.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Empty => f.write_str("empty"),
            Value::Uint8(number) => write!(f, "{number}"),
            Value::Uint16(number) => write!(f, "{number}"),
            Value::Uint32(number) => write!(f, "{number}"),
            Value::Uint64(number) => write!(f, "{number}"),
            Value::ByteArray16(bytes) => write!(f, "{}", Ipv6Addr::from(*bytes)),
            Value::ByteArray6([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Value::ByteBlob(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Value::Sid(sid) => write!(f, "{sid}"),
            Value::SecurityDescriptor(descriptor) => write!(f, "{descriptor}"),
            Value::UnicodeString(text) | Value::Application(text) => f.write_str(text),
            Value::User(uid) => write!(f, "user {uid}"),
            Value::Group(gid) => write!(f, "group {gid}"),
            Value::V4AddrMask { addr, prefix } => {
                write!(f, "{}/{prefix}", Ipv4Addr::from_bits(*addr))
            }
            Value::V6AddrMask { addr, prefix } => {
                write!(f, "{}/{prefix}", Ipv6Addr::from_bits(*addr))
            }
            Value::Range(low, high) => write!(f, "{low}-{high}"),
        }
    }
}

struct InField<'a> {
    value: &'a Value,
    field: &'a LayerField,
}

impl fmt::Display for InField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.value, self.field.field_type) {
            (Value::Range(low, high), _) => {
                write!(f, "{}-{}", low.display(self.field), high.display(self.field))
            }
            (Value::Uint32(address), FieldType::IpAddress) => {
                write!(f, "{}", Ipv4Addr::from_bits(*address))
            }
            (Value::Uint32(bits), FieldType::Flags) => self.write_bits(*bits, f),
            (Value::ByteArray16(bytes), FieldType::RawData) => {
                write!(f, "{}", crate::Guid::from_u128(u128::from_be_bytes(*bytes)))
            }
            _ => self.write_named(f),
        }
    }
}

impl InField<'_> {
    fn write_bits(&self, bits: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = bits;
        let mut names = Vec::new();
        for (name, bit) in self.field.field.flags() {
            if rest & bit == bit {
                names.push(name);
                rest &= !bit;
            }
        }
        f.write_str(&names.join("|"))?;
        match (rest, names.is_empty()) {
            (0, false) => Ok(()),
            (rest, true) => write!(f, "{rest:#x}"),
            (rest, false) => write!(f, "|{rest:#x}"),
        }
    }

    fn write_named(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.field.field.named_values();
        let number = self.value.as_integer();
        match names.iter().find(|(_, value)| Some(u64::from(*value)) == number) {
            Some((name, _)) => f.write_str(name),
            None => fmt::Display::fmt(self.value, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerId;

    #[test]
    fn values_as_people_write_them() {
        use crate::FieldId as F;
        let v4 = LayerId::ALE_AUTH_CONNECT_V4;
        let v6 = LayerId::ALE_AUTH_CONNECT_V6;
        let mac = LayerId::INBOUND_MAC_FRAME_ETHERNET;
        let network = |addr, prefix| Value::V4AddrMask { addr, prefix };
        for (layer, field, value, text) in [
            (v4, F::IP_REMOTE_PORT, Value::Uint16(80), "80"),
            (v4, F::IP_REMOTE_PORT, Value::range(Value::Uint16(80), Value::Uint16(90)), "80-90"),
            (v4, F::IP_REMOTE_ADDRESS, Value::Uint32(0xc000_0201), "192.0.2.1"),
            (v4, F::IP_REMOTE_ADDRESS, network(0xc000_0200, 24), "192.0.2.0/24"),
            (v4, F::IP_LOCAL_ADDRESS_TYPE, Value::Uint8(3), "MULTICAST"),
            (v4, F::IP_LOCAL_ADDRESS_TYPE, Value::Uint8(9), "9"),
            (v4, F::FLAGS, Value::Uint32(5), "IS_LOOPBACK|IS_REAUTHORIZE"),
            (v4, F::FLAGS, Value::Uint32(0x8000_0001), "IS_LOOPBACK|0x80000000"),
            (v4, F::FLAGS, Value::Uint32(0), "0x0"),
            (v4, F::ALE_USER_ID, Value::User(1000), "user 1000"),
            (v4, F::IP_PROTOCOL, Value::Empty, "empty"),
            (v6, F::IP_REMOTE_ADDRESS, Value::v6_address("2001:db8::1".parse().unwrap()), "2001:db8::1"),
            (mac, F::MAC_LOCAL_ADDRESS, Value::ByteArray6([2, 0, 0, 0, 0xab, 1]), "02:00:00:00:ab:01"),
        ] {
            let field = layer.layer().field(field).unwrap();
            assert_eq!(value.display(field).to_string(), text);
        }
    }
}
