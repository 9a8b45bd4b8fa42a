//! Watches on the wire: newline-separated events from the cache's ready frames, bookmarks, and a clean end.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::BoxStream};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use podium_api::{
    ApiError, KindRef, Revision, protobuf,
    table::{self, IncludeObject},
};
use podium_client::ClockRef;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Permit,
    body::Body,
    list_options,
    negotiate::{Encoding, Form, Shape},
    path::Query,
    respond::{self, Answer},
    websocket::{Handshake, Message},
};
use crate::registry::{
    Registry, Resource,
    cache::{self, Change, Entry, Feed, Filter, What},
};

/// How often a quiet watch tells how far it has got.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How much is put into one frame when many events wait.
const CHUNK_BYTES: usize = 64 * 1024;
/// How many changes from before the watch are made ready at once.
const BACKLOG_AT_ONCE: usize = 64;

/// Subprotocols of watches over WebSocket. They change nothing here: events are what they are without.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/watch.go` (`HandleWS`).
pub(crate) const PROTOCOLS: &[&str] = &["base64.binary.k8s.io", "binary.k8s.io"];

/// What a watch asks for.
pub(crate) struct WatchRequest {
    pub(crate) filter: Filter,
    pub(crate) shape: Shape,
    pub(crate) include: IncludeObject,
    after: Option<Revision>,
    bookmarks: bool,
    /// Ends the initial state with an annotated bookmark.
    announce_initial: bool,
    timeout: Duration,
}

impl WatchRequest {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 and 422 for parameters that make no sense.
    pub(crate) fn read(query: &Query, filter: Filter, shape: Shape) -> Result<Self, ApiError> {
        list_options::check_watch(query)?;
        let revision = list_options::revision(query.get("resourceVersion"))?;
        let send_initial = query.find("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let bookmarks = query.flag("allowWatchBookmarks");
        let seconds = query.number("timeoutSeconds")?.filter(|s| *s > 0);
        let timeout = match seconds.and_then(|s| u64::try_from(s).ok()) {
            Some(seconds) => Duration::from_secs(seconds.min(24 * 3600)),
            None => Duration::from_secs(rand::rng().random_range(1800..3600)),
        };
        let include = query.get("includeObject").parse()?;
        let after = if send_initial == Some(true) { None } else { revision };
        let announce_initial = send_initial == Some(true) && bookmarks;
        Ok(Self { filter, shape, include, after, bookmarks, announce_initial, timeout })
    }
}

struct Stream {
    resource: Arc<Resource>,
    kind: KindRef,
    registry: Arc<Registry>,
    clock: ClockRef,
    shape: Shape,
    include: IncludeObject,
    with_columns: bool,
    feed: Feed,
    /// Every change up to here has been written.
    sent: Revision,
    /// Events that are not in the version of this watch yet.
    unseen: Vec<(What, Arc<Entry>, Option<Arc<Change>>)>,
    /// What is to be sent of the initial state.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The initial state ends with an annotated bookmark, which is still to be sent.
    announce: bool,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    deadline: Instant,
    stop: CancellationToken,
    ended: bool,
    /// Events may not be put together.
    one_by_one: bool,
    _permit: Permit,
}

/// The events of a watch that was opened.
pub(crate) struct Events {
    encoding: Encoding,
    stream: Option<Box<Stream>>,
    /// What to say when there is no stream.
    refusal: Bytes,
}

impl Events {
    /// As the body of an answer.
    pub(crate) fn into_answer(self) -> Answer {
        let content_type = match self.encoding {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            other => other.content_type(),
        };
        let body = match self.stream {
            None => Body::Full(self.refusal),
            Some(stream) => Body::Stream(stream.frames().map(Ok::<_, io::Error>).boxed()),
        };
        respond::with_body(StatusCode::OK, content_type, body)
    }

