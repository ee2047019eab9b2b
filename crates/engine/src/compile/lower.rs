//! From conditions to tests on words.

use super::{
    classes::Classes,
    rule::{Alternative, Group, WordTest},
    schema::{Encoding, FieldWords},
    users::{self, Groups},
};
use crate::Test;
use openwfp_model::{FilterCondition, MatchType, Value};
use std::{vec, vec::Vec};

/// The alternatives under which one of these conditions on a field holds. None: they never hold.
pub(super) fn field_group(
    field: FieldWords,
    conditions: &[&FilterCondition],
    classes: &Classes,
    groups: &Groups,
) -> Group {
    let mut ranges: Vec<(u128, u128)> = vec![];
    let mut group: Group = vec![];
    for condition in conditions {
        let wanted = condition.match_type != MatchType::NotEqual;
        match field.encoding {
            Encoding::User => group.extend(users::group(&condition.value, wanted, groups)),
            _ if condition.value == Value::Empty => match wanted {
                true => group.push(vec![test(field, 0, Test::Empty)]),
                false => ranges.push((0, last(field))),
            },
            Encoding::Class => ranges.extend(
                classes
                    .ranges(field.field, condition.match_type, &condition.value)
                    .into_iter()
                    .map(|(low, high)| (low as u128, high as u128)),
            ),
            Encoding::Number => match flags(field, condition) {
                Some(alternatives) => group.extend(alternatives),
                None => ranges.extend(number_ranges(field, condition)),
            },
        }
    }
    for (low, high) in union(ranges) {
        boxes(field, 0, low, high, &mut vec![], &mut group);
    }
    group.dedup();
    group
}

fn test(field: FieldWords, word: usize, test: Test) -> WordTest {
    WordTest { word: (field.first + word) as u8, test }
}

/// The greatest number that the field's words can hold.
fn last(field: FieldWords) -> u128 {
    u128::MAX >> (128 - 32 * field.count)
}

/// A condition on bits; `None`: it is about something else.
fn flags(field: FieldWords, condition: &FilterCondition) -> Option<Group> {
    let match_type = condition.match_type;
    if !matches!(match_type, MatchType::FlagsAllSet | MatchType::FlagsAnySet | MatchType::FlagsNoneSet) {
        return None;
    }
    let mask = number(&condition.value)?;
    let masks: Vec<(usize, u32)> =
        (0..field.count).map(|word| (word, word_of(field, mask, word))).filter(|&(_, mask)| mask != 0).collect();
    let tests = |make: fn(u32) -> Test| masks.iter().map(move |&(word, mask)| test(field, word, make(mask)));
    Some(match match_type {
        MatchType::FlagsAnySet => tests(Test::Any).map(|test| vec![test]).collect(),
        // no bit asked for: every value that is there has all and none of them
        _ if masks.is_empty() => vec![vec![test(field, 0, Test::Range(0, u32::MAX))]],
        MatchType::FlagsAllSet => vec![tests(|mask| Test::Mask(mask, mask)).collect()],
        _ => vec![tests(|mask| Test::Mask(mask, 0)).collect()],
    })
}

/// A value as one number.
pub(super) fn number(value: &Value) -> Option<u128> {
    Some(match value {
        Value::Uint8(n) => *n as u128,
        Value::Uint16(n) => *n as u128,
        Value::Uint32(n) => *n as u128,
        Value::Uint64(n) => *n as u128,
        Value::ByteArray16(bytes) => u128::from_be_bytes(*bytes),
        Value::ByteArray6(bytes) => bytes.iter().fold(0, |number, byte| number << 8 | *byte as u128),
        _ => return None,
    })
}

/// The first and the last number that a value stands for.
fn extent(value: &Value) -> Option<(u128, u128)> {
    match value {
        Value::V4AddrMask { addr, prefix } => {
            let host = u32::MAX.checked_shr(*prefix as u32).unwrap_or(0);
            Some(((addr & !host) as u128, (addr | host) as u128))
        }
        Value::V6AddrMask { addr, prefix } => {
            let host = u128::MAX.checked_shr(*prefix as u32).unwrap_or(0);
            Some((addr & !host, addr | host))
        }
        Value::Range(low, high) => Some((extent(low)?.0, extent(high)?.1)),
        other => number(other).map(|number| (number, number)),
    }
}

/// The ranges of numbers for which a condition holds.
fn number_ranges(field: FieldWords, condition: &FilterCondition) -> Vec<(u128, u128)> {
    let Some((low, high)) = extent(&condition.value) else {
        return vec![];
    };
    let last = last(field);
    let below = |end: u128| end.checked_sub(1).map(|end| (0, end));
    let above = |start: u128| (start < last).then(|| (start + 1, last));
    let ranges = match condition.match_type {
        MatchType::Greater => [above(high), None],
        MatchType::GreaterOrEqual => [Some((low, last)), None],
        MatchType::Less => [below(low), None],
        MatchType::LessOrEqual => [Some((0, high)), None],
        MatchType::NotEqual | MatchType::NotPrefix => [below(low), above(high)],
        _ => [Some((low, high)), None],
    };
    ranges.into_iter().flatten().collect()
}

