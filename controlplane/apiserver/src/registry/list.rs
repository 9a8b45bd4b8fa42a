//! Lists: filters, pages, and the token that carries a list on at its revision.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use podium_api::{ApiError, Reason, Revision};
use podium_store::{RangeRequest, StoreError};
use serde::{Deserialize, Serialize};

use super::{
    Registry, Resource,
    cache::{Entry, Filter},
    pump, store_error, too_large,
};

/// What a list asks for.
#[derive(Debug, Default)]
pub(crate) struct ListRequest {
    pub(crate) filter: Filter,
    /// At most so many objects; zero for all.
    pub(crate) limit: usize,
    pub(crate) token: Option<Token>,
    /// The state at exactly this revision.
    pub(crate) exact: Option<Revision>,
    /// The state at this revision or a later one.
    pub(crate) not_older_than: Option<Revision>,
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: Revision,
    /// How to get the next page; `None` at the end.
    pub(crate) next: Option<Token>,
    /// How many objects follow, if that is known.
    pub(crate) remaining: Option<usize>,
}

/// Where a list goes on: `continue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    v: String,
    /// The revision of the whole list.
    rv: u64,
    /// The last key that was listed, behind the prefix of the kind.
    start: String,
}

const TOKEN_VERSION: &str = "podium.dev/v1";

impl Token {
    fn new(revision: Revision, start: &str) -> Self {
        Self { v: TOKEN_VERSION.to_owned(), rv: revision.0, start: start.to_owned() }
    }

    /// Its form in a list's metadata.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what [`Token::encode`] wrote.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn decode(text: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|b| serde_json::from_slice::<Self>(&b).ok());
        token.filter(|t| t.v == TOKEN_VERSION).ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

fn token_expired() -> ApiError {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
        list without the continue parameter.";
    ApiError::expired(message)
}

impl Registry {
    /// One page of a list.
    ///
    /// # Errors
    /// 410 when the revision is compacted; 504 when it has not come yet.
    pub(crate) async fn list(&self, resource: &Resource, request: ListRequest) -> Result<Page, ApiError> {
        if let Some(wanted) = request.not_older_than.max(request.exact) {
            self.wait_for(wanted).await?;
        }
        let (at, after) = match (&request.token, request.exact) {
            (Some(token), _) => (Some(Revision(token.rv)), Some(token.start.clone())),
            (None, exact) => (exact, None),
        };
        match at {
            Some(at) if !resource.cache.unchanged_since(at) => {
                let expired = request.token.is_some();
                self.list_past(resource, &request, at, after)
                    .await
                    .map_err(|e| if expired && e.reason == Reason::Expired { token_expired() } else { e })
            }
            at => Ok(list_now(resource, &request, at, after.as_deref())),
        }
    }

    /// Waits a moment for a revision that a client has heard of.
    ///
    /// # Errors
    /// 504.
    pub(crate) async fn wait_for(&self, wanted: Revision) -> Result<(), ApiError> {
        if wanted <= self.revision() {
            return Ok(());
        }
        let wait = tokio::time::timeout(std::time::Duration::from_secs(3), self.progress.reached(wanted));
        wait.await.map_err(|_| too_large(wanted, self.revision()))
    }

    async fn list_past(
        &self,
        resource: &Resource,
        request: &ListRequest,
        at: Revision,
        start: Option<String>,
    ) -> Result<Page, ApiError> {
        let cache = &resource.cache;
        let prefix = match request.filter.namespace.as_str() {
            "" => cache.prefix().to_owned(),
            namespace => format!("{}{namespace}/", cache.prefix()),
        };
        let limit = Some(request.limit).filter(|l| *l > 0);
        let mut after = start.map(|s| format!("{}{s}", cache.prefix()).into());
        let mut entries = Vec::new();
        loop {
            let range = RangeRequest { prefix: prefix.clone(), after, limit, at: Some(at) };
            let range = self.store().range(range).await.map_err(|e| match e {
                StoreError::Future { asked, newest } => too_large(asked, newest),
                other => store_error(&other),
            })?;
            let remaining = range.remaining;
            after = range.records.last().map(|r| r.key.clone());
            let found = range.records.iter().filter_map(|record| pump::entry(cache, record).map(Arc::new));
            entries.extend(found.filter(|e| request.filter.matches(&*resource.kind, &*e.object)));
            let full = limit.is_some_and(|l| entries.len() >= l);
            let Some(last) = after.as_ref().filter(|_| remaining > 0) else {
                return Ok(Page { entries, revision: at, next: None, remaining: None });
            };
            if full {
                let next = Some(Token::new(at, behind(cache.prefix(), last)));
                let known = request.filter.is_plain();
                let remaining = known.then(|| usize::try_from(remaining).unwrap_or(usize::MAX));
                return Ok(Page { entries, revision: at, next, remaining });
            }
        }
    }
}

fn list_now(resource: &Resource, request: &ListRequest, at: Option<Revision>, after: Option<&str>) -> Page {
    let cache = &resource.cache;
    let mut listed = cache.list(&request.filter);
    let revision = at.unwrap_or(listed.revision);
    if let Some(after) = after {
        let first = listed.entries.partition_point(|e| behind(cache.prefix(), &e.key) <= after);
        listed.entries.drain(..first);
    }
    let mut page = Page { entries: listed.entries, revision, next: None, remaining: None };
    if request.limit > 0 && page.entries.len() > request.limit {
        let rest = page.entries.len() - request.limit;
        page.entries.truncate(request.limit);
        page.next = page.entries.last().map(|e| Token::new(revision, behind(cache.prefix(), &e.key)));
        page.remaining = request.filter.is_plain().then_some(rest);
    }
    page
}

fn behind<'a>(prefix: &str, key: &'a str) -> &'a str {
    key.strip_prefix(prefix).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let token = Token::new(Revision(42), "default/web");
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        for bad in ["", "x", "e30", "eyJ2IjoibWV0YSJ9"] {
            assert_eq!(Token::decode(bad).unwrap_err().message, "continue key is not valid", "{bad}");
        }
    }
}
