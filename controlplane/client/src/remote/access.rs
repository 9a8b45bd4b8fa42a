//! [`Access`]: where an API server is, whom to believe there, and what to show; and how somebody who knows nothing of it but
//! a hash of its CA finds out whom to believe.
//!
//! # Source
//! Kubernetes `cmd/kubeadm/app/discovery/token/token.go`, `cmd/kubeadm/app/util/pubkeypin/pubkeypin.go`.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Request, Uri};
use kube::{Client, Config, client::Body, config::AuthInfo};
use parking_lot::Mutex;
use podium_api::{ApiError, k8s_openapi::api::core::v1::ConfigMap};
use sha2::{Digest as _, Sha256};
use x509_parser::{parse_x509_certificate, pem::Pem};

use super::{REQUEST_TIMEOUT, Remote, RemoteApi};

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// What is shown to an API server.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// A bearer token.
    Token(String),
    /// A client certificate, as PEM.
    Certificate {
        /// The certificate.
        certificate: String,
        /// Its key.
        key: String,
    },
}

/// How an API server is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Its URL: `https://HOST:PORT`.
    pub server: String,
    /// Certificates that it is believed by, as PEM.
    pub ca_pem: String,
    /// What is shown to it.
    pub shown: Shown,
}

impl Access {
    /// A connection like this. Nothing is sent yet.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub fn client(&self) -> Result<Client, ApiError> {
        let mut config = Config::new(url(&self.server)?);
        config.root_cert = Some(certificates(&self.ca_pem)?);
        config.auth_info = match &self.shown {
            Shown::Nothing => AuthInfo::default(),
            Shown::Token(token) => AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() },
            Shown::Certificate { certificate, key } => AuthInfo {
                client_certificate_data: Some(STANDARD.encode(certificate)),
                client_key_data: Some(STANDARD.encode(key).into()),
                ..AuthInfo::default()
            },
        };
        Client::try_from(config).map_err(|error| unusable(&error))
    }
}

impl RemoteApi {
    /// The API of a server, reached like this.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub fn connect(access: &Access) -> Result<Self, ApiError> {
        let remote = Remote::new(access.client()?, Some(access.clone()));
        Ok(Self { remote: Arc::new(remote), mirrors: Mutex::default() })
    }

    /// Goes on like this: new requests, and watches when they are opened again.
    ///
    /// # Errors
    /// What of it cannot be used; then nothing changes.
    pub fn reconnect(&self, access: &Access) -> Result<(), ApiError> {
        self.remote.replace(access)
    }

    /// Sends a request to the server that is none of the API's; the answer comes as it is, whatever its status.
    ///
    /// # Errors
    /// 503 when there is no answer within the time of a request.
    pub async fn pass(&self, request: Request<Body>) -> Result<http::Response<Body>, ApiError> {
        let client = self.remote.client();
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await;
        answer.map_err(|_| Remote::silent())?.map_err(|error| super::unreachable_server(&error))
    }
}

fn url(server: &str) -> Result<Uri, ApiError> {
    let parsed: Option<Uri> = server.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("https"));
    parsed.ok_or_else(|| ApiError::bad_request(format!("{server:?} is no server: write https://HOST:PORT")))
}

fn unusable(error: &dyn std::error::Error) -> ApiError {
    ApiError::bad_request(format!("the connection cannot be prepared: {error}"))
}

/// The certificates of a PEM text, in DER.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, ApiError> {
    let wrong = || ApiError::bad_request("the CA is no certificate in PEM");
    let read: Result<Vec<_>, _> = Pem::iter_from_buffer(pem.as_bytes()).collect();
    let found: Vec<_> = read.map_err(|_| wrong())?.into_iter().filter(|p| p.label == "CERTIFICATE").collect();
    if found.is_empty() { Err(wrong()) } else { Ok(found.into_iter().map(|pem| pem.contents).collect()) }
}

/// `sha256:HEX` of the public key of each certificate: what `kubeadm` calls a discovery token CA certificate hash.
///
/// # Errors
/// When it is no PEM of certificates.
pub fn ca_hashes(pem: &str) -> Result<Vec<String>, ApiError> {
    let hash = |der: &Vec<u8>| {
        let (_, certificate) =
            parse_x509_certificate(der).map_err(|_| ApiError::bad_request("the CA is no certificate"))?;
        let digest = Sha256::digest(certificate.public_key().raw);
        Ok(format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    };
    certificates(pem)?.iter().map(hash).collect()
}

/// Asks a server that is not believed yet for its CA, and compares that with hashes that are known from elsewhere; then asks
/// again, believing the CA. Nothing secret is sent.
///
/// # Errors
/// When the server does not answer or has another CA.
pub async fn discover_ca(server: &str, hashes: &[String]) -> Result<String, ApiError> {
    let mut config = Config::new(url(server)?);
    config.accept_invalid_certs = true;
    let client = Client::try_from(config).map_err(|error| unusable(&error))?;
    let pem = ask(client).await?;
    let found = ca_hashes(&pem)?;
    if !found.iter().all(|hash| hashes.iter().any(|known| known.eq_ignore_ascii_case(hash))) {
        let words = format!(
            "cluster CA found at {server} is not the one that was named: it has the hash {}. Somebody may be in between, \
             or the hash is of another cluster",
            found.join(", ")
        );
        return Err(ApiError::bad_request(words));
    }
    let access = Access { server: server.to_owned(), ca_pem: pem.clone(), shown: Shown::Nothing };
    match ask(access.client()?).await? == pem {
        true => Ok(pem),
        false => Err(ApiError::bad_request(format!("{server} has changed its CA meanwhile: try again"))),
    }
}

/// The CA that the server tells of.
async fn ask(client: Client) -> Result<String, ApiError> {
    let remote = Remote::new(client, None);
    let body = remote.call(super::request(http::Method::GET, CLUSTER_INFO, None)?).await?;
    let unread = |why: &str| ApiError::internal(format!("the ConfigMap cluster-info of kube-public {why}"));
    let map: ConfigMap = serde_json::from_slice(&body).map_err(|_| unread("is none"))?;
    let kubeconfig = map.data.unwrap_or_default().remove("kubeconfig").ok_or_else(|| unread("has no kubeconfig"))?;
    let data = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("certificate-authority-data:"));
    let data = data.ok_or_else(|| unread("names no CA"))?;
    let pem = STANDARD.decode(data.trim()).ok().and_then(|pem| String::from_utf8(pem).ok());
    pem.ok_or_else(|| unread("has a CA that cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum` says the same of it.
    const CA: &str = include_str!("testdata/ca.crt");
    const HASH: &str = include_str!("testdata/ca.sha256");

    #[test]
    fn hashes_are_those_of_kubeadm() {
        assert_eq!(ca_hashes(CA).unwrap(), [HASH.trim()]);
        for wrong in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(ca_hashes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_are_urls() {
        let access = |server: &str| Access { server: server.to_owned(), ca_pem: CA.to_owned(), shown: Shown::Nothing };
        for wrong in ["", "127.0.0.1:6443", "http://127.0.0.1:6443", "https://"] {
            assert!(url(&access(wrong).server).is_err(), "{wrong}");
        }
        assert!(url("https://127.0.0.1:6443").is_ok());
    }
}
