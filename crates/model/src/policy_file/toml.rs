//! TOML into the tree.

use ::toml::Spanned;
use ::toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Span};
use super::tree::{Key, Node, Table, Tree, duplicate_key};

/// What the parser says of a key that is there already.
const DUPLICATE: &str = "duplicate key";

/// Only for so many duplicates the first of the two is looked up, as each look costs another pass over the text.
const LOOKED_UP: usize = 16;

/// The tree of a TOML text with all the mistakes of syntax that the parser yields. It recovers after a mistake, by a
/// guess: so the tree of a text with other mistakes than duplicate keys is not handed out, as what it holds may not be
/// what is written.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut report = Vec::new();
    let mut duplicates = 0;
    for error in &errors {
        let span = Span::from(error.span().unwrap_or_default());
        if error.message() == DUPLICATE {
            duplicates += 1;
            let first = if duplicates <= LOOKED_UP { first_of_two(text, span) } else { None };
            let name = text.get(span.start..span.end).unwrap_or_default();
            report.push(duplicate_key(name, span, first));
        } else {
            report.push(Diagnostic::error(span, "invalid TOML", error.message()));
        }
    }
    if duplicates < errors.len() {
        return (None, report);
    }
    let root = Tree::Table(table(document.get_ref(), &mut report));
    (Some(Node { span: Span::new(0, text.len()), value: root }), report)
}

fn table(source: &DeTable<'_>, report: &mut Vec<Diagnostic>) -> Table {
    let mut entries: Vec<(Key, Node)> = source
        .iter()
        .map(|(key, value)| {
            let key = Key { span: key.span().into(), name: key.get_ref().to_string() };
            (key, node(value, report))
        })
        .collect();
    // The parser's table is sorted by name.
    entries.sort_by_key(|(key, _)| key.span.start);
    Table { entries }
}

fn node(source: &Spanned<DeValue<'_>>, report: &mut Vec<Diagnostic>) -> Node {
    let span = Span::from(source.span());
    let value = match source.get_ref() {
        DeValue::String(text) => Tree::Text(text.to_string()),
        DeValue::Boolean(boolean) => Tree::Boolean(*boolean),
        DeValue::Datetime(date) => Tree::DateTime(date.to_string()),
        DeValue::Integer(integer) => integer_of(integer, span, report),
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(number) => Tree::Float(number),
            Err(_) => bad_number(span, report),
        },
        DeValue::Array(array) => Tree::List(array.iter().map(|element| node(element, report)).collect()),
        DeValue::Table(inner) => Tree::Table(table(inner, report)),
    };
    Node { span, value }
}

fn integer_of(integer: &DeInteger<'_>, span: Span, report: &mut Vec<Diagnostic>) -> Tree {
    match i128::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) => Tree::Integer(number),
        Err(_) => bad_number(span, report),
    }
}

fn bad_number(span: Span, report: &mut Vec<Diagnostic>) -> Tree {
    report.push(Diagnostic::error(span, "invalid number", "not a number that a policy can hold"));
    Tree::Integer(0)
}

/// Where the key at `second`, which is a duplicate, stands for the first time.
///
/// The parser does not say. But with another key in its place the text parses, and the first is the one beside it.
fn first_of_two(text: &str, second: Span) -> Option<Span> {
    const STAND_IN: &str = "\"\\u0000stand-in\"";
    let name = text.get(second.start..second.end)?;
    let name = match DeTable::parse(&format!("{name} = 0")) {
        Ok(table) => table.get_ref().keys().next()?.get_ref().to_string(),
        Err(_) => return None,
    };
    let changed = [text.get(..second.start)?, STAND_IN, text.get(second.end..)?].concat();
    let (document, _) = DeTable::parse_recoverable(&changed);
    first_beside(document.get_ref(), &name, second.start)
}

/// The span of the key `name` in the table that has a key at `place`.
fn first_beside(table: &DeTable<'_>, name: &str, place: usize) -> Option<Span> {
    if table.keys().any(|key| key.span().start == place) {
        return table.keys().find(|key| key.get_ref() == name).map(|key| key.span().into());
    }
    table.values().find_map(|value| first_inside(value.get_ref(), name, place))
}

fn first_inside(value: &DeValue<'_>, name: &str, place: usize) -> Option<Span> {
    match value {
        DeValue::Table(table) => first_beside(table, name, place),
        DeValue::Array(array) => array.iter().find_map(|element| first_inside(element.get_ref(), name, place)),
        _ => None,
    }
}
