//! The health check of gRPC: one call of `grpc.health.v1.Health/Check` over cleartext HTTP/2.
//!
//! The two messages have a field each, so they are written and read here by hand.
//!
//! # Source
//! Kubernetes `pkg/probe/grpc/grpc.go`; `grpc/health/v1/health.proto`; gRPC over HTTP/2.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podium_network::{Network, PodStream};

/// More than any health response has.
const RESPONSE_BYTES_MAX: usize = 64 << 10;
const SERVING: u64 = 1;
const UNIMPLEMENTED: &str = "12";

/// Makes the call.
///
/// # Errors
/// What kubelet says: nobody there, no health service, or not serving.
pub(crate) async fn check(
    network: &Network,
    address: SocketAddr,
    service: &str,
    limit: Duration,
) -> Result<(), String> {
    let stream = network.connect_pod(address.ip(), address.port()).await;
    let stream =
        stream.map_err(|error| format!("error: failed to connect service at {:?}: {error}", address.to_string()))?;
    match tokio::time::timeout(limit, call(stream, address, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("timeout: health rpc did not complete within {}s", limit.as_secs())),
    }
}

async fn call(stream: PodStream, address: SocketAddr, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc probe failed: {error}");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| failed(&e))?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("kube-probe/1.36 podium/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(message(service)))
        .map_err(|e| failed(&e))?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(|e| failed(&e))?.into_parts();
        let collected = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(|e| failed(&e))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        verdict(head.status.as_u16(), &head.headers, &trailers, &collected.to_bytes())
    };
    // The connection is driven here: it ends with this call.
    tokio::pin!(connection);
    tokio::pin!(answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// `HealthCheckRequest { service = 1 }`, as gRPC frames it.
fn message(service: &str) -> Bytes {
    let mut body = BytesMut::new();
    if !service.is_empty() {
        body.put_u8(0x0a);
        varint(&mut body, service.len() as u64);
        body.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    framed.put_slice(&body);
    framed.freeze()
}

fn varint(into: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        into.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.put_u8(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn verdict(status: u16, headers: &HeaderMap, trailers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let text = |name: &str| {
        let found = trailers.get(name).or_else(|| headers.get(name));
        found.and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    if status != 200 {
        return Err(format!(
            "error: health rpc probe failed: unexpected HTTP status code received from server: {status}"
        ));
    }
    match text("grpc-status").as_str() {
        "0" | "" => {}
        UNIMPLEMENTED => {
            let why = text("grpc-message");
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {why}"
            ));
        }
        code => {
            return Err(format!(
                "error: health rpc probe failed: rpc error: code = {code} desc = {}",
                text("grpc-message")
            ));
        }
    }
    let found = body.get(5..).and_then(serving).ok_or("error: health rpc probe failed: no response")?;
    if found == SERVING {
        return Ok(());
    }
    let name = match found {
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "",
    };
    Err(format!("service unhealthy (responded with {name:?})"))
}

/// `HealthCheckResponse { status = 1 }`; a status that is not there is the first one.
fn serving(mut body: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !body.is_empty() {
        let tag = read_varint(&mut body)?;
        match tag & 7 {
            0 => {
                let value = read_varint(&mut body)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            2 => {
                let length = usize::try_from(read_varint(&mut body)?).ok()?;
                body = body.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every call with a status, as a service would.
    struct Health(u8);

    #[async_trait::async_trait]
    impl podium_network::HttpHandler for Health {
        async fn call(
            &self,
            request: http::Request<podium_network::Body>,
        ) -> Result<http::Response<podium_network::Body>, podium_network::CallError> {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03a.B");
            let answer = Bytes::from(vec![0, 0, 0, 0, 2, 8, self.0]);
            let trailers =
                async { Some(Ok(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]))) };
            let body = Full::new(answer).with_trailers(trailers).map_err(|never| match never {}).boxed_unsync();
            Ok(http::Response::new(body))
        }
    }

    #[tokio::test]
    async fn a_service_says_how_it_is() {
        let network = Network::new(podium_network::NetworkConfig::default());
        let limit = Duration::from_secs(10);
        let address = |port| SocketAddr::new([10, 244, 0, 9].into(), port);
        let _well = network.attach(address(1).ip(), 1, std::sync::Arc::new(Health(1)));
        let _ill = network.attach(address(2).ip(), 2, std::sync::Arc::new(Health(2)));
        assert_eq!(check(&network, address(1), "a.B", limit).await, Ok(()));
        let ill = check(&network, address(2), "a.B", limit).await.unwrap_err();
        assert_eq!(ill, "service unhealthy (responded with \"NOT_SERVING\")");
        let nobody = check(&network, address(3), "a.B", limit).await.unwrap_err();
        assert!(nobody.starts_with("error: failed to connect service at \"10.244.0.9:3\""), "{nobody}");
    }

    #[test]
    fn messages() {
        assert_eq!(&message("")[..], b"\0\0\0\0\0");
        assert_eq!(&message("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        for (body, expected) in [
            (&b""[..], Some(0)),
            (b"\x08\x01", Some(1)),
            (b"\x12\x02hi\x08\x02", Some(2)),
            (b"\x08", None),
            (b"\x12\x7f", None),
        ] {
            assert_eq!(serving(body), expected, "{body:?}");
        }
    }

    #[test]
    fn verdicts() {
        let map = |status: &str, message: &str| {
            let pairs = [("grpc-status", status), ("grpc-message", message)];
            pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect::<HeaderMap>()
        };
        let none = HeaderMap::new();
        for (status, trailers, body, expected) in [
            (200, map("0", ""), &b"\0\0\0\0\x02\x08\x01"[..], Ok(())),
            (200, map("0", ""), b"\0\0\0\0\x02\x08\x02", Err("service unhealthy (responded with \"NOT_SERVING\")")),
            (200, map("0", ""), b"\0\0\0\0\0", Err("service unhealthy (responded with \"UNKNOWN\")")),
            (200, map("0", ""), b"", Err("error: health rpc probe failed: no response")),
            (
                200,
                map("12", "unknown service"),
                b"",
                Err(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
                ),
            ),
            (200, map("5", "no x"), b"", Err("error: health rpc probe failed: rpc error: code = 5 desc = no x")),
            (
                503,
                none.clone(),
                b"",
                Err("error: health rpc probe failed: unexpected HTTP status code received from server: 503"),
            ),
        ] {
            assert_eq!(verdict(status, &none, &trailers, body), expected.map_err(str::to_owned));
        }
    }
}
