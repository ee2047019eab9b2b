//! What every part of the reader needs: the report, and tables whose keys are known.

use crate::{Guid, names};

use super::Resolver;
use super::diagnostic::{Diagnostic, Span};
use super::tree::{Key, Node, Table, Tree};

/// Reads on after a mistake, and collects all of them.
pub(super) struct Reader<'a> {
    pub resolver: &'a dyn Resolver,
    /// The keys that filters refer to and that neither the file nor the platform has.
    pub elsewhere: Vec<Guid>,
    report: Vec<Diagnostic>,
    errors: usize,
}

impl<'a> Reader<'a> {
    pub fn new(resolver: &'a dyn Resolver, report: Vec<Diagnostic>) -> Reader<'a> {
        let errors = report.len();
        Reader { resolver, elsewhere: Vec::new(), report, errors }
    }

    pub fn report(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.severity == super::Severity::Error);
        self.report.push(diagnostic);
    }

    /// Reports an error and gives `None`, for `return`.
    pub fn fail<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.report(diagnostic);
        None
    }

    /// The number of errors so far: a part that raised it did not read well.
    pub fn errors(&self) -> usize {
        self.errors
    }

    pub fn into_report(self) -> Vec<Diagnostic> {
        self.report
    }

    /// The error for a value of the wrong kind. `what` names the value, `expected` says what is right.
    pub fn wrong_kind<T>(&mut self, node: &Node, what: &str, expected: &str) -> Option<T> {
        let title = format!("{what} cannot be {}", node.value.kind());
        self.fail(Diagnostic::error(node.span, title, format!("expected {expected}")))
    }

    pub fn text<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t str> {
        match &node.value {
            Tree::Text(text) => Some(text),
            _ => self.wrong_kind(node, what, "a string"),
        }
    }

    pub fn table<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t Table> {
        match &node.value {
            Tree::Table(table) => Some(table),
            _ => self.wrong_kind(node, what, "a table"),
        }
    }

    /// The elements of a list, or the one element that stands alone.
    pub fn one_or_many<'t>(&self, node: &'t Node) -> &'t [Node] {
        match &node.value {
            Tree::List(elements) => elements,
            _ => std::slice::from_ref(node),
        }
    }

    /// Reports the keys of a table that are not among the known ones.
    pub fn check_keys(&mut self, table: &Table, what: &str, known: &[&str]) {
        for (Key { span, name }, _) in &table.entries {
            if known.contains(&name.as_str()) {
                continue;
            }
            let error = Diagnostic::error(*span, format!("unknown key `{name}`"), format!("{what} has no such key"));
            let nearest = names::nearest(name, known.iter().copied());
            let error = match nearest {
                Some(_) => error.did_you_mean(nearest),
                None => error.help(format!("the keys of {what} are {}", list(known))),
            };
            self.report(error);
        }
    }

    /// The value of a key that must be there; `holder` is where the table stands.
    pub fn required<'t>(&mut self, table: &'t Table, holder: Span, what: &str, key: &str) -> Option<&'t Node> {
        match table.get(key) {
            Some(node) => Some(node),
            None => self.fail(Diagnostic::error(
                holder,
                format!("{what} without `{key}`"),
                format!("the key `{key}` is missing"),
            )),
        }
    }

    /// A name that is not empty.
    pub fn name<'t>(&mut self, table: &'t Table, holder: Span, what: &str) -> Option<(&'t str, Span)> {
        let node = self.required(table, holder, what, "name")?;
        let name = self.text(node, "`name`")?;
        if name.is_empty() {
            return self.fail(Diagnostic::error(node.span, format!("{what} without a name"), "the name is empty"));
        }
        Some((name, node.span))
    }

    /// The text of a key, empty where the key is absent or wrong.
    pub fn optional_text(&mut self, table: &Table, key: &str) -> String {
        let node = table.get(key);
        node.and_then(|node| self.text(node, &format!("`{key}`"))).unwrap_or_default().to_owned()
    }

    /// The GUID of `key`, where it is given.
    pub fn key(&mut self, table: &Table) -> Option<(Guid, Span)> {
        let node = table.get("key")?;
        let text = self.text(node, "`key`")?;
        match text.parse() {
            Ok(guid) => Some((guid, node.span)),
            Err(_) => self.fail(not_a_guid(node.span)),
        }
    }

    /// An integer within limits, also as a string in decimal or with `0x`.
    pub fn integer(&mut self, node: &Node, what: &str, max: u64) -> Option<u64> {
        let number = match &node.value {
            Tree::Integer(number) => Some(*number),
            Tree::Text(text) => parse_number(text).map(|number| number.try_into().unwrap_or(i128::MAX)),
            _ => None,
        };
        let Some(number) = number else {
            return self.wrong_kind(node, what, &format!("an integer from 0 to {max}"));
        };
        match u64::try_from(number) {
            Ok(number) if number <= max => Some(number),
            _ => self.fail(Diagnostic::error(
                node.span,
                format!("{what} is out of range"),
                format!("expected an integer from 0 to {max}"),
            )),
        }
    }

    /// Flags by name, with or without their public prefix.
    pub fn flags(&mut self, table: &Table, prefix: &str, known: &[(&str, u32)]) -> u32 {
        let Some(node) = table.get("flags") else { return 0 };
        let mut mask = 0;
        for element in self.one_or_many(node) {
            let Some(name) = self.text(element, "a flag") else { continue };
            let short = names::without_prefix(name, prefix);
            match known.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(short)) {
                Some((_, bit)) => mask |= bit,
                None => {
                    let all: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    let error =
                        Diagnostic::error(element.span, format!("unknown flag `{name}`"), "there is no such flag here");
                    let nearest = names::nearest(short, all.iter().copied());
                    self.report(match nearest {
                        Some(_) => error.did_you_mean(nearest),
                        None => error.help(format!("the flags are {}", list(&all))),
                    });
                }
            }
        }
        mask
    }
}

/// The builder with one more part, where the part is given.
pub(super) fn with<B, P>(builder: B, part: Option<P>, add: impl FnOnce(B, P) -> B) -> B {
    match part {
        Some(part) => add(builder, part),
        None => builder,
    }
}

/// An error of the model, whose text is what is wrong and, after the last colon, what to do.
pub(super) fn from_model(span: Span, label: &str, error: &dyn std::error::Error) -> Diagnostic {
    let text = error.to_string();
    match text.rsplit_once(": ") {
        Some((wrong, advice)) => Diagnostic::error(span, wrong, label).help(advice),
        None => Diagnostic::error(span, text, label),
    }
}

/// The error for a text in the place of a GUID.
pub(super) fn not_a_guid(span: Span) -> Diagnostic {
    Diagnostic::error(span, "not a GUID", "expected 8-4-4-4-12 hexadecimal digits, with or without braces")
}

/// A number as texts hold it: decimal, or hexadecimal with `0x`.
pub(super) fn parse_number(text: &str) -> Option<u128> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` takes a sign as well.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, radix).ok()
}

/// "`a`, `b` and `c`"
pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}
