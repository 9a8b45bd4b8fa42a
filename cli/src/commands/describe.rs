//! `podium describe`: one object in full, in a form for reading, with what happened to it lately.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use podium_api::kind::human_duration;
use serde_json::Value;

mod live;

use super::report;
use crate::{
    connect::{Call, ConnectOptions, Connection, escape},
    output::{Grid, print},
    resources::{Resource, Resources, targets},
};

/// Shows an object in full, with its events
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium describe pod web-1
  podium describe deployment/web
  podium describe pods -l app=web")]
pub(crate) struct DescribeArgs {
    /// TYPE [NAME…] or TYPE/NAME…
    #[arg(required = true, value_name = "TYPE")]
    targets: Vec<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long, default_value = "", hide_default_value = true, value_name = "SELECTOR")]
    selector: String,
}

/// Runs the command.
///
/// # Errors
/// What the server says.
pub(crate) async fn run(args: DescribeArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection).await?;
    let mut code = ExitCode::SUCCESS;
    let mut separator = "";
    for (kind, name) in targets(&args.targets)? {
        let resource = resources.one(&kind)?;
        match objects(&connection, resource, name.as_deref(), &args.selector).await {
            Ok(objects) => {
                for object in objects {
                    let live = live::of(&connection, resource, &object).await;
                    let events = events_of(&connection, resource, &object).await;
                    print(&format!(
                        "{separator}{}{live}{}",
                        describe(&object),
                        events_text(&events, Timestamp::now())
                    ))?;
                    separator = "\n\n";
                }
            }
            Err(error) => {
                report(&error.into());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn objects(
    connection: &Connection,
    resource: &Resource,
    name: Option<&str>,
    selector: &str,
) -> Result<Vec<Value>, podium_api::ApiError> {
    if let Some(name) = name {
        return Ok(vec![connection.json(Call::get(resource.object(&connection.namespace, name))).await?]);
    }
    let path = resource.collection(Some(&connection.namespace));
    let mut list = connection.json(Call::get(path).query("labelSelector", selector)).await?;
    Ok(list_items(&mut list))
}

/// The object's events; none when they cannot be read, for the object is what was asked for.
async fn events_of(connection: &Connection, resource: &Resource, object: &Value) -> Vec<Value> {
    let meta = &object["metadata"];
    let namespace = meta["namespace"].as_str().filter(|_| resource.namespaced).unwrap_or("default");
    let uid = meta["uid"].as_str().unwrap_or_default();
    let call = Call::get(format!("/api/v1/namespaces/{}/events", escape(namespace)))
        .query("fieldSelector", format!("involvedObject.uid={uid}"));
    match connection.json(call).await {
        Ok(mut list) => list_items(&mut list),
        Err(_) => Vec::new(),
    }
}

fn list_items(list: &mut Value) -> Vec<Value> {
    list["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
}

/// Name and metadata first, then all other fields as an indented outline.
fn describe(object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default().to_owned();
    let mut out = Outline::default();
    out.field(0, "Name", &text("name"));
    if meta["namespace"].is_string() {
        out.field(0, "Namespace", &text("namespace"));
    }
    out.lines(0, "Labels", &meta["labels"]);
    out.lines(0, "Annotations", &meta["annotations"]);
    out.field(0, "API Version", object["apiVersion"].as_str().unwrap_or_default());
    out.field(0, "Kind", object["kind"].as_str().unwrap_or_default());
    out.field(0, "Created", &text("creationTimestamp"));
    if meta["deletionTimestamp"].is_string() {
        out.field(0, "Terminating since", &text("deletionTimestamp"));
    }
    for owner in meta["ownerReferences"].as_array().into_iter().flatten().filter(|o| o["controller"] == true) {
        let word = |key: &str| owner[key].as_str().unwrap_or_default();
        out.field(0, "Controlled By", &format!("{}/{}", word("kind"), word("name")));
    }
    let secret = object["kind"] == "Secret";
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            "data" | "stringData" if secret => out.sizes(value),
            _ => out.value(0, &title(key), value),
        }
    }
    out.0
}

/// `availableReplicas` becomes `Available Replicas`, `podIP` becomes `Pod IP`.
fn title(key: &str) -> String {
    let mut out = String::new();
    let mut before_lower = false;
    for (i, c) in key.chars().enumerate() {
        if i == 0 {
            out.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && before_lower {
                out.push(' ');
            }
            out.push(c);
        }
        before_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    out
}

#[derive(Default)]
struct Outline(String);

impl Outline {
    fn line(&mut self, depth: usize, text: &str) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn field(&mut self, depth: usize, name: &str, value: &str) {
        let value = if value.is_empty() { "<none>" } else { value };
        let width = 20_usize.saturating_sub(2 * depth).max(name.len() + 2);
        let mut lines = value.lines();
        let first = lines.next().unwrap_or_default();
        self.line(depth, &format!("{:<width$}{first}", format!("{name}:")));
        for line in lines {
            self.line(depth, &format!("{:width$}{line}", ""));
        }
    }

    /// A map of texts, one line each.
    fn lines(&mut self, depth: usize, name: &str, map: &Value) {
        let shown = |(key, value): (&String, &Value)| {
            let (key, value): (&str, &str) = (key, value.as_str().unwrap_or_default());
            (key != "kubectl.kubernetes.io/last-applied-configuration").then(|| format!("{key}={value}"))
        };
        let all: Vec<String> = map.as_object().into_iter().flatten().filter_map(shown).collect();
        self.field(depth, name, &all.join("\n"));
    }

    fn value(&mut self, depth: usize, name: &str, value: &Value) {
        match value {
            Value::Object(fields) if fields.is_empty() => self.field(depth, name, "{}"),
            Value::Object(fields) => {
                self.line(depth, &format!("{name}:"));
                for (key, inner) in fields {
                    self.value(depth + 1, &title(key), inner);
                }
            }
            Value::Array(items) if items.is_empty() => self.field(depth, name, "[]"),
            Value::Array(items) => {
                self.line(depth, &format!("{name}:"));
                items.iter().for_each(|item| self.item(depth + 1, item));
            }
            Value::String(text) => self.field(depth, name, text),
            other => self.field(depth, name, &other.to_string()),
        }
    }

    /// An item of a list: headed by its name or type, if it has one.
    fn item(&mut self, depth: usize, item: &Value) {
        let Value::Object(fields) = item else {
            let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            return self.line(depth, &text);
        };
        let head = ["name", "type", "ip", "port"].into_iter().find(|key| fields.contains_key(*key));
        let head_text = head.map(|key| fields[key].as_str().map_or_else(|| fields[key].to_string(), str::to_owned));
        self.line(depth, &format!("{}:", head_text.as_deref().unwrap_or("-")));
        for (key, inner) in fields.iter().filter(|(key, _)| Some(key.as_str()) != head) {
            self.value(depth + 1, &title(key), inner);
        }
    }

    /// Of a Secret only how large its values are.
    fn sizes(&mut self, data: &Value) {
        use base64::Engine;
        self.line(0, "Data:");
        for (key, value) in data.as_object().into_iter().flatten() {
            let decoded = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
            self.field(1, key, &format!("{} bytes", decoded.map_or(0, |d| d.len())));
        }
    }
}

fn events_text(events: &[Value], now: Timestamp) -> String {
    if events.is_empty() {
        return "Events:             <none>\n".to_owned();
    }
    let mut grid = Grid::default();
    grid.row(["  Type", "Reason", "Age", "From", "Message"]);
    for event in events {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let from = event["source"]["component"].as_str().or(event["reportingComponent"].as_str()).unwrap_or_default();
        grid.row([
            format!("  {}", text("type")),
            text("reason").to_owned(),
            age(event, now),
            from.to_owned(),
            text("message").trim().to_owned(),
        ]);
    }
    format!("Events:\n{}", grid.render())
}

/// `3m (x5 over 1h)`.
fn age(event: &Value, now: Timestamp) -> String {
    let seconds = |key: &str| {
        let time: Timestamp = event[key].as_str()?.parse().ok()?;
        Some(human_duration(now.as_second() - time.as_second()))
    };
    let first = seconds("firstTimestamp").or_else(|| seconds("eventTime")).unwrap_or_else(|| "<unknown>".to_owned());
    let last = seconds("lastTimestamp").unwrap_or_else(|| first.clone());
    match event["count"].as_i64() {
        Some(count) if count > 1 => format!("{last} (x{count} over {first})"),
        _ => last,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_as_outlines() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "namespace": "d", "labels": {"a": "b", "c": "d"}, "creationTimestamp": "2020-01-01T00:00:00Z",
                "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "controller": true}],
            },
            "spec": {"containers": [{"name": "x", "args": ["-v"], "resources": {}}]},
            "status": {"podIP": "10.0.0.1", "ready": true},
        });
        let expected = "\
Name:               web
Namespace:          d
Labels:             a=b
                    c=d
Annotations:        <none>
API Version:        v1
Kind:               Pod
Created:            2020-01-01T00:00:00Z
Controlled By:      ReplicaSet/rs
Spec:
  Containers:
    x:
      Args:
        -v
      Resources:    {}
Status:
  Pod IP:           10.0.0.1
  Ready:            true
";
        assert_eq!(describe(&object), expected);
    }

    #[test]
    fn secrets_stay_secret() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
        let text = describe(&secret);
        assert!(text.contains("7 bytes") && !text.contains("aHVu"), "{text}");
    }

    #[test]
    fn events_in_a_table() {
        let now: Timestamp = "2020-01-01T01:00:00Z".parse().unwrap();
        let event = json!({
            "type": "Warning", "reason": "BackOff", "message": "Back-off\n", "source": {"component": "podium"}, "count": 5,
            "firstTimestamp": "2020-01-01T00:00:00Z", "lastTimestamp": "2020-01-01T00:59:00Z",
        });
        let text = events_text(&[event], now);
        assert_eq!(
            text,
            "Events:\n  Type      Reason    Age                 From     Message\n  Warning   BackOff   60s (x5 over 60m)   podium   Back-off\n"
        );
        assert_eq!(events_text(&[], now), "Events:             <none>\n");
        assert_eq!(title("availableReplicas"), "Available Replicas");
    }
}
