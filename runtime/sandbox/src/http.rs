//! A container that answers requests. While idle it owns no instance.

use std::time::Duration;

use crate::{Body, CallFailure, Ending, Usage};

/// A running container of an HTTP image. Dropping it kills what is under way.
#[derive(Debug)]
pub struct HttpContainer;

impl HttpContainer {
    /// Answers one request. Returns when the head of the response is known; the body streams on.
    ///
    /// # Errors
    /// When there is no response; [`CallFailure::not_begun`] tells whether it may be tried elsewhere.
    pub async fn call(&self, request: ::http::Request<Body>) -> Result<::http::Response<Body>, CallFailure> {
        drop(request);
        Err(CallFailure::Stopped)
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Requests under way, those that wait for their turn included.
    pub fn in_flight(&self) -> u32 {
        0
    }

    /// Resolves when the container as a whole has ended (killed, or out of memory); until then it stays pending.
    pub async fn ended(&self) -> Ending {
        Ending::Killed
    }

    /// Takes no new requests from now on; those under way go on.
    pub fn stop(&self) {}

    /// Stops, then waits until nothing is under way, at most for `timeout`. Returns whether nothing is.
    pub async fn drain(&self, timeout: Duration) -> bool {
        let _ = timeout;
        true
    }

    /// Ends everything at once.
    pub fn kill(&self) {}
}
