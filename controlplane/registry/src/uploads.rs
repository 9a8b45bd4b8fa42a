//! Uploads: begun, gone on with, finished or given up. What has been received is a file; its length says how far it is, so
//! that an upload survives a broken connection and a restart.
//!
//! Invariant: one request at a time writes to an upload, in a task of its own: a client that goes away leaves what it sent.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt as _, sync::OwnedMutexGuard};

use crate::{
    Inner,
    answer::{CONTENT_DIGEST, UPLOAD, answer},
    disk::{Disk, entries},
    error::{Code, Error, error},
    names::{Digest, Repository},
    range,
};

/// After so many bytes it is looked whether the disk has room.
const LOOK_EVERY_BYTES: u64 = 16 << 20;

/// All uploads under way.
pub(crate) struct Uploads {
    max: usize,
    open: Mutex<HashMap<String, Arc<Upload>>>,
}

struct Upload {
    repository: Repository,
    path: PathBuf,
    touched: Mutex<Instant>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Upload {
    fn new(repository: Repository, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { repository, path, touched: Mutex::new(Instant::now()), turn: Arc::default() })
    }

    fn size(&self) -> io::Result<u64> {
        fs::metadata(&self.path).map(|meta| meta.len())
    }
}

impl Uploads {
    /// Finds what an earlier process left.
    pub(crate) fn open(disk: &Disk, max: usize) -> io::Result<Self> {
        let mut open = HashMap::new();
        for repository in disk.repositories()? {
            for (id, path) in entries(&disk.repository(&repository).join("_uploads"))? {
                open.insert(id, Upload::new(repository.clone(), path));
            }
        }
        Ok(Self { max, open: Mutex::new(open) })
    }

    fn begin(&self, disk: &Disk, repository: &Repository) -> Result<(String, Arc<Upload>), Error> {
        let id = uuid::Uuid::new_v4().to_string();
        let dir = disk.repository(repository).join("_uploads");
        let upload = Upload::new(repository.clone(), dir.join(&id));
        {
            let mut open = self.open.lock();
            if open.len() >= self.max {
                let message = format!("{} uploads are under way, the most there may be: try again later", self.max);
                return Err(error(Code::TooManyRequests, message).header(header::RETRY_AFTER, "5"));
            }
            open.insert(id.clone(), upload.clone());
        }
        let made = fs::create_dir_all(&dir).and_then(|()| fs::File::create(&upload.path));
        if let Err(error) = made {
            self.forget(&id);
            return Err(error.into());
        }
        Ok((id, upload))
    }

    fn find(&self, repository: &Repository, id: &str) -> Result<Arc<Upload>, Error> {
        let found = self.open.lock().get(id).filter(|upload| upload.repository == *repository).cloned();
        let upload =
            found.ok_or_else(|| error(Code::BlobUploadUnknown, "there is no such upload; it may have expired"))?;
        *upload.touched.lock() = Instant::now();
        Ok(upload)
    }

    fn forget(&self, id: &str) {
        if let Some(upload) = self.open.lock().remove(id)
            && let Err(error) = fs::remove_file(&upload.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %upload.path.display(), %error, "cannot remove an upload");
        }
    }

    /// Forgets uploads that have not gone on for so long; how many.
    pub(crate) fn expire(&self, idle: Duration) -> u64 {
        let old = |upload: &Upload| upload.touched.lock().elapsed() >= idle && upload.turn.try_lock().is_ok();
        let expired: Vec<String> =
            self.open.lock().iter().filter(|(_, upload)| old(upload)).map(|(id, _)| id.clone()).collect();
        expired.iter().for_each(|id| self.forget(id));
        expired.len() as u64
    }
}

/// A request about uploads of one repository.
pub(crate) struct Call<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a HashMap<String, String>,
    pub(crate) repository: Repository,
    pub(crate) body: Body,
}

impl Call<'_> {
    fn digest(&self) -> Result<Option<Digest>, Error> {
        self.query.get("digest").map(|d| Digest::parse(d).map_err(Error::from)).transpose()
    }
}

/// `POST blobs/uploads/`: mounts what another repository has, takes a whole blob, or begins an upload. `may_mount`: whether the
/// client may read the repository that it names.
pub(crate) async fn begin(inner: &Arc<Inner>, call: Call<'_>, may_mount: bool) -> Result<Response, Error> {
    if let (Some(digest), Some(from), true) = (call.query.get("mount"), call.query.get("from"), may_mount)
        && let (Ok(digest), Ok(from)) = (Digest::parse(digest), Repository::parse(from))
    {
        let (disk, to, named) = (inner.disk.clone(), call.repository.clone(), digest.clone());
        if tokio::task::spawn_blocking(move || disk.mount(&from, &to, &named)).await?? {
            return Ok(created(&call.repository, &digest));
        }
    }
    let whole = call.digest()?;
    must_have_room(inner)?;
    let (id, upload) = inner.uploads.begin(&inner.disk, &call.repository)?;
    let Some(digest) = whole else { return Ok(progress(StatusCode::ACCEPTED, &call.repository, &id, 0)) };
    let repository = call.repository.clone();
    let outcome = take(inner, &id, upload, call, Some(digest)).await;
    if outcome.is_err() {
        // The client does not know its name: nobody can go on with it.
        inner.uploads.forget(&id);
    }
    tracing::debug!(%repository, ok = outcome.is_ok(), "a whole blob was sent");
    outcome
}

