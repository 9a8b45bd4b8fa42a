//! The connection to an API server: which kubeconfig, which namespace, and raw calls with the server's errors kept.
//!
//! Invariants: a call that is no stream has a timeout; what the server says in a `Status` reaches the user unchanged.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use podium_api::{ApiError, Reason, k8s_openapi::apimachinery::pkg::apis::meta::v1::Status};
use serde_json::Value;

/// Bound on a call that is no stream.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line of a stream (an event of a watch).
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where to connect to; the flags that all client commands share.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConnectOptions {
    /// The kubeconfig file. Without it: $KUBECONFIG, then ~/.podium/kubeconfig, then ~/.kube/config
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub(crate) context: Option<String>,
    /// The namespace; without it the context's, or "default"
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub(crate) namespace: Option<String>,
}

impl ConnectOptions {
    /// Connects. Nothing is sent yet.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let kubeconfig = self.read_kubeconfig()?;
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context("reading the kubeconfig")?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).with_context(|| format!("preparing the connection to {server}"))?;
        Ok(Connection { client, namespace, namespace_given: self.namespace.is_some(), server })
    }

    /// A client, the server's address, and the CA that it is believed by, as PEM.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used or names no CA.
    pub(crate) async fn trusted(&self) -> Result<(Client, String, String)> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(self.read_kubeconfig()?, &options).await;
        let config = config.context("reading the kubeconfig")?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let ca: String = config.root_cert.iter().flatten().map(|der| pem(der)).collect();
        if ca.is_empty() {
            bail!("the kubeconfig names no CA for {server}");
        }
        let client = Client::try_from(config).with_context(|| format!("preparing the connection to {server}"))?;
        Ok((client, server, ca))
    }

    fn read_kubeconfig(&self) -> Result<Kubeconfig> {
        if let Some(path) = &self.kubeconfig {
            return Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()));
        }
        if let Some(kubeconfig) = Kubeconfig::from_env().context("reading the files that $KUBECONFIG names")? {
            return Ok(kubeconfig);
        }
        let candidates = default_kubeconfigs();
        match candidates.iter().find(|path| path.is_file()) {
            Some(path) => Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display())),
            None => {
                let tried: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
                bail!(
                    "no kubeconfig found (tried {}): start a cluster with `podium up`, or name one with --kubeconfig",
                    tried.join(", ")
                )
            }
        }
    }
}

/// A certificate as text.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        lines.push_str(line);
        lines.push('\n');
        rest = more;
    }
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

fn default_kubeconfigs() -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    vec![home.join(".podium/kubeconfig"), home.join(".kube/config")]
}

/// A connection to an API server.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    /// The namespace of objects that name none.
    pub(crate) namespace: String,
    /// Whether the user named the namespace, so that objects may not name another.
    pub(crate) namespace_given: bool,
    /// The server's address.
    pub(crate) server: String,
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    accept: &'static str,
    body: Option<(&'static str, Vec<u8>)>,
}

pub(crate) const JSON: &str = "application/json";

impl Call {
    /// A call without a body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), accept: JSON, body: None }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a query parameter, unless the value is empty.
    pub(crate) fn query(mut self, key: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.query.push((key.to_owned(), value));
        }
        self
    }

    pub(crate) fn accept(mut self, media_type: &'static str) -> Self {
        self.accept = media_type;
        self
    }

    pub(crate) fn body(mut self, media_type: &'static str, body: &Value) -> Self {
        self.body = Some((media_type, body.to_string().into_bytes()));
        self
    }

    fn uri(&self) -> String {
        let pairs: Vec<String> = self.query.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
        if pairs.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, pairs.join("&")) }
    }

    fn request(self) -> Result<Request<Body>, ApiError> {
        let builder = Request::builder()
            .method(self.method.clone())
            .uri(self.uri())
            .header(http::header::ACCEPT, self.accept)
            .header(http::header::USER_AGENT, concat!("podium/", env!("CARGO_PKG_VERSION")));
        let request = match self.body {
            Some((media_type, body)) => builder.header(http::header::CONTENT_TYPE, media_type).body(Body::from(body)),
            None => builder.body(Body::empty()),
        };
        request.map_err(|e| ApiError::bad_request(format!("cannot ask for {:?}: {e}", self.path)))
    }
}

/// Percent-encodes what may not stand in a path segment or a query value.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

impl Connection {
    /// A connection by a client that is already there.
    pub(crate) fn new(client: Client, namespace: &str, server: &str) -> Self {
        let (namespace, server) = (namespace.to_owned(), server.to_owned());
        Self { client, namespace, namespace_given: false, server }
    }

