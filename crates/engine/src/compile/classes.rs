//! Class numbers: applications, SIDs and text as numbers that a tree can compare.
//!
//! Values of such a field that no condition of the policy tells apart share one class. Class 0 is every value that no
//! condition names; a value that some condition names exactly has a class of its own; and where conditions look at more
//! than equality (a prefix, the case of letters, a security descriptor), values that no condition names exactly have
//! one class for each set of such conditions that they meet.
//!
//! The kernel keeps the numbers of applications in a map beside the image, and events of two generations are decided side
//! by side while a policy is replaced. So a value that two policies name one after the other has the same number in both,
//! and a number that the first gave to one value the second gives to no other.
//!
//! `FWP_MATCH_PREFIX` looks at the *end* of a text or blob, whatever its name says (MS docs: `FWP_MATCH_TYPE`).

use super::CompileError;
use openwfp_model::{FieldId, MatchType, SecurityDescriptor, Value, extension};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    string::String,
    vec,
    vec::Vec,
};

/// The most different prefixes, case-insensitive texts and security descriptors on one field.
const MAX_WIDE: usize = 8;

/// A comparison that more than one value can meet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wide {
    Prefix(Value),
    CaseInsensitive(Value),
    Descriptor(SecurityDescriptor),
}

impl Wide {
    /// Whether there are values that meet it: the case of letters is nothing that bytes have.
    fn can_be_met(&self) -> bool {
        match self {
            Self::Prefix(prefix) => bytes(prefix).is_some(),
            Self::CaseInsensitive(text) => text_of(text).is_some(),
            Self::Descriptor(_) => true,
        }
    }

    fn meets(&self, value: &Value) -> bool {
        match self {
            Self::Prefix(prefix) => bytes(prefix).is_some_and(|prefix| {
                bytes(value).is_some_and(|value| value.ends_with(&prefix)) && same_kind(prefix_kind(self), value)
            }),
            Self::CaseInsensitive(text) => match (text_of(text), text_of(value)) {
                (Some(text), Some(value)) => text.to_lowercase() == value.to_lowercase(),
                _ => false,
            },
            Self::Descriptor(descriptor) => super::users::descriptor_admits(descriptor, value),
        }
    }
}

fn prefix_kind(wide: &Wide) -> Option<&Value> {
    match wide {
        Wide::Prefix(value) => Some(value),
        _ => None,
    }
}

/// Text is compared with text, bytes with bytes.
fn same_kind(a: Option<&Value>, b: &Value) -> bool {
    a.is_none_or(|a| text_of(a).is_some() == text_of(b).is_some())
}

fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::UnicodeString(text) | Value::Application(text) => Some(text),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::UnicodeString(text) | Value::Application(text) => Some(text.as_bytes().to_vec()),
        Value::ByteBlob(blob) => Some(blob.clone()),
        _ => None,
    }
}

/// The classes of one field.
#[derive(Clone, Debug, Default)]
struct FieldClasses {
    /// The values that some condition names exactly, by their classes (from 1). None: nobody's in this policy.
    named: Vec<Option<Value>>,
    numbers: HashMap<Value, u32>,
    /// The numbers in the policy before.
    before: HashMap<Value, u32>,
    /// Numbers below the last of those that are nobody's, the highest first.
    gaps: Vec<u32>,
    wide: Vec<Wide>,
    /// The values are paths of a tree: what is below a named one, and below no deeper one, has a class of its own.
    tree: bool,
}

impl FieldClasses {
    /// Keeps the numbers that a policy before has given.
    fn after(previous: &Self) -> Self {
        let before = previous.numbers.clone();
        let taken: HashSet<u32> = before.values().copied().collect();
        let last = taken.iter().max().copied().unwrap_or(0);
        let gaps = (1..last).rev().filter(|number| !taken.contains(number)).collect();
        Self { named: vec![None; last as usize], before, gaps, tree: previous.tree, ..Self::default() }
    }

    /// Gives a value the number that it had before, else the lowest that is nobody's.
    fn name(&mut self, value: &Value) {
        if self.numbers.contains_key(value) {
            return;
        }
        let number = match self.before.get(value) {
            Some(&number) => number,
            None => self.gaps.pop().unwrap_or(self.named.len() as u32 + 1),
        };
        match self.named.get_mut(number as usize - 1) {
            Some(place) => *place = Some(value.clone()),
            None => self.named.push(Some(value.clone())),
        }
        self.numbers.insert(value.clone(), number);
    }

    fn class(&self, value: &Value) -> u32 {
        if let Some(&number) = self.numbers.get(value) {
            return number;
        }
        if self.tree {
            return self.class_below(value);
        }
        let set =
            self.wide.iter().enumerate().filter(|(_, wide)| wide.meets(value)).fold(0, |set, (bit, _)| set | 1 << bit);
        if set == 0 { 0 } else { self.named.len() as u32 + set }
    }

