//! The audit log: one JSON line (`audit.k8s.io/v1` Event) for each stage of each request that the policy names.
//!
//! Invariants: a request never waits for the log; bodies are only kept when the policy asks for them; nothing of an event
//! reaches our own logs. What goes through the API within this process is not audited.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts};
use serde_json::{Map, Value, json};

pub(crate) use self::policy::{Decision, Stage};
pub use self::policy::{Level, Policy, PolicyError};
use self::sink::Sink;
use crate::auth::{Attributes, Identity};

mod policy;
mod sink;

/// How the audit log is kept.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// What is written.
    pub policy: Policy,
    /// The file; older ones have `.1`, `.2` and so on behind their name.
    pub log_path: PathBuf,
    /// A file that would become larger is put aside.
    pub max_bytes: u64,
    /// How many files are kept beside the one that is written.
    pub max_backups: usize,
}

/// The audit log of one server.
pub(crate) struct Audit {
    policy: Policy,
    sink: Sink,
}

/// Notes of the handlers for the audit log.
pub(crate) type Annotations = Arc<Mutex<BTreeMap<String, String>>>;

/// Where a request came from.
pub(crate) struct Origin<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) uri: &'a Uri,
    pub(crate) version: &'a str,
    pub(crate) address: Option<IpAddr>,
    pub(crate) id: &'a str,
    pub(crate) received: Timestamp,
}

/// One request, as far as it is known.
pub(crate) struct Record {
    audit: Arc<Audit>,
    decision: Decision,
    event: Mutex<Map<String, Value>>,
    annotations: Annotations,
}

/// How a request was answered.
pub(crate) struct Outcome<'a> {
    pub(crate) code: u16,
    /// The answer's body, where it is whole and small enough to be there anyhow.
    pub(crate) body: Option<Bytes>,
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

impl Audit {
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(config: &AuditConfig, metrics: &prometheus::Registry) -> std::io::Result<Arc<Self>> {
        let other = std::io::Error::other::<prometheus::Error>;
        let events =
            IntCounter::new("apiserver_audit_event_total", "Events handed to the audit log.").map_err(other)?;
        let opts = Opts::new("apiserver_audit_error_total", "Events that did not get into the audit log.");
        let errors = IntCounterVec::new(opts, &["plugin"]).map_err(other)?;
        metrics.register(Box::new(events.clone())).map_err(other)?;
        metrics.register(Box::new(errors.clone())).map_err(other)?;
        Ok(Arc::new(Self { policy: config.policy.clone(), sink: Sink::open(config, events, &errors)? }))
    }

    /// Waits, within a bound, until everything is in the file.
    pub(crate) async fn flush(&self) {
        self.sink.flush().await;
    }

    /// Begins the record of a request, unless the policy leaves it out.
    pub(crate) fn begin(
        self: &Arc<Self>,
        who: &Identity,
        what: &Attributes<'_>,
        origin: &Origin<'_>,
        annotations: Annotations,
    ) -> Option<Arc<Record>> {
        let decision = self.policy.decide(who, what);
        if decision.level == Level::None {
            return None;
        }
        let mut event = Map::new();
        let mut put = |key: &str, value: Value| event.insert(key.to_owned(), value);
        put("kind", "Event".into());
        put("apiVersion", "audit.k8s.io/v1".into());
        put("level", decision.level.name().into());
        put("auditID", origin.id.into());
        put("requestURI", origin.uri.path_and_query().map_or("/", |p| p.as_str()).into());
        put("verb", what.verb.into());
        put("user", user(who));
        put("sourceIPs", sources(origin).into());
        if let Some(agent) = origin.headers.get(header::USER_AGENT) {
            put("userAgent", String::from_utf8_lossy(agent.as_bytes()).into());
        }
        if !what.resource.is_empty() {
            put("objectRef", object_ref(what, origin.version));
        }
        put("requestReceivedTimestamp", micros(origin.received).into());
        let record = Arc::new(Record { audit: self.clone(), decision, event: Mutex::new(event), annotations });
        record.write(Stage::RequestReceived, None);
        Some(record)
    }
}

impl Record {
    /// As whom the request is made.
    pub(crate) fn impersonated(&self, who: &Identity) {
        self.event.lock().insert("impersonatedUser".to_owned(), user(who));
    }