    /// Makes a call and reads the JSON that it is answered with. Warnings of the server go to standard error.
    ///
    /// # Errors
    /// The server's error, or why it did not answer.
    pub(crate) async fn json(&self, call: Call) -> Result<Value, ApiError> {
        let path = call.path.clone();
        let read = async {
            let response = self.open(call).await?;
            let body = response.into_body().collect_bytes().await.map_err(|e| self.unreachable(&e))?;
            if body.is_empty() {
                return Ok(Value::Null);
            }
            serde_json::from_slice(&body)
                .map_err(|e| ApiError::internal(format!("the answer to {path} is no JSON: {e}")))
        };
        tokio::time::timeout(CALL_TIMEOUT, read).await.unwrap_or_else(|_| {
            let message = format!("{} did not answer {path} within {} s", self.server, CALL_TIMEOUT.as_secs());
            Err(ApiError::new(Reason::Timeout, message))
        })
    }

    /// Makes a call whose answer is read piece by piece, for as long as it takes.
    ///
    /// # Errors
    /// As [`Connection::json`].
    pub(crate) async fn stream(&self, call: Call) -> Result<Pieces, ApiError> {
        let response = self.open(call).await?;
        Ok(Pieces { body: response.into_body().into_data_stream(), rest: Vec::new() })
    }

    /// Makes a call to what is no Kubernetes resource. The answer is given as it comes, whatever its status.
    ///
    /// # Errors
    /// Why there is no answer within the time for calls.
    pub(crate) async fn raw(&self, request: Request<Body>) -> Result<http::Response<Body>, ApiError> {
        let path = request.uri().path().to_owned();
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.client.send(request)).await;
        answer.map_or_else(
            |_| {
                let message = format!("{} did not answer {path} within {} s", self.server, CALL_TIMEOUT.as_secs());
                Err(ApiError::new(Reason::Timeout, message))
            },
            |answer| answer.map_err(|e| self.unreachable(&e)),
        )
    }

    async fn open(&self, call: Call) -> Result<http::Response<Body>, ApiError> {
        let response = self.client.send(call.request()?).await.map_err(|e| self.unreachable(&e))?;
        for warning in response.headers().get_all(http::header::WARNING) {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                eprintln!("Warning: {text}");
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await.unwrap_or_default();
        Err(error_of(code, &body))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> ApiError {
        let mut message = format!("{} cannot be reached: {error}", self.server);
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.ends_with(&cause_text) {
                message.push_str(&format!(": {cause_text}"));
            }
            source = cause.source();
        }
        ApiError::new(Reason::ServiceUnavailable, format!("{message}; is the cluster up? (`podium up` starts one)"))
    }
}

/// `299 - "text"` without the code and the quotes.
fn warning_text(header: &str) -> Option<String> {
    let quoted = header.split_once('"')?.1;
    let text = quoted.trim_end();
    Some(text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\""))
}

fn error_of(code: u16, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.status.as_deref() == Some("Failure") => ApiError::from_status(status),
        _ => {
            let text: String = String::from_utf8_lossy(body).chars().take(500).collect();
            let message = format!("the server answered {code}: {}", text.trim());
            ApiError::from_status(Status { code: Some(code.into()), message: Some(message), ..Status::default() })
        }
    }
}

/// An answer that is read piece by piece.
pub(crate) struct Pieces {
    body: http_body_util::BodyDataStream<Body>,
    rest: Vec<u8>,
}

impl Pieces {
    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        self.body.next().await.transpose().context("the connection broke")
    }

    /// The next line without its end; `None` at the end.
    pub(crate) async fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.rest.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            match self.next().await? {
                Some(bytes) if self.rest.len() + bytes.len() <= LINE_BYTES_MAX => self.rest.extend_from_slice(&bytes),
                Some(_) => bail!("a line of the answer is longer than {LINE_BYTES_MAX} bytes"),
                None if self.rest.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.rest))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped() {
        for (call, uri) in [
            (Call::get("/version"), "/version"),
            (
                Call::get("/api/v1/pods").query("labelSelector", "a in (b,c)").query("limit", ""),
                "/api/v1/pods?labelSelector=a%20in%20%28b%2Cc%29",
            ),
            (Call::get("/x").query("a", 1).query("b", "ä"), "/x?a=1&b=%C3%A4"),
        ] {
            assert_eq!(call.uri(), uri);
        }
    }

    #[test]
    fn warnings_and_errors_are_read() {
        assert_eq!(
            warning_text("299 - \"unknown field \\\"spec.foo\\\"\""),
            Some("unknown field \"spec.foo\"".to_owned())
        );
        let status =
            br#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404,"message":"pods \"a\" not found"}"#;
        assert_eq!(error_of(404, status).message, "pods \"a\" not found");
        let other = error_of(502, b"<html>bad gateway</html>\n");
        assert_eq!(other.message, "the server answered 502: <html>bad gateway</html>");
    }
}
