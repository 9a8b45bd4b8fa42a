//! Applies a plan's actions in order, and says what has to be seen before the key is looked at again.
//!
//! Runs of creates (or of deletes) go out concurrently in batches of 1, 2, 4, …, so that a thousand replicas are created
//! fast, yet a quota that refuses all of them is asked once. The first failure ends the plan. It never retries: that is
//! the queue's.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use podium_api::{
    ApiError, KindRef, Object, ObjectKey, Reason, Revision,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions as ApiPreconditions},
};
use podium_client::{Api, Patch, Recorder};
use podium_controllers::{Action, Preconditions};

use crate::informer::{Informer, Views};

/// Bound on one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Bound on the writes of one plan that are under way at a time.
const WRITES_AT_ONCE_MAX: usize = 256;
/// Bound on the rest after a plan, as long as Kubernetes' expectations last. Deciding on a mirror that does not show what
/// was written does it twice: the simulation's seed 32 made one pod too many when this was 10 s and a watch stalled.
const REST_MAX: Duration = Duration::from_secs(300);

/// What has to be in the mirrors before the key that wrote it is looked at again.
#[derive(Default)]
pub(crate) struct Expectations {
    written: Vec<(Arc<Informer>, Revision)>,
    deleted: Vec<(Arc<Informer>, ObjectKey, String)>,
}

impl Expectations {
    fn wrote(&mut self, views: &Views, object: &dyn Object) {
        let Some(informer) = views.informer(&object.names()) else { return };
        let revision = object.revision();
        match self.written.iter_mut().find(|(i, _)| Arc::ptr_eq(i, &informer)) {
            Some((_, highest)) => *highest = revision.max(*highest),
            None => self.written.push((informer, revision)),
        }
    }

    fn deleted(&mut self, views: &Views, kind: &KindRef, key: ObjectKey, uid: Option<String>) {
        let Some(informer) = views.informer(&kind.names()) else { return };
        if let Some(uid) = uid {
            self.deleted.push((informer, key, uid));
        }
    }

    /// Waits until all of it is in the mirrors; `false` when that takes too long.
    pub(crate) async fn rest(&self) -> bool {
        let all = async {
            for (informer, revision) in &self.written {
                informer.reached(*revision).await;
            }
            for (informer, key, uid) in &self.deleted {
                informer.gone(key, uid).await;
            }
        };
        tokio::time::timeout(REST_MAX, all).await.is_ok()
    }
}

/// Applies plans of one controller.
pub(crate) struct Applier<'a> {
    pub(crate) api: &'a dyn Api,
    pub(crate) views: &'a Views,
    pub(crate) recorder: &'a Recorder,
}

