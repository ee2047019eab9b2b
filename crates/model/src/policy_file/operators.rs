//! The tests of a field: a value alone, or a table such as `{ not = … }`, `{ min = … }`, `{ any = [ … ] }`.

use crate::{FieldId, IpVersion, MatchType, Value};

use super::diagnostic::{Diagnostic, Span};
use super::operand::{Kind, OPERAND_KEYS, Operand, Shape, Subject};
use super::reader::{Reader, list, parse_number};
use super::tree::{Key, Node, Table, Tree};

/// A condition before it is known which layers it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub span: Span,
    /// The version of IP of its addresses; none where it fits both.
    pub version: Option<IpVersion>,
    /// It stands under `not`: true of every address of the other version.
    pub negated: bool,
    pub match_type: MatchType,
    pub value: Value,
}

/// The keys that make a table a test.
const TEST_KEYS: [&str; 11] =
    ["not", "min", "max", "greater", "less", "prefix", "all", "any", "none", "empty", "ignore_case"];

impl Reader<'_> {
    /// The tests of one item of a field. Nothing where it does not read well, which is then reported.
    pub fn tests(&mut self, subject: &Subject, node: &Node, negated: bool) -> Vec<Test> {
        self.try_tests(subject, node, negated).unwrap_or_default()
    }

    fn try_tests(&mut self, subject: &Subject, node: &Node, negated: bool) -> Option<Vec<Test>> {
        match &node.value {
            Tree::List(_) => {
                let label = "expected a value or a test";
                self.fail(Diagnostic::error(node.span, "a list inside a list", label))
            }
            Tree::Table(table) if !is_operand(table) => self.test_table(subject, node, table, negated),
            _ => {
                let operand = self.operand(subject, node)?;
                self.plain(node.span, operand, negated)
            }
        }
    }

    /// The test for equality, or for being within a range.
    fn plain(&mut self, span: Span, operand: Operand, negated: bool) -> Option<Vec<Test>> {
        let version = operand.version;
        let test = |match_type, value| Test { span, version, negated, match_type, value };
        match (operand.shape, negated) {
            (Shape::One(value), false) => Some(vec![test(MatchType::Equal, value)]),
            (Shape::One(value), true) => Some(vec![test(MatchType::NotEqual, value)]),
            (Shape::Range(low, high), false) => Some(vec![test(MatchType::Range, Value::range(low, high))]),
            // Conditions on one field are OR-ed, which is what the outside of a range needs.
            (Shape::Range(low, high), true) => {
                let mut outside = Vec::new();
                if !is_lowest(&low) {
                    outside.push(test(MatchType::Less, low));
                }
                if !is_highest(&high) {
                    outside.push(test(MatchType::Greater, high));
                }
                if outside.is_empty() {
                    return self.fail(Diagnostic::error(
                        span,
                        "nothing is outside of this range",
                        "every value is in it",
                    ));
                }
                Some(outside)
            }
        }
    }

    fn test_table(&mut self, subject: &Subject, node: &Node, table: &Table, negated: bool) -> Option<Vec<Test>> {
        let known = [&TEST_KEYS[..], &OPERAND_KEYS[..]].concat();
        if table.entries.is_empty() {
            let error = Diagnostic::error(node.span, "an empty test", "expected one key");
            return self.fail(error.help(format!("the tests are {}", list(&TEST_KEYS))));
        }
        let before = self.errors();
        self.check_keys(table, "a test", &known);
        if self.errors() > before {
            return None;
        }
        if let (Some(min), Some(max), 2) = (table.get("min"), table.get("max"), table.entries.len()) {
            return self.between(subject, node, min, max, negated);
        }
        let [(key, inner)] = table.entries.as_slice() else {
            return self.too_many_tests(&table.entries);
        };
        match key.name.as_str() {
            "not" => self.not(subject, key, inner, negated),
            "min" => self.order(subject, inner, MatchType::GreaterOrEqual, MatchType::Less, negated),
            "max" => self.order(subject, inner, MatchType::LessOrEqual, MatchType::Greater, negated),
            "greater" => self.order(subject, inner, MatchType::Greater, MatchType::LessOrEqual, negated),
            "less" => self.order(subject, inner, MatchType::Less, MatchType::GreaterOrEqual, negated),
            "prefix" => self.prefix(subject, inner, negated),
            "ignore_case" => self.ignore_case(subject, key, inner, negated),
            "empty" => self.empty(key, inner, negated),
            _ => self.bits(subject, key, inner, negated),
        }
    }

    fn too_many_tests(&mut self, entries: &[(Key, Node)]) -> Option<Vec<Test>> {
        let (second, _) = entries.get(1)?;
        let (first, _) = entries.first()?;
        let error = Diagnostic::error(second.span, "two tests in one table", "a second test")
            .context(first.span, "the first")
            .help("only `min` and `max` go together; tests in a list are alternatives: `[{ … }, { … }]`");
        self.fail(error)
    }

    fn not(&mut self, subject: &Subject, key: &Key, inner: &Node, negated: bool) -> Option<Vec<Test>> {
        if negated {
            let label = "two of them cancel out";
            return self.fail(Diagnostic::error(key.span, "`not` inside `not`", label));
        }
        if let Tree::List(_) = inner.value {
            let error = Diagnostic::error(inner.span, "`not` with a list", "expected one value or one test")
                .note("conditions on one field are alternatives: \"not this or not that\" holds for nearly everything")
                .help("name what matches, or give a filter of higher weight to what does not");
            return self.fail(error);
        }
        self.try_tests(subject, inner, true)
    }

    /// One value, where a range or a network makes no sense.
    fn single(&mut self, subject: &Subject, node: &Node) -> Option<(Option<IpVersion>, Value)> {
        let operand = self.operand(subject, node)?;
        match operand.shape {
            Shape::One(Value::V4AddrMask { .. } | Value::V6AddrMask { .. }) | Shape::Range(..) => {
                let label = "neither a range nor a network can be compared by order";
                self.fail(Diagnostic::error(node.span, "not a single value", label))
            }
            Shape::One(value) => Some((operand.version, value)),
        }
    }

    fn order(
        &mut self,
        subject: &Subject,
        node: &Node,
        plain: MatchType,
        opposite: MatchType,
        negated: bool,
    ) -> Option<Vec<Test>> {
        let (version, value) = self.single(subject, node)?;
        let match_type = if negated { opposite } else { plain };
        Some(vec![Test { span: node.span, version, negated, match_type, value }])
    }

    fn between(&mut self, subject: &Subject, node: &Node, min: &Node, max: &Node, negated: bool) -> Option<Vec<Test>> {
        let low = self.single(subject, min);
        let high = self.single(subject, max);
        let ((version, low), (high_version, high)) = (low?, high?);
        if version != high_version {
            let error = Diagnostic::error(max.span, "range over two versions of IP", "the other version of IP");
            return self.fail(error.context(min.span, "one version of IP"));
        }
        if is_above(&low, &high) {
            let error = Diagnostic::error(max.span, "range upside down", "`max` is below `min`");
            return self.fail(error.context(min.span, "`min`"));
        }
        self.plain(node.span, Operand { version, shape: Shape::Range(low, high) }, negated)
    }

    fn prefix(&mut self, subject: &Subject, node: &Node, negated: bool) -> Option<Vec<Test>> {
        let match_type = if negated { MatchType::NotPrefix } else { MatchType::Prefix };
        let (version, value) = match (subject.kind, &node.value) {
            // A part of a path need not lead to a file.
            (Kind::Application, Tree::Text(text)) => (None, self.blob_text(node, text)?),
            _ => {
                let operand = self.operand(subject, node)?;
                match operand.shape {
                    Shape::One(value) => (operand.version, value),
                    Shape::Range(..) => {
                        return self.fail(Diagnostic::error(node.span, "not a prefix", "this is a range"));
                    }
                }
            }
        };
        Some(vec![Test { span: node.span, version, negated, match_type, value }])
    }

    fn ignore_case(&mut self, subject: &Subject, key: &Key, node: &Node, negated: bool) -> Option<Vec<Test>> {
        if negated {
            let label = "there is no test for the opposite";
            return self.fail(Diagnostic::error(key.span, "`ignore_case` inside `not`", label));
        }
        let (version, value) = match (subject.kind, &node.value) {
            (Kind::Application, Tree::Text(text)) => (None, self.blob_text(node, text)?),
            _ => self.single(subject, node)?,
        };
        let match_type = MatchType::EqualCaseInsensitive;
        Some(vec![Test { span: node.span, version, negated, match_type, value }])
    }

    fn empty(&mut self, key: &Key, node: &Node, negated: bool) -> Option<Vec<Test>> {
        if node.value != Tree::Boolean(true) {
            return self.wrong_kind(node, "`empty`", "`true`");
        }
        if negated {
            let error = Diagnostic::error(key.span, "`empty` inside `not`", "no test asks for this");
            return self.fail(error.note("every other test on a field is false while the field is empty"));
        }
        Some(vec![Test { span: key.span, version: None, negated, match_type: MatchType::Equal, value: Value::Empty }])
    }

    /// `all`, `any` and `none`.
    fn bits(&mut self, subject: &Subject, key: &Key, node: &Node, negated: bool) -> Option<Vec<Test>> {
        let mask = self.mask(subject, node)?;
        let match_type = match (key.name.as_str(), negated) {
            ("any", false) | ("none", true) => MatchType::FlagsAnySet,
            ("none", false) | ("any", true) => MatchType::FlagsNoneSet,
            (_, false) => MatchType::FlagsAllSet,
            (_, true) if mask.is_power_of_two() => MatchType::FlagsNoneSet,
            (_, true) => {
                let error = Diagnostic::error(key.span, "`all` inside `not`", "no test asks for this");
                return self.fail(error.help("alternatives do: `[{ none = [\"A\"] }, { none = [\"B\"] }]`"));
            }
        };
        let value = subject.number(mask);
        let version = (subject.kind == Kind::Address).then_some(IpVersion::V4);
        Some(vec![Test { span: node.span, version, negated, match_type, value }])
    }

    fn mask(&mut self, subject: &Subject, node: &Node) -> Option<u64> {
        let before = self.errors();
        let mut mask = 0;
        for element in self.one_or_many(node) {
            let field = subject.field.field;
            mask |= match &element.value {
                Tree::Text(name) if parse_number(name).is_none() => match field.find_flag(name) {
                    Some(bit) => u64::from(bit),
                    None => {
                        let error = Diagnostic::error(
                            element.span,
                            format!("unknown flag `{name}`"),
                            format!("`{field}` has no flag of this name"),
                        );
                        let nearest = field.nearest_flag(name);
                        let other = FieldId::all().find(|other| other.find_flag(name).is_some());
                        self.report(match (nearest, other) {
                            (None, Some(other)) => error.note(format!("it is a flag of `{other}`")),
                            _ => error.did_you_mean(nearest),
                        });
                        continue;
                    }
                },
                _ => self.integer(element, "a flag", subject.max()).unwrap_or(0),
            };
        }
        if self.one_or_many(node).is_empty() {
            self.report(Diagnostic::error(node.span, "no flags", "expected the names of flags"));
        }
        (self.errors() == before).then_some(mask)
    }
}

