//! Keys, certificates and the administrator's credentials: made at first start, kept over restarts, issued again
//! before they expire.
//!
//! Everything lies in `pki/` below the data folder; keys and the token can be read by the owner alone. The CA signs the
//! server's certificate and the administrator's client certificate; clients' certificates are verified against it.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::{
    RootCertStore, ServerConfig as TlsConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use x509_parser::extensions::GeneralName;

use crate::{auth::MASTERS, certificates::Signer, config::ServerConfig, outbound::Credentials, server::StartError};

const CA_DAYS: i64 = 3650;
const CERTIFICATE_DAYS: i64 = 365;
/// A certificate with less than this left is issued again at start.
const RENEW_DAYS: i64 = 60;
/// Who the administrator is, in certificates and for the token.
pub(crate) const ADMIN: &str = "kubernetes-admin";

/// Who this server is to other API servers.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";
/// Who this server is to nodes.
const KUBELET_CLIENT: &str = "apiserver-kubelet-client";

/// The cluster's keys and certificates, as PEM.
pub(crate) struct Pki {
    pub(crate) ca_pem: String,
    server: Pair,
    admin: Pair,
    front_proxy: Pair,
    kubelet_client: Pair,
    ca: Pair,
    /// The administrator's bearer token.
    pub(crate) admin_token: String,
}

#[derive(Clone)]
struct Pair {
    certificate_pem: String,
    key_pem: String,
}

impl Pki {
    /// Reads what is there, makes what is not, and issues again what soon expires or does not fit.
    pub(crate) fn open(config: &ServerConfig, now: Timestamp) -> Result<Self, StartError> {
        let dir = config.data_dir.join("pki");
        fs::create_dir_all(&dir).map_err(file("make the folder", &dir))?;
        let ca = match load(&dir, "ca")? {
            Some(pair) if days_left(&pair, now) > RENEW_DAYS => pair,
            _ => store(&dir, "ca", new_ca(now)?)?,
        };
        let key = KeyPair::from_pem(&ca.key_pem).map_err(pki("read the key of the CA"))?;
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate_pem, key).map_err(pki("read the CA's certificate"))?;
        let ca_der = der(&ca.certificate_pem)?;
        let leaf = |name: &str, params: CertificateParams| match load(&dir, name)? {
            Some(pair) if days_left(&pair, now) > RENEW_DAYS && fits(&pair, &ca_der, &params) => Ok(pair),
            _ => store(&dir, name, issue(params, &issuer)?),
        };
        let server = leaf("apiserver", server_params(config, now)?)?;
        let admin = leaf("admin", admin_params(now))?;
        let front_proxy = leaf(FRONT_PROXY, front_proxy_params(now))?;
        let kubelet_client = leaf(KUBELET_CLIENT, kubelet_client_params(now))?;
        let admin_token = admin_token(&dir)?;
        Ok(Self { ca_pem: ca.certificate_pem.clone(), server, admin, front_proxy, kubelet_client, ca, admin_token })
    }

    /// What signs the certificates that others ask for.
    pub(crate) fn signer(&self) -> Result<Signer, StartError> {
        let key = KeyPair::from_pem(&self.ca.key_pem).map_err(pki("read the key of the CA"))?;
        let issuer =
            Issuer::from_ca_cert_pem(&self.ca.certificate_pem, key).map_err(pki("read the CA's certificate"))?;
        let der = der(&self.ca.certificate_pem)?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(pki("read the CA's certificate"))?;
        let ends_at = Timestamp::from_second(certificate.validity().not_after.timestamp());
        Ok(Signer::new(issuer, ends_at.map_err(pki("read when the CA ends"))?))
    }

    /// TLS as the server speaks it: client certificates are asked for, verified, and may be missing.
    pub(crate) fn tls(&self) -> Result<Arc<TlsConfig>, StartError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(der(&self.ca_pem)?).map_err(pki("trust the CA"))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(pki("verify client certificates"))?;
        let key =
            PrivateKeyDer::from_pem_slice(self.server.key_pem.as_bytes()).map_err(pki("read the server's key"))?;
        let mut tls = TlsConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pki("choose TLS versions"))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![der(&self.server.certificate_pem)?], key)
            .map_err(pki("use the server's certificate"))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(tls))
    }

    /// What other API servers know this one by.
    pub(crate) fn front_proxy(&self) -> Credentials {
        let Pair { certificate_pem, key_pem } = self.front_proxy.clone();
        Credentials { certificate_pem, key_pem }
    }

    /// What nodes know this server by: certificate and key.
    pub(crate) fn kubelet_client(&self) -> (&str, &str) {
        (&self.kubelet_client.certificate_pem, &self.kubelet_client.key_pem)
    }

    /// A kubeconfig for the administrator, everything embedded.
    pub(crate) fn kubeconfig(&self, server: &str) -> String {
        let encode = |pem: &str| STANDARD.encode(pem);
        let (ca, certificate, key) =
            (encode(&self.ca_pem), encode(&self.admin.certificate_pem), encode(&self.admin.key_pem));
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: podium\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\ncontexts:\n- name: podium\n  context:\n    cluster: podium\n    \
             user: {ADMIN}\ncurrent-context: podium\nusers:\n- name: {ADMIN}\n  user:\n    \
             client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        )
    }
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::File { operation, path, source }
}

