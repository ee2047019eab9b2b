//! Diagnostics as text for people and as JSON Lines.

use std::borrow::Cow;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

use super::diagnostic::{Diagnostic, Label, Severity, Span};

/// Labels at most this many lines apart are drawn in one piece of the text.
const ONE_PIECE: usize = 10;

/// A longer line is named, not drawn: drawing takes time in its length, for each message anew.
const LONGEST_LINE: usize = 1 << 14;

pub(super) fn for_people(name: &str, text: &str, list: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let name = without_c1(name);
    let text = without_c1(text);
    let lines = Lines::of(&text);
    let messages: Vec<String> = list
        .iter()
        .map(|diagnostic| {
            let message = renderer.render(&[group(&name, &lines, diagnostic)]);
            // The drawing pads empty lines.
            message.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
        })
        .collect();
    messages.join("\n\n")
}

/// The text with a mark in the place of the control characters U+0080 to U+009F, some of which terminals obey (U+009B
/// begins an escape). The drawing replaces all others itself. The mark has as many bytes, so that places stay the same.
fn without_c1(text: &str) -> Cow<'_, str> {
    let is_c1 = |letter: char| ('\u{80}'..='\u{9f}').contains(&letter);
    match text.contains(is_c1) {
        true => text.replace(is_c1, "\u{bf}").into(),
        false => text.into(),
    }
}

fn clean(text: &str) -> String {
    normalize_untrusted_str(&without_c1(text))
}

fn group<'a>(name: &'a str, lines: &Lines<'a>, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let notes = diagnostic.notes.iter().map(|note| Level::NOTE.message(clean(note)));
    let helps = diagnostic.helps.iter().map(|help| Level::HELP.message(clean(help)));
    level
        .primary_title(without_c1(&diagnostic.title))
        .elements(pieces(name, lines, &diagnostic.labels))
        .elements(notes)
        .elements(helps)
}

/// The pieces of the text that hold the labels, the one of the first label first.
fn pieces<'a>(name: &'a str, lines: &Lines<'a>, labels: &'a [Label]) -> Vec<Element<'a>> {
    let mut pieces: Vec<(usize, Vec<&Label>)> = Vec::new();
    for label in labels {
        let line = lines.of_byte(label.span.start);
        match pieces.iter_mut().find(|(there, _)| there.abs_diff(line) <= ONE_PIECE) {
            Some((_, together)) => together.push(label),
            None => pieces.push((line, vec![label])),
        }
    }
    let first = labels.first();
    pieces.into_iter().flat_map(|(_, together)| piece(name, lines, &together, first)).collect()
}

fn piece<'a>(name: &'a str, lines: &Lines<'a>, labels: &[&'a Label], first: Option<&Label>) -> Vec<Element<'a>> {
    let on = labels.iter().map(|label| lines.of_byte(label.span.start));
    let (from, to) = (on.clone().min().unwrap_or(0), on.max().unwrap_or(0));
    let (start, end) = (lines.starts[from], lines.end(to));
    if end - start > LONGEST_LINE {
        let mut named = Vec::new();
        for label in labels {
            let (line, column) = lines.position(label.span.start);
            named.push(Origin::path(name).line(line).char_column(column).into());
            named.push(Level::NOTE.message(clean(&label.text)).into());
        }
        return named;
    }
    let annotations = labels.iter().map(|label| {
        let is_first = first.is_some_and(|first| std::ptr::eq(first, *label));
        let kind = if is_first { AnnotationKind::Primary } else { AnnotationKind::Context };
        let span = lines.drawn(label.span);
        kind.span(span.start - start..span.end - start).label(clean(&label.text))
    });
    let source = &lines.text[start..end];
    vec![Snippet::source(source).path(name).line_start(from + 1).annotations(annotations).into()]
}

pub(super) fn json_lines(name: &str, text: &str, list: &[Diagnostic]) -> String {
    let lines = Lines::of(text);
    let mut all = String::new();
    for diagnostic in list {
        let Some((first, context)) = diagnostic.labels.split_first() else { continue };
        let mut object = json!({
            "severity": diagnostic.severity.name(),
            "message": diagnostic.title,
            "file": name,
        });
        if let (Some(object), Value::Object(place)) = (object.as_object_mut(), label_json(&lines, first)) {
            object.extend(place);
            object.insert("context".to_owned(), context.iter().map(|label| label_json(&lines, label)).collect());
            object.insert("notes".to_owned(), diagnostic.notes.clone().into());
            object.insert("helps".to_owned(), diagnostic.helps.clone().into());
        }
        all.push_str(&object.to_string());
        all.push('\n');
    }
    all
}

