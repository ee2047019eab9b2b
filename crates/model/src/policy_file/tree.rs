//! The tree that TOML and JSON have in common, each part with its place in the text.

use std::collections::HashMap;

use super::diagnostic::{Diagnostic, Span};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub span: Span,
    pub value: Tree,
}

impl Node {
    pub fn is_text(&self) -> bool {
        matches!(self.value, Tree::Text(_))
    }

    /// The name of an object, where it has one.
    pub fn name(&self) -> Option<(&str, Span)> {
        let Tree::Table(table) = &self.value else { return None };
        match table.get("name") {
            Some(Node { span, value: Tree::Text(name) }) => Some((name, *span)),
            _ => None,
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    /// TOML has a type for dates; the text as written.
    DateTime(String),
    Text(String),
    List(Vec<Node>),
    Table(Table),
}

impl Tree {
    /// The kind, as messages call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Tree::Null => "null",
            Tree::Boolean(_) => "a boolean",
            Tree::Integer(_) => "an integer",
            Tree::Float(_) => "a fraction",
            Tree::DateTime(_) => "a date",
            Tree::Text(_) => "a string",
            Tree::List(_) => "a list",
            Tree::Table(_) => "a table",
        }
    }
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub span: Span,
    pub name: String,
}

/// Keys with their values, in the order of the text, no key twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub entries: Vec<(Key, Node)>,
}

impl Table {
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    pub fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }

    /// A table of these entries. A key that is there already is left out and reported.
    pub fn from_entries(all: impl IntoIterator<Item = (Key, Node)>, report: &mut Vec<Diagnostic>) -> Table {
        let mut first: HashMap<String, Span> = HashMap::new();
        let mut entries = Vec::new();
        for (key, node) in all {
            match first.get(&key.name) {
                Some(earlier) => report.push(duplicate_key(&key.name, key.span, Some(*earlier))),
                None => {
                    first.insert(key.name.clone(), key.span);
                    entries.push((key, node));
                }
            }
        }
        Table { entries }
    }
}

/// The error for a key that stands twice in a table.
pub(super) fn duplicate_key(name: &str, span: Span, first: Option<Span>) -> Diagnostic {
    let error = Diagnostic::error(span, format!("duplicate key `{name}`"), "this key is already in the table");
    match first {
        Some(first) => error.context(first, "first given here"),
        None => error,
    }
}
