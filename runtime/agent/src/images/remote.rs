//! Registries over HTTP: one request with its authentication, every answer bounded in bytes and time.
//!
//! Not `oci-client`'s requests: it reads manifests, tokens and error pages as long as they are, and a pod's author chooses the
//! registry, so that one answer without end would take the node's memory. Names are parsed by it.
//!
//! Invariants: credentials go to the host that they are for and to where its challenge points, never along a redirect to
//! another; no error and no log line holds one, nor an address behind a redirect, which may be signed.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use reqwest::{Client, Response, Url, redirect};
use serde::Deserialize;

use super::{credentials::Credential, reference::Reference, registries::Registries};

/// Longest answer of a token server, and longest error page.
const TOKEN_BYTES_MAX: usize = 64 << 10;
const REDIRECTS_MAX: usize = 5;
/// Tokens and clients remembered.
const KNOWN_MAX: usize = 1024;
/// How much earlier than it ends a token is thrown away.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);
/// How long the specification lets a token live that does not say.
const TOKEN_SECONDS_DEFAULT: u64 = 60;

/// One place where an image may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Scheme and host.
    base: String,
    /// The host as credentials name it; none for the cluster's own.
    pub(crate) host: Option<String>,
    pub(crate) repository: String,
    /// The registry that a mirror stands for.
    stands_for: Option<String>,
    ca_file: Option<PathBuf>,
}

impl Endpoint {
    /// Mirrors first, then the registry itself.
    pub(crate) fn all(reference: &Reference, registries: &Registries) -> Vec<Self> {
        let repository = reference.repository.clone();
        let Some(host) = &reference.host else {
            let base = format!("http://{}", registries.built_in.as_deref().unwrap_or_default());
            return vec![Self { base, host: None, repository, stands_for: None, ca_file: None }];
        };
        let settings = registries.of(host);
        let mirrors = settings.into_iter().flat_map(|s| &s.mirrors);
        let mut all: Vec<_> = mirrors.filter_map(|mirror| Self::mirror(mirror, &repository, Some(host))).collect();
        for mirror in &mut all {
            let own = mirror.host.as_deref().and_then(|host| registries.of(host));
            mirror.apply(own.is_some_and(|s| s.insecure), own.and_then(|s| s.ca_file.clone()));
        }
        let address = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let base = format!("https://{address}");
        let mut own = Self { base, host: Some(host.clone()), repository, stands_for: None, ca_file: None };
        own.apply(settings.is_some_and(|s| s.insecure), settings.and_then(|s| s.ca_file.clone()));
        all.push(own);
        all
    }

    /// A mirror as settings name it: `[http://]host[:port][/prefix]`.
    pub(crate) fn mirror(text: &str, repository: &str, stands_for: Option<&str>) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let (host, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        if !matches!(scheme, "http" | "https") || host.is_empty() || Url::parse(&format!("https://{host}")).is_err() {
            return None;
        }
        let repository = if prefix.is_empty() { repository.to_owned() } else { format!("{prefix}/{repository}") };
        let stands_for = stands_for.map(str::to_owned);
        let mut mirror = Self {
            base: format!("{scheme}://{host}"),
            host: Some(host.to_owned()),
            repository,
            stands_for,
            ca_file: None,
        };
        mirror.apply(scheme == "http", None);
        Some(mirror)
    }

    fn apply(&mut self, insecure: bool, ca_file: Option<PathBuf>) {
        if (insecure || self.host.as_deref().is_some_and(is_loopback))
            && let Some(rest) = self.base.strip_prefix("https://")
        {
            self.base = format!("http://{rest}");
        }
        self.ca_file = ca_file.or(self.ca_file.take());
    }

    /// For messages.
    pub(crate) fn words(&self) -> String {
        self.host.clone().unwrap_or_else(|| "the cluster's registry".to_owned())
    }

    fn url(&self, path: &str) -> String {
        let namespace = self.stands_for.as_ref().map(|host| format!("?ns={host}")).unwrap_or_default();
        format!("{}/v2/{}/{path}{namespace}", self.base, self.repository)
    }

    fn is_plain(&self) -> bool {
        self.base.starts_with("http://")
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|h| h.split(']').next()).unwrap_or(host);
    let name = if host.starts_with('[') { name } else { name.split(':').next().unwrap_or_default() };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There is no such thing.
    Missing,
    /// The registry wants other credentials, or none would do.
    Denied(String),
    /// It may go better later.
    Passing { why: String, after: Option<Duration> },
    /// It will not go better.
    Broken(String),
}

impl Failure {
    pub(crate) fn passing(why: impl Into<String>) -> Self {
        Self::Passing { why: why.into(), after: None }
    }

    /// What the user reads.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Missing => "not found".to_owned(),
            Self::Denied(why) => {
                format!("pull access denied, repository does not exist or may require authorization: {why}")
            }
            Self::Passing { why, .. } | Self::Broken(why) => why.clone(),
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    /// Nothing may come for so long, in the middle of a body too.
    pub(crate) stall: Duration,
}