/// Everything about an upload that has begun.
pub(crate) async fn go_on(inner: &Arc<Inner>, method: &Method, id: &str, call: Call<'_>) -> Result<Response, Error> {
    let upload = inner.uploads.find(&call.repository, id)?;
    match *method {
        Method::GET | Method::HEAD => Ok(progress(StatusCode::NO_CONTENT, &call.repository, id, upload.size()?)),
        Method::PATCH => take(inner, id, upload, call, None).await,
        Method::PUT => {
            let missing = || error(Code::DigestInvalid, "the upload ends with ?digest=sha256:…");
            let digest = call.digest()?.ok_or_else(missing)?;
            take(inner, id, upload, call, Some(digest)).await
        }
        Method::DELETE => {
            let _turn = upload.turn.lock().await;
            inner.uploads.forget(id);
            Ok(answer(StatusCode::NO_CONTENT, []))
        }
        _ => Err(error(Code::Unsupported, "an upload takes GET, PATCH, PUT and DELETE")),
    }
}

/// Receives a chunk, and with a digest finishes. Goes on when the client has gone: what came is kept.
async fn take(
    inner: &Arc<Inner>,
    id: &str,
    upload: Arc<Upload>,
    call: Call<'_>,
    finish: Option<Digest>,
) -> Result<Response, Error> {
    let busy =
        |_| error(Code::BlobUploadInvalid, "another request is writing to this upload").status(StatusCode::CONFLICT);
    let turn = upload.turn.clone().try_lock_owned().map_err(busy)?;
    let offset = upload.size()?;
    must_follow(call.headers, &call.repository, id, offset)?;
    let (inner, id, repository, body) = (inner.clone(), id.to_owned(), call.repository, call.body);
    let work = async move {
        let size = receive(&inner, &id, &upload, offset, body).await?;
        match finish {
            None => Ok(progress(StatusCode::ACCEPTED, &repository, &id, size)),
            Some(digest) => close(inner, id, upload, digest, turn).await,
        }
    };
    tokio::spawn(work).await?
}

/// A chunk must begin where the last one ended.
fn must_follow(headers: &HeaderMap, repository: &Repository, id: &str, offset: u64) -> Result<(), Error> {
    let Some(header) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let range = header.to_str().ok().and_then(range::chunk);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    let fits = |(first, last): (u64, u64)| first == offset && length.is_none_or(|length| last - first + 1 == length);
    if range.is_some_and(fits) {
        return Ok(());
    }
    let refused = error(Code::BlobUploadInvalid, format!("{offset} bytes are here: the next chunk begins there"));
    Err(refused
        .status(StatusCode::RANGE_NOT_SATISFIABLE)
        .header(header::LOCATION, location(repository, id))
        .header(header::RANGE, received(offset)))
}

/// Appends a body; the new size.
async fn receive(inner: &Inner, id: &str, upload: &Upload, offset: u64, mut body: Body) -> Result<u64, Error> {
    let (max, mut size, mut look_at) = (inner.config.blob_bytes_max, offset, offset + LOOK_EVERY_BYTES);
    let mut file = tokio::fs::File::options().append(true).open(&upload.path).await?;
    let outcome = loop {
        let frame = match tokio::time::timeout(inner.config.read_timeout, body.frame()).await {
            Err(_) => {
                let slow = error(Code::BlobUploadInvalid, "nothing came for too long; go on from where the upload is");
                break Err(slow.status(StatusCode::REQUEST_TIMEOUT));
            }
            Ok(None) => break Ok(()),
            Ok(Some(Err(cause))) => break Err(error(Code::BlobUploadInvalid, format!("the body broke off: {cause}"))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(bytes) = frame.data_ref() else { continue };
        size += bytes.len() as u64;
        if size > max {
            inner.uploads.forget(id);
            return Err(error(Code::SizeInvalid, format!("a blob may have {max} bytes at most")));
        }
        if size >= look_at {
            look_at = size + LOOK_EVERY_BYTES;
            must_have_room(inner)?;
        }
        if let Err(cause) = file.write_all(bytes).await {
            inner.uploads.forget(id);
            return Err(cause.into());
        }
    };
    if let Err(cause) = file.flush().await {
        inner.uploads.forget(id);
        return Err(cause.into());
    }
    *upload.touched.lock() = Instant::now();
    outcome.map(|()| size)
}

/// Checks the digest and makes it a blob.
async fn close(
    inner: Arc<Inner>,
    id: String,
    upload: Arc<Upload>,
    digest: Digest,
    turn: OwnedMutexGuard<()>,
) -> Result<Response, Error> {
    let work = move || {
        let _turn = turn;
        let found = hash(&upload.path)?;
        if found != digest {
            inner.uploads.forget(&id);
            return Err(error(Code::DigestInvalid, format!("what came has the digest {found}, not {digest}")));
        }
        let adopted = inner.disk.adopt(&upload.path, &upload.repository, &digest);
        inner.uploads.forget(&id);
        adopted?;
        Ok(created(&upload.repository, &digest))
    };
    tokio::task::spawn_blocking(work).await?
}

fn hash(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash) = (fs::File::open(path)?, Sha256::new());
    io::copy(&mut file, &mut hash)?;
    Ok(Digest::finish(hash))
}

fn must_have_room(inner: &Inner) -> Result<(), Error> {
    if inner.disk.free_bytes()? < inner.config.disk_reserve_bytes {
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    Ok(())
}

fn location(repository: &Repository, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// `Range` of an upload: the last byte is included, so that nothing received is said as one byte is.
fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn progress(status: StatusCode, repository: &Repository, id: &str, size: u64) -> Response {
    let headers = [
        (header::LOCATION, location(repository, id)),
        (header::RANGE, received(size)),
        (header::CONTENT_LENGTH, "0".to_owned()),
        (UPLOAD, id.to_owned()),
    ];
    answer(status, headers)
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/{digest}")),
        (header::CONTENT_LENGTH, "0".to_owned()),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    answer(StatusCode::CREATED, headers)
}
