//! What a controller wants done: data, applied in order by the driver.

use std::time::Duration;

use jiff::Timestamp;
use podium_api::{KindRef, Object, ObjectKey, k8s_openapi::api::core::v1::ObjectReference};

/// What has to hold of an object for an action on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// Its uid.
    pub uid: Option<String>,
    /// Its `resourceVersion`.
    pub resource_version: Option<String>,
}

/// One thing to do. The first that fails ends the plan; the key is tried again after a back-off.
#[derive(Debug)]
pub enum Action {
    /// Creates an object. "Already exists" counts as an error.
    Create(Box<dyn Object>),
    /// Creates an object and then emits an event. A message that ends with a space gets the name that the object got.
    CreateAndTell(Box<dyn Object>, EventNote),
    /// Replaces an object at the `resourceVersion` it carries.
    Update(Box<dyn Object>),
    /// Replaces an object's status at the `resourceVersion` it carries.
    UpdateStatus(Box<dyn Object>),
    /// Merge-patches an object; `subresource` may name `status`.
    MergePatch {
        /// Its kind.
        kind: KindRef,
        /// Which one.
        key: ObjectKey,
        /// RFC 7396. Put `metadata.resourceVersion` in to make it conditional.
        patch: serde_json::Value,
        /// `status`, `finalize` or none.
        subresource: Option<&'static str>,
    },
    /// Deletes an object. "Not found" counts as success.
    Delete {
        /// Its kind.
        kind: KindRef,
        /// Which one.
        key: ObjectKey,
        /// Under which conditions.
        preconditions: Preconditions,
        /// `Background`, `Foreground` or `Orphan`; the kind's default when `None`.
        propagation: Option<&'static str>,
        /// Grace in seconds; the object's own when `None`.
        grace_seconds: Option<i64>,
    },
    /// Deletes every object of a kind in a namespace (namespace deletion).
    DeleteCollection {
        /// Their kind.
        kind: KindRef,
        /// Which namespace.
        namespace: String,
    },
    /// Tells the user something; never fails the plan.
    Event(EventNote),
}

/// Normal or Warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    /// As it stands in an Event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// An Event to emit. The driver names, dates and counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventNote {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Normal or Warning.
    pub kind: EventType,
    /// One word, for example `ScalingReplicaSet`.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl EventNote {
    /// A Normal event.
    pub fn normal(about: &dyn Object, reason: &str, message: impl Into<String>) -> Self {
        Self::new(about, EventType::Normal, reason, message.into())
    }

    /// A Warning event.
    pub fn warning(about: &dyn Object, reason: &str, message: impl Into<String>) -> Self {
        Self::new(about, EventType::Warning, reason, message.into())
    }

    fn new(about: &dyn Object, kind: EventType, reason: &str, message: String) -> Self {
        let (meta, names) = (about.meta(), about.names());
        let regarding = ObjectReference {
            api_version: Some(names.api_version().into_owned()),
            kind: Some(names.kind.to_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        };
        Self { regarding, kind, reason: reason.to_owned(), message }
    }
}

/// What to do about one key.
#[derive(Debug, Default)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Look again after this long even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Adds an action.
    pub fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Looks again then at the latest, a time that has passed counting as now.
    pub fn requeue_at(&mut self, at: Timestamp, now: Timestamp) {
        let after = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        self.requeue_after = Some(self.requeue_after.map_or(after, |known| known.min(after)));
    }

    /// Looks again after `seconds` at the latest.
    pub fn requeue_in(&mut self, seconds: i64) {
        let after = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        self.requeue_after = Some(self.requeue_after.map_or(after, |known| known.min(after)));
    }
}
