//! The cluster's own registry: a folder, served below the API server's `/v2/` for `podium push`, and on a loopback port for
//! nodes and for other tools.
//!
//! Whoever can connect to the loopback port may pull; to push takes a bearer token of the cluster whose owner may use the path
//! (`nonResourceURLs`). Tools give it as a password and get it back from `/token`: the one way that all of them know for both
//! anonymous pulls and pushes. The port speaks plain HTTP, as tools do with loopback addresses: it is refused elsewhere.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use podium_agent::Registries;
use podium_api::{
    Reason,
    k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};
use podium_apiserver::{ApiServer, Door, ImageRegistry, ServiceBody};
use podium_client::ApiRef;
use podium_registry::{Access, Action, Anonymous, Listener, Refusal, Registry, RegistryConfig};

use super::{data_dir::DataDir, images_in_use};

/// Where the registry listens when nothing is said; another port when this one is taken.
const ADDRESS_DEFAULT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 5000));
/// Where tools ask for tokens.
const TOKEN_PATH: &str = "/token";
/// The token of everybody: it opens nothing that is not open.
const ANYBODY: &str = "anybody";
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// What is said about images.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Where the registry listens, a loopback address; port 0 picks a free one [default: 127.0.0.1:5000, or a free port]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) registry: Option<SocketAddr>,
    /// File that names mirrors, registries over plain HTTP, and names of images that mean others
    #[arg(long, value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    /// Let Wasm stand in for the images of Kubernetes' own tests and a few others: agnhost, busybox, httpd, nginx, pause
    #[arg(long)]
    pub(crate) test_images: bool,
}

impl RegistryArgs {
    /// Reads the file about registries.
    ///
    /// # Errors
    /// When it cannot be read or says what cannot be meant.
    pub(crate) fn registries(&self) -> Result<Registries> {
        let Some(path) = &self.registries else { return Ok(Registries::default()) };
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --registries {shown}"))?;
        let found: Option<Registries> =
            serde_yaml::from_str(&text).with_context(|| format!("cannot read --registries {shown}"))?;
        let found = found.unwrap_or_default();
        found.check().map_err(|why| anyhow::anyhow!("--registries {shown}: {why}"))?;
        Ok(found)
    }
}

/// The running registry.
pub(crate) struct Images {
    listener: Listener,
    sweeper: tokio::task::JoinHandle<()>,
}

impl Images {
    /// Opens the folder and serves it.
    ///
    /// # Errors
    /// When the folder or the address cannot be used.
    pub(crate) async fn start(args: &RegistryArgs, data: &DataDir, server: &ApiServer, api: &ApiRef) -> Result<Self> {
        let registry =
            Registry::open(RegistryConfig::new(data.join("registry"))).context("open the registry's folder")?;
        let access = Arc::new(Tokens { door: server.door() });
        let door = server.door();
        let tokens = axum::routing::get(move |headers: HeaderMap| async move { token_answer(&door, &headers) });
        let router = axum::Router::new().route(TOKEN_PATH, tokens).merge(registry.router(access));
        let listener = listen(args.registry, router).await?;
        if args.test_images {
            super::test_images::publish(&registry.router(Arc::new(Anonymous))).await?;
        }
        server.connect_images(Arc::new(Mounted { router: registry.router(Arc::new(Anonymous)) }));
        announce(api, listener.address()).await?;
        let api = api.clone();
        let in_use = move || {
            let api = api.clone();
            async move { images_in_use::digests(&api).await }
        };
        let sweeper = tokio::spawn(async move { registry.keep_clean(SWEEP_EVERY, in_use).await });
        Ok(Self { listener, sweeper })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Its host as names of images begin with it outside the cluster.
    pub(crate) fn host(&self) -> String {
        host(self.address())
    }

    pub(crate) async fn shutdown(self, drain: Duration) {
        self.sweeper.abort();
        self.listener.shutdown(drain).await;
    }
}

fn host(address: SocketAddr) -> String {
    if address.ip().is_ipv4() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

async fn listen(wanted: Option<SocketAddr>, router: axum::Router) -> Result<Listener> {
    if let Some(address) = wanted {
        if !address.ip().is_loopback() {
            bail!("--registry {address}: the registry speaks plain HTTP and listens on loopback addresses only");
        }
        let said = || format!("cannot listen on {address}: name another address with --registry");
        return Listener::start(address, router).await.with_context(said);
    }
    match Listener::start(ADDRESS_DEFAULT, router.clone()).await {
        Ok(listener) => Ok(listener),
        Err(_) => {
            let free = SocketAddr::new(ADDRESS_DEFAULT.ip(), 0);
            Listener::start(free, router).await.context("the registry cannot listen on a loopback port")
        }
    }
}

/// Says where the registry is, as tools look for it.
///
/// # Source
/// KEP-1755, "Communicating a local registry".
async fn announce(api: &ApiRef, address: SocketAddr) -> Result<()> {
    let hosting = format!("host: \"{}\"\nhelp: \"podium push FILE.wasm NAME:TAG\"\n", host(address));
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("local-registry-hosting".to_owned()),
            namespace: Some("kube-public".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("localRegistryHosting.v1".to_owned(), hosting)].into()),
        ..ConfigMap::default()
    };
    let outcome = match api.create(Box::new(map.clone())).await {
        Err(error) if error.reason == Reason::AlreadyExists => api.update(Box::new(map), None).await,
        outcome => outcome,
    };
    outcome.map(drop).context("say where the registry is")
}