    /// Over a WebSocket: a message for each event, a text where the encoding is one.
    pub(crate) fn into_socket(self, socket: Handshake, write_timeout: Duration) -> Answer {
        let encoding = self.encoding;
        let frames = match self.stream {
            None => futures::stream::once(async { self.refusal }).boxed(),
            Some(mut stream) => {
                stream.one_by_one = true;
                stream.frames()
            }
        };
        let messages = frames.map(move |mut frame| match encoding {
            // A message knows its length.
            Encoding::Protobuf => Message::Binary(frame.split_off(frame.len().min(4))),
            _ => Message::text(String::from_utf8_lossy(&frame).into_owned()),
        });
        socket.send_all(messages.boxed(), write_timeout)
    }
}

/// Opens a watch.
///
/// # Errors
/// 504 for a revision that has not come; 410 comes as an event, as from Kubernetes.
pub(crate) async fn open(
    registry: &Arc<Registry>,
    resource: &Arc<Resource>,
    request: WatchRequest,
    stop: CancellationToken,
    permit: Permit,
) -> Result<Events, ApiError> {
    if let Some(after) = request.after {
        registry.wait_for(after).await?;
    }
    let encoding = request.shape.encoding;
    let mut feed = match registry.watch(resource, request.filter, request.after).await {
        Ok(feed) => feed,
        Err(oldest) => {
            let asked = request.after.unwrap_or_default();
            let error = ApiError::expired(format!("too old resource version: {asked} ({oldest})"));
            return Ok(Events { encoding, stream: None, refusal: error_frame(&error, encoding) });
        }
    };
    let stream = Stream {
        resource: resource.clone(),
        kind: resource.kind.clone(),
        registry: registry.clone(),
        clock: registry.clock().clone(),
        shape: request.shape,
        include: request.include,
        with_columns: true,
        sent: request.after.unwrap_or(feed.revision),
        initial: std::mem::take(&mut feed.initial).into_iter(),
        announce: request.announce_initial,
        feed,
        unseen: Vec::new(),
        ready: VecDeque::new(),
        bookmarks: request.bookmarks,
        deadline: Instant::now() + request.timeout,
        stop,
        ended: false,
        one_by_one: false,
        _permit: permit,
    };
    Ok(Events { encoding, stream: Some(Box::new(stream)), refusal: Bytes::new() })
}

/// An `ERROR` event.
fn error_frame(error: &ApiError, encoding: Encoding) -> Bytes {
    event("ERROR", serde_json::to_value(error.status()).unwrap_or_default(), encoding)
}

/// An event of an object that is not ready as bytes.
fn event(what: &str, object: Value, encoding: Encoding) -> Bytes {
    if encoding == Encoding::Protobuf {
        let encoded = protobuf::encode(&object).and_then(|object| protobuf::encode_event(what, &object));
        return encoded.unwrap_or_default().into();
    }
    let mut line = json!({"type": what, "object": object}).to_string();
    line.push('\n');
    line.into()
}

fn type_of(what: What) -> &'static str {
    match what {
        What::Added => "ADDED",
        What::Modified => "MODIFIED",
        What::Deleted => "DELETED",
    }
}

