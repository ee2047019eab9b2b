//! The public names that values of some fields have: bits of flags, and members of enumerations.

use bitflags::Flags;

use crate::generated::condition_flags::{ConditionFlags, L2Flags, ReauthorizeReason, SocketProperty};
use crate::{FieldId, names};

/// A name and its number.
pub type NamedValue = (&'static str, u32);

const ADDRESS_TYPES: [NamedValue; 5] =
    [("UNSPECIFIED", 0), ("UNICAST", 1), ("ANYCAST", 2), ("MULTICAST", 3), ("BROADCAST", 4)];
const MAC_ADDRESS_TYPES: [NamedValue; 3] = [("UNICAST", 0), ("MULTICAST", 1), ("BROADCAST", 2)];
const DIRECTIONS: [NamedValue; 2] = [("OUTBOUND", 0), ("INBOUND", 1)];
const VSWITCH_NETWORK_TYPES: [NamedValue; 4] = [("UNKNOWN", 0), ("PRIVATE", 1), ("INTERNAL", 2), ("EXTERNAL", 3)];

impl FieldId {
    /// The named bits of a field of flags, lowest first; empty for other fields.
    ///
    /// The names are the public ones without their prefix, such as `IS_LOOPBACK` of `FLAGS`.
    pub fn flags(self) -> Vec<NamedValue> {
        match self {
            FieldId::FLAGS => bits::<ConditionFlags>(),
            FieldId::L2_FLAGS => bits::<L2Flags>(),
            FieldId::REAUTHORIZE_REASON | FieldId::ALE_REAUTH_REASON => bits::<ReauthorizeReason>(),
            FieldId::ALE_SIO_FIREWALL_SYSTEM_PORT => bits::<SocketProperty>(),
            _ => Vec::new(),
        }
    }

    /// The bit of that name, in any case, with or without its public prefix.
    pub fn find_flag(self, name: &str) -> Option<u32> {
        find(&self.flags(), names::without_prefix(name, self.value_prefix()))
    }

    /// The name of a bit of this field that is nearest to a wrong name.
    pub fn nearest_flag(self, name: &str) -> Option<&'static str> {
        nearest(&self.flags(), names::without_prefix(name, self.value_prefix()))
    }

    /// The named values of a field whose values are an enumeration; empty for other fields.
    ///
    /// Sources: `NL_ADDRESS_TYPE`, `DL_ADDRESS_TYPE`, `FWP_DIRECTION` and `FWP_VSWITCH_NETWORK_TYPE`.
    pub fn named_values(self) -> &'static [NamedValue] {
        match self {
            FieldId::IP_LOCAL_ADDRESS_TYPE
            | FieldId::IP_DESTINATION_ADDRESS_TYPE
            | FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE => &ADDRESS_TYPES,
            FieldId::MAC_LOCAL_ADDRESS_TYPE
            | FieldId::MAC_REMOTE_ADDRESS_TYPE
            | FieldId::MAC_SOURCE_ADDRESS_TYPE
            | FieldId::MAC_DESTINATION_ADDRESS_TYPE => &MAC_ADDRESS_TYPES,
            FieldId::DIRECTION => &DIRECTIONS,
            FieldId::VSWITCH_NETWORK_TYPE => &VSWITCH_NETWORK_TYPES,
            _ => &[],
        }
    }

    /// The value of that name, in any case, with or without its public prefix.
    pub fn find_value(self, name: &str) -> Option<u32> {
        find(self.named_values(), names::without_prefix(name, self.value_prefix()))
    }

    /// The name of a value of this field that is nearest to a wrong name.
    pub fn nearest_value(self, name: &str) -> Option<&'static str> {
        nearest(self.named_values(), names::without_prefix(name, self.value_prefix()))
    }

    fn value_prefix(self) -> &'static str {
        match self {
            FieldId::FLAGS => "FWP_CONDITION_FLAG_",
            FieldId::L2_FLAGS => "FWP_CONDITION_L2_",
            FieldId::REAUTHORIZE_REASON | FieldId::ALE_REAUTH_REASON => "FWP_CONDITION_REAUTHORIZE_REASON_",
            FieldId::ALE_SIO_FIREWALL_SYSTEM_PORT => "FWP_CONDITION_SOCKET_PROPERTY_FLAG_",
            FieldId::IP_LOCAL_ADDRESS_TYPE
            | FieldId::IP_DESTINATION_ADDRESS_TYPE
            | FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE => "Nlat",
            FieldId::DIRECTION => "FWP_DIRECTION_",
            FieldId::VSWITCH_NETWORK_TYPE => "FWP_VSWITCH_NETWORK_TYPE_",
            _ => "Dl",
        }
    }
}

