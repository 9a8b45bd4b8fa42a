//! What tells clients what is served: discovery and OpenAPI, with tags by which they keep it.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/discovery/aggregated` and kube-openapi `pkg/handler`,
//! `pkg/handler3`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::{Timestamp, ToSpan as _};
use podium_api::{
    ApiError, KindRef, Reason,
    discovery::{self, Beta},
    openapi,
};
use serde_json::Value;

use super::{
    Call, Frontend,
    about::unknown,
    negotiate::{self, Encoding, Form, Offers},
    path::Route,
    respond::{self, Answer},
};
use crate::aggregate::discovery as remote;

/// Paths beside those of the API, as `GET /` lists them.
const OTHERS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

const JSON: &str = "application/json";

impl Frontend {
    /// What is served: `/`, `/api`, `/apis` and the lists below them.
    pub(super) fn discovery(&self, route: &Route<'_>, call: &Call<'_>) -> Result<Answer, ApiError> {
        let kinds: Vec<KindRef> = self.registry.served().kinds();
        let aggregates = matches!(route, Route::CoreVersions | Route::Groups);
        let both = |form| matches!(form, Form::Object | Form::Discovery | Form::DiscoveryBeta);
        let plain = |form| form == Form::Object;
        let remotes = self.aggregator.reachable();
        let mut document = match route {
            Route::Root => discovery::paths(&kinds, OTHERS),
            Route::CoreVersions => discovery::core_versions(&self.address),
            Route::Groups => discovery::group_list(&kinds),
            Route::Group(group) => {
                discovery::group(&kinds, group).or_else(|| remote::group(group, &remotes)).ok_or_else(unknown)?
            }
            Route::Resources { group, version } => {
                discovery::resource_list(&kinds, group, version).ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        };
        remote::add_groups(&mut document, &remotes);
        let shape = negotiate::negotiate(call.accept(), Offers::texts(if aggregates { both } else { plain }))?;
        let beta = match shape.form {
            Form::Discovery => Beta(false),
            Form::DiscoveryBeta => Beta(true),
            _ => {
                let mut answer = respond::value(StatusCode::OK, shape.encoding, &document)?;
                if aggregates {
                    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
                }
                return Ok(answer);
            }
        };
        let make =
            if matches!(route, Route::Groups) { discovery::aggregated_groups } else { discovery::aggregated_core };
        let mut document = make(&kinds, beta);
        if matches!(route, Route::Groups) {
            remote::add_aggregated(&mut document, &remotes);
        }
        aggregated(&document, beta, shape.encoding, call)
    }

    /// `/openapi/v3`, its documents, and `/openapi/v2`.
    pub(super) async fn openapi(&self, route: &Route<'_>, call: &Call<'_>) -> Result<Answer, ApiError> {
        let kinds: Vec<KindRef> = self.registry.served().kinds();
        let documents = self.openapi.clone();
        match route {
            Route::OpenApi("") => {
                let index = making(move || documents.index(&kinds)).await?;
                Ok(tagged(JSON, index.json, &index.hash, call))
            }
            Route::OpenApi(path) => {
                choose(call.accept(), &[JSON])?;
                let wanted = (*path).to_owned();
                let document = making(move || documents.document(&kinds, &wanted)).await?.ok_or_else(unknown)?;
                let hash = call.query.get("hash");
                if !hash.is_empty() && hash != document.hash {
                    return moved(path, &document.hash);
                }
                let mut answer = tagged(JSON, document.json.clone(), &document.hash, call);
                if !hash.is_empty() {
                    keep_for_good(answer.headers_mut());
                }
                Ok(answer)
            }
            _ => {
                let known = [JSON, openapi::v2::PROTOBUF, openapi::v2::PROTOBUF_OLD];
                let chosen = choose(call.accept(), &known)?;
                let document = making(move || documents.v2(&kinds)).await?;
                Ok(match chosen {
                    JSON => tagged(JSON, document.json.clone(), &document.hash, call),
                    _ => tagged(openapi::v2::PROTOBUF, document.protobuf.clone(), &document.hash, call),
                })
            }
        }
    }
}

/// Documents are made where they hold nobody up.
async fn making<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|e| ApiError::internal(format!("making the OpenAPI document: {e}")))
}