/// Everybody on this machine may pull; tokens of the cluster push.
struct Tokens {
    door: Door,
}

#[async_trait]
impl Access for Tokens {
    async fn check(&self, headers: &HeaderMap, action: Action, repository: &str) -> Result<(), Refusal> {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| token(value.to_str().ok()?));
        // Tools ask for `/v2/` first, and say who they are only when this is refused.
        if action == Action::Pull && (!repository.is_empty() || token.as_deref() == Some(ANYBODY)) {
            return Ok(());
        }
        let token = token.ok_or(Refusal::Unauthorized)?;
        if action == Action::Pull {
            return if is_known(&self.door, &token) { Ok(()) } else { Err(Refusal::Unauthorized) };
        }
        let verb = if action == Action::Delete { "delete" } else { "put" };
        self.door.check_path(&token, verb, &format!("/v2/{repository}")).map_err(|error| match error.reason {
            Reason::Forbidden => Refusal::Denied(error.message),
            _ => Refusal::Unauthorized,
        })
    }

    fn challenge(&self, headers: &HeaderMap, action: Action, repository: &str) -> String {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(*c)).collect();
        let realm = format!("Bearer realm=\"http://{host}{TOKEN_PATH}\",service=\"podium\"");
        let actions = if action == Action::Pull { "pull" } else { "pull,push" };
        if repository.is_empty() { realm } else { format!("{realm},scope=\"repository:{repository}:{actions}\"") }
    }
}

/// Gives back the token that came as a password, or one that everybody may have.
fn token_answer(door: &Door, headers: &HeaderMap) -> Response<axum::body::Body> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| token(value.to_str().ok()?));
    let given = given.filter(|token| !token.is_empty()).unwrap_or_else(|| ANYBODY.to_owned());
    let known = given == ANYBODY || is_known(door, &given);
    let said = if known {
        serde_json::json!({ "token": given, "access_token": given, "expires_in": 300 })
    } else {
        serde_json::json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "this is no token of the cluster" }] })
    };
    let mut response = Response::new(axum::body::Body::from(said.to_string()));
    *response.status_mut() = if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether it is somebody's token, whatever they may do.
fn is_known(door: &Door, token: &str) -> bool {
    door.check_path(token, "get", "/v2/").map_or_else(|error| error.reason == Reason::Forbidden, |()| true)
}

/// The token of a header: as bearer, or as the password of anybody.
fn token(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// The registry below the API server's `/v2/`, which has asked who it is and what they may do.
struct Mounted {
    router: axum::Router,
}

#[async_trait]
impl ImageRegistry for Mounted {
    async fn serve(&self, request: Request<ServiceBody>) -> Response<ServiceBody> {
        use tower::ServiceExt as _;
        let answered = self.router.clone().oneshot(request.map(axum::body::Body::new)).await;
        let response = answered.unwrap_or_else(|never| match never {});
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_as_bearer_or_as_password() {
        let basic = format!("Basic {}", STANDARD.encode("anybody:s3:cret"));
        for (header, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            (basic.as_str(), Some("s3:cret")),
            ("Basic !!", None),
            ("Digest x", None),
            ("", None),
        ] {
            assert_eq!(token(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn the_file_about_registries_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let args = RegistryArgs { registries: Some(path.clone()), ..RegistryArgs::default() };
            args.registries().map_or_else(|e| format!("{e:#}"), |found| format!("{} rewrites", found.rewrites.len()))
        };
        assert_eq!(read(""), "0 rewrites");
        assert_eq!(read("rewrites: [{from: docker.io/library/nginx, to: demo/nginx}]"), "1 rewrites");
        assert!(read("rewrite: []").contains("unknown field `rewrite`"));
        assert!(read("registries: [{host: a/b}]").contains("registries[0].host"));
    }
}
