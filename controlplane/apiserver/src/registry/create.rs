//! Creating objects.

use std::sync::Arc;

use podium_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use podium_api::{ApiError, FieldErrors, Object, ObjectKey, Revision, Scope, meta::validate_meta};
use podium_store::{Change, Expect, Key, StoreError, Write};
use rand::RngExt as _;

use super::{
    Part, Registry, Resource, WriteContext,
    cache::Entry,
    entry::Draft,
    managed::{Given, Proposal},
    pump::attach,
    store_error,
};
use crate::admission::{Operation, Request};

/// Letters that make no words and are not mistaken for each other.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;
const NAME_MAX: usize = 63;
/// How many generated names are tried.
const GENERATE_RETRIES: usize = 8;

impl Registry {
    /// Creates an object in a namespace (empty for cluster-scoped kinds); answers with it as stored.
    ///
    /// # Errors
    /// 400 and 422 for what is wrong with it, 403 and 404 for its namespace, 409 when the name is taken.
    pub(crate) async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        mut object: Box<dyn Object>,
        context: &WriteContext<'_>,
    ) -> Result<Arc<Entry>, ApiError> {
        check_namespace(resource, namespace, &mut *object)?;
        let meta = object.meta();
        if meta.resource_version.as_deref().is_some_and(|v| !v.is_empty()) {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = meta.generate_name.clone().filter(|_| meta.name.as_deref().unwrap_or_default().is_empty());
        let Some(prefix) = prefix.filter(|p| !p.is_empty()) else {
            return self.create_named(resource, object.into(), context).await;
        };
        let mut tries = 0;
        loop {
            let mut copy = object.boxed_clone();
            copy.meta_mut().name = Some(generated_name(&prefix));
            tries += 1;
            match self.create_named(resource, copy.into(), context).await {
                Err(error) if error.reason == podium_api::Reason::AlreadyExists && tries < GENERATE_RETRIES => {}
                result => return result,
            }
        }
    }

    pub(super) async fn create_named(
        &self,
        resource: &Resource,
        proposal: Proposal,
        context: &WriteContext<'_>,
    ) -> Result<Arc<Entry>, ApiError> {
        let Proposal { mut object, managed } = proposal;
        self.admit_namespace(resource, &*object)?;
        let given = Given::take(&mut *object);
        resource.kind.fill_defaults(&mut *object);
        let ObjectKey { namespace, name } = object.key();
        let mut request = Request {
            operation: Operation::Create,
            resource,
            subresource: "",
            namespace: &namespace,
            name: &name,
            object: Some(object),
            old: None,
            options: context.create_options(),
            context,
            held: Default::default(),
            reinvocation: Default::default(),
        };
        self.admission().mutate(self, &mut request).await?;
        let mut object = request.object.take().ok_or_else(lost)?;
        self.complete(resource, &mut *object, context)?;
        if resource.cache.get(&namespace, &name).is_some() {
            return Err(ApiError::already_exists(&resource.names, &name));
        }
        request.object = Some(object);
        self.admission().validate(self, &request).await?;
        let mut object = request.object.take().ok_or_else(lost)?;
        let claim = self.allocate(&mut *object, None)?;
        let managed = match managed {
            Some(managed) => managed,
            None => self.owned(resource, Part::Main, context, None, (&*object, given))?,
        };
        let object = resource.to_stored(object).await?;
        let key = resource.cache.key(&namespace, &name);
        if context.dry_run {
            return resource.view(Arc::new(Entry::of(key, object.into(), &managed)?)).await;
        }
        let revision = self.insert(resource, key, Draft { object, managed }, &name).await?;
        claim.keep();
        self.as_written(resource, revision, &namespace, &name).await
    }

    /// Sets what the server sets, and checks the whole.
    fn complete(
        &self,
        resource: &Resource,
        object: &mut dyn Object,
        context: &WriteContext<'_>,
    ) -> Result<(), ApiError> {
        let kind = &resource.kind;
        self.fresh_meta(resource, object);
        kind.prepare_create(object);
        self.complete_create(object, context.who);
        let mut errs = FieldErrors::new();
        validate_meta(object.meta(), &resource.names, resource.scope, &mut errs);
        if !context.unchecked {
            kind.validate(object, &mut errs);
            kind.validate_create(object, &mut errs);
        }
        if errs.is_empty() {
            kind.warnings(object, None).into_iter().for_each(|warning| context.warn(warning));
            return Ok(());
        }
        let meta = object.meta();
        let name = meta.name.as_deref().filter(|n| !n.is_empty()).or(meta.generate_name.as_deref());
        Err(ApiError::invalid(&resource.names, name.unwrap_or_default(), errs))
    }

    async fn insert(&self, resource: &Resource, key: Key, draft: Draft, name: &str) -> Result<Revision, ApiError> {
        let (value, written) = draft.encode()?;
        let change = Change::Put { value: value.into(), attachment: Some(attach(written)) };
        let written = self.store.write(Write { key, expect: Expect::Absent, change }).await;
        written.map(|w| w.revision).map_err(|e| match e {
            StoreError::Conflict { .. } => ApiError::already_exists(&resource.names, name),
            other => store_error(&other),
        })
    }

    /// The object as a write left it, once the caches have it.
    pub(super) async fn as_written(
        &self,
        resource: &Resource,
        revision: Revision,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Entry>, ApiError> {
        self.caches_reach(revision).await?;
        let found = resource.cache.written(revision).or_else(|| resource.cache.get(namespace, name));
        resource.view(found.ok_or_else(|| resource.not_found(name))?).await
    }

    fn fresh_meta(&self, resource: &Resource, object: &mut dyn Object) {
        let generation = resource.kind.generation_differs(object, object).map(|_| 1);
        let meta = object.meta_mut();
        meta.uid = Some(uuid::Uuid::new_v4().to_string());
        meta.creation_timestamp = Some(Time(whole_seconds(self.clock.now())));
        meta.generation = generation;
        meta.resource_version = None;
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.self_link = None;
    }
}

/// Times in the API have whole seconds.
pub(super) fn whole_seconds(now: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// A plug-in took an object and gave none back.
pub(super) fn lost() -> ApiError {
    ApiError::internal("admission lost the object")
}

/// Fills in the namespace of the URL, or refuses an object of another.
pub(crate) fn check_namespace(resource: &Resource, namespace: &str, object: &mut dyn Object) -> Result<(), ApiError> {
    let meta = object.meta_mut();
    match (resource.scope, meta.namespace.as_deref().unwrap_or_default()) {
        (Scope::Cluster, _) => meta.namespace = None,
        (Scope::Namespaced, "") => meta.namespace = Some(namespace.to_owned()),
        (Scope::Namespaced, own) if own != namespace => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        _ => {}
    }
    Ok(())
}

/// Gives an object the name of the URL, or refuses one of another.
pub(crate) fn check_name(name: &str, object: &mut dyn Object) -> Result<(), ApiError> {
    let meta = object.meta_mut();
    match meta.name.as_deref().unwrap_or_default() {
        "" => meta.name = Some(name.to_owned()),
        own if own != name => {
            let message = format!("the name of the object ({own}) does not match the name on the URL ({name})");
            return Err(ApiError::bad_request(message));
        }
        _ => {}
    }
    Ok(())
}

/// A prefix, cut where it is too long, and five letters of chance.
pub(crate) fn generated_name(prefix: &str) -> String {
    let mut rng = rand::rng();
    let keep = prefix.char_indices().take_while(|(i, c)| i + c.len_utf8() <= NAME_MAX - SUFFIX_LEN).count();
    let mut name: String = prefix.chars().take(keep).collect();
    name.extend((0..SUFFIX_LEN).map(|_| char::from(SUFFIX_LETTERS[rng.random_range(0..SUFFIX_LETTERS.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names() {
        for (prefix, length) in [("web-", 9), ("a".repeat(100).as_str(), 63), ("ä".repeat(60).as_str(), 63)] {
            let name = generated_name(prefix);
            assert!(name.len() <= 63 && name.chars().count() <= length, "{name}");
            assert_ne!(name, generated_name(prefix));
        }
        assert!(generated_name("web-").starts_with("web-"));
    }
}
