//! A running container, and the two adapters between sandbox and network: requests in, requests out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Request, Response};
use podium_network::{Attachment, CallError, Dialer, HttpHandler};
use podium_sandbox::{Body, CallFailure, CommandContainer, CpuLimit, Ending, HttpContainer, Image, Usage};
use tracing::Instrument as _;

use super::{command::Within, deadline::Deadline, termination::Left};
use crate::{
    images::{Record, store::Pins},
    logs::writer::ContainerLog,
};

/// How long a command may go on after it was asked to end. WASI has no signals, so a guest cannot know; this only lets
/// one that is about to finish do so.
const COMMAND_LINGER: Duration = Duration::from_millis(20);

/// Longer than any grace: the deadline ends a drain, not this.
const DRAIN_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A running container. Dropping it takes it off the network and kills it.
pub(crate) struct Runtime {
    pub(crate) id: Arc<str>,
    pub(crate) guest: Guest,
    pub(crate) attachments: Vec<Attachment>,
    /// Its side of the network, with what it listens to.
    pub(crate) dialer: Dialer,
    pub(crate) log: Arc<ContainerLog>,
    /// Its module, and what the image offers that it came from.
    pub(crate) image: Arc<Image>,
    pub(crate) record: Arc<Record>,
    /// Keeps all of that image.
    pub(crate) _pins: Pins,
    /// What the module is called: the first word of what it was started with.
    pub(crate) program: Arc<str>,
    /// What it leaves behind.
    pub(crate) left: Left,
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

    /// What it has used.
    pub(crate) fn usage(&self) -> Usage {
        match self {
            Self::Http(container) => container.usage(),
            Self::Command(container) => container.usage(),
        }
    }

    /// Gives it other bounds while it runs.
    pub(crate) fn resize(&self, memory_bytes_max: u64, cpu: CpuLimit) {
        match self {
            Self::Http(container) => container.resize(memory_bytes_max, cpu),
            Self::Command(container) => container.resize(memory_bytes_max, cpu),
        }
    }
}

impl Runtime {
    /// Where further commands of this container run.
    pub(crate) fn command(&self) -> Within {
        Within {
            guest: self.guest.clone(),
            image: self.image.clone(),
            record: self.record.clone(),
            program: self.program.clone(),
        }
    }

    /// Ends it by the deadline, without cutting off a request if that is enough time. A container that answered all its
    /// requests has finished with code 0.
    pub(crate) async fn end(self, deadline: &Deadline) -> Ending {
        match &self.guest {
            Guest::Http(container) => {
                let quiet = async {
                    let drains = self.attachments.iter().map(|attachment| attachment.drain(DRAIN_MAX));
                    futures::future::join_all(drains).await;
                    container.drain(DRAIN_MAX).await
                };
                let drained = deadline.within(quiet).await.unwrap_or(false);
                container.kill();
                if drained { Ending::Finished { code: 0 } } else { Ending::Killed }
            }
            Guest::Command(container) => {
                // One that has ended by itself meanwhile has nothing to drain.
                tokio::select! {
                    _ = deadline.within(self.dialer.drain(DRAIN_MAX)) => {}
                    ending = container.wait() => return ending,
                }
                container.terminate();
                let limit = COMMAND_LINGER.min(deadline.left());
                if let Ok(ending) = tokio::time::timeout(limit, container.wait()).await {
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
