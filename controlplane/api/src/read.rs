//! Reading request bodies: JSON, YAML or protobuf to a tree, with the fields that stand twice, and what field
//! validation makes of unknown and duplicate fields.
//!
//! One object only; [`crate::yaml`] reads files of several documents.

use std::str::FromStr;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::{
    error::{ApiError, Reason},
    kind::Names,
    protobuf,
    tree::{Duplicates, Order, Tree},
};

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Media {
    /// The media types that bodies come in.
    pub const TYPES: [&'static str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

    /// The format that a `Content-Type` names; JSON when it is absent.
    ///
    /// # Errors
    /// 415 for other types.
    pub fn of(content_type: Option<&str>) -> Result<Self, ApiError> {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Self::Yaml),
            protobuf::MEDIA_TYPE => Ok(Self::Protobuf),
            _ => {
                let known = Self::TYPES.join(", ");
                let message =
                    format!("the body of the request was in an unknown format - accepted media types include: {known}");
                Err(ApiError::new(Reason::UnsupportedMediaType, message))
            }
        }
    }
}

/// A body as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The object.
    pub value: Value,
    /// Paths of the fields that stand more than once, for example `spec.replicas`. The last value counts.
    pub duplicates: Vec<String>,
}

/// Duplicates of which YAML's lines are told.
const LINES_MAX: usize = 10;

impl Body {
    /// What is wrong with the fields of a body: those that its kind does not have (`unknown`) and those that stand
    /// twice, worded and ordered as Kubernetes does: JSON as it comes, YAML with the duplicates first. `media` and
    /// `bytes`: what the body was read from.
    ///
    /// # Source
    /// Kubernetes `apimachinery/pkg/runtime/serializer/json/json.go` (`unmarshal`).
    pub fn findings(&self, unknown: &[String], media: Media, bytes: &[u8]) -> Vec<String> {
        if self.duplicates.is_empty() && unknown.is_empty() {
            return Vec::new();
        }
        let mut order = Order { unknown: unknown.iter().cloned().collect(), findings: Vec::new() };
        if media == Media::Json {
            let mut notes = Duplicates::Order(order);
            // It was read before: the tree is the same.
            let _same = Tree::new(&mut notes).deserialize(&mut serde_json::Deserializer::from_slice(bytes));
            let Duplicates::Order(noted) = notes else { return Vec::new() };
            order = noted;
        } else {
            order.findings.extend(self.yaml_duplicates(bytes));
        }
        let rest = unknown.iter().filter(|path| order.unknown.contains(*path));
        order.findings.extend(rest.map(|path| format!("unknown field \"{path}\"")));
        order.findings
    }

    /// What YAML's parser says of fields that stand twice, as go-yaml puts it.
    pub fn yaml_duplicates(&self, bytes: &[u8]) -> Option<String> {
        if self.duplicates.is_empty() {
            return None;
        }
        let mut text = "yaml: unmarshal errors:".to_owned();
        for (skip, path) in self.duplicates.iter().take(LINES_MAX).enumerate() {
            let document = serde_yaml::Deserializer::from_slice(bytes).next()?;
            let mut refuse = Duplicates::RefuseAfter(skip);
            let error = Tree::new(&mut refuse).deserialize(document).err();
            let line = error.and_then(|e| e.location()).map_or(0, |at| at.line());
            let key = path.rsplit(['.', ']']).next().unwrap_or(path);
            text.push_str(&format!("\n  line {line}: key {key:?} already set in map"));
        }
        Some(text)
    }
}

/// Reads one object.
///
/// # Errors
/// 400 with line and column, or the field.
pub fn read(media: Media, bytes: &[u8]) -> Result<Body, ApiError> {
    let body = match media {
        Media::Json => read_json(bytes),
        Media::Yaml => read_yaml(bytes),
        Media::Protobuf => protobuf::decode(bytes).map(|value| Body { value, duplicates: Vec::new() }),
    }
    .map_err(|e| ApiError::bad_request(format!("error decoding the request body: {e}")))?;
    if body.value.is_object() {
        return Ok(body);
    }
    Err(ApiError::bad_request("error decoding the request body: it must be one JSON or YAML object"))
}

fn read_json(bytes: &[u8]) -> Result<Body, String> {
    let mut duplicates = Duplicates::Collect(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Tree::new(&mut duplicates).deserialize(&mut deserializer).map_err(|e| e.to_string())?;
    deserializer.end().map_err(|e| e.to_string())?;
    Ok(Body { value, duplicates: duplicates.into_paths() })
}

fn read_yaml(bytes: &[u8]) -> Result<Body, String> {
    let mut duplicates = Duplicates::Collect(Vec::new());
    let mut documents = serde_yaml::Deserializer::from_slice(bytes);
    let first = documents.next().ok_or("it is empty")?;
    let value = Tree::new(&mut duplicates).deserialize(first).map_err(|e| e.to_string())?;
    if documents.next().is_some() {
        return Err("it holds several YAML documents: send one object for each request".to_owned());
    }
    Ok(Body { value, duplicates: duplicates.into_paths() })
}

/// What happens to unknown and duplicate fields: the `fieldValidation` parameter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, with a warning for each.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

impl FromStr for FieldValidation {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => {
                let detail = "supported values: \"Ignore\", \"Strict\", \"Warn\"";
                Err(ApiError::new(Reason::Invalid, format!("fieldValidation: Unsupported value: {other:?}: {detail}")))
            }
        }
    }
}

