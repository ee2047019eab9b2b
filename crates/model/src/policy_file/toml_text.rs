//! A tree of JSON as a TOML document.

use serde_json::{Map, Value};

/// Tables that get a header of their own within an element of a list; others stand in one line.
const SECTIONS: [&str; 2] = ["when", "settings"];

/// The document: first what is no list of tables, then the lists, each element with a header.
pub(super) fn document(root: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (key, value) in root.iter().filter(|(_, value)| !is_list_of_tables(value)) {
        line(&mut text, key, value);
    }
    for (key, value) in root {
        let Value::Array(elements) = value else { continue };
        for element in elements.iter().filter_map(Value::as_object) {
            section(&mut text, &format!("[[{}]]", bare_or_quoted(key)), element, &SECTIONS);
            for (inner, table) in sections(element) {
                section(&mut text, &format!("[{}.{}]", bare_or_quoted(key), bare_or_quoted(inner)), table, &[]);
            }
        }
    }
    text
}

fn is_list_of_tables(value: &Value) -> bool {
    value.as_array().is_some_and(|elements| elements.iter().all(Value::is_object))
}

fn sections(table: &Map<String, Value>) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
    table
        .iter()
        .filter(|(key, _)| SECTIONS.contains(&key.as_str()))
        .filter_map(|(key, value)| Some((key, value.as_object()?)))
}

fn section(text: &mut String, header: &str, table: &Map<String, Value>, left_out: &[&str]) {
    if !text.is_empty() && header.starts_with("[[") {
        text.push('\n');
    }
    text.push_str(header);
    text.push('\n');
    for (key, value) in table.iter().filter(|(key, _)| !left_out.contains(&key.as_str())) {
        line(text, key, value);
    }
}

fn line(text: &mut String, key: &str, value: &Value) {
    text.push_str(&bare_or_quoted(key));
    text.push_str(" = ");
    inline(text, value);
    text.push('\n');
}

fn inline(text: &mut String, value: &Value) {
    match value {
        // TOML has no null; no policy has one either.
        Value::Null => text.push_str("\"\""),
        Value::Bool(boolean) => text.push_str(if *boolean { "true" } else { "false" }),
        // Integers of TOML have a sign.
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (None, Some(large)) => text.push_str(&format!("\"{large:#x}\"")),
            _ => text.push_str(&number.to_string()),
        },
        Value::String(string) => text.push_str(&quoted(string)),
        Value::Array(elements) => {
            let parts = elements.iter().map(one);
            text.push_str(&format!("[{}]", parts.collect::<Vec<_>>().join(", ")));
        }
        Value::Object(table) if table.is_empty() => text.push_str("{}"),
        Value::Object(table) => {
            let parts = table.iter().map(|(key, value)| format!("{} = {}", bare_or_quoted(key), one(value)));
            text.push_str(&format!("{{ {} }}", parts.collect::<Vec<_>>().join(", ")));
        }
    }
}

fn one(value: &Value) -> String {
    let mut text = String::new();
    inline(&mut text, value);
    text
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => quoted(key),
    }
}

/// A basic string. Its escapes are those of JSON, which however leaves one control character as it is.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document() {
        let root = json!({
            "provider": {"name": "acme", "flags": ["PERSISTENT"]},
            "callout": [{"name": "é \"x\"\n\u{7f}", "settings": {"a b": [1, {"c": true}]}}],
            "filter": [{"name": "x", "when": {"F": {"min": u64::MAX}}, "weight": 3}, {"name": "y", "empty": {}}],
        });
        let expected = r#"provider = { name = "acme", flags = ["PERSISTENT"] }

[[callout]]
name = "é \"x\"\n\u007f"
[callout.settings]
"a b" = [1, { c = true }]

[[filter]]
name = "x"
weight = 3
[filter.when]
F = { min = "0xffffffffffffffff" }

[[filter]]
name = "y"
empty = {}
"#;
        assert_eq!(document(root.as_object().unwrap()), expected);
    }
}
