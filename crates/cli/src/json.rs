//! The JSON forms of objects, values and events. They may grow, never change.

use openwfp_engine::{CompiledPolicy, Schema, Values};
use openwfp_model::{FieldId, FieldType, Guid, LayerField, LayerId, Value, extension};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::fmt;

/// A value as JSON: numbers as numbers, everything else as text.
pub(crate) fn value(layer: LayerId, field: FieldId, value: &Value) -> FieldValue<'_> {
    FieldValue { field: layer.layer().field(field), value }
}

/// A value of a field.
pub(crate) struct FieldValue<'a> {
    field: Option<&'static LayerField>,
    value: &'a Value,
}

impl Serialize for FieldValue<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.field) {
            (Value::Uint32(_) | Value::ByteArray16(_), Some(field)) if field.field_type == FieldType::IpAddress => {
                to.collect_str(&self.value.display(field))
            }
            (Value::Uint8(number), _) => to.serialize_u8(*number),
            (Value::Uint16(number), _) => to.serialize_u16(*number),
            (Value::Uint32(number) | Value::User(number), _) => to.serialize_u32(*number),
            (Value::Uint64(number), _) => to.serialize_u64(*number),
            (Value::Empty, _) => to.serialize_unit(),
            (other, _) => to.collect_str(other),
        }
    }
}

/// The known values of an event: what is not known is no value, and stands in a list of its own ([`unknown`]). They are written as they are found: a capture has millions of events.
pub(crate) struct EventValues<'a> {
    policy: &'a CompiledPolicy,
    layer: LayerId,
    words: &'a Values,
    told: Told<'a>,
}

/// What an event tells by another way than words: class numbers are no values.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told<'a> {
    /// The path of the application.
    pub application: Option<&'a str>,
    /// The path of the control group.
    pub cgroup: Option<&'a str>,
}

impl<'a> Told<'a> {
    /// What is told of a field; `None` where its words say it. A path or name that no condition could have is left out: the
    /// programs cannot tell it either.
    fn value(self, field: FieldId) -> Option<Option<&'a str>> {
        let told = self.text(field)?;
        Some(told.filter(|text| extension::check(field, text).is_ok()))
    }

    fn text(self, field: FieldId) -> Option<Option<&'a str>> {
        match field {
            FieldId::ALE_APP_ID => Some(self.application),
            FieldId::LINUX_CGROUP => Some(self.cgroup),
            FieldId::LINUX_SYSTEMD_UNIT => Some(self.cgroup.and_then(extension::unit_of)),
            FieldId::LINUX_CONTAINER => Some(self.cgroup.and_then(extension::container_of)),
            _ => None,
        }
    }
}

/// Every known field of a layer, by name.
pub(crate) fn values<'a>(
    policy: &'a CompiledPolicy,
    layer: LayerId,
    words: &'a Values,
    told: Told<'a>,
) -> EventValues<'a> {
    EventValues { policy, layer, words, told }
}

impl Serialize for EventValues<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        for field in Schema::of(self.layer).fields() {
            if field.is_unknown(self.words) {
                continue;
            }
            let id = field.field;
            if let Some(told) = self.told.value(id) {
                if let Some(text) = told {
                    object.serialize_entry(id.name(), text)?;
                }
            } else if let Some(found) = self.policy.value(self.layer, id, self.words) {
                let field = self.layer.layer().field(id);
                object.serialize_entry(id.name(), &FieldValue { field, value: &found })?;
            }
        }
        object.end()
    }
}

/// The fields of an event whose values exist and were not known when it was classified, by name.
pub(crate) fn unknown(layer: LayerId, words: &Values) -> Vec<&'static str> {
    let unknown = Schema::of(layer).fields().iter().filter(|field| field.is_unknown(words));
    unknown.map(|field| field.field.name()).collect()
}

/// A filter, as events name it.
#[derive(Serialize)]
pub(crate) struct FilterName<'a> {
    id: u64,
    #[serde(serialize_with = "as_text")]
    key: Guid,
    name: &'a str,
}

/// Something as the text that people read.
pub(crate) fn as_text<S: Serializer>(shown: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(shown)
}

/// The filter that decided, as events name it; null where none did.
pub(crate) fn filter(policy: &CompiledPolicy, id: u64) -> Option<FilterName<'_>> {
    let found = &policy.filter(id)?.filter;
    Some(FilterName { id, key: found.key, name: &found.name })
}

/// The name of the sublayer in which a filter stands.
pub(crate) fn sublayer_name(policy: &CompiledPolicy, id: u64) -> Option<&str> {
    let sublayer = policy.sublayer(policy.filter(id)?.filter.sublayer)?;
    Some(&sublayer.name)
}

/// Nanoseconds since 1970 as RFC 3339 with nine digits, in UTC.
pub(crate) fn time(nanoseconds: u64) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (days, of_day) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:09}Z")
}

/// The date of a day counted from 1970-01-01 in the Gregorian calendar (the well-known era arithmetic).
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(1_767_323_045_678_901_234), "2026-01-02T03:04:05.678901234Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(time(4_107_542_400_000_000_000), "2100-03-01T00:00:00.000000000Z");
    }
}
