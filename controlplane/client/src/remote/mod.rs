//! [`RemoteApi`]: the API over HTTPS, by kube-rs' connection and raw requests, for any kind by its names.
//!
//! Invariants: every request has a timeout; a `Status` that the server answers becomes the same [`ApiError`] as in
//! process; equal mirrors are one watch. Works against any Kubernetes. It retries nothing but watches.

mod access;
mod reflector;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use kube::{Client, client::Body};
use parking_lot::{Mutex, RwLock};
use podium_api::{
    ApiError, KindRef, Names, Object, ObjectKey, Reason, Scope,
    k8s_openapi::{
        api::{
            authentication::v1::TokenRequest,
            core::v1::{Binding, ObjectReference, Pod, ServiceAccount},
        },
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Status},
    },
    kind_of,
};
use serde::Serialize;
use tokio::sync::{OnceCell, watch};

pub use self::access::{Access, Shown, ca_hashes, discover_ca};
use crate::{Api, Mirror, MirrorScope, MirrorStore, Patch};

/// Bound on one request that is no watch, with its answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The API of a server somewhere.
pub struct RemoteApi {
    remote: Arc<Remote>,
    mirrors: Mutex<HashMap<MirrorId, Arc<OnceCell<Reflected>>>>,
}

/// What makes two mirrors the same.
#[derive(PartialEq, Eq, Hash)]
struct MirrorId {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespace: Option<String>,
    fields: Option<String>,
}

/// A mirror and the task that feeds it, which ends with it.
struct Reflected {
    store: Arc<MirrorStore>,
    task: tokio::task::AbortHandle,
}

impl Drop for Reflected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RemoteApi {
    /// The API that this client talks to. Mirrors live as long as this does.
    pub fn new(client: Client) -> Self {
        Self { remote: Arc::new(Remote::new(client, None)), mirrors: Mutex::default() }
    }
}

/// The connection.
struct Remote {
    client: RwLock<Client>,
    /// How a new one is made.
    access: RwLock<Option<Access>>,
    /// Changes when what is open is given up.
    given_up: watch::Sender<()>,
}

impl Remote {
    fn new(client: Client, access: Option<Access>) -> Self {
        Self { client: RwLock::new(client), access: RwLock::new(access), given_up: watch::Sender::new(()) }
    }

    /// Goes on by a new client.
    fn replace(&self, access: &Access) -> Result<(), ApiError> {
        *self.client.write() = access.client()?;
        *self.access.write() = Some(access.clone());
        Ok(())
    }

    fn client(&self) -> Client {
        self.client.read().clone()
    }

    fn silent() -> ApiError {
        let seconds = REQUEST_TIMEOUT.as_secs();
        ApiError::new(Reason::Timeout, format!("the API server did not answer within {seconds} s"))
    }

    /// Sends a request; an answer that is an error becomes one. The body is still to be read.
    async fn send(&self, request: Request<Body>) -> Result<http::Response<Body>, ApiError> {
        let response = self.client().send(request).await.map_err(|e| unreachable_server(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let body = response.into_body().collect_bytes().await.unwrap_or_default();
        Err(error_of(code, &body))
    }

    /// Sends a request and reads the whole answer.
    async fn call(&self, request: Request<Body>) -> Result<Bytes, ApiError> {
        let call = async {
            let response = self.send(request).await?;
            response.into_body().collect_bytes().await.map_err(|e| unreachable_server(&e))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| Err(Self::silent()))
    }

    async fn object(&self, kind: &KindRef, request: Request<Body>) -> Result<Arc<dyn Object>, ApiError> {
        let body = self.call(request).await?;
        Ok(Arc::from(kind.decode(&body)?.object))
    }
}

#[async_trait]
impl Api for RemoteApi {
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError> {
        let Names { group, version, plural, .. } = kind.names();
        let MirrorScope { namespace, fields } = scope.clone();
        let id = MirrorId { group, version, plural, namespace, fields };
        let cell = Arc::clone(self.mirrors.lock().entry(id).or_default());
        let reflected = cell.get_or_try_init(|| reflector::start(&self.remote, kind, scope)).await?;
        Ok(Arc::clone(&reflected.store) as Arc<dyn Mirror>)
    }

    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        self.remote.object(kind, request(Method::GET, &object_path(kind, key, None), None)?).await
    }

    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        let kind = object.kind();
        let namespace = object.meta().namespace.as_deref();
        let path = collection_path(&kind, namespace);
        self.remote.object(&kind, request(Method::POST, &path, Some(json(&*object)?))?).await
    }

