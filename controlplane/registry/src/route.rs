//! From a path to what is asked for: names of repositories hold slashes, so paths are read from their end.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode};

use crate::{
    Access, Action, Inner, Refusal, answer, blobs,
    error::{Code, Error, error, refused},
    listing::{self, decode, query},
    manifests,
    names::{BadName, Digest, Reference, Repository},
    uploads,
};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Base,
    Catalog,
    Tags(Repository),
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    Begin(Repository),
    Upload(Repository, String),
    Referrers(Repository, Digest),
}

impl Route {
    /// Reads what stands behind `/v2/`.
    fn parse(path: &str) -> Result<Option<Self>, BadName> {
        let words: Vec<&str> = path.split('/').collect();
        let name = |words: &[&str]| Repository::parse(&words.join("/"));
        Ok(Some(match words.as_slice() {
            [""] => Self::Base,
            ["_catalog"] => Self::Catalog,
            [repository @ .., "tags", "list"] => Self::Tags(name(repository)?),
            [repository @ .., "blobs", "uploads"] | [repository @ .., "blobs", "uploads", ""] => {
                Self::Begin(name(repository)?)
            }
            [repository @ .., "blobs", "uploads", id] => Self::Upload(name(repository)?, (*id).to_owned()),
            [repository @ .., "blobs", digest] => Self::Blob(name(repository)?, Digest::parse(digest)?),
            [repository @ .., "manifests", reference] => {
                Self::Manifest(name(repository)?, Reference::parse(reference)?)
            }
            [repository @ .., "referrers", digest] => Self::Referrers(name(repository)?, Digest::parse(digest)?),
            _ => return Ok(None),
        }))
    }

    fn repository(&self) -> &str {
        match self {
            Self::Base => "",
            Self::Catalog => "_catalog",
            Self::Tags(name)
            | Self::Begin(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => name.as_str(),
        }
    }
}

/// What is needed for a request by this method. Everything about an upload is part of a push.
fn action(route: &Route, method: &Method) -> Action {
    match (route, method) {
        (Route::Begin(_) | Route::Upload(..), _) => Action::Push,
        (_, &Method::GET | &Method::HEAD) => Action::Pull,
        (_, &Method::DELETE) => Action::Delete,
        _ => Action::Push,
    }
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Inner>,
    access: Arc<dyn Access>,
}

pub(crate) fn router(inner: Arc<Inner>, access: Arc<dyn Access>) -> Router {
    Router::new().fallback(serve).with_state(Shared { inner, access })
}

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let method = request.method().clone();
    let answered = respond(&shared, request).await;
    let mut response = answered.unwrap_or_else(Error::into_response);
    let version = http::HeaderName::from_static("docker-distribution-api-version");
    response.headers_mut().insert(version, http::HeaderValue::from_static("registry/2.0"));
    if method == Method::HEAD && response.status().is_client_error() {
        *response.body_mut() = Body::empty();
    }
    response
}

async fn respond(shared: &Shared, request: Request) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let nothing = || error(Code::NameUnknown, "nothing is served at this path; the registry's begin with /v2/");
    let path = decode(parts.uri.path());
    let path = if path == "/v2" { "" } else { path.strip_prefix("/v2/").ok_or_else(nothing)? };
    let route = Route::parse(path)?.ok_or_else(nothing)?;
    let (action, repository) = (action(&route, &parts.method), route.repository());
    let checked = shared.access.check(&parts.headers, action, repository).await;
    checked.map_err(|why| refused(why, || shared.access.challenge(&parts.headers, action, repository)))?;
    let query = query(parts.uri.query());
    let (inner, method) = (&shared.inner, &parts.method);
    let disk = inner.disk.clone();
    match route {
        Route::Blob(name, digest) => blobs::serve(inner, method, &parts.headers, name, digest).await,
        Route::Manifest(name, reference) => {
            manifests::serve(inner, method, &parts.headers, (name, reference), body).await
        }
        Route::Begin(repository) => {
            only(method, &[Method::POST])?;
            let may_mount = may_mount(shared, &parts.headers, query.get("from")).await;
            let call = uploads::Call { headers: &parts.headers, query: &query, repository, body };
            uploads::begin(inner, call, may_mount).await
        }
        Route::Upload(repository, id) => {
            let call = uploads::Call { headers: &parts.headers, query: &query, repository, body };
            uploads::go_on(inner, method, &id, call).await
        }
        list => {
            only(method, &[Method::GET, Method::HEAD])?;
            tokio::task::spawn_blocking(move || match list {
                Route::Tags(name) => listing::tags(&disk, &name, &query),
                Route::Referrers(name, subject) => listing::referrers(&disk, &name, &subject, &query),
                Route::Catalog => listing::catalog(&disk, &query),
                _ => Ok(answer::json("application/json", &serde_json::json!({}))),
            })
            .await?
        }
    }
}

/// Taking a blob from another repository is reading it there.
async fn may_mount(shared: &Shared, headers: &HeaderMap, from: Option<&String>) -> bool {
    let Some(from) = from else { return false };
    let checked: Result<(), Refusal> = shared.access.check(headers, Action::Pull, from).await;
    checked.is_ok()
}

fn only(method: &Method, allowed: &[Method]) -> Result<(), Error> {
    if allowed.contains(method) {
        return Ok(());
    }
    let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let refused = error(Code::Unsupported, format!("this path takes {allowed}")).status(StatusCode::METHOD_NOT_ALLOWED);
    Err(refused.header(http::header::ALLOW, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let hex = "a".repeat(64);
        for (path, expected) in [
            (String::new(), "Base"),
            ("_catalog".to_owned(), "Catalog"),
            ("demo/app/tags/list".to_owned(), "Tags(demo/app)"),
            ("a/blobs/uploads/".to_owned(), "Begin(a)"),
            ("a/blobs/uploads".to_owned(), "Begin(a)"),
            ("a/b/blobs/uploads/x".to_owned(), "Upload(a/b)"),
            (format!("a/blobs/sha256:{hex}"), "Blob(a)"),
            ("a/blobs/sha256:x".to_owned(), "Digest"),
            ("a/manifests/v1".to_owned(), "Manifest(a)"),
            ("a/manifests/.v1".to_owned(), "Reference"),
            ("A/manifests/v1".to_owned(), "Repository"),
            ("../../etc/manifests/v1".to_owned(), "Repository"),
            ("manifests/v1".to_owned(), "Repository"),
            (format!("a/referrers/sha256:{hex}"), "Referrers(a)"),
            ("a/other".to_owned(), "nothing"),
        ] {
            let found = match Route::parse(&path) {
                Err(bad) => format!("{bad:?}"),
                Ok(None) => "nothing".to_owned(),
                Ok(Some(route)) => {
                    let kind = format!("{route:?}").split('(').next().unwrap_or_default().to_owned();
                    if !route.repository().contains(|c: char| c.is_lowercase()) || kind == "Catalog" {
                        kind
                    } else {
                        format!("{kind}({})", route.repository())
                    }
                }
            };
            assert_eq!(found, expected, "{path}");
        }
    }
}