impl Stream {
    fn frames(self: Box<Self>) -> BoxStream<'static, Bytes> {
        let step = |mut stream: Box<Self>| async move { stream.next().await.map(|next| (next, stream)) };
        futures::stream::unfold(self, step).boxed()
    }

    /// Makes ready some of what was there before the watch; `false` when all of it has been sent. Frames are only made
    /// when the client has taken those before: a large initial state is never in memory a second time.
    async fn refill(&mut self) -> bool {
        let mut bytes = 0;
        while bytes < CHUNK_BYTES
            && let Some(entry) = self.initial.next()
        {
            bytes += entry.json.len();
            self.push(What::Added, entry, None);
        }
        self.convert().await;
        if self.ended || self.initial.len() > 0 {
            return true;
        }
        if std::mem::take(&mut self.announce) {
            let frame = self.bookmark(self.feed.revision, true);
            self.ready.push_back(frame);
        }
        for _ in 0..BACKLOG_AT_ONCE {
            let Some(change) = self.feed.backlog.pop_front() else { break };
            self.take(&change);
        }
        self.convert().await;
        !self.ready.is_empty() || !self.feed.backlog.is_empty()
    }

    /// An event on its way to the client, by way of [`Stream::convert`] where objects may be of another version.
    fn push(&mut self, what: What, entry: Arc<Entry>, change: Option<Arc<Change>>) {
        if self.resource.converts() {
            self.unseen.push((what, entry, change));
            return;
        }
        let frame = self.frame_of(what, &entry, change.as_deref());
        self.ready.push_back(frame);
    }

    /// Brings all events to the version of this watch, in one go.
    async fn convert(&mut self) {
        if self.unseen.is_empty() {
            return;
        }
        let unseen = std::mem::take(&mut self.unseen);
        let viewed = self.resource.view_all(unseen.iter().map(|(_, entry, _)| entry.clone()).collect()).await;
        match viewed {
            Ok(viewed) => {
                for ((what, entry, change), viewed) in unseen.into_iter().zip(viewed) {
                    // The frame that all watchers share is that of the stored version.
                    let shared = change.filter(|_| Arc::ptr_eq(&entry, &viewed));
                    let frame = self.frame_of(what, &viewed, shared.as_deref());
                    self.ready.push_back(frame);
                }
            }
            Err(error) => {
                self.ready.push_back(error_frame(&error, self.shape.encoding));
                self.ended = true;
            }
        }
    }

    fn take(&mut self, change: &Arc<Change>) {
        self.sent = self.sent.max(change.revision);
        let Some(what) = change.seen_by(&*self.kind, &self.feed.filter) else { return };
        let Some(entry) = change.entry(what).cloned() else { return };
        self.push(what, entry, Some(change.clone()));
    }

    fn frame_of(&mut self, what: What, entry: &Entry, change: Option<&Change>) -> Bytes {
        let object = match (self.shape.form, self.shape.encoding) {
            (Form::Table, _) => self.table(entry),
            (Form::Metadata, _) => respond::partial_metadata(entry),
            (_, Encoding::Protobuf) => entry.tree().unwrap_or_default(),
            _ => return change.map_or_else(|| cache::frame(what, &entry.json), |c| c.frame(what)),
        };
        let object = if self.shape.beta { table::as_beta(object) } else { object };
        event(type_of(what), object, self.shape.encoding)
    }

    fn table(&mut self, entry: &Entry) -> Value {
        let mut row = table::row(&*self.kind, &*entry.object, self.clock.now(), self.include).unwrap_or_default();
        if let Some(object) = row.get_mut("object") {
            respond::restore_managed(object, entry);
        }
        let meta = ListMeta { resource_version: entry.object.meta().resource_version.clone(), ..ListMeta::default() };
        table::table(&*self.kind, vec![row], &meta, std::mem::take(&mut self.with_columns))
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Bytes {
        let names = self.kind.names();
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.shape.form {
            Form::Table => {
                let list = ListMeta { resource_version: Some(revision.to_string()), ..ListMeta::default() };
                // The row is there for the annotation that its object has.
                let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta});
                let rows = if initial_end { vec![json!({"cells": [], "object": object})] } else { Vec::new() };
                table::table(&*self.kind, rows, &list, false)
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            _ => json!({"kind": names.kind, "apiVersion": names.api_version(), "metadata": meta}),
        };
        let object = if self.shape.beta { table::as_beta(object) } else { object };
        event("BOOKMARK", object, self.shape.encoding)
    }

    /// The next chunk; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.chunk() {
                return Some(chunk);
            }
            if self.ended || self.stop.is_cancelled() {
                return None;
            }
            if self.refill().await {
                continue;
            }
            self.wait().await;
        }
    }

    /// Waits for a change, for the time of a bookmark, or for the end.
    async fn wait(&mut self) {
        let bookmark = if self.bookmarks { Instant::now() + BOOKMARK_EVERY } else { self.deadline };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => self.ended = true,
            change = self.feed.live.recv() => match change {
                Some(change) => self.take(&change),
                None => self.cut_off(),
            },
            () = tokio::time::sleep_until(self.deadline) => {
                self.push_bookmark();
                self.ended = true;
            }
            () = tokio::time::sleep_until(bookmark) => self.push_bookmark(),
        }
        while let Ok(change) = self.feed.live.try_recv() {
            self.take(&change);
        }
        self.convert().await;
    }

    fn push_bookmark(&mut self) {
        // Read before the queue is looked at: everything up to it has been queued by then.
        let revision = self.registry.revision();
        if self.bookmarks && self.feed.live.is_empty() {
            let frame = self.bookmark(revision.max(self.sent), false);
            self.ready.push_back(frame);
        }
    }

    fn cut_off(&mut self) {
        self.ended = true;
        let names = self.kind.names();
        let served = self.registry.find(names.group, names.version, names.plural).is_some();
        if served && !self.stop.is_cancelled() {
            let error = ApiError::expired("too old resource version: this watch fell behind");
            self.ready.push_back(error_frame(&error, self.shape.encoding));
        }
    }

    fn chunk(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front()?;
        if self.one_by_one || self.ready.is_empty() || first.len() >= CHUNK_BYTES {
            return Some(first);
        }
        let mut chunk = BytesMut::from(first);
        while let Some(frame) = self.ready.front().filter(|f| chunk.len() + f.len() <= CHUNK_BYTES) {
            chunk.extend_from_slice(frame);
            self.ready.pop_front();
        }
        Some(chunk.freeze())
    }
}