impl Applier<'_> {
    /// Applies the actions in order up to the first that fails.
    pub(crate) async fn apply(&self, actions: Vec<Action>) -> (Expectations, Result<(), ApiError>) {
        let mut expect = Expectations::default();
        let mut actions = actions.into_iter().peekable();
        while let Some(first) = actions.next() {
            let mut group = vec![first];
            while let Some(next) = actions.next_if(|next| batches(&group[0], next)) {
                group.push(next);
            }
            if let Err(error) = self.apply_group(group, &mut expect).await {
                return (expect, Err(error));
            }
        }
        (expect, Ok(()))
    }

    /// Slow start: batches that double while all goes well.
    async fn apply_group(&self, group: Vec<Action>, expect: &mut Expectations) -> Result<(), ApiError> {
        let mut rest = group.into_iter();
        let mut size = 1;
        loop {
            let batch: Vec<_> = rest.by_ref().take(size).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let results = join_all(batch.into_iter().map(|action| self.apply_one(action))).await;
            let mut failed = None;
            for result in results {
                match result {
                    Ok(done) => done.note(expect, self.views),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            size = (size * 2).min(WRITES_AT_ONCE_MAX);
        }
    }

    async fn apply_one(&self, action: Action) -> Result<Done, ApiError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.request(action)).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = REQUEST_TIMEOUT.as_secs();
                Err(ApiError::new(Reason::Timeout, format!("the API did not answer within {seconds} s")))
            }
        }
    }

    async fn request(&self, action: Action) -> Result<Done, ApiError> {
        Ok(match action {
            Action::Create(object) => Done::Wrote(self.api.create(object).await?),
            Action::CreateAndTell(object, mut event) => {
                let created = self.api.create(object).await?;
                if event.message.ends_with(' ') {
                    event.message.push_str(created.meta().name.as_deref().unwrap_or_default());
                }
                self.recorder.note(note_of(event));
                Done::Wrote(created)
            }
            Action::Update(object) => Done::Wrote(self.api.update(object, None).await?),
            Action::UpdateStatus(object) => Done::Wrote(self.api.update(object, Some("status")).await?),
            Action::MergePatch { kind, key, patch, subresource } => {
                Done::Wrote(self.api.patch(&kind, &key, Patch::Merge(patch), subresource).await?)
            }
            Action::Delete { kind, key, preconditions, propagation, grace_seconds } => {
                let options = delete_options(&preconditions, propagation, grace_seconds);
                self.delete(kind, key, preconditions.uid, options).await?
            }
            Action::DeleteCollection { kind, namespace } => {
                self.api.delete_collection(&kind, &namespace).await?;
                Done::Nothing
            }
            Action::Event(note) => {
                self.recorder.note(note_of(note));
                Done::Nothing
            }
        })
    }

    async fn delete(
        &self,
        kind: KindRef,
        key: ObjectKey,
        uid: Option<String>,
        options: DeleteOptions,
    ) -> Result<Done, ApiError> {
        let known = || Some(self.views.informer(&kind.names())?.get(&key)?.uid().to_owned());
        let uid = uid.or_else(known);
        match self.api.delete(&kind, &key, options).await {
            Ok(()) => Ok(Done::Deleted(kind, key, uid)),
            Err(error) if error.is_not_found() => Ok(Done::Deleted(kind, key, uid)),
            Err(error) => Err(error),
        }
    }
}

enum Done {
    Wrote(Arc<dyn Object>),
    Deleted(KindRef, ObjectKey, Option<String>),
    Nothing,
}

impl Done {
    fn note(self, expect: &mut Expectations, views: &Views) {
        match self {
            Self::Wrote(object) => expect.wrote(views, &*object),
            Self::Deleted(kind, key, uid) => expect.deleted(views, &kind, key, uid),
            Self::Nothing => {}
        }
    }
}

/// Whether `next` may run at the same time as `first`: creates of one kind, or deletes. What is made of another kind may
/// need what was made before.
fn batches(first: &Action, next: &Action) -> bool {
    let deletes = |action: &Action| matches!(action, Action::Delete { .. });
    let same_kind = created(first).zip(created(next)).is_some_and(|(a, b)| a.names() == b.names());
    let lets_go = |action: &Action| match action {
        Action::MergePatch { patch, subresource: None, .. } => changes_finalizers_alone(patch),
        _ => false,
    };
    same_kind || (deletes(first) && deletes(next)) || (lets_go(first) && lets_go(next))
}

/// A Job lets go of its pods by the hundred.
fn changes_finalizers_alone(patch: &serde_json::Value) -> bool {
    let conditions = ["uid", "resourceVersion"];
    let metadata =
        patch.as_object().filter(|patch| patch.len() == 1).and_then(|patch| patch.get("metadata")?.as_object());
    metadata.is_some_and(|m| m.keys().all(|key| key == "finalizers" || conditions.contains(&key.as_str())))
}

fn created(action: &Action) -> Option<&dyn Object> {
    match action {
        Action::Create(object) | Action::CreateAndTell(object, _) => Some(&**object),
        _ => None,
    }
}

fn delete_options(conditions: &Preconditions, propagation: Option<&str>, grace_seconds: Option<i64>) -> DeleteOptions {
    let Preconditions { uid, resource_version } = conditions;
    let preconditions = (uid.is_some() || resource_version.is_some())
        .then(|| ApiPreconditions { uid: uid.clone(), resource_version: resource_version.clone() });
    DeleteOptions {
        grace_period_seconds: grace_seconds,
        preconditions,
        propagation_policy: propagation.map(str::to_owned),
        ..DeleteOptions::default()
    }
}

fn note_of(note: podium_controllers::EventNote) -> podium_client::Note {
    podium_client::Note {
        regarding: note.regarding,
        warning: note.kind == podium_controllers::EventType::Warning,
        reason: note.reason,
        message: note.message,
    }
}
