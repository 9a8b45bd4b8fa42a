//! [`LocalApi`]: the API for components in this process. Shares the caches' objects; nothing is encoded or copied twice.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{Binding, ObjectReference, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
};
use podium_api::{
    ApiError, FieldSelector, KindRef, Object, ObjectKey, Revision, Storage, kind_of,
    patch::{self, PatchBody},
};
use podium_client::{Api, Delta, Mirror, MirrorScope, Patch};
use tokio::sync::{mpsc, watch};

use crate::{
    accounts::Accounts,
    auth::Identity,
    registry::{
        Part, Registry, Resource, WriteContext,
        cache::{Cache, Filter},
    },
};

/// The API in this process, as one identity sees it.
///
/// Components in the process are trusted: whoever holds a handle may do everything through it. The identity is for what
/// will be recorded about who wrote.
#[derive(Clone)]
pub struct LocalApi {
    registry: Arc<Registry>,
    accounts: Arc<Accounts>,
    identity: Identity,
}

impl LocalApi {
    pub(crate) fn new(registry: Arc<Registry>, accounts: Arc<Accounts>, identity: Identity) -> Self {
        Self { registry, accounts, identity }
    }

    /// Who this handle speaks for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn resource(&self, kind: &KindRef) -> Result<Arc<Resource>, ApiError> {
        self.registry.of(&kind.names())
    }

    /// Writes are the component's own: `kube-scheduler` for `system:kube-scheduler`.
    fn context(&self) -> WriteContext<'_> {
        let user = self.identity.user.as_str();
        WriteContext::new(&self.identity, user.strip_prefix("system:").unwrap_or(user))
    }
}

/// The part that a subresource names.
fn part(resource: &Resource, subresource: Option<&str>) -> Result<Part, ApiError> {
    let name = subresource.unwrap_or_default();
    resource.part(name).ok_or_else(|| ApiError::method_not_allowed(&resource.names, name))
}

#[async_trait]
impl Api for LocalApi {
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError> {
        let resource = self.resource(kind)?;
        let fields = FieldSelector::parse(scope.fields.as_deref().unwrap_or_default())?;
        fields.check(&*resource.kind)?;
        let filter = Filter { namespace: scope.namespace.unwrap_or_default(), fields, ..Filter::default() };
        Ok(Arc::new(LocalMirror { cache: resource.cache.clone(), filter }))
    }

    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        let resource = self.resource(kind)?;
        let entry = resource.cache.get(&key.namespace, &key.name).ok_or_else(|| resource.not_found(&key.name))?;
        Ok(entry.object.clone())
    }

    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        let resource = self.registry.of(&object.names())?;
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        Ok(self.registry.create(&resource, &namespace, object, &self.context()).await?.object.clone())
    }

    async fn update(&self, object: Box<dyn Object>, subresource: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        let resource = self.registry.of(&object.names())?;
        let part = part(&resource, subresource)?;
        let key = object.key();
        let mut object = Some(object);
        let entry = self
            .registry
            .update_with(&resource, (&key.namespace, &key.name), part, &self.context(), |_| {
                // Insisting on a revision there is no second try, and so no copy is needed.
                match &object {
                    Some(o) if o.meta().resource_version.as_deref().unwrap_or_default().is_empty() => {
                        Ok(o.boxed_clone().into())
                    }
                    _ => {
                        let object = object.take();
                        object.map(Into::into).ok_or_else(|| ApiError::modified(&resource.names, &key.name))
                    }
                }
            })
            .await?;
        Ok(entry.object.clone())
    }

    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        subresource: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let resource = self.resource(kind)?;
        let part = part(&resource, subresource)?;
        let body = match patch {
            Patch::Json(value) => PatchBody::Json(value),
            Patch::Merge(value) => PatchBody::Merge(value),
            Patch::Strategic(value) => PatchBody::Strategic(value),
        };
        let entry = self
            .registry
            .update_with(&resource, (&key.namespace, &key.name), part, &self.context(), |current| {
                let patched = patch::apply(&*resource.kind, current.tree()?, &body)?;
                Ok(resource.kind.decode_value(patched)?.object.into())
            })
            .await?;
        Ok(entry.object.clone())
    }

    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        let resource = self.resource(kind)?;
        self.registry.delete(&resource, &key.namespace, &key.name, &options, &self.context()).await.map(|_| ())
    }

    async fn delete_collection(&self, kind: &KindRef, namespace: &str) -> Result<(), ApiError> {
        let resource = self.resource(kind)?;
        let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
        // Nothing is left behind, of whatever kind.
        let options = DeleteOptions { propagation_policy: Some("Background".to_owned()), ..DeleteOptions::default() };
        self.registry.delete_collection(&resource, &filter, &options, &self.context()).await.map(|_| ())
    }

    fn kinds(&self) -> Vec<KindRef> {
        let served = self.registry.served();
        // Of several versions the one that is stored.
        let stored = served.all().iter().filter(|r| {
            let stored = r.cache.kind().names();
            r.kind.storage() == Storage::Stored && stored.version == r.names.version && stored.group == r.names.group
        });
        stored.map(|r| r.kind.clone()).collect()
    }

    fn kinds_changed(&self) -> Option<watch::Receiver<u64>> {
        Some(self.registry.follow_served())
    }

    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        let binding = Binding {
            metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        self.registry.bind(&pod.namespace, &pod.name, &binding, &self.context()).await.map(|_| ())
    }

    async fn token(&self, account: &ObjectKey, mut request: TokenRequest) -> Result<TokenRequest, ApiError> {
        let found = self.get(&kind_of::<ServiceAccount>(), account).await?;
        let found = found.downcast_ref().ok_or_else(|| ApiError::internal("a ServiceAccount is none"))?;
        self.accounts.answer(&self.registry, found, &mut request)?;
        Ok(request)
    }
}

/// The cache itself, seen through a filter.
struct LocalMirror {
    cache: Arc<Cache>,
    filter: Filter,
}

impl Mirror for LocalMirror {
    fn get(&self, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        let entry = self.cache.get(&key.namespace, &key.name)?;
        self.filter.matches(&*self.cache.kind(), &*entry.object).then(|| entry.object.clone())
    }

    fn list(&self, namespace: Option<&str>) -> Vec<Arc<dyn Object>> {
        let mut filter = self.filter.clone();
        match namespace {
            Some(wanted) if filter.namespace.is_empty() => filter.namespace = wanted.to_owned(),
            Some(wanted) if filter.namespace != wanted => return Vec::new(),
            _ => {}
        }
        self.cache.list(&filter).entries.iter().map(|e| e.object.clone()).collect()
    }

    fn revision(&self) -> Revision {
        self.cache.progress().revision()
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<Delta> {
        self.cache.subscribe(self.filter.clone())
    }
}
