//! Requests that this server makes: to webhooks, to converters of custom resources, to other API servers.
//!
//! Connections stay open and are used again: one pool for each address, name and trust, HTTP/2 where the other side speaks
//! it, HTTP/1.1 otherwise. Each request to a Service goes to one of its ready endpoints, chosen by chance, so that a
//! connection that is kept binds nobody to one of several pods. Everything is bounded: pools, idle connections, how long
//! they idle. Does not retry (but for a connection that was closed before the request was begun), knows nothing of what
//! requests say, and sets no bound on answers: both are for callers.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/webhook/client.go`, and the defaults of its HTTP transport.

mod connect;
mod resolve;
mod tls;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Request, Response, Uri, Version, header};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::{Mutex, RwLock};
use podium_api::ApiError;

pub(crate) use tls::{Credentials, Trust, unverified as unverified_tls};

use self::connect::{ConnectError, Connector};
use crate::{gateway::ByteStream, registry::Registry};

/// Pools at once; the one that was not used for the longest time goes.
const POOLS_MAX: usize = 256;
/// Connections of a pool that are open and not used.
const IDLE_MAX: usize = 25;
/// How long they are kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// An HTTP/2 connection on which nothing comes is asked whether it is still there: all calls share it.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long the answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or an answer, as it comes.
pub type ServiceBody = UnsyncBoxBody<Bytes, BoxError>;

/// The pods that run in this process and have no sockets.
///
/// A webhook's Service may lead to them. They speak plain HTTP: what never leaves the process needs no TLS.
pub trait ServiceDialer: Send + Sync + 'static {
    /// Whether a pod of this process answers HTTP at this address.
    fn serves(&self, address: SocketAddr) -> bool;

    /// Hands a request to it.
    ///
    /// # Errors
    /// Why there is no answer.
    fn send(
        &self,
        address: SocketAddr,
        request: Request<ServiceBody>,
    ) -> BoxFuture<'_, Result<Response<ServiceBody>, String>>;

    /// Whether the pod there listens itself, so that what is spoken with it, TLS too, is its own matter. One that does not
    /// is called, and knows of no connection.
    fn listens(&self, _address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move { false })
    }

    /// Connects to it. A pod that is called speaks HTTP/1.1 then.
    ///
    /// # Errors
    /// Why there is no connection.
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, Result<Box<dyn ByteStream>, String>> {
        Box::pin(async move { Err(format!("dial tcp {address}: connect: connection refused")) })
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// To the host of its URI.
    Host,
    /// To a Service, whatever its URI says.
    Service {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// The port of the Service.
        port: i32,
    },
}

/// To whom, and how.
pub(crate) struct Destination<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) trust: Trust,
    /// Whether this server shows its certificate of a front proxy. Then the other side must be one that can check it: not
    /// a pod in this process.
    pub(crate) authenticated: bool,
}

/// What a pool is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Peer {
    host: String,
    port: u16,
    /// The name that its certificate must have.
    name: String,
    trust: Trust,
    authenticated: bool,
}

type Pool = Client<Connector, ServiceBody>;

/// All connections to other servers.
pub(crate) struct Outbound {
    pools: Mutex<HashMap<Peer, (Instant, Pool)>>,
    credentials: RwLock<Option<Credentials>>,
    services: RwLock<Option<Arc<dyn ServiceDialer>>>,
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self { pools: Mutex::default(), credentials: RwLock::new(None), services: RwLock::new(None) }
    }

    /// What this server shows where it is authenticated.
    pub(crate) fn set_credentials(&self, credentials: Credentials) {
        *self.credentials.write() = Some(credentials);
    }

    /// The pods of this process, once there are some.
    pub(crate) fn set_services(&self, services: Arc<dyn ServiceDialer>) {
        *self.services.write() = Some(services);
    }

    /// The pods of this process, if there are any.
    pub(crate) fn services(&self) -> Option<Arc<dyn ServiceDialer>> {
        self.services.read().clone()
    }

    /// Sends a request with an absolute URI; answers with the head of what comes back.
    ///
    /// # Errors
    /// Why there is no answer, in Kubernetes' words where it has any.
    pub(crate) async fn send(
        &self,
        registry: &Registry,
        to: Destination<'_>,
        request: Request<ServiceBody>,
    ) -> Result<Response<ServiceBody>, String> {
        let name = host_of(request.uri())?;
        let (host, port) = match to.place {
            Place::Host => (name.clone(), request.uri().port_u16().unwrap_or(443)),
            Place::Service { namespace, name, port } => resolve::endpoint(registry, namespace, name, port)?,
        };
        if !to.authenticated
            && to.place != Place::Host
            && let Some((services, address)) = self.in_process(&host, port)
        {
            return services.send(address, relative(request)?).await;
        }
        let peer = Peer { host, port, name, trust: to.trust, authenticated: to.authenticated };
        let answer = self.pool(peer)?.request(request).await.map_err(|error| text(&error))?;
        Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }

    fn in_process(&self, host: &str, port: u16) -> Option<(Arc<dyn ServiceDialer>, SocketAddr)> {
        let services = self.services()?;
        let address = SocketAddr::new(host.parse::<IpAddr>().ok()?, port);
        services.serves(address).then_some((services, address))
    }

    fn pool(&self, peer: Peer) -> Result<Pool, String> {
        let now = Instant::now();
        let mut pools = self.pools.lock();
        if let Some((used, pool)) = pools.get_mut(&peer) {
            *used = now;
            return Ok(pool.clone());
        }
        let credentials = self.credentials.read();
        let tls = tls::client(&peer.trust, credentials.as_ref().filter(|_| peer.authenticated))?;
        let connector = Connector::new(peer.host.clone(), peer.port, &peer.name, tls)?;
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        pools.retain(|_, (used, _)| now.duration_since(*used) < IDLE_TIMEOUT);
        if pools.len() >= POOLS_MAX
            && let Some(oldest) = pools.iter().min_by_key(|(_, (used, _))| *used).map(|(peer, _)| peer.clone())
        {
            pools.remove(&oldest);
        }
        pools.insert(peer, (now, pool.clone()));
        Ok(pool)
    }
}

/// All bytes of an answer.
///
/// # Errors
/// When there are more than `bytes_max`, or the connection breaks.
pub(crate) async fn read(mut body: ServiceBody, bytes_max: usize) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        if data.len() > bytes_max - all.len() {
            return Err("length limit exceeded".to_owned());
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// 503 in Kubernetes' words.
pub(crate) fn unavailable(why: &str) -> ApiError {
    ApiError::new(podium_api::Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
}

fn host_of(uri: &Uri) -> Result<String, String> {
    let host = uri.host().ok_or_else(|| format!("parse {:?}: the URL names no host", uri.to_string()))?;
    Ok(host.trim_matches(['[', ']']).to_owned())
}

/// The request as a server sees it: its path, and the host in a header.
fn relative(mut request: Request<ServiceBody>) -> Result<Request<ServiceBody>, String> {
    let uri = request.uri();
    if let Some(authority) = uri.authority() {
        let host = authority.as_str().parse().map_err(|error| format!("the host of {uri}: {error}"))?;
        let path = uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        request.headers_mut().entry(header::HOST).or_insert(host);
        *request.uri_mut() = path;
    }
    *request.version_mut() = Version::HTTP_11;
    Ok(request)
}

/// What went wrong at the bottom of it: what is above says only in which phase.
fn text(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
        if let Some(ConnectError(why)) = cause.downcast_ref() {
            return why.clone();
        }
    }
    cause.to_string()
}
