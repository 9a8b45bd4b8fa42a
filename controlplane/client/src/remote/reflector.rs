//! Keeps one mirror current: a list in pages, then watches, each from where the one before ended.
//!
//! What goes wrong is a state, not an error: a watch that ends is opened again from the last revision seen; a revision
//! that is no longer in the server's window (410) means a new list, whose differences the subscribers get; anything
//! else waits, longer each time, and is tried again. The mirror stays readable throughout.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt;
use kube::client::Body;
use podium_api::{
    ApiError, KindRef, Object, Reason, Revision,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta, Status},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Reflected, Remote, collection_path, error_of, escape, request};
use crate::{Mirror, MirrorScope, MirrorStore};

/// Objects in one page of a list.
const PAGE_OBJECTS: usize = 500;
/// After so long the server ends a watch.
const WATCH_SECONDS: u64 = 290;
/// Bound on one watch event: an object (at most 1.5 MiB) and its frame.
const EVENT_BYTES_MAX: usize = 8 << 20;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

struct Reflector {
    remote: Arc<Remote>,
    kind: KindRef,
    scope: MirrorScope,
    store: Arc<MirrorStore>,
}

/// What to do next.
enum Next {
    List,
    Watch(Revision),
}

impl Next {
    /// What has come is in the mirror: it goes on from there.
    fn go_on(&mut self, store: &MirrorStore) {
        if let Self::Watch(from) = self {
            *from = store.revision().max(*from);
        }
    }
}

/// Lists once, then keeps the mirror current in a task of its own.
pub(super) async fn start(remote: &Arc<Remote>, kind: &KindRef, scope: MirrorScope) -> Result<Reflected, ApiError> {
    let store = Arc::new(MirrorStore::new());
    let reflector = Reflector { remote: Arc::clone(remote), kind: Arc::clone(kind), scope, store: Arc::clone(&store) };
    let revision = reflector.list().await?;
    let task = tokio::spawn(reflector.run(revision)).abort_handle();
    Ok(Reflected { store, task })
}

impl Reflector {
    async fn run(self, from: Revision) {
        let resource = self.kind.names().plural;
        let mut next = Next::Watch(from);
        let mut failures = 0;
        let mut given_up = self.remote.given_up.subscribe();
        loop {
            let step = async {
                match next {
                    Next::List => self.list().await,
                    Next::Watch(from) => self.watch(from).await,
                }
            };
            let result = tokio::select! {
                result = step => result,
                _ = given_up.changed() => {
                    next.go_on(&self.store);
                    continue;
                }
            };
            match result {
                Ok(revision) => {
                    failures = 0;
                    next = Next::Watch(revision);
                }
                Err(error) if matches!(error.reason, Reason::Expired | Reason::Gone) => {
                    tracing::info!(resource, %error, "the watch fell out of the window; listing again");
                    next = Next::List;
                    tokio::time::sleep(backoff(1)).await;
                }
                Err(error) => {
                    failures += 1;
                    let pause = backoff(failures);
                    tracing::warn!(resource, %error, ?pause, "the mirror is not being updated; trying again");
                    next.go_on(&self.store);
                    // Whoever says that the server answers again is believed at once.
                    let _ = tokio::time::timeout(pause, given_up.changed()).await;
                }
            }
        }
    }

