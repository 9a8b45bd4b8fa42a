//! FieldsV1, the JSON form of a [`Set`], byte for byte as Kubernetes writes it.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/fieldpath/serialize.go` and `serialize-pe.go`.

use std::fmt;

use serde::{
    Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::Value;

use super::{
    element::PathElement,
    set::{Gathered, Set},
};

impl Set {
    /// Reads FieldsV1.
    pub(crate) fn from_fields<'de, D: Deserializer<'de>>(fields: D) -> Result<Self, D::Error> {
        Level.deserialize(fields).map(|(set, _)| set)
    }

    /// FieldsV1 as text.
    pub(crate) fn to_fields(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// Reads the paths of one level and whether the level itself is a member.
struct Level;

impl<'de> DeserializeSeed<'de> for Level {
    type Value = (Set, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = (Set, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of path elements")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut gathered, mut member) = (Gathered::default(), false);
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if key == "." {
                member = true;
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Some(element) = parse(&key).map_err(A::Error::custom)? else {
                // Another version may know what it means: it is dropped, as Kubernetes does.
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (below, is_member) = map.next_value_seed(Level)?;
            gathered.push(element, is_member, below);
        }
        let set = gathered.finish();
        let member = member || set.is_empty();
        Ok((set, member))
    }
}

/// Reads `f:name`, `k:{…}`, `v:…` or `i:0`; `None` for other kinds of elements.
pub(super) fn parse(text: &str) -> Result<Option<PathElement>, String> {
    let Some((kind, rest)) = text.split_at_checked(2) else {
        return Err("key must be 2 characters long:".to_owned());
    };
    let json = |what: &str| format!("{what} in {text:?} is no JSON");
    let element = match kind {
        "f:" => PathElement::field(rest),
        "v:" => PathElement::Value(serde_json::from_str(rest).map_err(|_| json("the value"))?),
        "k:" => {
            let keys: serde_json::Map<String, Value> = serde_json::from_str(rest).map_err(|_| json("the key"))?;
            let mut keys: Vec<(Box<str>, Value)> = keys.into_iter().map(|(k, v)| (k.into(), v)).collect();
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            PathElement::Key(keys.into())
        }
        "i:" => PathElement::Index(rest.parse().map_err(|_| format!("{text:?} holds no index"))?),
        _ if kind.ends_with(':') => return Ok(None),
        _ => return Err(format!("missing colon: {text}")),
    };
    Ok(Some(element))
}

/// The other way round.
pub(super) fn write(element: &PathElement) -> String {
    match element {
        PathElement::Field(name) => format!("f:{name}"),
        PathElement::Key(keys) => {
            let mut out = "k:{".to_owned();
            for (i, (name, value)) in keys.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(&**name).to_string());
                out.push(':');
                out.push_str(&escaped(value));
            }
            out.push('}');
            out
        }
        PathElement::Value(value) => format!("v:{}", escaped(value)),
        PathElement::Index(index) => format!("i:{index}"),
    }
}

fn escaped(value: &Value) -> String {
    escape_html(value_text(value))
}

/// JSON as Go writes it: whole numbers have no fraction, even if they came with one.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => match n.as_f64() {
            Some(f) if f.fract() == 0.0 && f.abs() < 1e15 => format!("{f:.0}"),
            _ => value.to_string(),
        },
        _ => value.to_string(),
    }
}

/// JSON with the characters escaped that Go escapes for HTML.
pub(super) fn escape_html(json: String) -> String {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Body { set: self, member: false }.serialize(serializer)
    }
}

/// What is written for a node: its own mark, if it has members below, and these.
struct Body<'a> {
    set: &'a Set,
    member: bool,
}

struct Empty;

impl Serialize for Empty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.member && !self.set.is_empty() {
            map.serialize_entry(".", &Empty)?;
        }
        for node in self.set.nodes() {
            map.serialize_entry(&write(&node.element), &Body { set: &node.below, member: node.member })?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Set, String> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let set = Set::from_fields(&mut reader).map_err(|e| e.to_string())?;
        reader.end().map_err(|e| e.to_string())?;
        Ok(set)
    }

    #[test]
    fn what_is_sorted_is_written_as_it_was_read() {
        for json in [
            "{}",
            r#"{"f:a":{}}"#,
            r#"{"f:aaa":{},"f:aab":{},"f:aac":{}}"#,
            r#"{"f:aaa":{"k:{\"name\":\"first\"}":{"i:3":{"v:3.1":{},"v:true":{},"v:null":{}}}}}"#,
            r#"{"f:spec":{"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}}"#,
            r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"a\"":{}}}}"#,
            r#"{"f:a":{".":{},"f:b":{}},"k:{\"n\":1}":{},"v:1":{},"v:\"x\"":{},"v:false":{},"v:[1]":{},"v:{}":{},"v:null":{},"i:0":{},"i:1":{}}"#,
            r#"{"k:{\"a\":\"1\\u003c2\"}":{},"v:\"\\u0026\"":{}}"#,
        ] {
            assert_eq!(read(json).unwrap().to_fields(), json);
        }
    }

    #[test]
    fn what_is_not_sorted_gets_sorted_and_unknown_elements_go() {
        for (json, expected) in [
            (r#"{"f:b":{},"f:a":{}}"#, r#"{"f:a":{},"f:b":{}}"#),
            (r#"{"i:1":{},"f:a":{"f:c":{},".":{}}}"#, r#"{"f:a":{".":{},"f:c":{}},"i:1":{}}"#),
            (r#"{"q:x":{"f:a":{}},"f:a":{}}"#, r#"{"f:a":{}}"#),
            (r#"{"f:a":{"q:x":{}}}"#, r#"{"f:a":{}}"#),
            (r#"{"k:{\"b\":1,\"a\":2}":{}}"#, r#"{"k:{\"a\":2,\"b\":1}":{}}"#),
            (r#"{"f:a":{"f:b":{}},"f:a":{"f:c":{}}}"#, r#"{"f:a":{"f:b":{},"f:c":{}}}"#),
        ] {
            assert_eq!(read(json).unwrap().to_fields(), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for json in
            ["", "[]", "1", r#"{"f":{}}"#, r#"{"fa":{}}"#, r#"{"i:x":{}}"#, r#"{"k:{":{}}"#, r#"{"f:a":1}"#, "{} {}"]
        {
            assert!(read(json).is_err(), "{json}");
        }
        assert_eq!(parse("ä"), Err("missing colon: ä".to_owned()));
    }
}