/// How a file asks for a match type, for messages.
pub(super) fn notation(match_type: MatchType) -> &'static str {
    match match_type {
        MatchType::Equal => "a value",
        MatchType::Greater => "`greater`",
        MatchType::Less => "`less`",
        MatchType::GreaterOrEqual => "`min`",
        MatchType::LessOrEqual => "`max`",
        MatchType::Range => "a range",
        MatchType::FlagsAllSet => "`all`",
        MatchType::FlagsAnySet => "`any`",
        MatchType::FlagsNoneSet => "`none`",
        MatchType::EqualCaseInsensitive => "`ignore_case`",
        MatchType::NotEqual => "`not`",
        MatchType::Prefix => "`prefix`",
        MatchType::NotPrefix => "`not` with `prefix`",
    }
}

fn is_lowest(value: &Value) -> bool {
    match value {
        Value::ByteArray16(bytes) => bytes.iter().all(|byte| *byte == 0),
        _ => value.as_integer() == Some(0),
    }
}

fn is_highest(value: &Value) -> bool {
    match value {
        Value::Uint8(number) => *number == u8::MAX,
        Value::Uint16(number) => *number == u16::MAX,
        Value::Uint32(number) => *number == u32::MAX,
        Value::Uint64(number) => *number == u64::MAX,
        Value::ByteArray16(bytes) => bytes.iter().all(|byte| *byte == u8::MAX),
        _ => false,
    }
}

fn is_operand(table: &Table) -> bool {
    matches!(table.entries.as_slice(), [(key, _)] if OPERAND_KEYS.contains(&key.name.as_str()))
}

/// Whether the first of two values of one field is above the second.
fn is_above(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::ByteArray16(first), Value::ByteArray16(second)) => first > second,
        _ => first.as_integer() > second.as_integer(),
    }
}