    async fn update(&self, object: Box<dyn Object>, subresource: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        let kind = object.kind();
        let path = object_path(&kind, &object.key(), subresource);
        self.remote.object(&kind, request(Method::PUT, &path, Some(json(&*object)?))?).await
    }

    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        subresource: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let (format, patch) = match patch {
            Patch::Json(patch) => ("application/json-patch+json", patch),
            Patch::Merge(patch) => ("application/merge-patch+json", patch),
            Patch::Strategic(patch) => ("application/strategic-merge-patch+json", patch),
        };
        let mut request = request(Method::PATCH, &object_path(kind, key, subresource), Some(json(&patch)?))?;
        request.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(format));
        self.remote.object(kind, request).await
    }

    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        let body = delete_body(options)?;
        self.remote.call(request(Method::DELETE, &object_path(kind, key, None), Some(body))?).await.map(drop)
    }

    async fn delete_collection(&self, kind: &KindRef, namespace: &str) -> Result<(), ApiError> {
        let body = delete_body(DeleteOptions::default())?;
        self.remote.call(request(Method::DELETE, &collection_path(kind, Some(namespace)), Some(body))?).await.map(drop)
    }

    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        let target = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let metadata = ObjectMeta {
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        let path = object_path(&kind_of::<Pod>(), pod, Some("binding"));
        let body = json(&Binding { metadata, target })?;
        self.remote.call(request(Method::POST, &path, Some(body))?).await.map(drop)
    }

    fn give_up_connections(&self) {
        let access = self.remote.access.read().clone();
        if let Some(Err(error)) = access.map(|access| self.remote.replace(&access)) {
            tracing::warn!(%error, "the connections to the API server stay as they are");
        }
        self.remote.given_up.send_replace(());
    }

    async fn token(&self, account: &ObjectKey, asked: TokenRequest) -> Result<TokenRequest, ApiError> {
        let path = object_path(&kind_of::<ServiceAccount>(), account, Some("token"));
        let answer = self.remote.call(request(Method::POST, &path, Some(json(&asked)?))?).await?;
        serde_json::from_slice(&answer).map_err(|e| ApiError::internal(format!("reading a token's answer: {e}")))
    }
}

/// `/api/v1/namespaces/d/pods`, `/apis/apps/v1/deployments`.
fn collection_path(kind: &KindRef, namespace: Option<&str>) -> String {
    let names = kind.names();
    let root = if names.group.is_empty() { "/api" } else { "/apis" };
    let api_version = names.api_version();
    match namespace.filter(|n| kind.scope() == Scope::Namespaced && !n.is_empty()) {
        Some(namespace) => format!("{root}/{api_version}/namespaces/{}/{}", escape(namespace), names.plural),
        None => format!("{root}/{api_version}/{}", names.plural),
    }
}

fn object_path(kind: &KindRef, key: &ObjectKey, subresource: Option<&str>) -> String {
    let collection = collection_path(kind, Some(&key.namespace));
    match subresource {
        None => format!("{collection}/{}", escape(&key.name)),
        Some(subresource) => format!("{collection}/{}/{subresource}", escape(&key.name)),
    }
}

/// Percent-encodes what may not stand in a path segment or a query value.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn request(method: Method, path_and_query: &str, body: Option<Vec<u8>>) -> Result<Request<Body>, ApiError> {
    let request = Request::builder().method(method).uri(path_and_query).header(http::header::ACCEPT, JSON);
    let request = match body {
        Some(body) => request.header(http::header::CONTENT_TYPE, JSON).body(Body::from(body)),
        None => request.body(Body::empty()),
    };
    request.map_err(|error| ApiError::bad_request(format!("cannot ask for {path_and_query:?}: {error}")))
}

const JSON: &str = "application/json";

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| ApiError::internal(format!("cannot encode the request: {error}")))
}

fn delete_body(options: DeleteOptions) -> Result<Vec<u8>, ApiError> {
    json(&DeleteOptions { api_version: Some("v1".to_owned()), kind: Some("DeleteOptions".to_owned()), ..options })
}

/// 503 with the whole chain: there is no `source` to carry it.
fn unreachable_server(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut message = format!("the API server cannot be reached: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        message.push_str(&format!(": {error}"));
        source = error.source();
    }
    ApiError::new(Reason::ServiceUnavailable, message)
}

fn error_of(code: StatusCode, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.status.as_deref() == Some("Failure") => ApiError::from_status(status),
        _ => {
            let text: String = String::from_utf8_lossy(body).chars().take(500).collect();
            let message = format!("the API server answered {code}: {}", text.trim());
            ApiError::from_status(Status {
                code: Some(i32::from(code.as_u16())),
                message: Some(message),
                ..Status::default()
            })
        }
    }
}

#[cfg(test)]
mod tests;
