//! TLS to other servers. To other API servers this one shows the certificate of a front proxy, so that they believe whom
//! it speaks for.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use x509_parser::time::ASN1Time;

/// What this server shows, as PEM.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Certificates from this bundle, as PEM.
    Bundle(Arc<[u8]>),
    /// Anybody: `insecureSkipTLSVerify`.
    Anybody,
}

/// How to speak TLS to a server.
///
/// # Errors
/// When the bundle or the credentials cannot be read.
pub(super) fn client(trust: &Trust, own: Option<&Credentials>) -> Result<ClientConfig, String> {
    let text = |error: &dyn std::fmt::Display| format!("tls: {error}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| text(&e))?;
    let builder = match trust {
        Trust::Bundle(pem) => {
            let bundle: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            match Trusted::new(bundle.map_err(|e| format!("caBundle: {e}"))?, provider)? {
                Some(trusted) => builder.dangerous().with_custom_certificate_verifier(Arc::new(trusted)),
                None => builder.with_root_certificates(RootCertStore::empty()),
            }
        }
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))),
    };
    let mut config = match own {
        Some(own) => {
            let certificate = CertificateDer::from_pem_slice(own.certificate_pem.as_bytes()).map_err(|e| text(&e))?;
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(|e| text(&e))?;
            builder.with_client_auth_cert(vec![certificate], key).map_err(|e| text(&e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// How to speak HTTP/1.1 over TLS to whoever it is.
///
/// # Errors
/// Never, with the protocols that are built in.
pub(crate) fn unverified() -> Result<ClientConfig, String> {
    let mut config = client(&Trust::Anybody, None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Trusts what the bundle's authorities signed, and the very certificates in the bundle: whoever made one for a webhook by
/// hand made it its own authority, which Go's TLS takes too.
#[derive(Debug)]
struct Trusted {
    signed: Arc<WebPkiServerVerifier>,
    bundle: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// `None` for an empty bundle.
    fn new(bundle: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Option<Self>, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &bundle {
            roots.add(certificate.clone()).map_err(|e| format!("caBundle: {e}"))?;
        }
        if roots.is_empty() {
            return Ok(None);
        }
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Some(Self { signed: signed.map_err(|e| format!("caBundle: {e}"))?, bundle }))
    }
}

/// Whether a certificate holds at a time. One that cannot be read does not.
fn is_valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    let read = x509_parser::parse_x509_certificate(certificate);
    now.zip(read.ok()).is_some_and(|(now, (_, read))| read.validity().is_valid_at(now))
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            Err(_) if self.bundle.contains(end_entity) && is_valid_at(end_entity, now) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Takes any certificate, as the user asked; signatures are checked nevertheless.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    /// An authority of its own, as `openssl req -x509` makes it.
    fn authority(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn a_certificate_in_the_bundle_is_trusted_itself() {
        let (own, other) = (authority("hook.example.com"), authority("hook.example.com"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusted = Trusted::new(vec![own.clone()], provider.clone()).unwrap().unwrap();
        let verify = |certificate: &CertificateDer<'_>, name: &'static str, year: u64| {
            let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
            trusted.verify_server_cert(certificate, &[], &ServerName::try_from(name).unwrap(), &[], now).is_ok()
        };
        assert!(verify(&own, "hook.example.com", 2025));
        assert!(!verify(&own, "hook.example.org", 2025), "another name");
        assert!(!verify(&own, "hook.example.com", 2031), "too late");
        assert!(!verify(&other, "hook.example.com", 2025), "not in the bundle");
        assert!(Trusted::new(Vec::new(), provider).unwrap().is_none());
    }
}
