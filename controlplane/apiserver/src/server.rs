//! The entry: what an embedder starts and stops.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use parking_lot::RwLock;
use podium_api::{ApiError, KindRef, kinds};
use podium_client::{ApiRef, Clock as _, SystemClock};
use podium_store::Store;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    ImageRegistry, LocalApi, NodeGateway, ServerConfig, ServiceDialer,
    accounts::Accounts,
    admission::type_check,
    aggregate::{self, Aggregator},
    audit::Audit,
    auth::{Attributes, Identity, MASTERS, Tokens},
    bootstrap, certificates, components, connection,
    custom::Custom,
    expiry,
    flow::{Flow, FlowLimits},
    http::{Frontend, metrics::Metrics},
    node_authorizer::WithNodes,
    pki::{ADMIN, Pki, write_private},
    rbac,
    registry::Registry,
    token_secrets,
    usage::Usage,
};

/// Why the API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Keys, certificates or tokens could not be read or written.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or certificate cannot be used.
    #[error("cannot {operation}: {reason}")]
    Pki {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The stored objects could not be read.
    #[error("cannot load the stored objects: {0}")]
    Load(String),
    /// The metrics could not be set up.
    #[error("cannot set up the metrics: {0}")]
    Metrics(String),
    /// The objects that every cluster has could not be made.
    #[error("cannot {operation}")]
    Bootstrap {
        /// What was tried.
        operation: String,
        /// What the API said.
        source: ApiError,
    },
}

/// A running API server.
pub struct ApiServer {
    addr: SocketAddr,
    registry: Arc<Registry>,
    frontend: Arc<Frontend>,
    pki: Pki,
    tasks: Vec<JoinHandle<()>>,
    listener: JoinHandle<()>,
}

impl ApiServer {
    /// Loads the stored objects, makes those that every cluster has, and serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: ServerConfig, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let pki = Pki::open(&config, SystemClock.now())?;
        let tls = pki.tls()?;
        let address = config.bind;
        let listener = TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, source })?;
        let addr = listener.local_addr().map_err(|source| StartError::Bind { address, source })?;
        let mut all = kinds::all();
        all.extend(kinds::answered());
        let (registry, pump) = Registry::open(&config, all, store, Arc::new(SystemClock))
            .await
            .map_err(|e| StartError::Load(e.to_string()))?;
        let admin = Identity::new(ADMIN, &[MASTERS, "system:authenticated"]);
        let tokens = Tokens::new([(pki.admin_token.clone(), admin)]);
        registry.outbound().set_credentials(pki.front_proxy());
        let aggregator = Arc::new(Aggregator::new(registry.clone()));
        let frontend = Arc::new(frontend(&config, registry.clone(), tokens, (addr, aggregator.clone()))?);
        bootstrap::cluster(&registry, &config, addr).await?;
        bootstrap::authentication(&registry, &pki.ca_pem).await?;
        bootstrap::cluster_info(&registry, &pki.ca_pem, addr).await?;
        rbac::ensure(&registry).await?;
        frontend.flow.load(&registry);
        let custom = Custom::open(registry.clone()).await;
        let custom = tokio::spawn(custom.run(frontend.stop.clone()));
        let stop = frontend.stop.clone();
        let namespaces = tokio::spawn(bootstrap::namespaces(registry.clone(), pki.ca_pem.clone(), stop));
        let services = tokio::spawn(aggregate::register::run(registry.clone(), frontend.stop.clone()));
        let others = tokio::spawn(aggregator.run(frontend.stop.clone()));
        let health = tokio::spawn(components::run(registry.clone(), frontend.stop.clone()));
        let policies = tokio::spawn(type_check::run(registry.clone(), frontend.stop.clone()));
        let certificates = tokio::spawn(certificates::run(registry.clone(), pki.signer()?, frontend.stop.clone()));
        let tokens = (frontend.accounts.clone(), pki.ca_pem.clone());
        let tokens = tokio::spawn(token_secrets::run(registry.clone(), tokens.0, tokens.1, frontend.stop.clone()));
        let events = tokio::spawn(expiry::events(registry.clone(), config.event_ttl, frontend.stop.clone()));
        let flow = tokio::spawn(frontend.flow.clone().run(registry.clone(), frontend.stop.clone()));
        let listener = tokio::spawn(connection::listen(listener, tls, frontend.clone()));
        tracing::info!(%addr, "the API is served");
        Ok(Self {
            addr,
            registry,
            frontend,
            pki,
            tasks: vec![
                pump,
                namespaces,
                policies,
                certificates,
                tokens,
                events,
                services,
                custom,
                health,
                others,
                flow,
            ],
            listener,
        })
    }

    /// The API in this process, as `identity` sees it.
    pub fn api(&self, identity: Identity) -> ApiRef {
        Arc::new(LocalApi::new(self.registry.clone(), self.frontend.accounts.clone(), identity))
    }

    /// Every kind that is served.
    pub fn kinds(&self) -> Vec<KindRef> {
        self.registry.served().kinds()
    }

    /// The address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The server's URL, for example `https://127.0.0.1:6443`.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// A kubeconfig for the administrator, with `server` as the cluster's URL. Holds a private key.
    pub fn admin_kubeconfig(&self, server: &str) -> String {
        self.pki.kubeconfig(server)
    }

    /// Writes [`ApiServer::admin_kubeconfig`] to a file that only its owner can read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &std::path::Path, server: &str) -> Result<(), StartError> {
        write_private(path, &self.pki.kubeconfig(server))
    }

    /// The administrator's bearer token. Secret.
    pub fn admin_token(&self) -> &str {
        &self.pki.admin_token
    }

    /// The cluster's CA certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.pki.ca_pem
    }

    /// What nodes know this server by, as PEM: its certificate and the key. Secret.
    pub fn kubelet_client(&self) -> (&str, &str) {
        self.pki.kubelet_client()
    }

    /// Hands in the node agent, once it runs: before that, logs are answered with 503.
    pub fn connect_node(&self, gateway: Arc<dyn NodeGateway>) {
        *self.frontend.gateway.write() = Some(gateway);
    }

    /// Hands in the image registry, which is served below `/v2/` from then on.
    pub fn connect_images(&self, images: Arc<dyn ImageRegistry>) {
        *self.frontend.images.write() = Some(images);
    }

    /// Lets other servers of this process ask who somebody is and what they may do.
    pub fn door(&self) -> Door {
        Door { frontend: self.frontend.clone() }
    }

    /// Hands in the pods of this process, once there are some: webhooks can be among them.
    pub fn connect_services(&self, services: Arc<dyn ServiceDialer>) {
        self.registry.outbound().set_services(services);
    }

    /// `/readyz` fails for [`crate::Limits::shutdown_delay`] while all else goes on; then watches end, requests under way are answered; connections that are left after
    /// [`crate::Limits::drain_timeout`] are cut. The store stays open: it belongs to the caller.
    pub async fn shutdown(self) {
        self.frontend.closing.cancel();
        tokio::time::sleep(self.frontend.limits.shutdown_delay).await;
        self.frontend.stop.cancel();
        if let Err(error) = self.listener.await {
            tracing::error!(%error, "the listener failed");
        }
        if let Some(audit) = &self.frontend.audit {
            audit.flush().await;
        }
        self.registry.close();
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Who somebody is and what they may do, as the API server knows it. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    frontend: Arc<Frontend>,
}

