//! [`relay`]: a registry that passes what it is asked on to another one: for nodes, whose images are elsewhere and are
//! reached by credentials that only the node has. It reads and changes nothing.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{Router, body::Body, extract::State, routing::get};
use http::{HeaderName, Request, Response, StatusCode, header};

/// What is asked for content.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Answers a request whose URI is a path below `/v2/`, its body streaming.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn fetch(&self, request: Request<()>) -> Result<Response<Body>, String>;
}

/// What of a request is passed on.
const HEADERS: [HeaderName; 3] = [header::ACCEPT, header::RANGE, header::IF_NONE_MATCH];

/// Passes GET and HEAD below `/v2/` on.
pub fn relay(upstream: Arc<dyn Upstream>) -> Router {
    Router::new().route("/v2/", get(pass)).route("/v2/{*path}", get(pass)).with_state(upstream)
}

async fn pass(State(upstream): State<Arc<dyn Upstream>>, request: Request<Body>) -> Response<Body> {
    let mut asked = Request::new(());
    *asked.method_mut() = request.method().clone();
    *asked.uri_mut() = request.uri().clone();
    for name in HEADERS {
        for value in request.headers().get_all(&name) {
            asked.headers_mut().append(name.clone(), value.clone());
        }
    }
    upstream.fetch(asked).await.unwrap_or_else(|why| {
        let mut answer = Response::new(Body::from(format!("the cluster's registry cannot be reached: {why}\n")));
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        answer
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// Answers with what it was asked.
    struct Echo;

    #[async_trait]
    impl Upstream for Echo {
        async fn fetch(&self, request: Request<()>) -> Result<Response<Body>, String> {
            match request.uri().path() {
                "/v2/gone" => Err("no route to host".to_owned()),
                path => Ok(Response::new(Body::from(format!("{} {path} {:?}", request.method(), request.headers())))),
            }
        }
    }

    #[tokio::test]
    async fn reads_are_passed_on_without_credentials_and_nothing_else_is() {
        let ask = async |method: &str, path: &str| {
            let request =
                Request::builder().method(method).uri(path).header("accept", "a/b").header("authorization", "x");
            let answer = relay(Arc::new(Echo)).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(
            ask("GET", "/v2/a/manifests/b").await,
            (200, "GET /v2/a/manifests/b {\"accept\": \"a/b\"}".to_owned())
        );
        assert_eq!(ask("HEAD", "/v2/").await.0, 200);
        let (status, said) = ask("GET", "/v2/gone").await;
        assert!(status == 502 && said.contains("no route to host"), "{status} {said}");
        for (method, path, status) in [("PUT", "/v2/a", 405), ("DELETE", "/v2/a", 405), ("GET", "/api", 404)] {
            assert_eq!(ask(method, path).await.0, status, "{method} {path}");
        }
    }
}
