//! The node's own HTTP endpoints, those that a kubelet has at its port: figures, pods, logs, settings. They are answered in
//! this process, for whoever has been allowed to ask; there is no port.
//!
//! Paths are taken literally: nothing in them is decoded or shortened, so that who was allowed one path gets no other.
//! Commands, attaching and port-forwarding are not here: they have ways of their own (`streams`).
//!
//! # Source
//! Kubernetes `pkg/kubelet/server/server.go` and `pkg/kubelet/server/stats/handler.go`.

mod cadvisor;
mod configz;
mod exposition;
mod figures;
mod pods;
mod services;

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use jiff::{SignedDuration, Timestamp};
use podium_api::ObjectKey;
use podium_network::{Body, BoxError};
use serde_json::Value;

use crate::{
    CoreDumpReader as _, LogError, LogOptions, LogReader as _, LogStream, LogStreams,
    driver::{Shared, meter::NodeUse},
};

/// What a kubelet says of the format of its figures.
const FIGURES: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The endpoints of one node. Clones share it.
#[derive(Clone)]
pub struct Endpoints(Arc<Shared>);

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Endpoints").field(&self.node_name()).finish()
    }
}

impl Endpoints {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Whose endpoints these are.
    pub fn node_name(&self) -> &str {
        &self.0.config.node_name
    }

