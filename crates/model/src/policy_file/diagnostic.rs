//! Errors and warnings about a file, with the places in it that they are about.

use std::fmt;
use std::sync::Arc;

use super::render;

/// Bytes `start..end` of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }
}

impl From<std::ops::Range<usize>> for Span {
    fn from(range: std::ops::Range<usize>) -> Span {
        Span::new(range.start, range.end)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The file holds no policy.
    Error,
    /// The file holds a policy, perhaps not the one that was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// An underlined piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What stands beside the line.
    pub text: String,
}

/// One error or warning. The first label is the place that it is about, the others are context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub title: String,
    /// Where; never empty.
    pub labels: Vec<Label>,
    /// What else is to be known.
    pub notes: Vec<String>,
    /// What to do, such as the name that was probably meant.
    pub helps: Vec<String>,
}

impl Diagnostic {
    fn new(severity: Severity, title: String, span: Span, label: String) -> Diagnostic {
        let (title, label) = (shortened(title), shortened(label));
        Diagnostic { severity, title, labels: vec![Label { span, text: label }], notes: Vec::new(), helps: Vec::new() }
    }

    pub(super) fn error(span: Span, title: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Error, title.into(), span, label.into())
    }

    pub(super) fn warning(span: Span, title: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        Diagnostic::new(Severity::Warning, title.into(), span, label.into())
    }

    pub(super) fn context(mut self, span: Span, label: impl Into<String>) -> Diagnostic {
        self.labels.push(Label { span, text: shortened(label.into()) });
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(shortened(note.into()));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.helps.push(shortened(help.into()));
        self
    }

    /// Adds "did you mean", where a name is near enough.
    pub(super) fn did_you_mean(self, nearest: Option<impl AsRef<str>>) -> Diagnostic {
        match nearest {
            Some(name) => self.help(format!("did you mean `{}`?", name.as_ref())),
            None => self,
        }
    }

    /// The place that it is about.
    pub fn span(&self) -> Span {
        self.labels.first().map(|label| label.span).unwrap_or_default()
    }
}

/// A message with a name in it that may be as long as the file.
fn shortened(mut message: String) -> String {
    const LONGEST: usize = 1_000;
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST));
        message.push('…');
    }
    message
}

/// Everything that is wrong with one file, in the order of the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Diagnostics {
    name: Arc<str>,
    text: Arc<str>,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// `name` is how the file is called in messages, `text` is what the spans count in.
    pub(super) fn new(name: &str, text: &str, mut list: Vec<Diagnostic>) -> Diagnostics {
        list.sort_by_key(|diagnostic| diagnostic.span().start);
        // What holds for several layers is found at each of them.
        let mut kept: Vec<Diagnostic> = Vec::with_capacity(list.len());
        for diagnostic in list {
            let here = kept.iter().rev().take_while(|other| other.span().start == diagnostic.span().start);
            if !here.into_iter().any(|other| *other == diagnostic) {
                kept.push(diagnostic);
            }
        }
        Diagnostics { name: name.into(), text: text.into(), list: kept }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that the spans count in.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The number of errors and warnings.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The errors and warnings, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// The text for people, in the manner of rustc, with an empty line between two messages and none at the end;
    /// `color` adds terminal escapes. Control characters of the file are replaced.
    pub fn render(&self, color: bool) -> String {
        render::for_people(&self.name, &self.text, &self.list, color)
    }

    /// One JSON object a line: `severity`, `message`, `file`, `line` and `column` (from 1, columns in characters),
    /// `end_line`, `end_column`, `label`, `context` (a list of the same with `label`), `notes`, `helps`.
    pub fn to_json(&self) -> String {
        render::json_lines(&self.name, &self.text, &self.list)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diagnostics").field("name", &self.name).field("list", &self.list).finish_non_exhaustive()
    }
}

impl std::error::Error for Diagnostics {}
