//! Values for people: names where numbers have them.

use crate::machine;
use openwfp_engine::EventValue;
use openwfp_model::{FieldId, FieldType, LayerField, Value};

/// A value as people read it.
pub(crate) fn value(field: &LayerField, value: &Value) -> String {
    match number(value) {
        Some(number) if field.field == FieldId::IP_PROTOCOL => {
            protocol(number).map_or_else(|| number.to_string(), str::to_owned)
        }
        Some(number) if field.field_type == FieldType::Flags => flags(field.field, number),
        Some(number) => {
            let named = field.field.named_values().iter().find(|(_, value)| u64::from(*value) == number);
            named.map_or_else(|| value.display(field).to_string(), |(name, _)| (*name).to_owned())
        }
        None => match value {
            Value::User(uid) => match machine::user_name(*uid) {
                Some(name) => format!("{name} (uid {uid})"),
                None => format!("uid {uid}"),
            },
            other => printable(&other.display(field).to_string()),
        },
    }
}

/// A text of an event, with what a terminal would obey escaped.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// What an event has, as people read it.
pub(crate) fn actual(field: &LayerField, found: Option<&EventValue>) -> String {
    match found {
        Some(EventValue::Known(known)) => value(field, known),
        Some(EventValue::Unknown) => "not known".to_owned(),
        None => "empty".to_owned(),
    }
}

fn number(value: &Value) -> Option<u64> {
    match *value {
        Value::Uint8(number) => Some(number.into()),
        Value::Uint16(number) => Some(number.into()),
        Value::Uint32(number) => Some(number.into()),
        Value::Uint64(number) => Some(number),
        _ => None,
    }
}

/// The protocols that people meet (IANA "Assigned Internet Protocol Numbers").
pub(crate) fn protocol(number: u64) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

/// The names of the bits that are set; what has no name as a number.
fn flags(field: FieldId, bits: u64) -> String {
    let mut rest = bits;
    let mut names: Vec<String> = vec![];
    for (name, bit) in field.flags() {
        let bit = u64::from(bit);
        if bit != 0 && bits & bit == bit {
            names.push(name.to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    if names.is_empty() { "none set".to_owned() } else { names.join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_model::LayerId;

    fn shown(field: FieldId, shown: &Value) -> String {
        value(LayerId::ALE_AUTH_CONNECT_V4.layer().field(field).unwrap(), shown)
    }

    #[test]
    fn numbers_that_have_names_are_shown_by_them() {
        assert_eq!(shown(FieldId::IP_PROTOCOL, &Value::Uint8(6)), "tcp");
        assert_eq!(shown(FieldId::IP_PROTOCOL, &Value::Uint8(200)), "200");
        assert_eq!(shown(FieldId::FLAGS, &Value::Uint32(1)), "IS_LOOPBACK");
        assert_eq!(shown(FieldId::FLAGS, &Value::Uint32(0)), "none set");
        assert_eq!(shown(FieldId::IP_LOCAL_ADDRESS_TYPE, &Value::Uint8(3)), "MULTICAST");
        assert_eq!(shown(FieldId::IP_REMOTE_PORT, &Value::Uint16(80)), "80");
        assert_eq!(shown(FieldId::ALE_USER_ID, &Value::User(0)), "root (uid 0)");
        let hostile = Value::Application("/tmp/\u{1b}[31mred\u{e9}".to_owned());
        assert_eq!(shown(FieldId::ALE_APP_ID, &hostile), "/tmp/\\u{1b}[31mred\u{e9}");
    }
}