impl FieldValidation {
    /// Judges what [`Body::findings`] has. Answers with the warnings to send.
    ///
    /// # Errors
    /// 400 that lists all of them, when strict.
    pub fn judge(self, names: &Names, findings: Vec<String>) -> Result<Vec<String>, ApiError> {
        match self {
            Self::Ignore => Ok(Vec::new()),
            Self::Warn => Ok(findings),
            Self::Strict if findings.is_empty() => Ok(findings),
            Self::Strict => {
                let (kind, version, list) = (names.kind, names.version, findings.join(", "));
                Err(ApiError::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {list}"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;
    use crate::kind::Kind;

    #[test]
    fn bodies() {
        for (media, text, value, duplicates) in [
            (
                Media::Json,
                r#"{"a": 1, "b": {"c": [1.5, true, null, "x"]}}"#,
                json!({"a": 1, "b": {"c": [1.5, true, null, "x"]}}),
                vec![],
            ),
            (
                Media::Json,
                r#"{"a": 1, "a": 2, "l": [{"x": 1, "x": 1}]}"#,
                json!({"a": 2, "l": [{"x": 1}]}),
                vec!["a", "l[0].x"],
            ),
            (Media::Yaml, "a: 1\nb:\n  - x\n  - {y: 2}\n", json!({"a": 1, "b": ["x", {"y": 2}]}), vec![]),
            (
                Media::Yaml,
                "spec:\n  replicas: 1\n  replicas: 2\n",
                json!({"spec": {"replicas": 2}}),
                vec!["spec.replicas"],
            ),
            (Media::Yaml, "1: a\ntrue: b\n", json!({"1": "a", "true": "b"}), vec![]),
        ] {
            let body = read(media, text.as_bytes()).unwrap();
            assert_eq!(
                (body.value, body.duplicates),
                (value, duplicates.into_iter().map(String::from).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_name_line_and_column() {
        for (media, text, message) in [
            (Media::Json, "{\"a\":\n 1,}", "trailing comma at line 2 column 4"),
            (Media::Json, "{} {}", "trailing characters at line 1 column 4"),
            (Media::Json, "[]", "it must be one JSON or YAML object"),
            (Media::Yaml, "", "it must be one JSON or YAML object"),
            (Media::Yaml, "a: b: c\n", "mapping values are not allowed in this context at line 1 column 5"),
            (Media::Yaml, "a: 1\n---\nb: 1\n", "it holds several YAML documents: send one object for each request"),
            (Media::Yaml, "a: .nan\n", "a: numbers must be finite at line 1 column 4"),
        ] {
            let error = read(media, text.as_bytes()).unwrap_err();
            assert_eq!(error.message, format!("error decoding the request body: {message}"), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(Media::Json, deep.as_bytes()).is_err() && read(Media::Yaml, deep.as_bytes()).is_err());
    }

    #[test]
    fn media_types() {
        for (content_type, media) in [
            (None, Some(Media::Json)),
            (Some("application/json; charset=utf-8"), Some(Media::Json)),
            (Some("application/yaml"), Some(Media::Yaml)),
            (Some("application/vnd.kubernetes.protobuf"), Some(Media::Protobuf)),
            (Some("application/cbor"), None),
        ] {
            assert_eq!(Media::of(content_type).ok(), media);
        }
    }

    #[test]
    fn duplicates_in_yaml() {
        let text = b"\nspec:\n  a: 1\n  a: 2\n  l:\n  - b: 1\n    b: 1\n";
        let body = read(Media::Yaml, text).unwrap();
        let said =
            "yaml: unmarshal errors:\n  line 4: key \"a\" already set in map\n  line 7: key \"b\" already set in map";
        assert_eq!(body.yaml_duplicates(text).unwrap(), said);
        let all = body.findings(&["spec.c".to_owned()], Media::Yaml, text);
        assert_eq!(all, [said, "unknown field \"spec.c\""]);
    }

    #[test]
    fn field_validation() {
        let judge = |level: &str| {
            let level: FieldValidation = level.parse().unwrap();
            let bytes = br#"{"spec": {"x": 1, "replicas": 1, "replicas": 2, "foo": {"y": 1}}, "a": 1}"#;
            let unknown = ["a".to_owned(), "spec.foo".to_owned(), "spec.x".to_owned()];
            let findings = read(Media::Json, bytes).unwrap().findings(&unknown, Media::Json, bytes);
            level.judge(&Deployment::NAMES, findings)
        };
        let inside = ["unknown field \"spec.x\"", "duplicate field \"spec.replicas\"", "unknown field \"spec.foo\""];
        let all = [&inside[..], &["unknown field \"a\""]].concat();
        assert_eq!(judge("Ignore").unwrap(), Vec::<String>::new());
        assert_eq!(judge("Warn").unwrap(), all);
        assert_eq!(
            judge("Strict").unwrap_err().message,
            format!(
                "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {}",
                all.join(", ")
            )
        );
        assert_eq!("Loud".parse::<FieldValidation>().unwrap_err().reason.code(), 422);
    }
}