/// The same numbers as ascending ranges that do not touch.
fn union(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = vec![];
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(before) if low <= before.1.saturating_add(1) => before.1 = before.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

/// One word of a number.
pub(super) fn word_of(field: FieldWords, number: u128, word: usize) -> u32 {
    (number >> (32 * (field.count - 1 - word))) as u32
}

/// A range of numbers as boxes of words, beginning at `word`; `tests` fixes the words before it.
fn boxes(field: FieldWords, word: usize, low: u128, high: u128, tests: &mut Alternative, group: &mut Group) {
    let rest = 32 * (field.count - 1 - word);
    let rest_mask = (1u128 << rest) - 1;
    let (first, end) = ((low >> rest) as u32, (high >> rest) as u32);
    let mut add = |range: (u32, u32), rest: Option<(u128, u128)>| {
        let mut tests = tests.clone();
        if range != (0, u32::MAX) || tests.is_empty() && rest.is_none() {
            tests.push(test(field, word, Test::Range(range.0, range.1)));
        }
        match rest {
            Some((low, high)) => boxes(field, word + 1, low, high, &mut tests, group),
            None => group.push(tests),
        }
    };
    let (low_rest, high_rest) = (low & rest_mask, high & rest_mask);
    if first == end && (low_rest, high_rest) != (0, rest_mask) {
        add((first, first), Some((low_rest, high_rest)));
        return;
    }
    let (mut middle_first, mut middle_end) = (first as u64, end as u64);
    if low_rest != 0 {
        add((first, first), Some((low_rest, rest_mask)));
        middle_first += 1;
    }
    let cut_above = high_rest != rest_mask;
    if cut_above {
        middle_end = middle_end.wrapping_sub(1);
    }
    if middle_first <= middle_end && middle_end <= u32::MAX as u64 {
        add((middle_first as u32, middle_end as u32), None);
    }
    if cut_above {
        add((end, end), Some((0, high_rest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_model::FieldId;

    const PORT: FieldWords =
        FieldWords { field: FieldId::IP_REMOTE_PORT, first: 2, count: 1, encoding: Encoding::Number };
    const V6: FieldWords =
        FieldWords { field: FieldId::IP_REMOTE_ADDRESS, first: 8, count: 4, encoding: Encoding::Number };

    fn lower(field: FieldWords, match_type: MatchType, value: Value) -> Group {
        let condition = FilterCondition::new(field.field, match_type, value);
        field_group(field, &[&condition], &Classes::default(), &Groups::default())
    }

    #[test]
    fn match_types_become_ranges_and_masks() {
        let range = |low, high| vec![WordTest { word: 2, test: Test::Range(low, high) }];
        let port = Value::Uint16(80);
        assert_eq!(lower(PORT, MatchType::Equal, port.clone()), [range(80, 80)]);
        assert_eq!(lower(PORT, MatchType::Greater, port.clone()), [range(81, u32::MAX)]);
        assert_eq!(lower(PORT, MatchType::GreaterOrEqual, port.clone()), [range(80, u32::MAX)]);
        assert_eq!(lower(PORT, MatchType::Less, port.clone()), [range(0, 79)]);
        assert_eq!(lower(PORT, MatchType::LessOrEqual, port.clone()), [range(0, 80)]);
        assert_eq!(lower(PORT, MatchType::NotEqual, port.clone()), [range(0, 79), range(81, u32::MAX)]);
        assert_eq!(lower(PORT, MatchType::Less, Value::Uint16(0)), [] as [Alternative; 0]);
        let mask = |mask, expected| vec![WordTest { word: 2, test: Test::Mask(mask, expected) }];
        assert_eq!(lower(PORT, MatchType::FlagsAllSet, port.clone()), [mask(80, 80)]);
        assert_eq!(lower(PORT, MatchType::FlagsNoneSet, port), [mask(80, 0)]);
    }

    #[test]
    fn an_ipv6_prefix_is_one_box_and_its_complement_a_few() {
        let prefix = Value::V6AddrMask { addr: 0x2001_0db8_0000_0000_0000_0000_0000_0000, prefix: 48 };
        assert_eq!(lower(V6, MatchType::Equal, prefix.clone()).len(), 1);
        assert_eq!(lower(V6, MatchType::Equal, prefix.clone())[0].len(), 2);
        let outside = lower(V6, MatchType::NotEqual, prefix);
        assert!(outside.len() <= 4, "{outside:?}");
        let everything = Value::V6AddrMask { addr: 0, prefix: 0 };
        assert_eq!(lower(V6, MatchType::Equal, everything.clone()).len(), 1);
        assert_eq!(lower(V6, MatchType::NotEqual, everything).len(), 0);
    }

    #[test]
    fn conditions_on_neighbouring_values_become_one_range() {
        let conditions: Vec<_> =
            (80..90).map(|port| FilterCondition::equal(FieldId::IP_REMOTE_PORT, Value::Uint16(port))).collect();
        let conditions: Vec<_> = conditions.iter().collect();
        let group = field_group(PORT, &conditions, &Classes::default(), &Groups::default());
        assert_eq!(group.len(), 1);
    }
}
