//! The JSON paths of definitions: `.spec.replicas`, `.metadata.annotations.a\.b`, `.status.conditions[?(@.type=="Ready")].status`.
//!
//! # Source
//! Kubernetes `client-go/util/jsonpath`, as much of it as definitions use.

use serde_json::Value;

/// A path, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    Where { path: Vec<Step>, equal: bool, literal: Value },
    Has(Vec<Step>),
}

/// Bytes of a path.
const BYTES_MAX: usize = 4096;

impl Path {
    /// Reads a path; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        if text.len() > BYTES_MAX {
            return None;
        }
        let mut reader = Reader { rest: text };
        let steps = reader.steps()?;
        reader.rest.is_empty().then_some(Self(steps))
    }

    /// Its fields, when it has nothing else.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|s| if let Step::Field(name) = s { Some(name.as_str()) } else { None }).collect()
    }

    /// Everything that it leads to.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        follow(&self.0, value)
    }

    /// The first thing that it leads to.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.find(value).into_iter().next()
    }

    /// The field that it begins with.
    pub(crate) fn root(&self) -> Option<&str> {
        if let Some(Step::Field(name)) = self.0.first() { Some(name) } else { None }
    }

    /// The first thing that it leads to from the value of [`Path::root`].
    pub(crate) fn first_below<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        follow(self.0.get(1..)?, value).into_iter().next()
    }

    /// Puts a value where it leads, when it has only fields.
    pub fn set(&self, value: &mut Value, new: Value) -> bool {
        let Some(fields) = self.fields() else { return false };
        let mut at = value;
        for field in fields {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            let Value::Object(object) = at else { return false };
            at = object.entry(field).or_insert(Value::Null);
        }
        *at = new;
        true
    }
}

fn follow<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            match (step, value) {
                (Step::Field(name), Value::Object(fields)) => next.extend(fields.get(name)),
                (Step::Index(i), Value::Array(items)) => {
                    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                    let i = if *i < 0 { length + i } else { *i };
                    next.extend(usize::try_from(i).ok().and_then(|i| items.get(i)));
                }
                (Step::All, Value::Array(items)) => next.extend(items),
                (Step::All, Value::Object(fields)) => next.extend(fields.values()),
                (Step::Where { path, equal, literal }, Value::Array(items)) => {
                    let holds = |item: &&Value| follow(path, item).first().is_some_and(|v| (*v == literal) == *equal);
                    next.extend(items.iter().filter(holds));
                }
                (Step::Has(path), Value::Array(items)) => {
                    next.extend(items.iter().filter(|item| !follow(path, item).is_empty()));
                }
                _ => {}
            }
        }
        found = next;
    }
    found
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn steps(&mut self) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.rest.starts_with("..") {
                return None;
            }
            if self.eat(".[") || self.eat("[") {
                steps.push(self.bracket()?);
            } else if self.eat(".*") {
                steps.push(Step::All);
            } else if self.eat(".") {
                let name = self.name();
                if name.is_empty() {
                    return (steps.is_empty() && self.rest.is_empty()).then_some(steps);
                }
                steps.push(Step::Field(name));
            } else {
                return Some(steps);
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.chars().next() {
            let escaped = c == '\\';
            if escaped {
                self.rest = &self.rest[1..];
            } else if matches!(c, '.' | '[' | ']' | ')' | '=' | '!' | ' ') {
                break;
            }
            let Some(c) = self.rest.chars().next() else { break };
            name.push(c);
            self.rest = &self.rest[c.len_utf8()..];
        }
        name
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let inner = &self.rest[1..];
        let end = inner.find(quote)?;
        self.rest = &inner[end + 1..];
        Some(inner[..end].replace("\\.", "."))
    }

    fn bracket(&mut self) -> Option<Step> {
        if self.eat("?(@") {
            return self.filter();
        }
        if self.eat("*]") {
            return Some(Step::All);
        }
        if let Some(name) = self.quoted() {
            return self.eat("]").then_some(Step::Field(name));
        }
        let end = self.rest.find(']')?;
        let index = self.rest[..end].trim().parse().ok()?;
        self.rest = &self.rest[end + 1..];
        Some(Step::Index(index))
    }

    fn filter(&mut self) -> Option<Step> {
        // Paths in filters have no filters: nothing nests.
        let mut path = Vec::new();
        while self.eat(".") {
            path.push(Step::Field(self.name()));
        }
        self.rest = self.rest.trim_start();
        if self.eat(")]") {
            return Some(Step::Has(path));
        }
        let equal = self.eat("==");
        if !equal && !self.eat("!=") {
            return None;
        }
        self.rest = self.rest.trim_start();
        let literal = match self.quoted() {
            Some(text) => Value::from(text),
            None => {
                let end = self.rest.find(')')?;
                let literal = serde_json::from_str(self.rest[..end].trim()).ok()?;
                self.rest = &self.rest[end..];
                literal
            }
        };
        self.rest = self.rest.trim_start();
        self.eat(")]").then_some(Step::Where { path, equal, literal })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn where_paths_lead() {
        let value = json!({
            "spec": {"replicas": 3, "a.b": "dotted", "list": [1, 2, 3]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False", "n": 1}]},
        });
        for (path, found) in [
            (".spec.replicas", "3"),
            ("{.spec.replicas}", "3"),
            (r".spec.a\.b", "\"dotted\""),
            (".spec['a.b']", "\"dotted\""),
            (".spec.list[1]", "2"),
            (".spec.list[-1]", "3"),
            (".spec.list[*]", "1 2 3"),
            (r#".status.conditions[?(@.type=="Ready")].status"#, "\"True\""),
            (r#".status.conditions[?(@.type != 'Ready')].status"#, "\"False\""),
            (".status.conditions[?(@.n==1)].type", "\"Other\""),
            (".status.conditions[?(@.n)].type", "\"Other\""),
            (".nowhere.at.all", ""),
            (".spec.list[9]", ""),
        ] {
            let path = Path::parse(path).unwrap();
            let all = path.find(&value).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            assert_eq!(all, found, "{path:?}");
        }
        for wrong in ["spec", "..spec", ".spec[", ".spec[a]", ".a[?(@.b=1)]", ".a..b"] {
            assert_eq!(Path::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_can_be_set() {
        let mut value = json!({"spec": {"x": 1}});
        assert!(Path::parse(".spec.deep.replicas").unwrap().set(&mut value, json!(2)));
        assert_eq!(value, json!({"spec": {"x": 1, "deep": {"replicas": 2}}}));
        assert!(!Path::parse(".spec.x.y").unwrap().set(&mut value, json!(2)));
    }

    proptest! {
        #[test]
        fn never_panics(text in r#"[.\[\]?()@='"a-z0-9*\\ -]{0,40}"#) {
            if let Some(path) = Path::parse(&text) {
                path.find(&json!({"a": [{"b": 1}]}));
            }
        }
    }
}