fn pki<E: std::fmt::Display>(operation: &'static str) -> impl FnOnce(E) -> StartError {
    move |error| StartError::Pki { operation, reason: error.to_string() }
}

fn der(pem: &str) -> Result<CertificateDer<'static>, StartError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(pki("read a certificate"))
}

fn load(dir: &Path, name: &str) -> Result<Option<Pair>, StartError> {
    let read = |path: PathBuf| match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", &path)(error)),
    };
    let certificate = read(dir.join(format!("{name}.crt")))?;
    let key = read(dir.join(format!("{name}.key")))?;
    Ok(certificate.zip(key).map(|(certificate_pem, key_pem)| Pair { certificate_pem, key_pem }))
}

fn store(dir: &Path, name: &str, pair: Pair) -> Result<Pair, StartError> {
    write_private(&dir.join(format!("{name}.key")), &pair.key_pem)?;
    write_private(&dir.join(format!("{name}.crt")), &pair.certificate_pem)?;
    Ok(pair)
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), StartError> {
    podium_client::write_private(path, text).map_err(file("write", path))
}

fn days_left(pair: &Pair, now: Timestamp) -> i64 {
    let Ok(der) = der(&pair.certificate_pem) else { return 0 };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return 0 };
    (certificate.validity().not_after.timestamp() - now.as_second()) / 86_400
}

