//! One GET at a pod, as probes and hooks make it: through the pod network, over TLS without a look at the certificate.
//!
//! # Source
//! Kubernetes `pkg/probe/http/request.go`: headers, host and path.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container as Spec, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use podium_network::Caller;
use podium_sandbox::Body;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::TlsConnector;

use super::{PodId, Shared};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It cannot even be asked: the spec is wrong.
    #[error("{0}")]
    Spec(String),
    /// Nobody answered.
    #[error("{0}")]
    Call(String),
}

/// The URL as messages show it, and what is asked.
struct Wanted {
    url: String,
    request: Request<Body>,
    /// Where the pod listens, for what does not go by the network's own HTTP.
    address: SocketAddr,
    tls: bool,
}

/// The URL of a GET, for messages.
pub(crate) fn url(ip: IpAddr, spec: &Spec, action: &HTTPGetAction) -> Result<String, String> {
    let port = port(spec, &action.port)?;
    let host = action.host.as_deref().filter(|h| !h.is_empty());
    let host = host.map_or_else(|| SocketAddr::new(ip, port).to_string(), |h| format!("{h}:{port}"));
    let scheme = if is_https(action) { "https" } else { "http" };
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("{scheme}://{host}{slash}{path}"))
}

fn is_https(action: &HTTPGetAction) -> bool {
    action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"))
}

fn wanted(ip: IpAddr, spec: &Spec, action: &HTTPGetAction) -> Result<Wanted, Failure> {
    let url = url(ip, spec, action).map_err(Failure::Spec)?;
    let wrong = |why: &dyn std::fmt::Display| Failure::Spec(format!("invalid URL {url:?}: {why}"));
    let uri: Uri = url.parse().map_err(|e| wrong(&e))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut request = Request::get(uri);
    let named = |name: &str| action.http_headers.iter().flatten().any(|h| h.name.eq_ignore_ascii_case(name));
    if !named("user-agent") {
        request = request.header(header::USER_AGENT, concat!("kube-probe/1.36 podium/", env!("CARGO_PKG_VERSION")));
    }
    if !named("accept") {
        request = request.header(header::ACCEPT, "*/*");
    }
    if !named("host") {
        request = request.header(header::HOST, authority);
    }
    for header in action.http_headers.iter().flatten() {
        // An empty value of these two takes the header away.
        let removed = header.value.is_empty() && ["user-agent", "accept"].contains(&&*header.name.to_lowercase());
        if !removed {
            request = request.header(&header.name, &header.value);
        }
    }
    let body: Body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let request = request.body(body).map_err(|e| wrong(&e))?;
    let address = SocketAddr::new(ip, port(spec, &action.port).map_err(Failure::Spec)?);
    Ok(Wanted { url, request, address, tls: is_https(action) })
}

/// One GET; answers with the head of the response.
///
/// # Errors
/// In the words of Go's client.
pub(crate) async fn get(
    shared: &Shared,
    id: &PodId,
    ip: IpAddr,
    spec: &Spec,
    action: &HTTPGetAction,
) -> Result<Response<()>, Failure> {
    let Wanted { url, request, address, tls } = wanted(ip, spec, action)?;
    let failed = |why: String| Failure::Call(format!("Get {url:?}: {why}"));
    if tls {
        return over_tls(shared, address, request).await.map_err(failed);
    }
    let (namespace, pod) = (id.key.namespace.clone(), id.key.name.clone());
    let caller = Caller { namespace, pod, service_account: String::new(), ip: Some(ip) };
    let answer = shared.network.dialer(caller).send(request).await.map_err(|e| failed(e.to_string()))?;
    Ok(answer.map(drop))
}

async fn over_tls(shared: &Shared, address: SocketAddr, request: Request<Body>) -> Result<Response<()>, String> {
    let stream = shared.network.connect_pod(address.ip(), address.port()).await;
    let stream = stream.map_err(|_| format!("dial tcp {address}: connect: connection refused"))?;
    let host = request.uri().host().unwrap_or_default().to_owned();
    let name = ServerName::try_from(host).unwrap_or_else(|_| ServerName::IpAddress(address.ip().into()));
    let config = client_config().map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(config).connect(name, stream).await.map_err(|error| match error.kind() {
        // What it said was no TLS.
        std::io::ErrorKind::InvalidData => "http: server gave HTTP response to HTTPS client".to_owned(),
        _ => error.to_string(),
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
    let (mut parts, body) = request.into_parts();
    parts.uri = parts.uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    let answer = sender.send_request(Request::from_parts(parts, body));
    // The connection is driven here: it ends with this call.
    tokio::pin!(connection);
    tokio::select! {
        answer = answer => answer.map(|a| a.map(drop)).map_err(|error| error.to_string()),
        ended = &mut connection => Err(ended.err().map_or_else(|| "EOF".to_owned(), |error| error.to_string())),
    }
}

/// TLS to whoever answers.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    Ok(Arc::new(config.with_no_client_auth()))
}

/// A probe asks whether the pod answers, not who it is: as in Kubernetes, certificates are not looked at.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A port by number or by name.
///
/// # Errors
/// When the container has none of that name.
pub(crate) fn port(spec: &Spec, port: &IntOrString) -> Result<u16, String> {
    let named =
        |name: &str| spec.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
    let (number, shown) = match port {
        IntOrString::Int(number) => (Some(*number), number.to_string()),
        IntOrString::String(name) => (named(name).or_else(|| name.parse().ok()), name.clone()),
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| format!("couldn't find port: {shown:?} in container {:?}", spec.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(action: Value) -> String {
        let spec: Spec =
            serde_json::from_value(json!({ "name": "app", "ports": [{ "name": "web", "containerPort": 8080 }] }))
                .unwrap();
        let action: HTTPGetAction = serde_json::from_value(action).unwrap();
        let wanted = match wanted([10, 0, 0, 2].into(), &spec, &action) {
            Ok(wanted) => wanted,
            Err(error) => return error.to_string(),
        };
        let headers = wanted.request.headers().iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap()));
        let mut headers: Vec<_> = headers.filter(|h| !h.starts_with("user-agent=kube-probe")).collect();
        headers.sort();
        format!("{} {}", wanted.url, headers.join(" "))
    }

    #[test]
    fn what_is_asked() {
        let headers = json!([{ "name": "Host", "value": "shop.example" }, { "name": "Accept", "value": "" },
            { "name": "X-A", "value": "1" }, { "name": "x-a", "value": "2" }]);
        for (action, expected) in [
            (json!({ "port": 80 }), "http://10.0.0.2:80/ accept=*/* host=10.0.0.2:80"),
            (json!({ "port": "web", "path": "/a?b" }), "http://10.0.0.2:8080/a?b accept=*/* host=10.0.0.2:8080"),
            (json!({ "port": "81", "path": "a" }), "http://10.0.0.2:81/a accept=*/* host=10.0.0.2:81"),
            (json!({ "port": 443, "scheme": "HTTPS" }), "https://10.0.0.2:443/ accept=*/* host=10.0.0.2:443"),
            (json!({ "port": 80, "host": "db" }), "http://db:80/ accept=*/* host=db:80"),
            (json!({ "port": 80, "httpHeaders": headers }), "http://10.0.0.2:80/ host=shop.example x-a=1 x-a=2"),
            (json!({ "port": "none" }), "couldn't find port: \"none\" in container \"app\""),
        ] {
            assert_eq!(shown(action.clone()), expected, "{action}");
        }
    }
}
