//! Whole bodies in and out of `wasi:io` streams.

use wasip2::{
    http::types::{IncomingBody, OutgoingBody},
    io::streams::StreamError,
};

/// `blocking-write-and-flush` takes at most this many bytes.
const WRITE_BYTES_MAX: usize = 4096;
/// Bytes asked for at once.
const READ_BYTES: u64 = 64 << 10;

pub(crate) enum ReadError {
    TooLarge,
    Broken,
}

pub(crate) fn read_all(body: &IncomingBody, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let stream = body.stream().map_err(|()| ReadError::Broken)?;
    let mut all = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(chunk) if all.len() + chunk.len() > bytes_max => return Err(ReadError::TooLarge),
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(all),
            Err(StreamError::LastOperationFailed(_)) => return Err(ReadError::Broken),
        }
    }
}

pub(crate) fn write_all(body: &OutgoingBody, bytes: &[u8]) -> Result<(), StreamError> {
    let Ok(stream) = body.write() else { return Err(StreamError::Closed) };
    for chunk in bytes.chunks(WRITE_BYTES_MAX) {
        stream.blocking_write_and_flush(chunk)?;
    }
    Ok(())
}
