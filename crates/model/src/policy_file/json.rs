//! JSON into the tree.

use jsonc_parser::ast::{ObjectPropName, Value};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::diagnostic::{Diagnostic, Span};
use super::tree::{Key, Node, Table, Tree};

/// JSON of RFC 8259 and nothing beyond it.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The title of the one error that both parsers have.
const TOO_LARGE: &str = "number too large";

/// The tree of a JSON text. The parser stops at the first mistake of syntax, which is then the only one reported.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let mut report = Vec::new();
    match parse_to_ast(text, &CollectOptions::default(), &STRICT) {
        Ok(result) => {
            let root = result.value.map(|value| node(&value, &mut report));
            // The parser lets control characters pass in strings, and other space than that of JSON.
            let strict = serde_json::from_str::<serde_json::Value>(text);
            if let Err(error) = strict
                && report.iter().all(|reported| reported.title != TOO_LARGE)
            {
                report.push(refused(text, &error));
            }
            (root, report)
        }
        Err(error) => {
            let mut label = error.kind().to_string();
            if let Some(first) = label.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            (None, vec![Diagnostic::error(span(error.range()), "invalid JSON", label)])
        }
    }
}

/// The error of the parser that has no places but lines and columns, which it counts in bytes.
fn refused(text: &str, error: &serde_json::Error) -> Diagnostic {
    let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = (line + error.column().saturating_sub(1)).min(text.len());
    let label = error.to_string();
    // It says the place as well.
    let label = label.rsplit_once(" at line ").map_or(label.as_str(), |(label, _)| label);
    Diagnostic::error(Span::new(at, at + 1), "invalid JSON", label)
}

fn span(range: Range) -> Span {
    Span::new(range.start, range.end)
}

fn node(value: &Value<'_>, report: &mut Vec<Diagnostic>) -> Node {
    let span = span(value.range());
    let value = match value {
        Value::NullKeyword(_) => Tree::Null,
        Value::BooleanLit(literal) => Tree::Boolean(literal.value),
        Value::StringLit(literal) => Tree::Text(literal.value.to_string()),
        Value::NumberLit(literal) => number(literal.value, span, report),
        Value::Array(array) => Tree::List(array.elements.iter().map(|element| node(element, report)).collect()),
        Value::Object(object) => {
            let mut entries = Vec::new();
            for property in &object.properties {
                let name = match &property.name {
                    ObjectPropName::String(name) => name.value.to_string(),
                    ObjectPropName::Word(name) => name.value.to_owned(),
                };
                let key = Key { span: self::span(property.name.range()), name };
                entries.push((key, node(&property.value, report)));
            }
            Tree::Table(Table::from_entries(entries, report))
        }
    };
    Node { span, value }
}

fn number(text: &str, span: Span, report: &mut Vec<Diagnostic>) -> Tree {
    if text.contains(['.', 'e', 'E']) {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => return Tree::Float(number),
            _ => {}
        }
    } else if let Ok(number) = text.parse() {
        return Tree::Integer(number);
    }
    report.push(Diagnostic::error(span, TOO_LARGE, "no value of a policy is this large"));
    Tree::Integer(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    const TEXT: &str = r#"{"a": [1, -2.5e3, "é\n\u00e9😀", true, null], "b": {"c": {}, "d": []}, "e": false}"#;

    fn mutation() -> impl Strategy<Value = String> {
        let pieces = [
            "{", "}", "[", "]", ":", ",", "\"", "'", "\\", "\\u", "\\ud83d", "\\x41", "0", "01", "-", "+", ".", "e",
            "1", "1e", "0x1", ".5", "5.", "NaN", "Infinity", "true", "nul", "a", "\"a\": 1", "/", "//", "/*", "*/",
            "#", " ", "\n", "\r", "\t", "\0", "\u{b}", "\u{a0}", "\u{feff}", "\u{2028}", "é", "",
        ];
        let changes = prop::collection::vec((any::<Index>(), 0..4usize, select(pieces.to_vec())), 1..4);
        changes.prop_map(|changes| {
            let mut text: Vec<char> = TEXT.chars().collect();
            for (at, out, put) in changes {
                let at = at.index(text.len() + 1);
                let end = (at + out).min(text.len());
                text.splice(at..end, put.chars());
            }
            text.into_iter().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_json_is_what_another_parser_takes_for_json(text in mutation()) {
            let ours = parse(&text).1.iter().all(|error| error.title.starts_with("duplicate key"));
            let theirs: Result<serde_json::Value, _> = serde_json::from_str(&text);
            prop_assert_eq!(ours, theirs.is_ok(), "{} {:?}", text, theirs);
        }
    }
}