/// Talks to registries.
pub(crate) struct Remote {
    patience: Patience,
    clients: Mutex<HashMap<(bool, Option<PathBuf>), Client>>,
    tokens: Mutex<HashMap<String, (Arc<str>, Instant)>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

impl Remote {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, clients: Mutex::default(), tokens: Mutex::default() }
    }

    /// Reads a manifest: its bytes as they are.
    pub(crate) async fn manifest(
        &self,
        endpoint: &Endpoint,
        version: &str,
        credential: Option<&Credential>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, http::HeaderValue::from_static(super::manifest::ACCEPT));
        let response = self.get(endpoint, &format!("manifests/{version}"), headers, credential).await?;
        bounded(response, bytes_max).await
    }

    /// Opens a blob from some byte on. The answer may begin at the first byte all the same: its status says.
    pub(crate) async fn blob(
        &self,
        endpoint: &Endpoint,
        digest: &str,
        from: u64,
        credential: Option<&Credential>,
    ) -> Result<Response, Failure> {
        let mut headers = HeaderMap::new();
        if from > 0
            && let Ok(range) = format!("bytes={from}-").parse()
        {
            headers.insert(header::RANGE, range);
        }
        self.get(endpoint, &format!("blobs/{digest}"), headers, credential).await
    }

    async fn get(
        &self,
        endpoint: &Endpoint,
        path: &str,
        headers: HeaderMap,
        credential: Option<&Credential>,
    ) -> Result<Response, Failure> {
        let client = self.client(endpoint)?;
        let key =
            format!("{}/{} {}", endpoint.base, endpoint.repository, credential.map(Credential::id).unwrap_or_default());
        let mut authorization = self.token(&key);
        if let Some(Credential::Token(token)) = credential {
            authorization = Some(format!("Bearer {token}").into());
        }
        let mut challenged = false;
        loop {
            let mut request = client.get(endpoint.url(path)).headers(headers.clone());
            if let Some(value) = &authorization {
                request = request.header(header::AUTHORIZATION, sensitive(value)?);
            }
            let response = request.send().await.map_err(|e| Failure::passing(words(e)))?;
            if response.status() != StatusCode::UNAUTHORIZED || challenged {
                return checked(response).await;
            }
            challenged = true;
            let Some((value, seconds)) = self.log_in(endpoint, &client, &response, credential).await? else {
                return checked(response).await;
            };
            self.remember(key.clone(), value.clone(), seconds);
            authorization = Some(value);
        }
    }

    /// What a challenge is answered with; `None` when nothing can.
    async fn log_in(
        &self,
        endpoint: &Endpoint,
        client: &Client,
        response: &Response,
        credential: Option<&Credential>,
    ) -> Result<Option<(Arc<str>, u64)>, Failure> {
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<_> =
            challenges.iter().filter_map(|c| http_auth::parse_challenges(c.to_str().ok()?).ok()).flatten().collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case("bearer")) {
            let of = |name: &str| bearer.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let of = |name: &str| of(name).map(|(_, value)| value.to_unescaped());
            let realm = of("realm").ok_or_else(|| Failure::Broken("its challenge names no token server".to_owned()))?;
            let url = token_url(endpoint, &realm, of("service").as_deref())?;
            return fetch_token(client, url, credential).await.map(Some);
        }
        let basic = challenges.iter().any(|c| c.scheme.eq_ignore_ascii_case("basic"));
        Ok(credential.filter(|_| basic).and_then(basic_value).map(|value| (value, u64::from(u16::MAX))))
    }

    fn token(&self, key: &str) -> Option<Arc<str>> {
        let tokens = self.tokens.lock();
        tokens.get(key).filter(|(_, ends)| *ends > Instant::now() + TOKEN_MARGIN).map(|(token, _)| token.clone())
    }

    fn remember(&self, key: String, value: Arc<str>, seconds: u64) {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= KNOWN_MAX {
            tokens.clear();
        }
        tokens.insert(key, (value, Instant::now() + Duration::from_secs(seconds.min(24 * 3600))));
    }

    fn client(&self, endpoint: &Endpoint) -> Result<Client, Failure> {
        let key = (endpoint.is_plain(), endpoint.ca_file.clone());
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let client = build(self.patience, endpoint)?;
        let mut clients = self.clients.lock();
        if clients.len() >= KNOWN_MAX {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn build(patience: Patience, endpoint: &Endpoint) -> Result<Client, Failure> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else was quicker.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let broken = |why: String| Failure::Broken(format!("the client cannot be set up: {why}"));
    let mut builder = Client::builder()
        .user_agent(concat!("podium/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(patience.connect)
        .read_timeout(patience.stall)
        .pool_idle_timeout(Duration::from_secs(30))
        .redirect(redirect::Policy::custom(follow));
    if endpoint.is_plain() {
        builder = builder.no_proxy();
    }
    if let Some(path) = &endpoint.ca_file {
        builder = builder.tls_certs_merge(certificates(path).map_err(broken)?);
    }
    builder.build().map_err(|error| broken(words(error)))
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let pem = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| format!("{} holds no certificates", path.display()))
}

/// A few redirects, and none from what is encrypted to what is not.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(format!("more than {REDIRECTS_MAX} redirects"));
    }
    if from_https && attempt.url().scheme() != "https" {
        return attempt.error("a redirect to plain HTTP");
    }
    attempt.follow()
}

