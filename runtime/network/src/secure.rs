//! TLS with hosts outside: the system's roots and those that the operator adds, HTTP/2 where both ends speak it.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use crate::{
    CallError,
    http_client::{Opened, chain},
    stream::PodStream,
};

/// Makes TLS connections. Roots are read when the first one is made.
pub(crate) struct Tls {
    extra_roots: RwLock<Vec<CertificateDer<'static>>>,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    pub(crate) fn new(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self { extra_roots: RwLock::new(extra_roots), config: OnceCell::new() }
    }

    /// Adds a root; those that come after the first connection are not known.
    pub(crate) fn add_root(&self, root: CertificateDer<'static>) {
        self.extra_roots.write().push(root);
    }

    /// Speaks TLS over a stream with a host of this name.
    pub(crate) async fn connect(&self, host: &str, stream: PodStream) -> Result<Opened, CallError> {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| CallError::Failed(format!("{host:?} cannot be the name of a TLS server")))?;
        let config = self.config.get_or_try_init(|| self.configure()).await?;
        let connected = TlsConnector::from(config.clone()).connect(name, stream).await;
        let stream = connected.map_err(|error| CallError::Failed(format!("TLS with {host}: {}", chain(&error))))?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Opened { stream: Box::new(stream), h2 })
    }

    async fn configure(&self) -> Result<Arc<ClientConfig>, CallError> {
        let failed = |why: String| CallError::Failed(format!("cannot set TLS up: {why}"));
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let loaded = loaded.map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        let (_, ignored) = roots.add_parsable_certificates(loaded.certs);
        for error in loaded.errors {
            tracing::warn!(%error, "some of the system's root certificates cannot be read");
        }
        tracing::debug!(roots = roots.len(), ignored, "root certificates of the system");
        for root in &*self.extra_roots.read() {
            roots.add(root.clone()).map_err(|error| failed(format!("a root certificate: {error}")))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| failed(error.to_string()))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
