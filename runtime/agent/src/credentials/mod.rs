//! [`Credentials`]: keys and certificates of a node. Keys are made here and never leave; the cluster signs what is asked for by
//! CertificateSigningRequests; both lie in a folder that only its owner can read, and are made anew before they end.
//!
//! A node has two: one that it shows as a client (to the API server and to other nodes), and one that it serves with.
//!
//! # Source
//! Kubernetes `pkg/kubelet/certificate`, `staging/src/k8s.io/client-go/util/certificate/certificate_manager.go`.

mod held;
mod request;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use podium_api::ApiError;
use podium_client::{Api, ClockRef, write_private};
use podium_network::TunnelIdentity;
use rustls::sign::CertifiedKey;

use self::held::Held;
pub use self::held::Pem;

/// How long a failed renewal rests, at least.
const RETRY: Duration = Duration::from_secs(60);
/// Longest sleep: clocks are set.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Shown to the API server and to other nodes.
    Client,
    /// Served with.
    Serving,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Client, Self::Serving];

    fn file(self) -> &'static str {
        match self {
            Self::Client => "client.pem",
            Self::Serving => "serving.pem",
        }
    }

    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file or folder cannot be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The API refused the request.
    #[error("cannot ask for a certificate")]
    Api(#[source] ApiError),
    /// Whoever decides about the request has said no, or nothing.
    #[error("the request {name:?} for a certificate {why}")]
    Refused {
        /// Of the CertificateSigningRequest.
        name: String,
        /// What became of it.
        why: String,
    },
    /// A key or certificate is none.
    #[error("cannot use a certificate: {0}")]
    Unusable(String),
}

/// The certificates of one node.
pub struct Credentials {
    dir: PathBuf,
    node: String,
    clock: ClockRef,
    client: RwLock<Option<Held>>,
    serving: RwLock<Option<Held>>,
    api_server: Option<Arc<CertifiedKey>>,
}

impl Credentials {
    /// Opens the folder and takes what there is: certificates of this node that have not ended.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(dir: impl Into<PathBuf>, node: impl Into<String>, clock: ClockRef) -> Result<Self, CredentialsError> {
        let (dir, node) = (dir.into(), node.into());
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(file("make the folder", &dir))?;
        let found = Self {
            client: RwLock::new(load(&dir, Purpose::Client, &node, clock.now())),
            serving: RwLock::new(load(&dir, Purpose::Serving, &node, clock.now())),
            api_server: None,
            dir,
            node,
            clock,
        };
        Ok(found)
    }

    /// Where an API server is in this process: what it shows to nodes.
    ///
    /// # Errors
    /// When it is no certificate with its key.
    pub fn with_api_server(mut self, pem: &Pem) -> Result<Self, CredentialsError> {
        self.api_server = Some(Held::certified(pem)?);
        Ok(self)
    }

    /// The client certificate, while there is one that has not ended.
    pub fn client_pem(&self) -> Option<Pem> {
        let held = self.client.read();
        held.as_ref().filter(|held| held.until > self.clock.now()).map(|held| held.pem.clone())
    }

    /// Whether there is a certificate, and it is not yet to be renewed.
    fn is_fresh(&self, purpose: Purpose) -> bool {
        self.of(purpose).read().as_ref().is_some_and(|held| held.renew_at() > self.clock.now())
    }

    fn of(&self, purpose: Purpose) -> &RwLock<Option<Held>> {
        match purpose {
            Purpose::Client => &self.client,
            Purpose::Serving => &self.serving,
        }
    }

    /// Asks for a certificate unless there is a fresh one; answers whether there is a new one now. Waits until somebody
    /// approves the request.
    ///
    /// # Errors
    /// Why there is none; what there was before stays.
    pub async fn ensure(&self, api: &dyn Api, purpose: Purpose) -> Result<bool, CredentialsError> {
        if self.is_fresh(purpose) {
            return Ok(false);
        }
        let pem = request::signed(api, &self.node, purpose).await?;
        let held = Held::read(pem, &self.node).map_err(CredentialsError::Unusable)?;
        let path = self.dir.join(purpose.file());
        write_private(&path, &held.pem.joined()).map_err(file("write", &path))?;
        *self.of(purpose).write() = Some(held);
        Ok(true)
    }

    /// Renews the certificates for as long as it runs, each when most of its time is over. `renewed`: is told of each new
    /// client certificate.
    pub async fn keep(&self, api: &dyn Api, renewed: impl Fn(Pem)) {
        loop {
            tokio::time::sleep(self.rest()).await;
            for purpose in Purpose::ALL {
                match self.ensure(api, purpose).await {
                    Ok(true) if purpose == Purpose::Client => self.client_pem().into_iter().for_each(&renewed),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(
                        ?purpose,
                        error = &error as &dyn std::error::Error,
                        "a certificate of the node cannot be renewed; trying again"
                    ),
                }
            }
        }
    }

    /// How long nothing is to be done.
    fn rest(&self) -> Duration {
        let dues = Purpose::ALL.iter().filter_map(|p| self.of(*p).read().as_ref().map(Held::renew_at));
        let due = dues.min().unwrap_or_else(|| self.clock.now());
        let left: SignedDuration = due.duration_since(self.clock.now());
        Duration::try_from(left).unwrap_or_default().clamp(RETRY, LOOK_EVERY)
    }
}

impl TunnelIdentity for Credentials {
    fn server(&self) -> Option<Arc<CertifiedKey>> {
        self.serving.read().as_ref().map(|held| held.key.clone())
    }

    fn client(&self) -> Option<Arc<CertifiedKey>> {
        // An API server without a node goes to pods as itself.
        self.client.read().as_ref().map(|held| held.key.clone()).or_else(|| self.api_server.clone())
    }

    fn api_server(&self) -> Option<Arc<CertifiedKey>> {
        self.api_server.clone()
    }
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CredentialsError {
    let path = path.to_owned();
    move |source| CredentialsError::File { operation, path, source }
}

/// What is there, if it is this node's and good.
fn load(dir: &Path, purpose: Purpose, node: &str, now: Timestamp) -> Option<Held> {
    let text = fs::read_to_string(dir.join(purpose.file())).ok()?;
    match Held::read(Pem::split(&text)?, node) {
        Ok(held) => Some(held).filter(|held| held.until > now),
        Err(why) => {
            tracing::warn!(?purpose, why, "a certificate that was kept is asked for anew");
            None
        }
    }
}

#[cfg(test)]
mod tests;
