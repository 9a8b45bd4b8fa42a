//! Files of manifests: several YAML documents or JSON objects in one text, with the place of every mistake.
//!
//! Lists (`kind: List`, `kind: PodList`) are expanded to their items. Empty documents are left out. Aliases are
//! expanded within bounds.

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::tree::{Duplicates, Tree};

/// Most documents in one text.
pub const DOCUMENTS_MAX: usize = 10_000;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// Which document of the text, from one.
    pub document: usize,
    /// Line in the text, from one; zero when unknown.
    pub line: usize,
    /// Column, from one; zero when unknown.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// The objects of a text.
///
/// # Errors
/// The first mistake of form: bad YAML, a field that stands twice, something that is no object.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let raw = if text.trim_start().starts_with('{') { braced_documents(text)? } else { yaml_documents(text)? };
    let mut out = Vec::new();
    for (index, value) in raw.into_iter().enumerate() {
        expand(value, index + 1, &mut out)?;
    }
    Ok(out)
}

fn yaml_documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut out = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        check_count(index)?;
        let value = Tree::new(&mut Duplicates::Refuse).deserialize(document).map_err(|e| {
            let (line, column) = e.location().map_or((0, 0), |l| (l.line(), l.column()));
            let suffix = format!(" at line {line} column {column}");
            YamlError { document: index + 1, line, column, message: e.to_string().replacen(&suffix, "", 1) }
        })?;
        out.push(value);
    }
    Ok(out)
}

/// JSON, or YAML in braces. Of two errors that of JSON counts, if the first key is quoted as JSON's are.
fn braced_documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let is_json = text.trim_start()[1..].trim_start().starts_with('"');
    json_documents(text).or_else(|json| yaml_documents(text).map_err(|yaml| if is_json { json } else { yaml }))
}

fn json_documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut out = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    loop {
        if deserializer.end().is_ok() {
            return Ok(out);
        }
        check_count(out.len())?;
        let value = Tree::new(&mut Duplicates::Refuse).deserialize(&mut deserializer).map_err(|e| {
            let suffix = format!(" at line {} column {}", e.line(), e.column());
            let message = e.to_string().replacen(&suffix, "", 1);
            YamlError { document: out.len() + 1, line: e.line(), column: e.column(), message }
        })?;
        out.push(value);
    }
}

fn check_count(index: usize) -> Result<(), YamlError> {
    if index < DOCUMENTS_MAX {
        return Ok(());
    }
    let message = format!("more than {DOCUMENTS_MAX} documents");
    Err(YamlError { document: index + 1, line: 0, column: 0, message })
}

fn expand(value: Value, document: usize, out: &mut Vec<Value>) -> Result<(), YamlError> {
    match value {
        Value::Null => Ok(()),
        Value::Object(mut fields) => {
            let is_list = fields.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
            match fields.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) if is_list => {
                    items.into_iter().try_for_each(|item| expand(item, document, out))
                }
                Some(items) => {
                    fields.insert("items".to_owned(), items);
                    out.push(Value::Object(fields));
                    Ok(())
                }
                None => {
                    out.push(Value::Object(fields));
                    Ok(())
                }
            }
        }
        other => {
            let message = format!("document {document} is no object but {}", type_name(&other));
            Err(YamlError { document, line: 0, column: 0, message })
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_several_documents() {
        for (text, expected) in [
            ("", vec![]),
            ("---\n---\n# nothing\n", vec![]),
            ("kind: A\n---\nkind: B\n", vec![json!({"kind": "A"}), json!({"kind": "B"})]),
            ("{\"kind\": \"A\"}\n\t{\"kind\": \"B\"}", vec![json!({"kind": "A"}), json!({"kind": "B"})]),
            (
                "kind: List\nitems:\n- kind: A\n- kind: PodList\n  items: [{kind: B}]\n",
                vec![json!({"kind": "A"}), json!({"kind": "B"})],
            ),
            ("kind: ConfigMap\nitems: 1\n", vec![json!({"kind": "ConfigMap", "items": 1})]),
            ("{kind: A}\n---\n{kind: B}\n", vec![json!({"kind": "A"}), json!({"kind": "B"})]),
            ("a: &x {b: 1}\nc: *x\n", vec![json!({"a": {"b": 1}, "c": {"b": 1}})]),
        ] {
            assert_eq!(documents(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, document, shown) in [
            ("kind: A\n---\na:\n  b: c: d\n", 2, "line 4, column 7: mapping values are not allowed in this context"),
            ("a: 1\nb: 2\na: 3\n", 1, "line 3, column 1: duplicate field \"a\""),
            ("- a\n", 1, "line 0, column 0: document 1 is no object but a list"),
            ("{\"a\":\n ]}", 1, "line 2, column 2: expected value"),
        ] {
            let error = documents(text).unwrap_err();
            assert_eq!((error.document, error.to_string().as_str()), (document, shown), "{text}");
        }
    }

    #[test]
    fn no_billion_laughs() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
        }
        assert!(documents(&text).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c:{}\\[\\]&*!|>\"' \n-]{0,60}") {
            let _ = documents(&text);
        }
    }
}
