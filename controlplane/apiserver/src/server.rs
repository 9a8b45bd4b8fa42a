//! The entry: what an embedder starts and stops.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use podium_api::ApiError;
use podium_client::ApiRef;
use podium_store::Store;

use crate::{NodeGateway, ServerConfig, auth::Identity};

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
}

impl ApiServer {
    /// Loads the stored objects, makes those that every cluster has, and serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: ServerConfig, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let _ = store;
        Err(StartError::Load(format!("{} is not built yet", config.bind)))
    }

    /// The API in this process, as `identity` sees it.
    pub fn api(&self, _identity: Identity) -> ApiRef {
        unreachable!("invariant: start has not succeeded yet")
    }

    /// The address listened on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The server's URL, for example `https://127.0.0.1:6443`.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// A kubeconfig for the administrator, with `server` as the cluster's URL.
    pub fn admin_kubeconfig(&self, _server: &str) -> String {
        String::new()
    }

    /// Hands in the node agent, once it runs: before that, logs are answered with 503.
    pub fn connect_node(&self, _gateway: Arc<dyn NodeGateway>) {}

    /// `/readyz` fails, watches end, requests under way are answered; connections that are left after
    /// [`crate::Limits::drain_timeout`] are cut.
    pub async fn shutdown(self) {}
}
