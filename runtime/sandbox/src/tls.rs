//! What `wasi:tls` connects with: which certificates are trusted. One for many containers.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};

/// Lets a container make TLS connections. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// Trusts what this machine trusts: read once per process, when a guest first connects. Certificates that cannot be read are left
    /// out, with a warning in the log.
    pub fn system() -> Self {
        Self(None)
    }

    /// Trusts these authorities alone. Also tells how many of them cannot be used.
    pub fn trusting(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> (Self, usize) {
        let (config, ignored) = trusting(authorities);
        (Self(Some(config)), ignored)
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        static SYSTEM: LazyLock<Arc<ClientConfig>> = LazyLock::new(system);
        self.0.clone().unwrap_or_else(|| SYSTEM.clone())
    }
}

fn trusting(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> (Arc<ClientConfig>, usize) {
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(authorities);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("invariant: ring has the suites of the default versions");
    (Arc::new(builder.with_root_certificates(roots).with_no_client_auth()), ignored)
}

fn system() -> Arc<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read a trusted certificate of this machine");
    }
    let (config, ignored) = trusting(found.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "trusted certificates of this machine that cannot be used");
    }
    config
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