fn label_json(lines: &Lines<'_>, label: &Label) -> Value {
    let (line, column) = lines.position(label.span.start);
    let (end_line, end_column) = lines.position(label.span.end);
    json!({"line": line, "column": column, "end_line": end_line, "end_column": end_column, "label": label.text})
}

/// Where the lines of a text start. Any span may be asked for: it is brought within the text and onto the borders of
/// characters.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Lines { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The index of the line that the byte stands on.
    fn of_byte(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte).saturating_sub(1)
    }

    /// The end of a line, without the characters that end it.
    fn end(&self, line: usize) -> usize {
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        match self.text[..end].strip_suffix('\r') {
            Some(shorter) if line + 1 < self.starts.len() => shorter.len().max(self.starts[line]),
            _ => end,
        }
    }

    /// The part of a span that is drawn: what stands on its first line.
    fn drawn(&self, span: Span) -> Span {
        let line = self.of_byte(span.start.min(self.text.len()));
        let start = self.text.floor_char_boundary(span.start.min(self.end(line)));
        let end = self.text.ceil_char_boundary(span.end.clamp(start, self.end(line)));
        Span::new(start, end)
    }

    /// Line and column from 1, the column in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let byte = self.text.floor_char_boundary(byte.min(self.text.len()));
        let line = self.of_byte(byte);
        (line + 1, self.text[self.starts[line]..byte].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, start: usize, end: usize) -> String {
        let error = Diagnostic::error(Span::new(start, end), "title", "label").help("help");
        for_people("file", text, &[error], false)
    }

    #[test]
    fn the_first_line_of_a_place_is_underlined() {
        let expected = "error: title\n --> file:2:2\n  |\n2 | bcd\n  |  ^^ label\n  |\n  = help: help";
        assert_eq!(error("a\nbcd\nef\n", 3, 8), expected);
    }

    #[test]
    fn any_place_can_be_drawn() {
        for text in ["", "\n", "a", "é", "a\r\n", "\r\n\r\n", "é\u{9b}\u{202e}\t\0\n日本"] {
            for start in 0..text.len() + 2 {
                for end in 0..text.len() + 2 {
                    assert!(error(text, start, end).starts_with("error: title\n"), "{text:?} {start} {end}");
                }
            }
        }
    }

    #[test]
    fn control_characters_are_replaced() {
        let drawn = error("a = \"\u{9b}31m\u{1b}[31m\u{7}\"", 4, 20);
        assert!(!drawn.contains(|letter: char| letter.is_control() && letter != '\n'), "{drawn:?}");
    }

    #[test]
    fn a_long_line_is_named() {
        let text = format!("x\n{}", "y".repeat(100_000));
        assert_eq!(error(&text, 50_002, 50_003), "error: title\n--> file:2:50001\n = note: label\n = help: help");
    }

    #[test]
    fn distant_places_are_drawn_apart() {
        let text = "a\n".repeat(1000);
        let error = Diagnostic::error(Span::new(1998, 1999), "title", "here").context(Span::new(0, 1), "there");
        let drawn = for_people("file", &text, &[error], false);
        assert_eq!(
            drawn,
            "error: title\n    --> file:1000:1\n     |\n1000 | a\n     | ^ here\n     |\n    ::: file:1:1\n     |\n   1 | a\n     \
             | - there"
        );
    }

    #[test]
    fn places_in_json() {
        let error = Diagnostic::error(Span::new(4, 6), "title", "label").context(Span::new(0, 1), "there");
        let line = json_lines("file", "é\n日\n", &[error]);
        let expected = json!({
            "severity": "error", "message": "title", "file": "file", "line": 2, "column": 1, "end_line": 2, "end_column": 2,
            "label": "label",
            "context": [{"line": 1, "column": 1, "end_line": 1, "end_column": 1, "label": "there"}],
            "notes": [], "helps": [],
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }
}
