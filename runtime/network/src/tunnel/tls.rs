//! Who is at the other end: TLS 1.3 both ways, certificates of the cluster's CA alone.
//!
//! A node is known by its certificate's common name, not by its address. Sessions are never resumed, so that each
//! connection shows the certificates of the moment.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::TLS13,
};

use super::{TunnelConfig, TunnelIdentity, TunnelPeer};

/// What a node's certificate begins its common name with, and the organization that it has.
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";
/// The organization of who may ask nodes for anything.
const MASTERS: &str = "system:masters";

/// As whom this process goes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// A node, for its pods and clients.
    Node,
    /// The API server.
    ApiServer,
}

impl TunnelPeer {
    /// What a certificate says.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Option<(Self, Duration)> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some((Self { user, groups }, Duration::from_secs(expires).saturating_sub(now)))
    }

    /// The node that it is.
    pub(crate) fn node(&self) -> Option<&str> {
        self.user.strip_prefix(NODE_PREFIX).filter(|_| self.groups.iter().any(|group| group == NODES))
    }

    /// Whether it may ask nodes for anything.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a node says to whoever comes.
pub(crate) fn server(config: &TunnelConfig) -> Result<ServerConfig, String> {
    let roots = Arc::new(config.roots.clone());
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
    let clients = clients.map_err(|error| format!("the cluster's CA: {error}"))?;
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let shown = Arc::new(Shown { identity: config.identity.clone(), role: Role::Node });
    let mut server = builder.with_client_cert_verifier(clients).with_cert_resolver(shown);
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.send_tls13_tickets = 0;
    Ok(server)
}

/// What this node says where it goes to another of this name.
pub(crate) fn client(config: &TunnelConfig, role: Role, node: &str) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let verifier = NodeOf { roots: config.roots.clone(), node: node.to_owned(), provider: provider() };
    let shown = Arc::new(Shown { identity: config.identity.clone(), role });
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = builder.with_client_cert_resolver(shown);
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    Ok(client)
}

/// The certificates of the moment.
struct Shown {
    identity: Arc<dyn TunnelIdentity>,
    role: Role,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({:?})", self.role)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.identity.server()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match self.role {
            Role::Node => self.identity.client(),
            Role::ApiServer => self.identity.api_server(),
        }
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Believes one node: whoever has a certificate of the cluster's CA with its name.
#[derive(Debug)]
struct NodeOf {
    roots: RootCertStore,
    node: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NodeOf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let peer = TunnelPeer::read(end_entity);
        match peer.as_ref().and_then(|(peer, _)| peer.node()) {
            Some(node) if node == self.node => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("the tunnel speaks TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
