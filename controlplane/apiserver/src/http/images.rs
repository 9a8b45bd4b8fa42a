//! Requests to the image registry: handed on as they are, without what says who asks.

use futures::StreamExt as _;
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use podium_api::{ApiError, Reason};

use super::{Call, Frontend, body::Body, respond::Answer};
use crate::BoxError;

impl Frontend {
    /// Answers a request that was allowed.
    ///
    /// # Errors
    /// 404 when there is no registry here.
    pub(super) async fn image(&self, call: &Call<'_>, incoming: Incoming) -> Result<Answer, ApiError> {
        let images = self.images.read().clone();
        let images = images.ok_or_else(|| ApiError::new(Reason::NotFound, "this API server has no image registry"))?;
        let mut request = Request::new(incoming.map_err(BoxError::from).boxed_unsync());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.uri.clone();
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().remove(header::AUTHORIZATION);
        let (parts, body) = images.serve(request).await.into_parts();
        let stream = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
        Ok(Response::from_parts(parts, Body::Stream(stream.boxed())))
    }
}
