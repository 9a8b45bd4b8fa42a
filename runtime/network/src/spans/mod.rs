//! Spans of requests: one for each that a client outside makes, one for each call of a Service, as far as their trace is
//! recorded. They go to a collector by OTLP (see `export`); whatever that does, no request waits for it.
//!
//! Whether a trace is recorded is decided where it begins, by a share of all; who passes a trace on has decided already.
//!
//! # Source
//! <https://www.w3.org/TR/trace-context/>, OpenTelemetry's semantic conventions for HTTP.

mod export;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{Network, bodies::Hears, metrics::Metrics, trace};

/// Spans that wait to be sent; more are left out and counted.
const WAITING_MAX: usize = 4096;
/// Characters of what a client says.
const TEXT_MAX: usize = 256;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    /// A collector's address for OTLP over HTTP, such as `http://127.0.0.1:4318`; `/v1/traces` is added where it is missing.
    pub endpoint: String,
    /// Share of the traces begun here that are recorded, from 0 to 1.
    pub ratio: f64,
    /// The node, where it has a name.
    pub node: Option<String>,
}

/// A collector that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a collector such as http://127.0.0.1:4318")]
pub struct BadCollector(String);

/// Records spans.
#[derive(Clone)]
pub(crate) struct Tracer {
    to: mpsc::Sender<Span>,
    ratio: f64,
    metrics: Metrics,
}

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// A request that came from outside.
    Server = 2,
    /// A call of a Service.
    Client = 3,
}

/// What happened between two moments. It is over when it is dropped.
pub(crate) struct Span {
    tracer: Option<Tracer>,
    of: Of,
    trace: u128,
    id: u64,
    parent: Option<u64>,
    name: String,
    since: SystemTime,
    until: Option<SystemTime>,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
    bytes: u64,
}

impl Network {
    /// Sends spans to a collector from now on. The first one stays.
    ///
    /// # Errors
    /// When the collector's address is none.
    pub fn export_traces(&self, config: TracesConfig) -> Result<(), BadCollector> {
        let collector = export::Collector::new(&config.endpoint).ok_or(BadCollector(config.endpoint))?;
        let (to, spans) = mpsc::channel(WAITING_MAX);
        let tracer = Tracer { to, ratio: config.ratio.clamp(0.0, 1.0), metrics: self.metrics().clone() };
        if self.inner().tracer.set(tracer).is_ok() {
            self.inner().tasks.spawn(export::run(self.clone(), collector, config.node, spans));
        }
        Ok(())
    }

    /// Begins a span of a request, if its trace is recorded: what it calls from then on is below that. `begun`: the trace was
    /// begun just now.
    pub(crate) fn span(&self, of: Of, headers: &mut HeaderMap, begun: bool) -> Option<Box<Span>> {
        let tracer = self.inner().tracer.get()?;
        let trace::Parent { trace, span: parent, sampled } = trace::parent(headers)?;
        let recorded = if begun { rand::random::<f64>() < tracer.ratio } else { sampled };
        if !recorded {
            return None;
        }
        let id = rand::random::<u64>().max(1);
        let below = format!("00-{trace:032x}-{id:016x}-01");
        headers.insert(trace::PARENT, HeaderValue::from_str(&below).ok()?);
        Some(Box::new(Span {
            tracer: Some(tracer.clone()),
            of,
            trace,
            id,
            parent: (!begun).then_some(parent),
            name: String::new(),
            since: SystemTime::now(),
            until: None,
            attributes: Vec::new(),
            failed: false,
            bytes: 0,
        }))
    }
}

impl Span {
    /// What it is called in lists: not too many different ones.
    pub(crate) fn name(&mut self, name: String) {
        self.name = name;
    }

    pub(crate) fn say(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = match value.into() {
            Value::String(text) if text.len() > TEXT_MAX => text.chars().take(TEXT_MAX).collect::<String>().into(),
            value => value,
        };
        self.attributes.push((key, value));
    }

    /// How the request was answered; `None`: not at all.
    pub(crate) fn answered(&mut self, status: Option<StatusCode>) {
        match status {
            Some(status) => self.say("http.response.status_code", status.as_u16()),
            None => self.say("error.type", "no answer"),
        }
        // What a client did wrong is no failure of the server's.
        let bad = |status: StatusCode| status.is_server_error() || self.of == Of::Client && status.is_client_error();
        self.failed = status.is_none_or(bad);
    }

    /// As OTLP has it in JSON.
    fn json(&self) -> Value {
        let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
        let attribute = |(key, value): &(&'static str, Value)| json!({ "key": key, "value": typed(value) });
        let mut attributes: Vec<Value> = self.attributes.iter().map(attribute).collect();
        if self.bytes > 0 {
            attributes.push(json!({ "key": "http.response.body.size", "value": typed(&self.bytes.into()) }));
        }
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.id),
            "name": self.name,
            "kind": self.of as u8,
            "startTimeUnixNano": nanos(self.since),
            "endTimeUnixNano": nanos(self.until.unwrap_or(self.since).max(self.since)),
            "attributes": attributes,
            "status": if self.failed { json!({ "code": 2 }) } else { json!({}) },
        });
        if let Some(parent) = self.parent {
            span["parentSpanId"] = format!("{parent:016x}").into();
        }
        span
    }
}

impl Hears for Box<Span> {
    fn bytes(&mut self, count: u64) {
        self.bytes += count;
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(tracer) = self.tracer.take() else { return };
        let over = Self {
            tracer: None,
            of: self.of,
            trace: self.trace,
            id: self.id,
            parent: self.parent,
            name: std::mem::take(&mut self.name),
            since: self.since,
            until: Some(SystemTime::now()),
            attributes: std::mem::take(&mut self.attributes),
            failed: self.failed,
            bytes: self.bytes,
        };
        if tracer.to.try_send(over).is_err() {
            tracer.metrics.spans("left_out", 1);
        }
    }
}

/// A value as OTLP has it.
fn typed(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Bool(is) => json!({ "boolValue": is }),
        other => json!({ "stringValue": other.to_string() }),
    }
}

/// The spans of one message to a collector.
fn batch(node: Option<&Arc<str>>, spans: &[Span]) -> Value {
    let mut resource = vec![json!({ "key": "service.name", "value": { "stringValue": "podium" } })];
    if let Some(node) = node {
        resource.push(json!({ "key": "k8s.node.name", "value": { "stringValue": &**node } }));
    }
    let scope = json!({ "name": "podium.network", "version": env!("CARGO_PKG_VERSION") });
    let spans: Vec<Value> = spans.iter().map(Span::json).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }] })
}
