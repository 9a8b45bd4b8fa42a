//! How every part of Podium talks to the API: one trait, [`Api`], with two implementations, in process (the API
//! server's registry) and remote (kube-rs). Controllers, scheduler and agent know nothing else of the cluster.

pub mod clock;
pub mod mirror;
pub mod model;
mod private_file;
pub mod recorder;
pub mod remote;

pub use clock::{Clock, ClockRef, SystemClock, TokioClock};
pub use mirror::MirrorStore;
pub use model::ModelApi;
pub use private_file::write_private;
pub use recorder::{Note, Recorder};
pub use remote::RemoteApi;

use std::sync::Arc;

use async_trait::async_trait;
use podium_api::{
    ApiError, Kind, KindRef, Object, ObjectKey, Revision,
    k8s_openapi::{
        api::{authentication::v1::TokenRequest, core::v1::ServiceAccount},
        apimachinery::pkg::apis::meta::v1::DeleteOptions,
    },
};
use tokio::sync::{mpsc, watch};

/// A patch and its format.
#[derive(Debug, Clone)]
pub enum Patch {
    /// RFC 6902.
    Json(serde_json::Value),
    /// RFC 7396.
    Merge(serde_json::Value),
    /// Kubernetes' own, with merge keys.
    Strategic(serde_json::Value),
}

/// What part of a kind a mirror holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MirrorScope {
    /// Only this namespace; all when `None`.
    pub namespace: Option<String>,
    /// A field selector in its string form, for example `spec.nodeName=n1`.
    pub fields: Option<String>,
}

/// A change in a [`Mirror`]. Holds whole objects, shared, never copied.
#[derive(Debug, Clone)]
pub enum Delta {
    /// An object appeared or changed (or began to match the selector).
    Put {
        /// As it was, if the mirror held it.
        old: Option<Arc<dyn Object>>,
        /// As it is.
        new: Arc<dyn Object>,
    },
    /// An object went away (or ceased to match the selector).
    Delete {
        /// As it was last.
        old: Arc<dyn Object>,
        /// The revision at which it went.
        revision: Revision,
    },
}

impl Delta {
    /// The newest state that the delta tells of.
    pub fn object(&self) -> &Arc<dyn Object> {
        match self {
            Self::Put { new, .. } => new,
            Self::Delete { old, .. } => old,
        }
    }
}

/// A local, always current copy of the objects of one kind. In process it is the watch cache itself.
pub trait Mirror: Send + Sync {
    /// One object.
    fn get(&self, key: &ObjectKey) -> Option<Arc<dyn Object>>;
    /// All objects, or those of one namespace, in key order.
    fn list(&self, namespace: Option<&str>) -> Vec<Arc<dyn Object>>;
    /// Every change up to this revision is in.
    fn revision(&self) -> Revision;
    /// First every object held now, as `Put` without `old`, then each change in order. Unbounded in length but not in
    /// memory use beyond the shared objects: the consumer must be a driver that only notes keys or small facts.
    fn subscribe(&self) -> mpsc::UnboundedReceiver<Delta>;
}

/// The API as one client sees it. The identity (user, groups) belongs to the handle.
#[async_trait]
pub trait Api: Send + Sync + 'static {
    /// A mirror of one kind; ready when this returns. Equal calls share one mirror.
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError>;

    /// Reads one object from the source, not from a mirror.
    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError>;

    /// Creates an object (`metadata.namespace` says where); returns it as stored.
    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError>;

    /// Replaces an object, or its subresource (`status`), at the `resourceVersion` in its metadata (none: whatever is there).
    async fn update(&self, object: Box<dyn Object>, subresource: Option<&str>) -> Result<Arc<dyn Object>, ApiError>;

    /// Patches an object or a subresource.
    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        subresource: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError>;

    /// Deletes an object.
    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError>;

    /// Deletes every object of a kind in a namespace, in the background. Objects that are gone already, or that come to
    /// be meanwhile, are no error. Stops at the first that cannot be deleted.
    async fn delete_collection(&self, kind: &KindRef, namespace: &str) -> Result<(), ApiError> {
        let scope = MirrorScope { namespace: Some(namespace.to_owned()), fields: None };
        for object in self.mirror(kind, scope).await?.list(Some(namespace)) {
            match self.delete(kind, &object.key(), DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Every kind that is served and stored, custom ones among them; one version of each.
    fn kinds(&self) -> Vec<KindRef> {
        podium_api::kinds::all().into_iter().filter(|kind| kind.stored_as().is_none()).collect()
    }

    /// Changes whenever [`Api::kinds`] does; `None` when it never does.
    fn kinds_changed(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// `POST pods/binding`: puts the pod with this uid on a node.
    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError>;

    /// Says that the server was silent where it should have answered, or that it answers again after that: what is open is
    /// given up, and watches begin anew at once, over new connections. In process there is nothing to give up.
    fn give_up_connections(&self) {}

    /// `POST serviceaccounts/token`: a token of this ServiceAccount, as the request asks for it.
    async fn token(&self, account: &ObjectKey, _request: TokenRequest) -> Result<TokenRequest, ApiError> {
        Err(ApiError::method_not_allowed(&ServiceAccount::NAMES, &account.name))
    }
}

/// A shared handle on the API.
pub type ApiRef = Arc<dyn Api>;

/// Typed calls on any [`Api`].
pub trait ApiExt {
    /// [`Api::get`] of a `K`.
    fn get_typed<K: Kind>(&self, key: &ObjectKey) -> impl Future<Output = Result<Arc<K>, ApiError>> + Send;
}

impl<A: Api + ?Sized> ApiExt for A {
    async fn get_typed<K: Kind>(&self, key: &ObjectKey) -> Result<Arc<K>, ApiError> {
        typed(self.get(&podium_api::kind_of::<K>(), key).await?)
    }
}

/// The typed form of an object.
///
/// # Errors
/// 500 when it is of another kind.
pub fn typed<K: Kind>(object: Arc<dyn Object>) -> Result<Arc<K>, ApiError> {
    let found = object.names().kind;
    object.downcast_arc().ok_or_else(|| ApiError::internal(format!("expected a {}, got a {found}", K::NAMES.kind)))
}