    /// Notes the body that was sent: its name at any level, all of it from `Request` on.
    pub(crate) fn request_body(&self, body: &Bytes) {
        if body.is_empty() {
            return;
        }
        let mut event = self.event.lock();
        let unnamed = event.get("objectRef").is_some_and(|r| r.get("name").is_none());
        let whole = self.decision.level >= Level::Request;
        if !(unnamed && event.get("verb") == Some(&"create".into()) || whole) {
            return;
        }
        let Some(object) = self.object(body) else { return };
        let name = object.pointer("/metadata/name").cloned();
        if let (true, Some(name), Some(Value::Object(at))) = (unnamed, name, event.get_mut("objectRef")) {
            at.insert("name".to_owned(), name);
        }
        if whole {
            event.insert("requestObject".to_owned(), object);
        }
    }

    /// Whether the body of the answer is wanted.
    pub(crate) fn wants_response(&self) -> bool {
        self.decision.level >= Level::RequestResponse
    }

    /// Writes the event of a stage, unless it is left out.
    pub(crate) fn write(&self, stage: Stage, outcome: Option<&Outcome<'_>>) {
        if self.decision.omit_stages.contains(&stage) {
            return;
        }
        let mut event = self.event.lock().clone();
        event.insert("stage".to_owned(), stage.name().into());
        event.insert("stageTimestamp".to_owned(), micros(Timestamp::now()).into());
        if let Some(outcome) = outcome {
            let body = outcome.body.as_ref().and_then(|body| self.object(body));
            event.insert("responseStatus".to_owned(), response_status(outcome.code, body.as_ref()));
            if let Some(body) = body.filter(|_| self.wants_response()) {
                event.insert("responseObject".to_owned(), body);
            }
        }
        let mut annotations = self.annotations.lock().clone();
        for (key, value) in outcome.into_iter().flat_map(|o| o.annotations) {
            annotations.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if !annotations.is_empty() {
            event.insert("annotations".to_owned(), json!(annotations));
        }
        let mut line = Value::Object(event).to_string().into_bytes();
        line.push(b'\n');
        self.audit.sink.send(line);
    }

    fn object(&self, body: &[u8]) -> Option<Value> {
        let mut object: Value = match serde_json::from_slice(body) {
            Ok(object) => object,
            Err(_) => serde_yaml::from_slice(body).ok()?,
        };
        if self.decision.omit_managed_fields {
            let items = object.get("items").and_then(Value::as_array).map_or(0, Vec::len);
            strip(&mut object);
            (0..items).for_each(|i| strip(&mut object["items"][i]));
        }
        Some(object)
    }
}

fn strip(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
}

fn user(who: &Identity) -> Value {
    let mut user = Map::new();
    if !who.user.is_empty() {
        user.insert("username".to_owned(), who.user.clone().into());
    }
    if !who.uid.is_empty() {
        user.insert("uid".to_owned(), who.uid.clone().into());
    }
    if !who.groups.is_empty() {
        user.insert("groups".to_owned(), json!(who.groups));
    }
    if !who.extra.is_empty() {
        user.insert("extra".to_owned(), json!(who.extra));
    }
    Value::Object(user)
}

/// As far as proxies say it, then the peer itself.
fn sources(origin: &Origin<'_>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in ["x-forwarded-for", "x-real-ip"] {
        let values = origin.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        for ip in values.split(',').filter_map(|ip| ip.trim().parse::<IpAddr>().ok()) {
            found.push(ip.to_string());
        }
    }
    found.extend(origin.address.map(|ip| ip.to_string()));
    found.dedup();
    found
}

fn object_ref(what: &Attributes<'_>, version: &str) -> Value {
    let parts = [
        ("resource", what.resource),
        ("namespace", what.namespace),
        ("name", what.name),
        ("apiGroup", what.group),
        ("apiVersion", version),
        ("subresource", what.subresource),
    ];
    parts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), Value::from(v))).collect()
}

fn response_status(code: u16, body: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code});
    let said = body.filter(|b| code >= 400 && b["kind"] == "Status");
    for key in ["status", "message", "reason", "details"] {
        if let Some(value) = said.and_then(|s| s.get(key)) {
            status[key] = value.clone();
        }
    }
    status
}

fn micros(time: Timestamp) -> String {
    format!("{time:.6}")
}
