//! Changing objects: PUT, every kind of patch, the status, the scale. All come down to one compare-and-set.

use std::sync::Arc;

use podium_api::{
    ApiError, FieldErrors, Object, ObjectKey, Revision,
    k8s_openapi::api::core::v1::Namespace,
    meta::{validate_meta, validate_meta_update},
};
use podium_store::{Change, Expect, StoreError, Write};

use super::{
    CONFLICT_RETRIES, Registry, Resource, WriteContext,
    cache::Entry,
    create::{check_name, check_namespace, lost},
    entry::Draft,
    managed::{Given, Proposal},
    pump::attach,
    store_error,
};
use crate::admission::{Operation, Request};

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status alone.
    Status,
    /// `spec.finalizers` of a namespace alone.
    Finalize,
    /// The wanted replicas alone.
    Scale,
    /// The part of a subresource of that name, as the kind defines it.
    Named(&'static str),
    /// Anything: for verbs of the API server itself (binding). Not for clients.
    Everything,
}

impl Part {
    /// The subresource that it is written through.
    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Finalize => "finalize",
            Self::Scale => "scale",
            Self::Named(name) => name,
            Self::Everything => "binding",
        }
    }
}

impl Registry {
    /// Replaces an object by what `change` makes of it; again from the newest state when another write came between,
    /// unless the result insists on a `resourceVersion`.
    ///
    /// # Errors
    /// 404, 409 when a `resourceVersion` or uid does not fit, 422, and what `change` says.
    pub(crate) async fn update_with(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        part: Part,
        context: &WriteContext<'_>,
        mut change: impl FnMut(&Entry) -> Result<Proposal, ApiError> + Send,
    ) -> Result<Arc<Entry>, ApiError> {
        for _ in 0..=CONFLICT_RETRIES {
            let stored = resource.cache.get(namespace, name).ok_or_else(|| resource.not_found(name))?;
            let current = resource.view(stored).await?;
            let new = change(&current)?;
            if let Some(entry) = self.replace(resource, &current, new, part, context).await? {
                return Ok(entry);
            }
        }
        Err(ApiError::modified(&resource.names, name))
    }

    /// One attempt; `None` when another write came between, which the caches have by then.
    pub(super) async fn replace(
        &self,
        resource: &Resource,
        current: &Arc<Entry>,
        proposal: Proposal,
        part: Part,
        context: &WriteContext<'_>,
    ) -> Result<Option<Arc<Entry>>, ApiError> {
        let old = &*current.object;
        let key = old.key();
        let Proposal { object: mut new, managed } = proposal;
        check_identity(resource, &key, &mut *new, current)?;
        let given = Given::take(&mut *new);
        carry_over(old, &mut *new);
        resource.kind.fill_defaults(&mut *new);
        let mut request = Request {
            operation: Operation::Update,
            resource,
            subresource: part.subresource(),
            namespace: &key.namespace,
            name: &key.name,
            object: Some(new),
            old: Some(old),
            options: context.update_options(),
            context,
            held: Default::default(),
            reinvocation: Default::default(),
        };
        self.admission().mutate(self, &mut request).await?;
        let mut new = request.object.take().ok_or_else(lost)?;
        prepare(resource, part, &mut *new, old);
        if !context.unchecked {
            validate(resource, part, &*new, old)?;
            resource.kind.warnings(&*new, Some(old)).into_iter().for_each(|warning| context.warn(warning));
        }
        request.object = Some(new);
        self.admission().validate(self, &request).await?;
        let mut new = request.object.take().ok_or_else(lost)?;
        let claim = self.allocate(&mut *new, Some(old))?;
        if managed.is_none() && given.keeps(current.managed()) && new.same_as(old) {
            return Ok(Some(current.clone()));
        }
        let managed = match managed {
            Some(managed) => managed,
            None if part == Part::Everything => current.managed().to_vec(),
            None => self.owned(resource, part, context, Some(current), (&*new, given))?,
        };
        if managed == current.managed() && new.same_as(old) {
            return Ok(Some(current.clone()));
        }
        let object = resource.to_stored(new).await?;
        let draft = Draft { object, managed };
        if context.dry_run {
            let entry = Entry::of(current.key.clone(), draft.object.into(), &draft.managed)?;
            return resource.view(Arc::new(entry)).await.map(Some);
        }
        let written = self.put(resource, current, draft).await?;
        if written.is_some() {
            claim.keep();
        }
        Ok(written)
    }

    /// Writes a changed object; removes it when nothing keeps it any more.
    async fn put(
        &self,
        resource: &Resource,
        current: &Arc<Entry>,
        draft: Draft,
    ) -> Result<Option<Arc<Entry>>, ApiError> {
        if is_finished(&*draft.object) {
            return self.remove(resource, current, draft).await;
        }
        let key = draft.object.key();
        let (value, written) = draft.encode()?;
        let change = Change::Put { value: value.into(), attachment: Some(attach(written)) };
        let Some(revision) = self.write_at(resource, current, change).await? else { return Ok(None) };
        self.as_written(resource, revision, &key.namespace, &key.name).await.map(Some)
    }

