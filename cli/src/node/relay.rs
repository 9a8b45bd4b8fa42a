//! The cluster's registry as a node has it: a loopback port, whose reads go to the API server with the node's certificate.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use podium_client::RemoteApi;
use podium_registry::Upstream;

/// The registry below the API server's `/v2/`.
pub(super) struct Cluster(pub(super) Arc<RemoteApi>);

#[async_trait]
impl Upstream for Cluster {
    async fn fetch(&self, request: Request<()>) -> Result<Response<Body>, String> {
        let asked = request.map(|()| kube::client::Body::empty());
        let answer = self.0.pass(asked).await.map_err(|error| error.message)?;
        Ok(answer.map(Body::new))
    }
}