impl Door {
    /// Whether the owner of a bearer token may use a path that is no resource. `verb`: the HTTP method in lower case.
    ///
    /// # Errors
    /// 401 when nobody knows the token, 403 when its owner may not.
    pub fn check_path(&self, token: &str, verb: &str, path: &str) -> Result<(), ApiError> {
        let who = self.frontend.token_identity(token).ok_or_else(crate::auth::unauthorized)?;
        let what = Attributes { verb, group: "", resource: "", subresource: "", namespace: "", name: "", path };
        self.frontend.authorizer.check(&who, &what)
    }
}

fn frontend(
    config: &ServerConfig,
    registry: Arc<Registry>,
    tokens: Tokens,
    (addr, aggregator): (SocketAddr, Arc<Aggregator>),
) -> Result<Frontend, StartError> {
    let limits = config.limits.clone();
    let authorizer = Arc::new(WithNodes { rbac: registry.rbac().clone(), registry: registry.clone() });
    let opened = |audit: &crate::AuditConfig| {
        Audit::open(audit, &config.metrics).map_err(|source| StartError::File {
            operation: "open the audit log",
            path: audit.log_path.clone(),
            source,
        })
    };
    let audit = config.audit.as_ref().map(opened).transpose()?;
    let metrics = Metrics::new(config.metrics.clone()).map_err(|e| StartError::Metrics(e.to_string()))?;
    let admission = registry.admission().metrics();
    admission.register(&config.metrics).map_err(|e| StartError::Metrics(e.to_string()))?;
    let seats = FlowLimits {
        seats: limits.requests_in_flight_max,
        exempt_max: limits.exempt_in_flight_max,
        wait_max: limits.queue_timeout,
    };
    let flow = Flow::new(seats, &config.metrics).map_err(|e| StartError::Metrics(e.to_string()))?;
    Ok(Frontend {
        registry,
        tokens,
        accounts: Arc::new(Accounts::open(&config.data_dir)?),
        authorizer,
        metrics,
        gateway: RwLock::new(None),
        usage: Usage::default(),
        images: RwLock::new(None),
        audit,
        openapi: Arc::default(),
        aggregator,
        flow: Arc::new(flow),
        streams: Arc::new(Semaphore::new(limits.streams_max)),
        closing: CancellationToken::new(),
        stop: CancellationToken::new(),
        address: addr.to_string(),
        limits,
    })
}
