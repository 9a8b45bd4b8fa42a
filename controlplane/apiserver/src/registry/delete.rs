//! Deleting objects: preconditions, grace, propagation, finalizers.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go` and `pkg/registry/rest/delete.go`.

use std::sync::Arc;

use jiff::SignedDuration;
use podium_api::{
    AnyKind, ApiError, Kind as _, Object,
    k8s_openapi::{
        api::{batch::v1::Job, core::v1::Namespace},
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time},
    },
};
use podium_store::Change;

use super::{
    CONFLICT_RETRIES, Registry, Resource, WriteContext,
    cache::{Entry, Filter},
    create::whole_seconds,
    entry::Draft,
    pump::attach,
    update::has_spec_finalizers,
};
use crate::admission::{Operation, Request};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const JOB_WARNING: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                           remove them or set propagationPolicy=Orphan to suppress this warning";

/// What a deletion did.
pub(crate) enum Deleted {
    /// The object is gone.
    Gone(Arc<Entry>),
    /// It is marked and goes when its finalizers or its node are done.
    Marked(Arc<Entry>),
}

/// Checks delete options and fills in what the query says.
///
/// # Errors
/// 422 when two ways of propagation are asked for, or an unknown one.
fn check_options(options: &DeleteOptions) -> Result<(), ApiError> {
    let invalid = |message: &str| {
        Err(ApiError::new(podium_api::Reason::Invalid, format!("DeleteOptions.meta.k8s.io \"\" is invalid: {message}")))
    };
    match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(_), Some(_)) => {
            invalid("propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set")
        }
        (None | Some("Foreground" | "Background" | "Orphan"), _) => Ok(()),
        (Some(other), None) => invalid(&format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        )),
    }
}

