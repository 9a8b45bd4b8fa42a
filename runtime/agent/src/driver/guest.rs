//! A running container, and how requests come in. How it gets out is in `way_out`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Request, Response};
use podium_network::{Attachment, CallError, Dialer, HttpHandler};
use podium_sandbox::{Body, CallFailure, CommandContainer, Ending, HttpContainer};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::logs::writer::ContainerLog;

/// How long a command may go on after it was asked to end. WASI has no signals, so a guest cannot know; this only lets
/// one that is about to finish do so.
const COMMAND_LINGER: Duration = Duration::from_millis(20);

/// A running container. Dropping it takes it off the network and kills it.
pub(crate) struct Runtime {
    pub(crate) id: Arc<str>,
    pub(crate) guest: Guest,
    pub(crate) attachments: Vec<Attachment>,
    /// Its side of the network, with what it listens to.
    pub(crate) dialer: Dialer,
    pub(crate) log: Arc<ContainerLog>,
}

/// What runs.
#[derive(Clone)]
pub(crate) enum Guest {
    Http(Arc<HttpContainer>),
    Command(Arc<CommandContainer>),
}

impl Guest {
    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Ending {
        match self {
            Self::Http(container) => container.ended().await,
            Self::Command(container) => container.wait().await,
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        match self {
            Self::Http(container) => container.kill(),
            Self::Command(container) => container.kill(),
        }
    }
}

impl Runtime {
    /// Ends it within `grace`, without cutting off a request if that is enough time. A container that answered all its
    /// requests has finished with code 0.
    pub(crate) async fn end(self, grace: Duration) -> Ending {
        match &self.guest {
            Guest::Http(container) => {
                let drains = self.attachments.iter().map(|attachment| attachment.drain(grace));
                let drained = futures::future::join_all(drains).await.into_iter().all(|drained| drained);
                let drained = drained && container.drain(if drained { grace } else { Duration::ZERO }).await;
                container.kill();
                if drained { Ending::Finished { code: 0 } } else { Ending::Killed }
            }
            Guest::Command(container) => {
                let since = Instant::now();
                // One that has ended by itself meanwhile has nothing to drain.
                tokio::select! {
                    _ = self.dialer.drain(grace) => {}
                    ending = container.wait() => return ending,
                }
                let grace = grace.saturating_sub(since.elapsed());
                container.terminate();
                if let Ok(ending) = tokio::time::timeout(COMMAND_LINGER.min(grace), container.wait()).await {
                    return ending;
                }
                container.kill();
                container.wait().await
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.guest.kill();
        self.log.close();
    }
}

/// A container as the network calls it.
pub(crate) struct Served {
    pub(crate) container: Arc<HttpContainer>,
    pub(crate) span: tracing::Span,
    /// Requests that it takes at once, waiting ones included.
    pub(crate) in_flight_max: u32,
}

#[async_trait]
impl HttpHandler for Served {
    fn accepts(&self) -> bool {
        self.container.in_flight() < self.in_flight_max
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let answer = self.container.call(request).instrument(self.span.clone()).await;
        answer.map_err(|failure| match failure {
            failure if failure.not_begun() => CallError::NotAccepted(failure.to_string()),
            CallFailure::TimedOut => CallError::TimedOut("the guest gave no response in time".to_owned()),
            failure => CallError::Failed(failure.to_string()),
        })
    }
}
