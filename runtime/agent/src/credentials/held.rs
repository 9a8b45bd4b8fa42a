//! [`Held`]: a certificate with its key, read and checked.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::CredentialsError;

const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";

/// A certificate and its key, as PEM. Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The certificate, those that signed it behind it.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Pem {
    /// As they lie in one file, so that they always fit.
    pub(super) fn joined(&self) -> String {
        format!("{}\n{}\n", self.certificate.trim_end(), self.key.trim_end())
    }

    pub(super) fn split(text: &str) -> Option<Self> {
        let (certificate, _) = text.split_once(KEY_BEGINS)?;
        Some(Self { certificate: certificate.to_owned(), key: text[certificate.len()..].to_owned() })
    }
}

/// A certificate of a node.
pub(super) struct Held {
    pub(super) pem: Pem,
    pub(super) key: Arc<CertifiedKey>,
    from: Timestamp,
    pub(super) until: Timestamp,
}

impl Held {
    /// Reads and checks it.
    ///
    /// # Errors
    /// When it is none, or of another node.
    pub(super) fn read(pem: Pem, node: &str) -> Result<Self, String> {
        let key = Self::certified(&pem).map_err(|error| error.to_string())?;
        let der = key.cert.first().ok_or("there is no certificate")?;
        let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        if name != Some(format!("system:node:{node}").as_str()) {
            return Err(format!("it is of {:?} and not of the node {node:?}", name.unwrap_or_default()));
        }
        let at = |second: i64| Timestamp::from_second(second).map_err(|error| error.to_string());
        let validity = certificate.validity();
        let (from, until) = (at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?);
        Ok(Self { pem, key, from, until })
    }

    /// When it is to be renewed: after four fifths of its time.
    pub(super) fn renew_at(&self) -> Timestamp {
        let life: SignedDuration = self.until.duration_since(self.from);
        self.from.checked_add(life * 4 / 5).unwrap_or(self.until)
    }

    /// As TLS takes it.
    pub(super) fn certified(pem: &Pem) -> Result<Arc<CertifiedKey>, CredentialsError> {
        let wrong = |error: &dyn std::fmt::Display| CredentialsError::Unusable(error.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.certificate.as_bytes()).collect();
        let chain = chain.map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|error| wrong(&error))?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| wrong(&error))?;
        Ok(Arc::new(certified))
    }
}
