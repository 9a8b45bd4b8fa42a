//! Lists: tags, repositories, referrers.

use std::collections::HashMap;

use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::json;

use crate::{
    answer::{self, FILTERS},
    disk::Disk,
    error::{Code, Error, error},
    manifest::Descriptor,
    names::{Digest, Repository},
};

/// Entries of a page when the client names no number, and at most.
const PAGE_MAX: usize = 1000;

type Query = HashMap<String, String>;

/// Size and beginning of the next page, if there is one.
type Next = Option<(usize, String)>;

/// `tags/list`
pub(crate) fn tags(disk: &Disk, repository: &Repository, query: &Query) -> Result<Response, Error> {
    if !disk.has(repository) {
        return Err(error(Code::NameUnknown, format!("there is no repository {repository}")));
    }
    let (tags, next) = page(disk.tags(repository)?.into_keys().collect(), query)?;
    let response = answer::json("application/json", &json!({ "name": repository.as_str(), "tags": tags }));
    Ok(linked(response, &format!("/v2/{repository}/tags/list"), next))
}

/// `_catalog`
pub(crate) fn catalog(disk: &Disk, query: &Query) -> Result<Response, Error> {
    let all = disk.repositories()?.iter().filter(|r| disk.has(r)).map(ToString::to_string).collect();
    let (repositories, next) = page(all, query)?;
    let response = answer::json("application/json", &json!({ "repositories": repositories }));
    Ok(linked(response, "/v2/_catalog", next))
}

/// Manifests whose subject is this one, there or not.
pub(crate) fn referrers(
    disk: &Disk,
    repository: &Repository,
    subject: &Digest,
    query: &Query,
) -> Result<Response, Error> {
    let wanted = query.get("artifactType").filter(|t| !t.is_empty());
    let found = disk.referrers(repository, subject)?;
    let found = found.iter().filter_map(|bytes| serde_json::from_slice::<Descriptor>(bytes).ok());
    let manifests: Vec<Descriptor> =
        found.filter(|d| wanted.is_none_or(|wanted| d.artifact_type.as_ref() == Some(wanted))).collect();
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    let mut response = answer::json(media_type, &index);
    if wanted.is_some() {
        response.headers_mut().insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// One page of a sorted list, and where the next one begins.
fn page(all: Vec<String>, query: &Query) -> Result<(Vec<String>, Next), Error> {
    let count = match query.get("n") {
        None => PAGE_MAX,
        Some(n) => {
            let bad = |_| error(Code::Unsupported, "n is a number").status(http::StatusCode::BAD_REQUEST);
            n.parse::<usize>().map_err(bad)?.min(PAGE_MAX)
        }
    };
    let last = query.get("last").map_or("", String::as_str);
    let mut rest = all.into_iter().filter(|name| name.as_str() > last);
    let page: Vec<String> = rest.by_ref().take(count).collect();
    let next = page.last().cloned().filter(|_| rest.next().is_some()).map(|last| (count, last));
    Ok((page, next))
}

fn linked(mut response: Response, path: &str, next: Next) -> Response {
    if let Some((count, last)) = next
        && let Ok(link) = HeaderValue::from_str(&format!("<{path}?n={count}&last={last}>; rel=\"next\""))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The pairs of a query, decoded.
pub(crate) fn query(text: Option<&str>) -> Query {
    let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(&value.replace('+', " ")))
    };
    pairs.map(pair).collect()
}

/// Undoes percent-encoding; what is no encoding stays.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
