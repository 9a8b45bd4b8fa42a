//! Certificates that listeners show, and TLS with clients outside.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};

/// A certificate with its chain and key, ready to be shown. Clones share it, and only they are equal.
#[derive(Clone)]
pub struct Certificate(Arc<CertifiedKey>);

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Certificate {}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

/// Why something is no certificate to be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// There is none in it.
    #[error("there is no certificate in PEM")]
    NoCertificate,
    /// The key cannot be read.
    #[error("there is no private key in PEM")]
    NoKey,
    /// The two are not of one another, or of an unknown kind.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(String),
}

impl Certificate {
    /// Reads a chain and its key, both in PEM.
    ///
    /// # Errors
    /// When one of them is missing or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(BadCertificate::NoCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadCertificate::NoKey)?;
        let unusable = |error: rustls::Error| BadCertificate::Unusable(error.to_string());
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(unusable)?;
        certified.end_entity_cert().and_then(ParsedCertificate::try_from).map_err(unusable)?;
        Ok(Self(Arc::new(certified)))
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let parsed = self.0.end_entity_cert().and_then(ParsedCertificate::try_from);
        parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
    }
}

/// The certificates of one listener: that which has the name that is asked for, else the first.
#[derive(Debug)]
struct Shown(Vec<Certificate>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can = |c: &&Certificate| c.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = |name: &ServerName<'_>| self.0.iter().filter(can).find(|c| c.is_for(name));
        let found = name.as_ref().and_then(named).or_else(|| self.0.iter().find(can));
        found.map(|certificate| certificate.0.clone())
    }
}

/// How a listener speaks TLS. The same as before where the certificates are: sessions can be resumed then.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls {
    certificates: Vec<Certificate>,
    http: bool,
    pub(crate) config: Arc<ServerConfig>,
}

impl ServerTls {
    /// `http`: whether HTTP is spoken within, of one version or the other.
    pub(crate) fn new(certificates: Vec<Certificate>, http: bool) -> Result<Self, rustls::Error> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::new(Shown(certificates.clone())));
        if http {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Ok(Self { certificates, http, config: Arc::new(config) })
    }

    pub(crate) fn shows(&self, certificates: &[Certificate], http: bool) -> bool {
        self.http == http && self.certificates == certificates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_a_certificate() {
        let ((chain, key), (_, other)) = (made(&["a.test"]), made(&["a.test"]));
        let read = |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).err();
        assert_eq!(read(&chain, &key), None);
        assert_eq!(read("", &key), Some(BadCertificate::NoCertificate));
        assert_eq!(read("Hello world", &key), Some(BadCertificate::NoCertificate));
        assert_eq!(read(&chain, "Hello world"), Some(BadCertificate::NoKey));
        assert!(matches!(read(&chain, &other), Some(BadCertificate::Unusable(_))));
        let wild = made(&["*.b.test"]);
        let wild = Certificate::from_pem(wild.0.as_bytes(), wild.1.as_bytes()).unwrap();
        let is_for = |name| wild.is_for(&ServerName::try_from(name).unwrap());
        assert!(is_for("a.b.test") && !is_for("b.test") && !is_for("a.test"));
    }

    #[test]
    fn the_same_certificates_are_shown_the_same_way() {
        let (chain, key) = made(&["a.test"]);
        let read = || Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let (one, other) = (read(), read());
        let tls = ServerTls::new(vec![one.clone()], true).unwrap();
        assert!(tls.shows(std::slice::from_ref(&one), true));
        assert!(!tls.shows(std::slice::from_ref(&one), false) && !tls.shows(&[other], true) && !tls.shows(&[], true));
    }
}
