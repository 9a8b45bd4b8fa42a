//! Speaking with whoever is behind the proxy: one request and its answer, or a connection that is taken over.
//!
//! Pods of the cluster are called, or connected to within it. TLS is spoken with those that listen themselves, whatever
//! their certificate says: that of a pod is signed by nobody. One that answers a handshake with something else is spoken to
//! without: what is said to pods stays in this process, or goes to their node through the tunnel. Requests are sent once.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use podium_api::{ApiError, Reason};
use tokio_rustls::TlsConnector;
use tokio_util::{io::InspectReader, sync::CancellationToken};

use super::place::{Place, unreachable};
use crate::{
    gateway::ByteStream,
    http::{
        Permit,
        body::Body,
        respond::{self, Answer},
        websocket::Held,
    },
    outbound::{BoxError, ServiceBody, ServiceDialer, unverified_tls},
    streaming::{Activity, IDLE_MAX},
};

/// How long an answer may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a request goes, and through whom.
pub(super) struct Backend {
    pub(super) services: Arc<dyn ServiceDialer>,
    pub(super) place: Place,
}

impl Backend {
    /// Sends a request whose URI is a path.
    ///
    /// # Errors
    /// 503 when there is no answer.
    pub(super) async fn send(&self, request: Request<ServiceBody>) -> Result<Response<ServiceBody>, ApiError> {
        let address = self.place.address;
        if !self.services.serves(address) {
            return Err(unreachable(&self.refused()));
        }
        let sent = async {
            if self.place.secure && self.services.listens(address).await {
                let answer = self.speak(request).await.map_err(|error| error.to_string())?;
                return Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()));
            }
            self.services.send(address, request).await
        };
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, sent).await;
        sent.unwrap_or_else(|_| Err("context deadline exceeded".to_owned())).map_err(|why| unreachable(&why))
    }

    fn refused(&self) -> String {
        format!("dial tcp {}: connect: connection refused", self.place.address)
    }

    /// Speaks HTTP/1.1 over a connection of its own.
    async fn speak(&self, request: Request<ServiceBody>) -> Result<Response<hyper::body::Incoming>, SpeakError> {
        let io = self.connect().await.map_err(SpeakError::Dial)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(SpeakError::Send)?;
        // It ends with its connection.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(SpeakError::Send)
    }

    async fn connect(&self) -> Result<Box<dyn ByteStream>, String> {
        let address = self.place.address;
        if !self.services.serves(address) {
            return Err(self.refused());
        }
        let plain = self.services.connect(address).await?;
        if !self.place.secure || !self.services.listens(address).await {
            return Ok(plain);
        }
        let tls = TlsConnector::from(Arc::new(unverified_tls()?));
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.connect(address.ip().into(), plain)).await;
        match opened.map_err(|_| "net/http: TLS handshake timeout".to_owned())? {
            Ok(secure) => Ok(Box::new(secure)),
            Err(error) if speaks_no_tls(&error) => self.services.connect(address).await,
            Err(error) => Err(format!("tls: {error}")),
        }
    }

    /// Sends a request for another protocol, and carries what is spoken then.
    ///
    /// # Errors
    /// 500 when the backend cannot be reached or does not take it, in Kubernetes' words.
    pub(super) async fn upgrade(
        &self,
        request: Request<ServiceBody>,
        client: OnUpgrade,
        life: Life,
    ) -> Result<Upgraded, ApiError> {
        let failed = |message: String| ApiError::new(Reason::InternalError, message);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.speak(request)).await;
        let answer = answer.map_err(|_| failed("error sending request: context deadline exceeded".to_owned()))?;
        let mut answer = answer.map_err(|error| match error {
            SpeakError::Dial(why) => failed(format!("error dialing backend: {why}")),
            SpeakError::Send(_) => failed(format!("error sending request: {error}")),
        })?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let code = answer.status().as_u16();
            if code < 400 {
                return Err(failed(format!("invalid upgrade response: status code {code}")));
            }
            return Ok(Upgraded::Refused(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()), life));
        }
        let backend = hyper::upgrade::on(&mut answer);
        let mut switching = respond::with_body(answer.status(), "", Body::Full(bytes::Bytes::new()));
        *switching.headers_mut() = answer.headers().clone();
        let held = Held::default();
        switching.extensions_mut().insert(held.clone());
        tokio::spawn(async move {
            carry(client, backend, life).await;
            drop(held);
        });
        Ok(Upgraded::Switched(switching))
    }
}

/// What a connection that was taken over holds, and what ends it.
pub(super) struct Life {
    pub(super) permit: Permit,
    pub(super) stop: CancellationToken,
}

/// How a request for another protocol was answered.
pub(super) enum Upgraded {
    Switched(Answer),
    /// The backend's refusal.
    Refused(Response<ServiceBody>, Life),
}

#[derive(Debug, thiserror::Error)]
enum SpeakError {
    #[error("{0}")]
    Dial(String),
    #[error("{}", outermost(.0))]
    Send(hyper::Error),
}

/// Whether what was answered to a handshake is not of TLS.
fn speaks_no_tls(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<tokio_rustls::rustls::Error>());
    matches!(cause, Some(tokio_rustls::rustls::Error::InvalidMessage(_)))
}

/// What went wrong at the bottom of it.
fn outermost(error: &hyper::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Carries bytes both ways until both have said their last, nothing has moved for hours, or the server stops.
async fn carry(client: OnUpgrade, backend: OnUpgrade, life: Life) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "a proxied connection was not upgraded"),
    };
    let activity = Activity::new();
    let mut client = InspectReader::new(TokioIo::new(client), |_: &[u8]| activity.touch());
    let mut backend = InspectReader::new(TokioIo::new(backend), |_: &[u8]| activity.touch());
    tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut client, &mut backend) => {
            if let Err(error) = carried {
                tracing::debug!(%error, "a proxied connection ended early");
            }
        }
        () = activity.idle(IDLE_MAX) => tracing::debug!("a proxied connection was idle for too long"),
        () = life.stop.cancelled() => {}
    }
    drop(life.permit);
}