/// Whether a certificate was signed by this CA and has all the names that it should.
fn fits(pair: &Pair, ca: &CertificateDer<'_>, params: &CertificateParams) -> bool {
    let Ok(der) = der(&pair.certificate_pem) else { return false };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let Ok((_, ca)) = x509_parser::parse_x509_certificate(ca) else { return false };
    let names = certificate.subject_alternative_name().ok().flatten();
    let known: BTreeSet<String> = names.iter().flat_map(|n| &n.value.general_names).filter_map(general_name).collect();
    let wanted: BTreeSet<String> = params.subject_alt_names.iter().filter_map(alternative_name).collect();
    certificate.issuer() == ca.subject()
        && known == wanted
        && KeyPair::from_pem(&pair.key_pem).is_ok_and(|key| {
            let known = certificate.public_key().subject_public_key.data.as_ref();
            known == key.public_key_raw()
        })
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn alternative_name(name: &SanType) -> Option<String> {
    match name {
        SanType::DnsName(name) => Some(name.as_str().to_owned()),
        SanType::IpAddress(ip) => Some(ip.to_string()),
        _ => None,
    }
}

fn dated(mut params: CertificateParams, now: Timestamp, days: i64) -> CertificateParams {
    let date = |t: Timestamp| {
        let date = t.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let after = |days: i64| now.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(now);
    params.not_before = date(after(-1));
    params.not_after = date(after(days));
    params
}

fn named(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

fn new_ca(now: Timestamp) -> Result<Pair, StartError> {
    let mut params = dated(CertificateParams::default(), now, CA_DAYS);
    // The time is in the name: a certificate of an older CA is told apart by its issuer.
    params.distinguished_name = named(&format!("podium-ca@{}", now.as_second()), None);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(pki("make a key"))?;
    let certificate = params.self_signed(&key).map_err(pki("sign the CA's certificate"))?;
    Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn issue(mut params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Pair, StartError> {
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).map_err(pki("draw random bytes"))?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(pki("make a key"))?;
    let certificate = params.signed_by(&key, issuer).map_err(pki("sign a certificate"))?;
    Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

fn server_params(config: &ServerConfig, now: Timestamp) -> Result<CertificateParams, StartError> {
    let mut names: Vec<String> = ["127.0.0.1", "::1", "localhost"].map(str::to_owned).into();
    names.extend(
        ["", ".default", ".default.svc", ".default.svc.cluster.local"].iter().map(|s| format!("kubernetes{s}")),
    );
    names.extend(config.service_cidr.nth(1).map(|ip| ip.to_string()));
    let bound: IpAddr = config.bind.ip();
    if !bound.is_loopback() && !bound.is_unspecified() {
        names.push(bound.to_string());
    }
    let more: Vec<_> = config.extra_names.iter().filter(|name| !names.contains(name)).cloned().collect();
    names.extend(more);
    let mut params = dated(CertificateParams::new(names).map_err(pki("name the server"))?, now, CERTIFICATE_DAYS);
    params.distinguished_name = named("kube-apiserver", None);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn admin_params(now: Timestamp) -> CertificateParams {
    let mut params = dated(CertificateParams::default(), now, CERTIFICATE_DAYS);
    params.distinguished_name = named(ADMIN, Some(MASTERS));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn front_proxy_params(now: Timestamp) -> CertificateParams {
    let mut params = admin_params(now);
    // In no group: with this certificate nobody may do anything here.
    params.distinguished_name = named(FRONT_PROXY, None);
    params
}

fn kubelet_client_params(now: Timestamp) -> CertificateParams {
    let mut params = admin_params(now);
    params.distinguished_name = named("kube-apiserver-kubelet-client", Some(MASTERS));
    params
}

fn admin_token(dir: &Path) -> Result<String, StartError> {
    let path = dir.join("admin.token");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file("read", &path)(error)),
        _ => {}
    }
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(pki("draw random bytes"))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    write_private(&path, &format!("{token}\n"))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn made_once_kept_and_issued_again_before_expiry() {
        let dir = tempfile::tempdir().unwrap();
        let config = ServerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = Pki::open(&config, now).unwrap();
        first.tls().unwrap();
        let again = Pki::open(&config, now + SignedDuration::from_hours(24 * 200)).unwrap();
        assert_eq!(first.ca_pem, again.ca_pem);
        assert_eq!(first.server.certificate_pem, again.server.certificate_pem);
        assert_eq!(first.admin_token, again.admin_token);
        let later = Pki::open(&config, now + SignedDuration::from_hours(24 * 320)).unwrap();
        assert_eq!(first.ca_pem, later.ca_pem);
        assert_ne!(first.server.certificate_pem, later.server.certificate_pem);
        assert_ne!(first.admin.certificate_pem, later.admin.certificate_pem);
        later.tls().unwrap();
        for name in ["ca.key", "apiserver.key", "admin.key", "admin.token"] {
            let mode = fs::metadata(dir.path().join("pki").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn another_service_range_gets_another_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = Pki::open(&config, now).unwrap();
        config.bind = "192.0.2.1:6443".parse().unwrap();
        let second = Pki::open(&config, now).unwrap();
        assert_ne!(first.server.certificate_pem, second.server.certificate_pem);
        config.extra_names = vec!["api.example".to_owned(), "localhost".to_owned()];
        let third = Pki::open(&config, now).unwrap();
        assert_ne!(second.server.certificate_pem, third.server.certificate_pem);
        assert_eq!(third.server.certificate_pem, Pki::open(&config, now).unwrap().server.certificate_pem);
        config.extra_names = vec!["api.example.org".to_owned()];
        assert_ne!(third.server.certificate_pem, Pki::open(&config, now).unwrap().server.certificate_pem);
        assert!(third.kubelet_client().0.contains("CERTIFICATE"));
        let who = crate::auth::certificate_identity(&der(&first.admin.certificate_pem).unwrap()).unwrap();
        assert_eq!((who.user.as_str(), who.groups[0].as_str()), (ADMIN, MASTERS));
    }
}