    /// Lists everything into the mirror; returns the revision of the list.
    async fn list(&self) -> Result<Revision, ApiError> {
        let mut objects = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = format!("limit={PAGE_OBJECTS}");
            if !token.is_empty() {
                query.push_str(&format!("&continue={}", escape(&token)));
            }
            let body = self.remote.call(request(Method::GET, &self.path(&query), None)?).await?;
            let page: Page<'_> = serde_json::from_slice(&body).map_err(|e| malformed("list", &e))?;
            for item in page.items {
                objects.push(Arc::from(self.kind.decode(item.get().as_bytes())?.object));
            }
            token = page.metadata.continue_.unwrap_or_default();
            if token.is_empty() {
                let revision = revision(page.metadata.resource_version.as_deref());
                self.store.replace(objects, revision);
                return Ok(revision);
            }
        }
    }

    /// Watches until the server ends it; returns the last revision seen.
    async fn watch(&self, from: Revision) -> Result<Revision, ApiError> {
        let query = format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={from}");
        let mut request = request(Method::GET, &self.path(&query), None)?;
        // One gzip member per event is more than the decompression in between can read.
        request.headers_mut().insert(http::header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let opened = tokio::time::timeout(super::REQUEST_TIMEOUT, self.remote.send(request)).await;
        let response = opened.map_err(|_| ApiError::new(Reason::Timeout, "the watch was not opened in time"))??;
        let mut lines = Lines { body: response.into_body(), buffer: BytesMut::new() };
        let mut seen = from;
        while let Some(line) = lines.next().await? {
            seen = self.take_in(&line)?.max(seen);
        }
        Ok(seen)
    }

    /// Takes one event in; returns its revision.
    fn take_in(&self, line: &[u8]) -> Result<Revision, ApiError> {
        let event: WatchEvent<'_> = serde_json::from_slice(line).map_err(|e| malformed("watch event", &e))?;
        let json = event.object.get().as_bytes();
        match event.kind {
            "ADDED" | "MODIFIED" => {
                let object: Arc<dyn Object> = Arc::from(self.kind.decode(json)?.object);
                let revision = object.revision();
                self.store.put(object);
                Ok(revision)
            }
            "DELETED" => {
                let object = self.kind.decode(json)?.object;
                self.store.delete(&object.key(), object.revision());
                Ok(object.revision())
            }
            "BOOKMARK" => {
                let bookmark: Bookmark = serde_json::from_slice(json).map_err(|e| malformed("bookmark", &e))?;
                let revision = revision(bookmark.metadata.resource_version.as_deref());
                self.store.advance(revision);
                Ok(revision)
            }
            "ERROR" => Err(watch_error(json)),
            other => Err(ApiError::internal(format!("the API server sent a watch event of unknown type {other:?}"))),
        }
    }

    fn path(&self, query: &str) -> String {
        let path = collection_path(&self.kind, self.scope.namespace.as_deref());
        match &self.scope.fields {
            Some(fields) => format!("{path}?{query}&fieldSelector={}", escape(fields)),
            None => format!("{path}?{query}"),
        }
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WatchEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ObjectMeta,
}

/// The lines of a body as they come.
struct Lines {
    body: Body,
    buffer: BytesMut,
}

impl Lines {
    /// The next line; `None` when the server has ended the stream.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(searched + found).freeze();
                self.buffer.advance(1);
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > EVENT_BYTES_MAX {
                return Err(ApiError::internal(format!("a watch event has more than {EVENT_BYTES_MAX} bytes")));
            }
            // The server ends a watch itself; a connection that is silent for longer is dead.
            let patience = Duration::from_secs(WATCH_SECONDS + 30);
            let frame = tokio::time::timeout(patience, self.body.frame()).await;
            match frame.map_err(|_| ApiError::new(Reason::Timeout, "the watch went silent"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(super::unreachable_server(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn revision(text: Option<&str>) -> Revision {
    Revision(text.and_then(|t| t.parse().ok()).unwrap_or_default())
}

fn malformed(what: &str, error: &serde_json::Error) -> ApiError {
    ApiError::internal(format!("the API server sent a malformed {what}: {error}"))
}

fn watch_error(json: &[u8]) -> ApiError {
    let code = serde_json::from_slice::<Status>(json).ok().and_then(|s| s.code).and_then(|c| u16::try_from(c).ok());
    let code = code.and_then(|c| http::StatusCode::from_u16(c).ok());
    error_of(code.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR), json)
}

/// Doubles from 100 ms to 30 s; a quarter of it at random, so that many clients do not come back at once.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACKOFF_MAX);
    let random = u32::try_from(RandomState::new().hash_one(failures) % 1024).unwrap_or_default();
    full * 3 / 4 + full / 4 * random / 1024
}
