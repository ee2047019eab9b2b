//! Types of values and of fields.

use std::fmt;

/// The type of a value (`FWP_DATA_TYPE`), with its public number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum DataType {
    /// No value.
    Empty = 0,
    /// 8 bits.
    Uint8 = 1,
    /// 16 bits.
    Uint16 = 2,
    /// 32 bits; an IPv4 address is one, in host order.
    Uint32 = 3,
    /// 64 bits.
    Uint64 = 4,
    /// 8 bits with sign; reserved.
    Int8 = 5,
    /// 16 bits with sign; reserved.
    Int16 = 6,
    /// 32 bits with sign; reserved.
    Int32 = 7,
    /// 64 bits with sign; reserved.
    Int64 = 8,
    /// 32-bit floating point; reserved.
    Float = 9,
    /// 64-bit floating point; reserved.
    Double = 10,
    /// 16 bytes in network order: an IPv6 address, or a GUID.
    ByteArray16 = 11,
    /// Bytes of any number.
    ByteBlob = 12,
    /// A security identifier.
    Sid = 13,
    /// A security descriptor.
    SecurityDescriptor = 14,
    /// The identity of a caller as SIDs. A field only: conditions on it hold a security descriptor.
    TokenInformation = 15,
    /// The identity of a caller, ready for access checks. A field only: conditions on it hold a security descriptor.
    TokenAccessInformation = 16,
    /// Text.
    UnicodeString = 17,
    /// 6 bytes: a MAC address.
    ByteArray6 = 18,
    /// An IPv4 network. A condition only.
    V4AddrMask = 256,
    /// An IPv6 network. A condition only.
    V6AddrMask = 257,
    /// Two ends, both included. A condition only.
    Range = 258,
}

impl DataType {
    /// Every type, by number.
    pub const ALL: [DataType; 22] = [
        DataType::Empty,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float,
        DataType::Double,
        DataType::ByteArray16,
        DataType::ByteBlob,
        DataType::Sid,
        DataType::SecurityDescriptor,
        DataType::TokenInformation,
        DataType::TokenAccessInformation,
        DataType::UnicodeString,
        DataType::ByteArray6,
        DataType::V4AddrMask,
        DataType::V6AddrMask,
        DataType::Range,
    ];

    /// The public name, such as `FWP_UINT32`.
    pub const fn name(self) -> &'static str {
        match self {
            DataType::Empty => "FWP_EMPTY",
            DataType::Uint8 => "FWP_UINT8",
            DataType::Uint16 => "FWP_UINT16",
            DataType::Uint32 => "FWP_UINT32",
            DataType::Uint64 => "FWP_UINT64",
            DataType::Int8 => "FWP_INT8",
            DataType::Int16 => "FWP_INT16",
            DataType::Int32 => "FWP_INT32",
            DataType::Int64 => "FWP_INT64",
            DataType::Float => "FWP_FLOAT",
            DataType::Double => "FWP_DOUBLE",
            DataType::ByteArray16 => "FWP_BYTE_ARRAY16_TYPE",
            DataType::ByteBlob => "FWP_BYTE_BLOB_TYPE",
            DataType::Sid => "FWP_SID",
            DataType::SecurityDescriptor => "FWP_SECURITY_DESCRIPTOR_TYPE",
            DataType::TokenInformation => "FWP_TOKEN_INFORMATION_TYPE",
            DataType::TokenAccessInformation => "FWP_TOKEN_ACCESS_INFORMATION_TYPE",
            DataType::UnicodeString => "FWP_UNICODE_STRING_TYPE",
            DataType::ByteArray6 => "FWP_BYTE_ARRAY6_TYPE",
            DataType::V4AddrMask => "FWP_V4_ADDR_MASK",
            DataType::V6AddrMask => "FWP_V6_ADDR_MASK",
            DataType::Range => "FWP_RANGE_TYPE",
        }
    }

    /// The number of bits of an unsigned integer type.
    pub const fn integer_bits(self) -> Option<u32> {
        match self {
            DataType::Uint8 => Some(8),
            DataType::Uint16 => Some(16),
            DataType::Uint32 => Some(32),
            DataType::Uint64 => Some(64),
            _ => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the values of a field are to be understood (`FWPM_FIELD_TYPE`), with its public number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum FieldType {
    /// A value without further meaning.
    RawData = 0,
    /// An address: conditions on it may be networks.
    IpAddress = 1,
    /// A set of bits: conditions on it may ask for bits.
    Flags = 2,
}

impl FieldType {
    /// The public name, such as `FWPM_FIELD_IP_ADDRESS`.
    pub const fn name(self) -> &'static str {
        match self {
            FieldType::RawData => "FWPM_FIELD_RAW_DATA",
            FieldType::IpAddress => "FWPM_FIELD_IP_ADDRESS",
            FieldType::Flags => "FWPM_FIELD_FLAGS",
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