fn token_url(endpoint: &Endpoint, realm: &str, service: Option<&str>) -> Result<Url, Failure> {
    let broken = |why: &str| Failure::Broken(format!("its challenge names a token server that {why}"));
    let mut url = Url::parse(realm).map_err(|_| broken("has no address"))?;
    if url.scheme() != "https" && !endpoint.is_plain() {
        return Err(broken("is not encrypted"));
    }
    let mut pairs = url.query_pairs_mut();
    if let Some(service) = service {
        pairs.append_pair("service", service);
    }
    pairs.append_pair("scope", &format!("repository:{}:pull", endpoint.repository));
    drop(pairs);
    Ok(url)
}

async fn fetch_token(client: &Client, url: Url, credential: Option<&Credential>) -> Result<(Arc<str>, u64), Failure> {
    let mut request = client.get(url);
    if let Some(value) = credential.and_then(basic_value) {
        request = request.header(header::AUTHORIZATION, sensitive(&value)?);
    }
    let response = request.send().await.map_err(|e| Failure::passing(format!("its token server: {}", words(e))))?;
    let response = checked(response).await.map_err(|failure| match failure {
        Failure::Missing => Failure::Broken("its token server knows nothing of tokens".to_owned()),
        other => other,
    })?;
    let body = bounded(response, TOKEN_BYTES_MAX).await?;
    let unreadable = || Failure::Broken("the answer of its token server cannot be read".to_owned());
    let token: Token = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let value = if token.token.is_empty() { token.access_token } else { token.token };
    if value.is_empty() {
        return Err(unreadable());
    }
    Ok((format!("Bearer {value}").into(), token.expires_in.unwrap_or(TOKEN_SECONDS_DEFAULT)))
}

fn basic_value(credential: &Credential) -> Option<Arc<str>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    match credential {
        Credential::Basic { user, password } => {
            Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into())
        }
        Credential::Token(_) => None,
    }
}

fn sensitive(value: &str) -> Result<http::HeaderValue, Failure> {
    let refused = |_| Failure::Broken("a credential holds what no header can".to_owned());
    let mut value = http::HeaderValue::from_str(value).map_err(refused)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The answer, if it is one.
async fn checked(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let said = bounded(response, TOKEN_BYTES_MAX).await.unwrap_or_default();
    let why = format!("it answered {status}{}", said_words(&said));
    Err(match status {
        StatusCode::NOT_FOUND => Failure::Missing,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Denied(why),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Failure::Passing { why, after: after.map(Duration::from_secs) }
        }
        status if status.is_server_error() => Failure::Passing { why, after: after.map(Duration::from_secs) },
        _ => Failure::Broken(why),
    })
}

/// The first message of a registry's error, printable and short.
fn said_words(body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = parsed["errors"][0]["message"].as_str().unwrap_or_default();
    let short: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    if short.is_empty() { short } else { format!(": {short}") }
}

/// All of a body, if it is no longer than `max`.
pub(crate) async fn bounded(mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Failure::passing(words(e)))? {
        if bytes.len() + chunk.len() > max {
            return Err(Failure::Broken(format!("an answer is longer than {max} bytes, the limit for it")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// An error with its causes, without addresses.
pub(crate) fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::registries::Registry;

    #[test]
    fn mirrors_come_first_and_loopback_is_plain() {
        let registries = Registries {
            built_in: Some("127.0.0.1:5000".to_owned()),
            registries: vec![
                Registry {
                    host: "docker.io".to_owned(),
                    mirrors: vec!["http://m.local:5000/hub".to_owned(), "n.local".to_owned()],
                    ..Registry::default()
                },
                Registry { host: "n.local".to_owned(), insecure: true, ..Registry::default() },
            ],
            ..Registries::default()
        };
        let urls = |image: &str| {
            let reference = Reference::parse(image, &registries).unwrap();
            let all = Endpoint::all(&reference, &registries);
            all.iter().map(|e| e.url("manifests/1")).collect::<Vec<_>>()
        };
        assert_eq!(
            urls("docker.io/nginx:1"),
            [
                "http://m.local:5000/v2/hub/library/nginx/manifests/1?ns=docker.io",
                "http://n.local/v2/library/nginx/manifests/1?ns=docker.io",
                "https://registry-1.docker.io/v2/library/nginx/manifests/1",
            ]
        );
        assert_eq!(urls("demo/app:1"), ["http://127.0.0.1:5000/v2/demo/app/manifests/1"]);
        assert_eq!(urls("ghcr.io/a/b:1"), ["https://ghcr.io/v2/a/b/manifests/1"]);
        for host in ["localhost:5000", "127.0.0.1:80", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.io", "128.0.0.1", "ghcr.io", "[::2]:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