impl Registry {
    /// Deletes an object, or marks it.
    ///
    /// # Errors
    /// 404; 409 when a precondition does not hold.
    pub(crate) async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        context: &WriteContext<'_>,
    ) -> Result<Deleted, ApiError> {
        check_options(options)?;
        self.admit_delete(resource, name)?;
        if resource.names == Job::NAMES && options.propagation_policy.is_none() && options.orphan_dependents.is_none() {
            context.warn(JOB_WARNING);
        }
        for _ in 0..=CONFLICT_RETRIES {
            let current = resource.cache.get(namespace, name).ok_or_else(|| resource.not_found(name))?;
            check_preconditions(resource, &*current.object, options)?;
            self.judge_deletion(resource, &current, options, context).await?;
            if let Some(done) = self.delete_once(resource, &current, options, context).await? {
                return Ok(done);
            }
        }
        Err(ApiError::modified(&resource.names, name))
    }

    /// One attempt; `None` when another write came between.
    async fn delete_once(
        &self,
        resource: &Resource,
        current: &Arc<Entry>,
        options: &DeleteOptions,
        context: &WriteContext<'_>,
    ) -> Result<Option<Deleted>, ApiError> {
        let mut new = current.object.boxed_clone();
        crate::custom::begin_deletion(&mut *new, self.clock.now());
        let kept = propagate(&*resource.kind, &mut *new, options) || has_spec_finalizers(&*new);
        let grace = resource.kind.grace_seconds(&*current.object, options.grace_period_seconds).filter(|g| *g > 0);
        if grace.is_none() && !kept {
            return self.delete_now(resource, current, context).await;
        }
        self.mark(&mut *new, grace.unwrap_or(0));
        if new.same_as(&*current.object) {
            return Ok(Some(Deleted::Marked(resource.view(current.clone()).await?)));
        }
        let managed = current.managed().to_vec();
        if context.dry_run {
            let entry = Arc::new(Entry::of(current.key.clone(), new.into(), &managed)?);
            return Ok(Some(Deleted::Marked(resource.view(entry).await?)));
        }
        let key = new.key();
        let draft = Draft { object: new, managed };
        let (value, written) = draft.encode()?;
        let change = Change::Put { value: value.into(), attachment: Some(attach(written)) };
        let Some(revision) = self.write_at(resource, current, change).await? else { return Ok(None) };
        self.as_written(resource, revision, &key.namespace, &key.name).await.map(|e| Some(Deleted::Marked(e)))
    }

    /// Lets admission judge a deletion.
    async fn judge_deletion(
        &self,
        resource: &Resource,
        current: &Arc<Entry>,
        options: &DeleteOptions,
        context: &WriteContext<'_>,
    ) -> Result<(), ApiError> {
        let key = current.object.key();
        let current = resource.view(current.clone()).await?;
        let mut request = Request {
            operation: Operation::Delete,
            resource,
            subresource: "",
            namespace: &key.namespace,
            name: &key.name,
            object: None,
            old: Some(&*current.object),
            options: context.delete_options(options),
            context,
            held: Default::default(),
            reinvocation: Default::default(),
        };
        self.admission().mutate(self, &mut request).await?;
        self.admission().validate(self, &request).await
    }

    async fn delete_now(
        &self,
        resource: &Resource,
        current: &Arc<Entry>,
        context: &WriteContext<'_>,
    ) -> Result<Option<Deleted>, ApiError> {
        if !context.dry_run {
            let Some(revision) = self.write_at(resource, current, Change::Delete).await? else { return Ok(None) };
            self.release(&*current.object);
            self.caches_reach(revision).await?;
        }
        Ok(Some(Deleted::Gone(resource.view(current.clone()).await?)))
    }

    /// Removes what the server itself no longer keeps, without asking anybody. What has changed since stays.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn discard(&self, resource: &Resource, entry: &Entry) -> Result<(), ApiError> {
        match self.write_at(resource, entry, Change::Delete).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets when and how gently it goes. A second deletion may only shorten the first.
    fn mark(&self, object: &mut dyn Object, grace: i64) {
        let now = whole_seconds(self.clock.now());
        let meta = object.meta_mut();
        let first = meta.deletion_timestamp.is_none();
        if !first && meta.deletion_grace_period_seconds.unwrap_or_default() <= grace {
            return;
        }
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        meta.deletion_timestamp = Some(Time(at));
        meta.deletion_grace_period_seconds = Some(grace);
        if let Some(generation) = meta.generation.as_mut().filter(|_| first) {
            *generation += 1;
        }
        if let Some(namespace) = object.downcast_mut::<Namespace>() {
            namespace.metadata.deletion_grace_period_seconds = None;
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        }
    }

    /// Deletes every object that passes a filter; answers with what was deleted or marked.
    ///
    /// # Errors
    /// The first error other than 404.
    pub(crate) async fn delete_collection(
        &self,
        resource: &Resource,
        filter: &Filter,
        options: &DeleteOptions,
        context: &WriteContext<'_>,
    ) -> Result<Vec<Arc<Entry>>, ApiError> {
        let listed = resource.cache.list(filter);
        let mut done = Vec::with_capacity(listed.entries.len());
        // Many at once: the store gathers concurrent writes into one flush.
        for chunk in listed.entries.chunks(64) {
            let deletions = chunk.iter().map(|entry| async {
                let key = entry.object.key();
                self.delete(resource, &key.namespace, &key.name, options, context).await
            });
            for result in futures::future::join_all(deletions).await {
                match result {
                    Ok(Deleted::Gone(entry) | Deleted::Marked(entry)) => done.push(entry),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(done)
    }
}

pub(super) fn check_preconditions(
    resource: &Resource,
    object: &dyn Object,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let fail = |what: &str, wanted: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Err(ApiError::conflict(&resource.names, name, &why))
    };
    match (&wanted.uid, &wanted.resource_version) {
        (Some(uid), _) if Some(uid) != meta.uid.as_ref() => fail("UID", uid, object.uid()),
        (_, Some(version)) if Some(version) != meta.resource_version.as_ref() => {
            fail("ResourceVersion", version, meta.resource_version.as_deref().unwrap_or_default())
        }
        _ => Ok(()),
    }
}

/// Sets the finalizers that the way of propagation asks for; whether any finalizer keeps the object. What nobody has said goes
/// by the finalizers that are there, then by the kind.
fn propagate(kind: &dyn AnyKind, object: &mut dyn Object, options: &DeleteOptions) -> bool {
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(policy), _) => Some(policy),
        (None, Some(true)) => Some("Orphan"),
        (None, Some(false)) => Some("Background"),
        (None, None) => None,
    };
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    let open = || !finalizers.iter().any(|f| f == ORPHAN || f == FOREGROUND);
    let by_kind = || (kind.orphans_dependents() && open()).then_some("Orphan");
    if let Some(policy) = policy.or_else(by_kind) {
        finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
        match policy {
            "Foreground" => finalizers.push(FOREGROUND.to_owned()),
            "Orphan" => finalizers.push(ORPHAN.to_owned()),
            _ => {}
        }
    }
    let kept = !finalizers.is_empty();
    if !kept {
        object.meta_mut().finalizers = None;
    }
    kept
}