    /// The class of what is below the deepest path that is named above this one; 0: none is.
    fn class_below(&self, value: &Value) -> u32 {
        let Some(mut path) = text_of(value) else { return 0 };
        while let Some((above, _)) = path.rsplit_once('/') {
            let group = if above.is_empty() { "/" } else { above };
            if let Some(&number) = self.numbers.get(&below(group)) {
                return number;
            }
            path = above;
        }
        0
    }

    /// The classes of a path and of what is below it.
    fn at_or_below(&self, group: &Value) -> Vec<u32> {
        let Some(group) = text_of(group) else { return vec![] };
        let holds = |path: &str| extension::is_at_or_below(path, group);
        let named = (1..).zip(&self.named);
        let named = named.filter(|(_, value)| value.as_ref().and_then(text_of).is_some_and(holds));
        named.map(|(number, _)| number).collect()
    }

    /// The classes of the values that meet a comparison.
    fn matching(&self, wide: &Wide) -> Vec<u32> {
        if !wide.can_be_met() {
            return vec![];
        }
        let mut classes: Vec<u32> = (1..)
            .zip(&self.named)
            .filter(|(_, named)| named.as_ref().is_some_and(|value| wide.meets(value)))
            .map(|(number, _)| number)
            .collect();
        if let Some(bit) = self.wide.iter().position(|other| other == wide) {
            let sets = (1..1u32 << self.wide.len()).filter(|set| set >> bit & 1 == 1);
            classes.extend(sets.map(|set| self.named.len() as u32 + set));
        }
        classes
    }
}

/// The classes of all fields that have them.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    fields: BTreeMap<FieldId, FieldClasses>,
}

impl Classes {
    /// The numbers of a policy that follows another.
    pub(super) fn after(previous: &Self) -> Self {
        let fields = previous.fields.iter().map(|(&field, classes)| (field, FieldClasses::after(classes)));
        Self { fields: fields.collect() }
    }

    /// Takes note of what a condition compares with.
    pub(super) fn note(&mut self, field: FieldId, match_type: MatchType, value: &Value) -> Result<(), CompileError> {
        let classes = self.fields.entry(space(field)).or_default();
        classes.tree = field == FieldId::LINUX_CGROUP;
        if classes.tree {
            if let Some(path) = text_of(value) {
                classes.name(value);
                classes.name(&below(path));
            }
        } else if let Some(wide) = wide(match_type, value) {
            if !classes.wide.contains(&wide) {
                classes.wide.push(wide);
            }
            if classes.wide.len() > MAX_WIDE {
                return Err(CompileError::TooManyComparisons { field, limit: MAX_WIDE });
            }
        } else if *value != Value::Empty {
            classes.name(value);
        }
        Ok(())
    }

    /// The classes for which a condition holds, as ascending ranges.
    pub(super) fn ranges(&self, field: FieldId, match_type: MatchType, value: &Value) -> Vec<(u32, u32)> {
        let Some(classes) = self.fields.get(&space(field)) else {
            return vec![];
        };
        let mut matching = match wide(match_type, value) {
            Some(_) if classes.tree => classes.at_or_below(value),
            Some(wide) => classes.matching(&wide),
            None => vec![classes.class(value)],
        };
        matching.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = vec![];
        for class in matching {
            match ranges.last_mut() {
                Some(last) if last.1 + 1 == class => last.1 = class,
                _ => ranges.push((class, class)),
            }
        }
        if matches!(match_type, MatchType::NotEqual | MatchType::NotPrefix) {
            // also classes that this policy has not, but the one before or after it
            complement(&ranges, u32::MAX)
        } else {
            ranges
        }
    }

    /// The class of an event's value.
    #[must_use]
    pub fn class(&self, field: FieldId, value: &Value) -> u32 {
        self.fields.get(&space(field)).map_or(0, |classes| classes.class(value))
    }

    /// The values that conditions on a field name exactly, with their classes.
    pub fn named(&self, field: FieldId) -> impl Iterator<Item = (u32, &Value)> {
        let named = (1..).zip(self.fields.get(&space(field)).map_or(&[][..], |classes| &classes.named[..]));
        named.filter_map(|(class, value)| Some((class, value.as_ref()?)))
    }

    /// Whether conditions on a field look at more than equality.
    #[must_use]
    pub fn has_wide(&self, field: FieldId) -> bool {
        self.fields.get(&space(field)).is_some_and(|classes| !classes.wide.is_empty())
    }