    async fn remove(
        &self,
        resource: &Resource,
        current: &Arc<Entry>,
        last: Draft,
    ) -> Result<Option<Arc<Entry>>, ApiError> {
        let Some(revision) = self.write_at(resource, current, Change::Delete).await? else { return Ok(None) };
        self.release(&*last.object);
        self.caches_reach(revision).await?;
        let entry = Entry::new(current.key.clone(), last.object, &last.managed, revision)?;
        resource.view(Arc::new(entry)).await.map(Some)
    }

    /// Writes at the revision of `current`; `None` when another write came between, which the caches have by then.
    pub(super) async fn write_at(
        &self,
        resource: &Resource,
        current: &Entry,
        change: Change,
    ) -> Result<Option<Revision>, ApiError> {
        let write = Write { key: current.key.clone(), expect: Expect::At(current.revision()), change };
        match self.store.write(write).await {
            Ok(written) => Ok(Some(written.revision)),
            Err(StoreError::Conflict { found: Some(found), .. }) => {
                self.caches_reach(found.modified).await?;
                Ok(None)
            }
            Err(StoreError::Conflict { found: None, .. }) => Err(resource.not_found(&current.object.key().name)),
            Err(error) => Err(store_error(&error)),
        }
    }
}

/// Whether the object is the one that the request is about.
fn check_identity(
    resource: &Resource,
    ObjectKey { namespace, name }: &ObjectKey,
    new: &mut dyn Object,
    current: &Entry,
) -> Result<(), ApiError> {
    check_namespace(resource, namespace, new)?;
    check_name(name, new)?;
    let meta = new.meta_mut();
    match meta.uid.as_deref().unwrap_or_default() {
        "" => {}
        uid if uid != current.object.uid() => {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                current.object.uid()
            );
            return Err(ApiError::conflict(&resource.names, name, &why));
        }
        _ => {}
    }
    match meta.resource_version.as_deref().unwrap_or_default() {
        "" | "0" => Ok(()),
        version if Some(version) != current.object.meta().resource_version.as_deref() => {
            Err(ApiError::modified(&resource.names, name))
        }
        _ => Ok(()),
    }
}

/// What no writer may change.
fn carry_over(old: &dyn Object, new: &mut dyn Object) {
    let (old, new) = (old.meta(), new.meta_mut());
    new.resource_version.clone_from(&old.resource_version);
    new.uid.clone_from(&old.uid);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.generation = old.generation;
    new.self_link = None;
    if new.generate_name.is_none() {
        new.generate_name.clone_from(&old.generate_name);
    }
}

fn prepare(resource: &Resource, part: Part, new: &mut dyn Object, old: &dyn Object) {
    let kind = &resource.kind;
    match part {
        Part::Main | Part::Scale => kind.prepare_update(new, old),
        Part::Status => kind.prepare_status_update(new, old),
        Part::Finalize => keep_finalizers(new, old),
        Part::Named(name) => kind.prepare_part_update(name, new, old),
        Part::Everything => {}
    }
    if part != Part::Status && kind.generation_differs(new, old) == Some(true) {
        new.meta_mut().generation = Some(old.meta().generation.unwrap_or_default() + 1);
    }
    // A kind without a status strategy of its own keeps what a status write must not touch.
    if part == Part::Status {
        let finalizers = old.meta().finalizers.clone();
        new.meta_mut().finalizers = finalizers;
    }
}

/// Of a write to `finalize` only the namespace's finalizers count.
fn keep_finalizers(new: &mut dyn Object, old: &dyn Object) {
    let (Some(new), Some(old)) = (new.downcast_mut::<Namespace>(), old.downcast_ref::<Namespace>()) else { return };
    let wanted = new.spec.take().and_then(|s| s.finalizers);
    *new = old.clone();
    new.spec.get_or_insert_default().finalizers = wanted.filter(|f| !f.is_empty());
}

fn validate(resource: &Resource, part: Part, new: &dyn Object, old: &dyn Object) -> Result<(), ApiError> {
    let kind = &resource.kind;
    let mut errs = FieldErrors::new();
    validate_meta_update(new.meta(), old.meta(), &mut errs);
    match part {
        Part::Status => kind.validate_status_update(new, old, &mut errs),
        Part::Named(name) => kind.validate_part_update(name, new, old, &mut errs),
        Part::Finalize | Part::Everything => {}
        Part::Main | Part::Scale => {
            validate_meta(new.meta(), &resource.names, resource.scope, &mut errs);
            kind.validate(new, &mut errs);
            kind.validate_update(new, old, &mut errs);
        }
    }
    let name = old.meta().name.as_deref().unwrap_or_default();
    if errs.is_empty() { Ok(()) } else { Err(ApiError::invalid(&resource.names, name, errs)) }
}

/// Whether nothing keeps an object that is being deleted.
pub(super) fn is_finished(object: &dyn Object) -> bool {
    let meta = object.meta();
    meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or_default() == 0
        && !has_spec_finalizers(object)
}

/// Whether it is a namespace that something has still to be cleared from.
pub(super) fn has_spec_finalizers(object: &dyn Object) -> bool {
    let spec = object.downcast_ref::<Namespace>().and_then(|n| n.spec.as_ref());
    spec.and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty())
}
