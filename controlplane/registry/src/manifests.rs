//! Manifests: put when everything they name is there, read by tag or digest, removed.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    Inner,
    answer::{CONTENT_DIGEST, SUBJECT, answer, with_body},
    disk::Disk,
    error::{Code, Error, error},
    manifest::{Descriptor, Manifest},
    names::{Digest, Reference, Repository},
};

/// Answers everything about one manifest.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    method: &Method,
    headers: &HeaderMap,
    (repository, reference): (Repository, Reference),
    body: Body,
) -> Result<Response, Error> {
    match *method {
        Method::GET | Method::HEAD => {
            let disk = inner.disk.clone();
            let head = *method == Method::HEAD;
            tokio::task::spawn_blocking(move || read(&disk, &repository, &reference, head)).await?
        }
        Method::PUT => {
            let bytes = whole(inner, body).await?;
            let content_type = headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).map(str::to_owned);
            let disk = inner.disk.clone();
            let put = move || put(&disk, &repository, &reference, &bytes, content_type.as_deref());
            tokio::task::spawn_blocking(put).await?
        }
        Method::DELETE => {
            let disk = inner.disk.clone();
            tokio::task::spawn_blocking(move || remove(&disk, &repository, &reference)).await?
        }
        _ => Err(error(Code::Unsupported, "a manifest takes GET, HEAD, PUT and DELETE")),
    }
}

fn unknown(repository: &Repository, reference: &Reference) -> Error {
    let reference = match reference {
        Reference::Tag(tag) => format!("tag {tag}"),
        Reference::Digest(digest) => format!("manifest {digest}"),
    };
    error(Code::ManifestUnknown, format!("{repository} has no {reference}"))
}

fn read(disk: &Disk, repository: &Repository, reference: &Reference, head: bool) -> Result<Response, Error> {
    let digest = disk.resolve(repository, reference)?.ok_or_else(|| unknown(repository, reference))?;
    let (media_type, bytes) = disk.manifest(repository, &digest)?.ok_or_else(|| unknown(repository, reference))?;
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_LENGTH, bytes.len().to_string()),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    Ok(with_body(StatusCode::OK, headers, if head { Body::empty() } else { Body::from(bytes) }))
}

async fn whole(inner: &Inner, body: Body) -> Result<bytes::Bytes, Error> {
    let max = inner.config.manifest_bytes_max;
    let collect = tokio::time::timeout(inner.config.read_timeout, Limited::new(body, max).collect());
    match collect.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => {
            let message = format!("a manifest may have {max} bytes at most");
            Err(error(Code::ManifestInvalid, message).status(StatusCode::PAYLOAD_TOO_LARGE))
        }
        Ok(Err(cause)) => Err(error(Code::ManifestInvalid, format!("the body broke off: {cause}"))),
        Err(_) => {
            Err(error(Code::ManifestInvalid, "the body did not come in time").status(StatusCode::REQUEST_TIMEOUT))
        }
    }
}

fn put(
    disk: &Disk,
    repository: &Repository,
    reference: &Reference,
    bytes: &[u8],
    content_type: Option<&str>,
) -> Result<Response, Error> {
    let digest = Digest::of(bytes);
    if let Reference::Digest(wanted) = reference
        && *wanted != digest
    {
        return Err(error(Code::DigestInvalid, format!("the manifest has the digest {digest}, not {wanted}")));
    }
    let manifest = Manifest::parse(bytes, content_type)?;
    let _adding = disk.sweeping.read();
    for blob in &manifest.blobs {
        if disk.blob_size(repository, blob)?.is_none() {
            return Err(error(Code::ManifestBlobUnknown, format!("{repository} has no blob {blob}: push it first")));
        }
    }
    for child in &manifest.manifests {
        if disk.resolve(repository, &Reference::Digest(child.clone()))?.is_none() {
            return Err(error(
                Code::ManifestBlobUnknown,
                format!("{repository} has no manifest {child}: push it first"),
            ));
        }
    }
    disk.put_manifest(repository, &digest, &manifest.media_type, bytes)?;
    if let Some(subject) = &manifest.subject {
        disk.put_referrer(repository, subject, &digest, &descriptor(&manifest, &digest, bytes.len())?)?;
    }
    if let Reference::Tag(tag) = reference {
        disk.tag(repository, tag, &digest)?;
    }
    Ok(created(repository, &manifest, &digest))
}

/// What the list of referrers shows of a manifest.
fn descriptor(manifest: &Manifest, digest: &Digest, size: usize) -> Result<Vec<u8>, Error> {
    let descriptor = serde_json::json!({
        "mediaType": manifest.media_type,
        "digest": digest.to_string(),
        "size": size,
        "artifactType": manifest.artifact_type,
        "annotations": manifest.annotations,
    });
    let tidy: Descriptor = serde_json::from_value(descriptor).map_err(std::io::Error::other)?;
    Ok(serde_json::to_vec(&tidy).map_err(std::io::Error::other)?)
}

fn created(repository: &Repository, manifest: &Manifest, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/manifests/{digest}")),
        (header::CONTENT_LENGTH, "0".to_owned()),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let mut response = answer(StatusCode::CREATED, headers);
    if let Some(Ok(subject)) = manifest.subject.as_ref().map(|s| s.to_string().parse()) {
        response.headers_mut().insert(SUBJECT, subject);
    }
    response
}

fn remove(disk: &Disk, repository: &Repository, reference: &Reference) -> Result<Response, Error> {
    let _changing = disk.sweeping.read();
    let found = match reference {
        Reference::Tag(tag) => disk.untag(repository, tag)?,
        Reference::Digest(digest) => {
            let manifest = disk.manifest(repository, digest)?;
            let subject = manifest.and_then(|(media, bytes)| Manifest::parse(&bytes, Some(&media)).ok()?.subject);
            if let Some(subject) = subject {
                disk.remove_referrer(repository, &subject, digest)?;
            }
            disk.remove_manifest(repository, digest)?
        }
    };
    if found { Ok(answer(StatusCode::ACCEPTED, [])) } else { Err(unknown(repository, reference)) }
}