    /// A value that has this class, for making up events.
    #[must_use]
    pub fn example(&self, field: FieldId, class: u32) -> Option<Value> {
        let classes = self.fields.get(&space(field))?;
        let named = classes.named.get((class as usize).checked_sub(1)?).cloned().flatten();
        let named = named.map(|value| if is_below(&value) { inside(&value) } else { value });
        named.or_else(|| {
            let examples = classes.wide.iter().filter_map(|wide| match wide {
                Wide::Prefix(value) | Wide::CaseInsensitive(value) => Some(longer(value)),
                Wide::Descriptor(_) => None,
            });
            examples.into_iter().find(|value| classes.class(value) == class)
        })
    }
}

/// The field whose classes a field uses: both applications of an event are told apart in the same way.
fn space(field: FieldId) -> FieldId {
    if field == FieldId::ALE_ORIGINAL_APP_ID { FieldId::ALE_APP_ID } else { field }
}

/// What stands for every path below a group: its path with a `/` at the end, which no group's path has.
fn below(group: &str) -> Value {
    let mut path = String::from(group);
    path.push('/');
    Value::UnicodeString(path)
}

/// The group of which a value of [`named`](Classes::named) stands for everything below.
#[must_use]
pub fn group_above(value: &Value) -> Option<&str> {
    let group = text_of(value)?.strip_suffix('/')?;
    (!group.is_empty()).then_some(group)
}

fn is_below(value: &Value) -> bool {
    matches!(value, Value::UnicodeString(_)) && group_above(value).is_some()
}

/// A path below a group that nobody names.
fn inside(value: &Value) -> Value {
    let group = group_above(value).unwrap_or_default();
    let mut path = String::from(if group == "/" { "" } else { group });
    path.push_str("/~");
    Value::UnicodeString(path)
}

/// A value that ends so, and that nobody names.
fn longer(value: &Value) -> Value {
    let extend = |text: &str| {
        let mut longer = String::from("~");
        longer.push_str(text);
        longer
    };
    match value {
        Value::UnicodeString(text) => Value::UnicodeString(extend(text)),
        Value::Application(path) => Value::Application(extend(path)),
        other => other.clone(),
    }
}

/// What is left of `0..=last`.
fn complement(ranges: &[(u32, u32)], last: u32) -> Vec<(u32, u32)> {
    let mut rest = vec![];
    let mut next = 0;
    for &(low, high) in ranges {
        if low > next {
            rest.push((next, low - 1));
        }
        match high.checked_add(1) {
            Some(after) => next = after,
            None => return rest,
        }
    }
    if next <= last {
        rest.push((next, last));
    }
    rest
}

