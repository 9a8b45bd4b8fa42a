//! What is noted of a request on its way, for the audit log and for the headers of its answer.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::{Call, Frontend, body::Body, path::Route, respond::Answer, websocket::Held};
use crate::{
    audit::{self, Outcome, Record, Stage},
    auth::{Attributes, Decision, Identity},
    flow,
};

/// Larger answers are not put into the audit log: its queue is bounded.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Whom the client's certificate names.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The address.
    pub(crate) address: Option<IpAddr>,
}

/// Under which keys the audit log says what the authorizer said.
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// Notes on one request.
#[derive(Default)]
pub(crate) struct Notes {
    pub(super) id: String,
    pub(super) received: Timestamp,
    pub(super) address: Option<IpAddr>,
    pub(super) annotations: audit::Annotations,
    begun: Mutex<Option<Option<Arc<Record>>>>,
    /// How flow control sorted the request.
    pub(super) flow: OnceLock<Arc<flow::Schema>>,
}

impl Notes {
    pub(super) fn new(id: String, address: Option<IpAddr>) -> Self {
        Self { id, received: Timestamp::now(), address, ..Self::default() }
    }

    pub(super) fn record(&self) -> Option<Arc<Record>> {
        self.begun.lock().clone().flatten()
    }
}

impl Frontend {
    /// Asks the policy, once it is known who asks. Only the first call counts.
    pub(super) fn begin_audit(&self, who: &Identity, route: &Route<'_>, what: &Attributes<'_>, call: &Call<'_>) {
        let Some(audit) = &self.audit else { return };
        let mut begun = call.notes.begun.lock();
        if begun.is_some() {
            return;
        }
        let version = if let Route::Resource(target) = route { target.version } else { "" };
        let origin = audit::Origin {
            headers: call.headers,
            uri: call.uri,
            version,
            address: call.notes.address,
            id: &call.notes.id,
            received: call.notes.received,
        };
        *begun = Some(audit.begin(who, what, &origin, call.notes.annotations.clone()));
    }

    /// Notes for the audit log whether somebody may do what they ask for, and why.
    pub(super) fn note_decision(&self, who: &Identity, what: &Attributes<'_>, call: &Call<'_>) {
        if call.notes.record().is_none() {
            return;
        }
        let Decision { allowed, reason } = self.authorizer.decide(who, what);
        let decision = if allowed { "allow" } else { "forbid" };
        let mut annotations = call.notes.annotations.lock();
        annotations.insert(DECISION.to_owned(), decision.to_owned());
        annotations.insert(REASON.to_owned(), reason);
    }
}

/// Writes how a request ended; a stream's end is written when it ends.
pub(super) fn finish(record: Arc<Record>, answer: Answer, panicked: bool) -> Answer {
    let code = answer.status().as_u16();
    let (parts, body) = answer.into_parts();
    // Of requests whose authorization was not asked for: what anybody may read, and who may not act as somebody else.
    let decision = if code == 403 { "forbid" } else { "allow" };
    let annotations = match code {
        401 => BTreeMap::new(),
        _ => BTreeMap::from([(DECISION.to_owned(), decision.to_owned())]),
    };
    let body = match body {
        Body::Stream(stream) => {
            record.write(Stage::ResponseStarted, Some(&Outcome { code, body: None, annotations: &annotations }));
            let end = End { record, code, annotations };
            let stream = stream.map(move |item| {
                let _held = &end;
                item
            });
            Body::Stream(stream.boxed())
        }
        body if code == 101 => {
            record.write(Stage::ResponseStarted, Some(&Outcome { code, body: None, annotations: &annotations }));
            let end = End { record, code, annotations };
            if let Some(held) = parts.extensions.get::<Held>() {
                *held.0.lock() = Some(Box::new(end));
            }
            body
        }
        body => {
            let wanted = record.wants_response() || code >= 400;
            let seen = if wanted { body.whole(RESPONSE_BYTES_MAX) } else { None };
            let stage = if panicked { Stage::Panic } else { Stage::ResponseComplete };
            record.write(stage, Some(&Outcome { code, body: seen, annotations: &annotations }));
            body
        }
    };
    Answer::from_parts(parts, body)
}

/// Writes the end of a stream, however it ends.
struct End {
    record: Arc<Record>,
    code: u16,
    annotations: BTreeMap<String, String>,
}

impl Drop for End {
    fn drop(&mut self) {
        let outcome = Outcome { code: self.code, body: None::<Bytes>, annotations: &self.annotations };
        self.record.write(Stage::ResponseComplete, Some(&outcome));
    }
}
