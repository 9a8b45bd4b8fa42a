//! Reading and removing blobs.

use std::io::SeekFrom;

use axum::{body::Body, response::Response};
use http::{HeaderMap, Method, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::{
    Inner,
    answer::{CONTENT_DIGEST, answer, with_body},
    error::{Code, Error, error},
    names::{Digest, Repository},
    range::{Wanted, wanted},
};

/// Bytes read from disk at once.
const READ_BYTES: usize = 128 << 10;

/// Answers GET, HEAD and DELETE.
pub(crate) async fn serve(
    inner: &Inner,
    method: &Method,
    headers: &HeaderMap,
    repository: Repository,
    digest: Digest,
) -> Result<Response, Error> {
    match *method {
        Method::GET | Method::HEAD => read(inner, method, headers, repository, digest).await,
        Method::DELETE => {
            let disk = inner.disk.clone();
            let remove = move || disk.remove_blob(&repository, &digest);
            match tokio::task::spawn_blocking(remove).await?? {
                true => Ok(answer(StatusCode::ACCEPTED, [])),
                false => Err(unknown()),
            }
        }
        _ => Err(error(Code::Unsupported, "blobs are read and deleted here; uploads begin at blobs/uploads/")),
    }
}

fn unknown() -> Error {
    error(Code::BlobUnknown, "this repository has no such blob")
}

async fn read(
    inner: &Inner,
    method: &Method,
    headers: &HeaderMap,
    repository: Repository,
    digest: Digest,
) -> Result<Response, Error> {
    let (disk, named) = (inner.disk.clone(), digest.clone());
    let found = move || {
        let size = disk.blob_size(&repository, &named)?;
        if size.is_some() {
            disk.touch(&named);
        }
        Ok::<_, std::io::Error>(size)
    };
    let size = tokio::task::spawn_blocking(found).await??.ok_or_else(unknown)?;
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok());
    let (status, first, count) = match wanted(range, size) {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Wanted::Unsatisfiable => {
            let refused = error(Code::BlobUploadInvalid, format!("the blob has {size} bytes"));
            let refused = refused.status(StatusCode::RANGE_NOT_SATISFIABLE);
            return Err(refused.header(header::CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    let body = if *method == Method::HEAD { Body::empty() } else { content(inner, &digest, first, count).await? };
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, count.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let mut response = with_body(status, common, body);
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = format!("bytes {first}-{}/{size}", first + count - 1).parse()
    {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

async fn content(inner: &Inner, digest: &Digest, first: u64, count: u64) -> Result<Body, Error> {
    let mut file = tokio::fs::File::open(inner.disk.blob(digest)).await?;
    if first > 0 {
        file.seek(SeekFrom::Start(first)).await?;
    }
    Ok(Body::from_stream(ReaderStream::with_capacity(file.take(count), READ_BYTES)))
}
