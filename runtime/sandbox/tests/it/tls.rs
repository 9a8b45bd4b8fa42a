//! `wasi:tls`, 0.2 and 0.3: a guest's connection over its own socket, with the certificates that its container trusts.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use podium_sandbox::{ContainerSpec, Ending, Grants, SocketError, Sockets, TcpConnection, TcpPort, Tls, UdpSocket};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::support::{self, TLS_P2, TLS_P3, load, sandbox, spec};

/// A network of one server, which answers `pong` to `ping`.
struct OneServer(Arc<ServerConfig>);

fn server(names: &[&str]) -> (OneServer, CertificateDer<'static>) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (OneServer(Arc::new(config)), made.cert.der().clone())
}

fn none<T>() -> Result<T, SocketError> {
    Err(SocketError::AccessDenied("not in this test".into()))
}

#[async_trait]
impl Sockets for OneServer {
    async fn connect(&self, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        let (guest, host) = tokio::io::duplex(16 << 10);
        let acceptor = TlsAcceptor::from(self.0.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(host).await else { return };
            let mut ping = [0; 4];
            if stream.read_exact(&mut ping).await.is_ok() && ping == *b"ping" {
                let _ = stream.write_all(b"pong").await;
                let _ = stream.shutdown().await;
            }
        });
        let local = SocketAddr::from(([10, 0, 0, 1], 40_000));
        Ok(TcpConnection { local, remote: to, stream: Box::new(guest), buffer_bytes: 32 << 10 })
    }

    fn bind_tcp(&self, _: SocketAddr) -> Result<Box<dyn TcpPort>, SocketError> {
        none()
    }

    fn bind_udp(&self, _: SocketAddr, _: usize) -> Result<Box<dyn UdpSocket>, SocketError> {
        none()
    }

    async fn lookup(&self, _: &str) -> Result<Vec<IpAddr>, SocketError> {
        none()
    }
}

/// What the guest says of its connection to a server by a name.
async fn talk(wasm: &'static [u8], name: &str, change: impl FnOnce(&mut ContainerSpec)) -> String {
    let sandbox = sandbox();
    let image = load(&sandbox, wasm).await;
    let (mut spec, logs) = spec(&["tls", "10.0.0.2", "443", name]);
    change(&mut spec);
    let ending = sandbox.command(&image, spec).unwrap().wait().await;
    assert_eq!(ending, Ending::Finished { code: 0 }, "{}", logs.stderr.lock());
    logs.stdout.lock().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_talks_tls_to_whom_it_may_trust() {
    let _turn = support::shared().await;
    let (network, certificate) = server(&["db.test"]);
    let network: Arc<dyn Sockets> = Arc::new(network);
    let (trusting, ignored) = Tls::trusting([certificate]);
    assert_eq!(ignored, 0);
    let (stranger, _) = Tls::trusting([server(&["db.test"]).1]);
    let cases = [
        ("db.test", Some(trusting.clone()), "pong"),
        ("other.test", Some(trusting), "certificate not valid for name \"other.test\""),
        ("db.test", Some(stranger), "invalid peer certificate"),
        ("db.test", Some(Tls::system()), "invalid peer certificate"),
        ("db.test", None, "this container may not make TLS connections"),
    ];
    for (wasm, (name, tls, wanted)) in
        [TLS_P2, TLS_P3].into_iter().flat_map(|wasm| cases.iter().map(move |it| (wasm, it)))
    {
        let said = talk(wasm, name, |spec| {
            spec.sockets = Some(network.clone());
            spec.tls.clone_from(tls);
        })
        .await;
        assert!(said.contains(wanted), "{said}, wanted {wanted}");
    }
    for wasm in [TLS_P2, TLS_P3] {
        let said = talk(wasm, "db.test", |spec| {
            spec.sockets = Some(network.clone());
            spec.tls = Some(Tls::system());
            let mut grants = Grants::default();
            grants.granted.remove("wasi:tls");
            spec.grants = Arc::new(grants);
        })
        .await;
        assert!(said.contains("this container may not make TLS connections"), "{said}");
    }
}
