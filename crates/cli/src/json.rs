//! The JSON forms of objects, values and events. They may grow, never change.

use openwfp_engine::{CompiledPolicy, Schema, Values};
use openwfp_model::{FieldId, FieldType, LayerId, Value};
use serde_json::{Map, Value as Json, json};

/// A value as JSON: numbers as numbers, everything else as text.
pub(crate) fn value(layer: LayerId, field: FieldId, value: &Value) -> Json {
    let found = layer.layer().field(field);
    match (value, found.map(|field| field.field_type)) {
        (Value::Uint32(_) | Value::ByteArray16(_), Some(FieldType::IpAddress)) => {
            found.map_or(Json::Null, |field| json!(value.display(field).to_string()))
        }
        (Value::Uint8(n), _) => json!(n),
        (Value::Uint16(n), _) => json!(n),
        (Value::Uint32(n), _) => json!(n),
        (Value::Uint64(n), _) => json!(n),
        (Value::User(uid), _) => json!(uid),
        (Value::Empty, _) => Json::Null,
        (other, _) => json!(other.to_string()),
    }
}

/// Every known field of a layer, by name; the application as it is told, since a class number has no path.
pub(crate) fn values(policy: &CompiledPolicy, layer: LayerId, words: &Values, application: Option<&str>) -> Json {
    let mut object = Map::new();
    for field in Schema::of(layer).fields() {
        let is_application = field.field == FieldId::ALE_APP_ID;
        let found = match application {
            Some(path) if is_application => Some(json!(path)),
            _ if is_application => None,
            _ => policy.value(layer, field.field, words).map(|found| value(layer, field.field, &found)),
        };
        if let Some(found) = found {
            object.insert(field.field.name().to_owned(), found);
        }
    }
    Json::Object(object)
}

/// The filter that decided, as events name it.
pub(crate) fn filter(policy: &CompiledPolicy, id: u64) -> Json {
    match policy.filter(id) {
        Some(filter) => json!({"id": id, "key": filter.filter.key.to_string(), "name": filter.filter.name}),
        None => Json::Null,
    }
}

/// The name of the sublayer in which a filter stands.
pub(crate) fn sublayer_name(policy: &CompiledPolicy, id: u64) -> Json {
    let sublayer = policy.filter(id).and_then(|filter| policy.sublayer(filter.filter.sublayer));
    sublayer.map_or(Json::Null, |sublayer| json!(sublayer.name))
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