fn wide(match_type: MatchType, value: &Value) -> Option<Wide> {
    match (match_type, value) {
        (_, Value::SecurityDescriptor(descriptor)) => Some(Wide::Descriptor(descriptor.clone())),
        (MatchType::Prefix | MatchType::NotPrefix, _) => Some(Wide::Prefix(value.clone())),
        (MatchType::EqualCaseInsensitive, _) => Some(Wide::CaseInsensitive(value.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(path: &str) -> Value {
        Value::Application(path.into())
    }

    #[test]
    fn applications_that_no_condition_names_share_class_0() {
        let mut classes = Classes::default();
        for path in ["/usr/bin/curl", "/usr/bin/dig", "/usr/bin/curl"] {
            classes.note(FieldId::ALE_APP_ID, MatchType::Equal, &application(path)).unwrap();
        }
        let class = |path| classes.class(FieldId::ALE_APP_ID, &application(path));
        assert_eq!(class("/usr/bin/curl"), 1);
        assert_eq!(class("/usr/bin/dig"), 2);
        assert_eq!(class("/usr/bin/ping"), 0);
        let not = classes.ranges(FieldId::ALE_APP_ID, MatchType::NotEqual, &application("/usr/bin/curl"));
        assert_eq!(not, [(0, 0), (2, u32::MAX)]);
    }

    #[test]
    fn a_number_means_the_same_in_a_policy_and_the_next() {
        let noted = |mut classes: Classes, paths: &[&str]| {
            for path in paths {
                classes.note(FieldId::ALE_APP_ID, MatchType::Equal, &application(path)).unwrap();
            }
            classes
        };
        let named = |classes: &Classes| -> Vec<(u32, String)> {
            let named = classes.named(FieldId::ALE_APP_ID);
            named.map(|(class, value)| (class, String::from(text_of(value).unwrap()))).collect()
        };
        let is = |class: u32, path: &str| (class, String::from(path));
        let first = noted(Classes::default(), &["/a", "/b", "/c"]);
        let second = noted(Classes::after(&first), &["/d", "/c", "/e"]);
        assert_eq!(named(&second), [is(3, "/c"), is(4, "/d"), is(5, "/e")], "what was /a is nobody's");
        assert_eq!(second.class(FieldId::ALE_APP_ID, &application("/a")), 0);
        let third = noted(Classes::after(&second), &["/f", "/e", "/g", "/h"]);
        assert_eq!(named(&third), [is(1, "/f"), is(2, "/g"), is(5, "/e"), is(6, "/h")]);
    }

    #[test]
    fn control_groups_are_a_tree() {
        let (field, text) = (FieldId::LINUX_CGROUP, |path: &str| Value::UnicodeString(path.into()));
        let mut classes = Classes::default();
        classes.note(field, MatchType::Prefix, &text("/a")).unwrap();
        classes.note(field, MatchType::Equal, &text("/a/b/c")).unwrap();
        let holds = |match_type, named: &str, path: &str| {
            let (ranges, class) = (classes.ranges(field, match_type, &text(named)), classes.class(field, &text(path)));
            ranges.iter().any(|&(low, high)| (low..=high).contains(&class))
        };
        for (path, below, equal) in [
            ("/a", true, false),
            ("/a/x", true, false),
            ("/a/b", true, false),
            ("/a/b/c", true, true),
            ("/a/b/c/d", true, false),
            ("/ab", false, false),
            ("/", false, false),
            ("/x/a", false, false),
        ] {
            assert_eq!(holds(MatchType::Prefix, "/a", path), below, "{path}");
            assert_eq!(holds(MatchType::NotPrefix, "/a", path), !below, "{path}");
            assert_eq!(holds(MatchType::Equal, "/a/b/c", path), equal, "{path}");
            assert_eq!(holds(MatchType::NotEqual, "/a/b/c", path), !equal, "{path}");
        }
        for class in 1..=4 {
            let example = classes.example(field, class).unwrap();
            assert_eq!(classes.class(field, &example), class, "{example:?}");
        }
        classes.note(field, MatchType::Prefix, &text("/")).unwrap();
        let all = classes.ranges(field, MatchType::Prefix, &text("/"));
        let class = |path| classes.class(field, &text(path));
        assert!(
            ["/", "/z", "/a", "/a/b/c/d"]
                .map(class)
                .iter()
                .all(|&class| { all.iter().any(|&(low, high)| (low..=high).contains(&class)) })
        );
        assert_eq!(
            classes.named(field).filter_map(|(_, value)| group_above(value)).collect::<Vec<_>>(),
            ["/a", "/a/b/c", "/"]
        );
    }

    #[test]
    fn endings_have_classes_for_every_set_of_them() {
        let mut classes = Classes::default();
        classes.note(FieldId::PEER_NAME, MatchType::Prefix, &Value::UnicodeString("ba".into())).unwrap();
        classes.note(FieldId::PEER_NAME, MatchType::Prefix, &Value::UnicodeString("cba".into())).unwrap();
        classes.note(FieldId::PEER_NAME, MatchType::Equal, &Value::UnicodeString("dcba".into())).unwrap();
        let class = |text: &str| classes.class(FieldId::PEER_NAME, &Value::UnicodeString(text.into()));
        let ranges =
            |text: &str| classes.ranges(FieldId::PEER_NAME, MatchType::Prefix, &Value::UnicodeString(text.into()));
        let holds = |text: &str, class: u32| ranges(text).iter().any(|&(low, high)| low <= class && class <= high);
        for (value, short, long) in
            [("xba", true, false), ("xcba", true, true), ("dcba", true, true), ("x", false, false)]
        {
            assert_eq!(holds("ba", class(value)), short, "{value}");
            assert_eq!(holds("cba", class(value)), long, "{value}");
        }
    }

    #[test]
    fn a_text_is_the_ending_of_an_application() {
        // as policy files have it, where a part of a path leads to no file
        let mut classes = Classes::default();
        let (field, ending) = (FieldId::ALE_APP_ID, Value::UnicodeString("/curl".into()));
        classes.note(field, MatchType::Prefix, &ending).unwrap();
        let ranges = classes.ranges(field, MatchType::Prefix, &ending);
        let holds =
            |path| ranges.iter().any(|&(low, high)| (low..=high).contains(&classes.class(field, &application(path))));
        assert!(holds("/usr/bin/curl") && !holds("/usr/bin/curly"));
    }

    #[test]
    fn no_bytes_are_equal_but_for_the_case_of_their_letters() {
        let mut classes = Classes::default();
        let (field, match_type, blob) =
            (FieldId::ALE_ORIGINAL_APP_ID, MatchType::EqualCaseInsensitive, Value::ByteBlob(vec![1]));
        classes.note(field, match_type, &blob).unwrap();
        assert_eq!(classes.ranges(field, match_type, &blob), []);
    }
}