fn aggregated(document: &Value, beta: Beta, encoding: Encoding, call: &Call<'_>) -> Result<Answer, ApiError> {
    // The tag is that of the JSON in every encoding: the answer varies by `Accept`.
    let hash = openapi::hash(document.to_string().as_bytes());
    let mut answer = respond::value(StatusCode::OK, encoding, document)?;
    let version = if beta.0 { "v2beta1" } else { "v2" };
    let kind = format!("{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList", encoding.content_type());
    set(answer.headers_mut(), header::CONTENT_TYPE, &kind);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(with_tag(answer, &hash, call))
}

fn tagged(kind: &'static str, body: Bytes, hash: &str, call: &Call<'_>) -> Answer {
    with_tag(respond::bytes(StatusCode::OK, kind, body), hash, call)
}

/// The answer with its tag; 304 without a body when the client has it.
fn with_tag(mut answer: Answer, hash: &str, call: &Call<'_>) -> Answer {
    let tag = format!("\"{hash}\"");
    let known = call.header(header::IF_NONE_MATCH).unwrap_or_default();
    if known.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == tag) {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        *answer.body_mut() = super::body::Body::Full(Bytes::new());
    }
    set(answer.headers_mut(), header::ETAG, &tag);
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answer
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What has its hash in its URL never changes.
fn keep_for_good(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let year = Timestamp::now().checked_add((365 * 24).hours()).unwrap_or_default();
    set(headers, header::EXPIRES, &year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
}

/// The document has changed since the client read of it.
fn moved(path: &str, hash: &str) -> Result<Answer, ApiError> {
    let mut answer = respond::text(StatusCode::MOVED_PERMANENTLY, String::new());
    set(answer.headers_mut(), header::LOCATION, &format!("/openapi/v3/{path}?hash={hash}"));
    Ok(answer)
}

/// The media type that a client likes best.
fn choose<'a>(accept: Option<&str>, known: &[&'a str]) -> Result<&'a str, ApiError> {
    let accept = accept.map(str::trim).filter(|a| !a.is_empty()).unwrap_or("*/*");
    let mut ranges: Vec<(f32, String)> = accept.split(',').map(|r| (negotiate::quality(r), essence(r))).collect();
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let fits = |range: &str, kind: &str| match range {
        "*/*" | "application/*" => true,
        _ => range == kind,
    };
    let mut liked = ranges.iter().filter(|(quality, _)| *quality > 0.0);
    let found = liked.find_map(|(_, range)| known.iter().find(|kind| fits(range, kind)));
    found.copied().ok_or_else(|| {
        let message = format!("only the following media types are accepted: {}", known.join(", "));
        ApiError::new(Reason::NotAcceptable, message)
    })
}

fn essence(range: &str) -> String {
    range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_liked_best() {
        let known = [JSON, openapi::v2::PROTOBUF, openapi::v2::PROTOBUF_OLD];
        for (accept, chosen) in [
            (None, Some(JSON)),
            (Some("*/*"), Some(JSON)),
            (Some("application/json"), Some(JSON)),
            (Some("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"), Some(openapi::v2::PROTOBUF_OLD)),
            (
                Some("application/json;q=0.1, application/com.github.proto-openapi.spec.v2.v1.0+protobuf;q=1"),
                Some(openapi::v2::PROTOBUF),
            ),
            (Some("application/com.github.proto-openapi.spec.v3.v1.0+protobuf"), None),
            (Some("application/json;q=0"), None),
        ] {
            assert_eq!(choose(accept, &known).ok(), chosen, "{accept:?}");
        }
    }
}
