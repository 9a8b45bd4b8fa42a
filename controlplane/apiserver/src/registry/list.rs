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
///
/// # Source
/// Kubernetes `apiserver/pkg/storage/continue.go`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    v: String,
    /// The revision of the whole list; [`NEWEST`] when the rest is to be that of now.
    rv: i64,
    /// The first key that may be listed, behind the prefix of the kind: the last one listed and a zero byte.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
const NEWEST: i64 = -1;

impl Token {
    fn new(revision: Revision, last: &str) -> Self {
        let rv = i64::try_from(revision.0).unwrap_or(i64::MAX);
        Self { v: TOKEN_VERSION.to_owned(), rv, start: format!("{last}\0") }
    }

    /// Goes on from the same key at the newest revision: the whole is no longer of one moment.
    pub(crate) fn inconsistent(&self) -> Self {
        Self { rv: NEWEST, ..self.clone() }
    }

    /// The revision to go on at; `None` for the newest.
    fn revision(&self) -> Option<Revision> {
        u64::try_from(self.rv).ok().map(Revision)
    }

    /// Only keys behind this one.
    fn after(&self) -> &str {
        self.start.strip_suffix('\0').unwrap_or(&self.start)
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
        let bad =
            |why: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid{why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| bad(format!(": {e}")))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| bad(format!(": {e}")))?;
        if token.v != TOKEN_VERSION {
            return Err(bad(format!(": server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            let why = ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
            return Err(bad(why.to_owned()));
        }
        if token.start.is_empty() {
            return Err(bad(": encoded start key empty (version meta.k8s.io/v1)".to_owned()));
        }
        let path = token.start.strip_prefix('/').unwrap_or(&token.start);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad(format!(": {}", token.start)));
        }
        Ok(token)
    }
}

fn expired(continued: bool) -> ApiError {
    ApiError::expired(if continued {
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list."
    } else {
        "The resourceVersion for the provided list is too old."
    })
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
            (Some(token), _) => (token.revision(), Some(token.after().to_owned())),
            (None, exact) => (exact, None),
        };
        let continued = request.token.is_some();
        match at {
            // Even when nothing has changed since: a revision is readable or not for all kinds alike.
            Some(at) if at < self.store().oldest() => Err(expired(continued)),
            Some(at) if !resource.cache.unchanged_since(at) => self
                .list_past(resource, &request, at, after)
                .await
                .map_err(|e| if e.reason == Reason::Expired { expired(continued) } else { e }),
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
        assert_eq!((token.revision(), token.after()), (Some(Revision(42)), "default/web"));
        let rest = Token::decode(&token.inconsistent().encode()).unwrap();
        assert_eq!((rest.revision(), rest.after()), (None, "default/web"));
        let encoded = |rv, start: &str| Token { v: TOKEN_VERSION.to_owned(), rv, start: start.to_owned() }.encode();
        let climbing = [encoded(1, "../a"), encoded(1, "a//b"), encoded(1, "a/./b"), encoded(0, "a"), encoded(1, "")];
        for bad in ["", "x", "e30", "eyJ2IjoibWV0YSJ9"].into_iter().chain(climbing.iter().map(String::as_str)) {
            let error = Token::decode(bad).unwrap_err();
            assert!(error.message.starts_with("invalid continue token: continue key is not valid: "), "{bad}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*", bytes: Vec<u8>) {
            let _ = Token::decode(&text);
            if let Ok(token) = Token::decode(&URL_SAFE_NO_PAD.encode(bytes)) {
                proptest::prop_assert_eq!(Token::decode(&token.encode()), Ok(token));
            }
        }

        #[test]
        fn tokens_come_back(revision in 1..i64::MAX, last in "[a-z0-9.-]*[a-z0-9](/[a-z0-9.-]*[a-z0-9])?") {
            let token = Token::new(Revision(revision.unsigned_abs()), &last);
            proptest::prop_assert_eq!(Token::decode(&token.encode()), Ok(token.clone()));
            proptest::prop_assert_eq!(token.after(), last);
        }
    }
}