    /// Answers a request, whose URI is a path.
    pub async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let summary = parts == ["stats", "summary"];
        let allowed =
            matches!(*request.method(), Method::GET | Method::HEAD) || summary && request.method() == Method::POST;
        let shared = &*self.0;
        if let Some(what) = disabled(&parts) {
            return text(StatusCode::METHOD_NOT_ALLOWED, &format!("{what} endpoint is disabled.\n"));
        }
        if !allowed {
            return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        }
        let query = Query(request.uri().query().unwrap_or_default());
        match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => text(StatusCode::OK, "ok"),
            ["pods"] => pods::all(shared),
            ["runningpods"] => json(&pods::running(shared)),
            ["stats", "summary"] => json(&summary_of(shared, query.flag("only_cpu_and_memory"))),
            ["metrics"] => figures(exposition::own(shared)),
            ["metrics", "resource"] => figures(figures::resource(shared)),
            ["metrics", "cadvisor"] => figures(cadvisor::series(shared)),
            ["metrics", "probes"] => figures(figures::probes(shared)),
            ["services", namespace, name] => match services::state(shared, namespace, name) {
                Some(state) => json(&state),
                None => text(StatusCode::NOT_FOUND, "there is no such service\n"),
            },
            ["configz"] => json(&configz::settings(&shared.config)),
            ["containerLogs", namespace, pod, container] => {
                self.log(&ObjectKey::new(*namespace, *pod), container, query).await
            }
            ["coreDumps", namespace, pod, container] => {
                match self.0.list(&ObjectKey::new(*namespace, *pod), container).await {
                    Ok(found) => json(&serde_json::json!(found)),
                    Err(error) => failed(&error),
                }
            }
            ["coreDumps", namespace, pod, container, name] => {
                match self.0.read(&ObjectKey::new(*namespace, *pod), container, name).await {
                    Ok(stream) => streamed("application/octet-stream", stream),
                    Err(error) => failed(&error),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    async fn log(&self, pod: &ObjectKey, container: &str, query: Query<'_>) -> Response<Body> {
        if let Err(missing) = pods::has_container(&self.0, pod, container) {
            return text(StatusCode::NOT_FOUND, &missing);
        }
        let options = match query.log_options(container, self.0.clock.now()) {
            Ok(options) => options,
            Err(wrong) => return text(StatusCode::BAD_REQUEST, &wrong),
        };
        match self.0.logs(pod, options).await {
            Ok(stream) => streamed("text/plain", stream),
            Err(error) => failed(&error),
        }
    }
}

fn streamed(kind: &'static str, stream: LogStream) -> Response<Body> {
    let frames = stream.map_ok(Frame::data).map_err(|error| Box::new(error) as BoxError);
    answer(StatusCode::OK, kind, StreamBody::new(frames).boxed_unsync())
}

fn failed(error: &LogError) -> Response<Body> {
    match error {
        LogError::NoPod(_) => text(StatusCode::NOT_FOUND, "pod does not exist\n"),
        LogError::BadRequest(_) => text(StatusCode::BAD_REQUEST, &error.to_string()),
        LogError::Io(_) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What a kubelet can have and this node has not: guests see neither its journal nor its processes.
fn disabled(parts: &[&str]) -> Option<&'static str> {
    match parts {
        ["logs", ..] => Some("logs"),
        ["debug", "pprof", ..] => Some("profiling"),
        ["debug", "flags", ..] => Some("flags"),
        _ => None,
    }
}

/// kubelet's `/stats/summary`, with the file system that everything of pods is on.
fn summary_of(shared: &Shared, brief: bool) -> Value {
    let mut summary = shared.meter.summary();
    if brief {
        let pods = summary["pods"].as_array_mut().into_iter().flatten();
        pods.filter_map(Value::as_object_mut).for_each(|pod| drop(pod.remove("network")));
        return summary;
    }
    let (all, available) = crate::driver::pressure::disk(&shared.config.data_dir);
    if all != u64::MAX {
        let time = summary["node"]["cpu"]["time"].clone();
        let used = all.saturating_sub(available);
        let fs = serde_json::json!({
            "time": time, "availableBytes": available, "capacityBytes": all, "usedBytes": used,
        });
        summary["node"]["runtime"] = serde_json::json!({ "imageFs": fs });
        summary["node"]["fs"] = fs;
    }
    summary
}

/// A query string. The first of several values counts; nothing that is asked for here needs to be encoded.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(self, key: &str) -> Option<&'a str> {
        let mut pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn flag(self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False"))
    }

    fn number(self, key: &str) -> Result<Option<u64>, String> {
        let given = self.get(key).filter(|value| !value.is_empty());
        given.map(|v| v.parse().map_err(|_| format!("{key}: {v:?} is not a whole number"))).transpose()
    }

    fn log_options(self, container: &str, now: Timestamp) -> Result<LogOptions, String> {
        let back = |seconds: u64| {
            let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            now.checked_sub(back).unwrap_or(Timestamp::MIN)
        };
        let since = match (self.number("sinceSeconds")?, self.get("sinceTime").filter(|time| !time.is_empty())) {
            (Some(seconds), _) => Some(back(seconds)),
            (None, None) => None,
            (None, Some(time)) => {
                let time = time.replace("%3A", ":").replace("%3a", ":");
                Some(time.parse().map_err(|_| format!("sinceTime: {time:?} is no RFC 3339 time"))?)
            }
        };
        Ok(LogOptions {
            container: Some(container.to_owned()),
            follow: self.flag("follow"),
            previous: self.flag("previous"),
            since,
            timestamps: self.flag("timestamps"),
            tail_lines: self.number("tailLines")?,
            limit_bytes: self.number("limitBytes")?,
            streams: match self.get("stream").unwrap_or_default() {
                "" | "All" => LogStreams::All,
                "Stdout" => LogStreams::Stdout,
                "Stderr" => LogStreams::Stderr,
                other => return Err(format!("stream: {other:?} is none of All, Stdout, Stderr")),
            },
        })
    }
}

fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn whole(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    answer(status, kind, Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
}

fn text(status: StatusCode, words: &str) -> Response<Body> {
    whole(status, TEXT, Bytes::copy_from_slice(words.as_bytes()))
}

fn json(value: &Value) -> Response<Body> {
    whole(StatusCode::OK, JSON, value.to_string().into())
}

fn figures(text: String) -> Response<Body> {
    whole(StatusCode::OK, FIGURES, text.into())
}