fn bits<F: Flags<Bits = u32>>() -> Vec<NamedValue> {
    F::FLAGS.iter().map(|flag| (flag.name(), flag.value().bits())).collect()
}

fn find(values: &[NamedValue], name: &str) -> Option<u32> {
    values.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

fn nearest(values: &[NamedValue], name: &str) -> Option<&'static str> {
    names::nearest(name, values.iter().map(|(candidate, _)| *candidate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::numbers::NUMBERS;

    /// MS docs: Filtering condition flags.
    #[test]
    fn bits_by_name() {
        for (field, name, bit) in [
            (FieldId::FLAGS, "IS_LOOPBACK", 0x1),
            (FieldId::FLAGS, "is_reauthorize", 0x4),
            (FieldId::FLAGS, "FWP_CONDITION_FLAG_IS_WILDCARD_BIND", 0x8),
            (FieldId::L2_FLAGS, "IS_WIFI", 0x2),
            (FieldId::L2_FLAGS, "fwp_condition_l2_is_vm2vm", 0x10),
            (FieldId::REAUTHORIZE_REASON, "POLICY_CHANGE", 0x1),
            (FieldId::ALE_REAUTH_REASON, "PROFILE_CROSSING", 0x8),
            (FieldId::ALE_SIO_FIREWALL_SYSTEM_PORT, "DENY_EDGE_TRAFFIC", 0x4),
        ] {
            assert_eq!(field.find_flag(name), Some(bit), "{field} {name}");
        }
        assert_eq!(FieldId::FLAGS.find_flag("IS_WIFI"), None, "a bit of another field");
        assert_eq!(FieldId::IP_PROTOCOL.find_flag("IS_LOOPBACK"), None);
        assert_eq!(FieldId::FLAGS.nearest_flag("IS_LOPBACK"), Some("IS_LOOPBACK"));
    }

    #[test]
    fn values_by_name() {
        for (field, name, value) in [
            (FieldId::DIRECTION, "inbound", 1),
            (FieldId::DIRECTION, "FWP_DIRECTION_OUTBOUND", 0),
            (FieldId::IP_LOCAL_ADDRESS_TYPE, "NlatMulticast", 3),
            (FieldId::IP_DESTINATION_ADDRESS_TYPE, "broadcast", 4),
            (FieldId::MAC_REMOTE_ADDRESS_TYPE, "DlBroadcast", 2),
            (FieldId::VSWITCH_NETWORK_TYPE, "EXTERNAL", 3),
        ] {
            assert_eq!(field.find_value(name), Some(value), "{field} {name}");
        }
        assert_eq!(FieldId::IP_PROTOCOL.find_value("inbound"), None);
        assert_eq!(FieldId::DIRECTION.nearest_value("inbuond"), Some("INBOUND"));
    }

    #[test]
    fn enumerations_have_the_public_numbers() {
        for (prefix, field) in
            [("FWP_DIRECTION_", FieldId::DIRECTION), ("FWP_VSWITCH_NETWORK_TYPE_", FieldId::VSWITCH_NETWORK_TYPE)]
        {
            let public: Vec<_> = NUMBERS.iter().filter(|(name, _)| name.starts_with(prefix)).collect();
            assert_eq!(public.len(), field.named_values().len(), "{field}");
            for (name, number) in public {
                assert_eq!(field.find_value(name), Some(*number), "{name}");
            }
        }
    }
}
