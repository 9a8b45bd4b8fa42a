//! Who may do what: asked before a request is looked at any further.

use async_trait::async_trait;
use http::HeaderMap;

/// What a request wants to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read.
    Pull,
    /// Add.
    Push,
    /// Remove.
    Delete,
}

/// Why it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows who asks: 401 with [`Access::challenge`].
    Unauthorized,
    /// It is known, and may not: 403 with this message.
    Denied(String),
}

/// Decides over requests.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Whether whoever sent these headers may do this. `repository`: empty for `/v2/` itself, which tools ask for to
    /// learn whether they must say who they are; `_catalog` for the list of all.
    ///
    /// # Errors
    /// Why not.
    async fn check(&self, headers: &HeaderMap, action: Action, repository: &str) -> Result<(), Refusal>;

    /// How whoever is unknown can say who they are: the value of `WWW-Authenticate`.
    fn challenge(&self, _headers: &HeaderMap, _action: Action, _repository: &str) -> String {
        "Basic realm=\"podium\"".to_owned()
    }
}

/// Everybody may do everything: for a router that stands behind other doors, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Access for Anonymous {
    async fn check(&self, _: &HeaderMap, _: Action, _: &str) -> Result<(), Refusal> {
        Ok(())
    }
}
