//! Reads logs back: from the oldest file kept to the newest, then, when following, what is written next.
//!
//! All file access is on blocking threads; one reader holds one chunk and one unfinished line, and waits for its client.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;

use super::{
    LogOptions, LogStream,
    cri::{LINE_BYTES_MAX, Record},
    writer::{ContainerLog, aside},
};

const CHUNK_BYTES: usize = 32 << 10;
/// Longest record that is read as one; what is longer was not written by us.
const RECORD_BYTES_MAX: u64 = LINE_BYTES_MAX as u64 + 128;
const CHUNKS_WAITING_MAX: usize = 4;

/// Streams the log at `path`. `live` is the log while its container runs.
pub(crate) fn read(path: PathBuf, files_max: u32, live: Option<Arc<ContainerLog>>, options: LogOptions) -> LogStream {
    let (chunks, inbox) = mpsc::channel(CHUNKS_WAITING_MAX);
    tokio::spawn(pump(path, files_max, live, options, chunks));
    Box::pin(stream::unfold(inbox, |mut inbox| async move { inbox.recv().await.map(|chunk| (chunk, inbox)) }))
}

type Chunks = mpsc::Sender<Result<Bytes, io::Error>>;

async fn pump(path: PathBuf, files_max: u32, live: Option<Arc<ContainerLog>>, options: LogOptions, chunks: Chunks) {
    if let Some(log) = &live {
        log.flush().await;
    }
    let live = live.filter(|_| options.follow);
    let mut cursor = Cursor { path, files_max, at: None, printer: Printer::new(options), chunks, begun: false };
    loop {
        // Before the read, so that a write during it is not missed.
        let closed = live.as_ref().is_none_or(|log| log.is_closed());
        if closed && let Some(log) = &live {
            // What was taken before the end may still be on its way to the file.
            log.flush().await;
        }
        let written = live.as_ref().map(|log| log.written());
        tokio::pin!(written);
        if let Some(written) = written.as_mut().as_pin_mut() {
            written.enable();
        }
        let Ok((back, more)) = tokio::task::spawn_blocking(move || cursor.advance()).await else { return };
        cursor = back;
        if !more || closed && live.as_ref().is_none_or(|log| log.is_closed()) {
            return;
        }
        if let Some(written) = written.as_pin_mut() {
            tokio::select! {
                () = written => {}
                () = cursor.chunks.closed() => return,
            }
        }
    }
}

/// Where a reader is.
struct Cursor {
    path: PathBuf,
    files_max: u32,
    at: Option<BufReader<File>>,
    printer: Printer,
    chunks: Chunks,
    begun: bool,
}

impl Cursor {
    /// Sends everything that is in the files now; `false` when the client has gone or has enough.
    fn advance(mut self) -> (Self, bool) {
        let more = self.read_all().unwrap_or_else(|error| {
            let _ = self.chunks.blocking_send(Err(error));
            false
        });
        (self, more)
    }

    fn read_all(&mut self) -> io::Result<bool> {
        if !self.begun {
            self.begun = true;
            return self.read_from_the_oldest();
        }
        if !self.drain_current()? {
            return Ok(false);
        }
        // The file may have been put aside meanwhile, even more than once.
        for file in self.newer_files()? {
            self.at = Some(BufReader::new(file));
            if !self.drain_current()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_from_the_oldest(&mut self) -> io::Result<bool> {
        let files = existing(&self.path, self.files_max);
        if let Some(lines) = self.printer.options.tail_lines {
            self.printer.skip_lines = count_lines(&files, &self.printer)?.saturating_sub(lines);
        }
        for file in open_all(files)? {
            self.at = Some(BufReader::new(file));
            if !self.drain_current()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn newer_files(&self) -> io::Result<Vec<File>> {
        let mut files = open_all(existing(&self.path, self.files_max))?;
        let Some(at) = &self.at else { return Ok(files) };
        let inode = at.get_ref().metadata()?.ino();
        let same = |file: &File| file.metadata().is_ok_and(|m| m.ino() == inode);
        if let Some(place) = files.iter().position(same) {
            files.drain(..=place);
        }
        Ok(files)
    }

    fn drain_current(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.at else { return Ok(true) };
        let mut more = true;
        while more && let Some(line) = next_record(file, &mut self.printer.unfinished)? {
            more = self.printer.print(&line);
            if self.printer.out.len() >= CHUNK_BYTES || !more {
                more = send(&self.chunks, &mut self.printer.out) && more;
            }
        }
        Ok(send(&self.chunks, &mut self.printer.out) && more)
    }
}

fn send(chunks: &Chunks, out: &mut Vec<u8>) -> bool {
    out.is_empty() || chunks.blocking_send(Ok(std::mem::take(out).into())).is_ok()
}

/// Opens files at once: while they are read, the writer may give them other names, or remove the oldest.
fn open_all(paths: Vec<PathBuf>) -> io::Result<Vec<File>> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        match File::open(path) {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// The files of a log, the oldest first.
fn existing(path: &Path, files_max: u32) -> Vec<PathBuf> {
    let older = (1..files_max).rev().map(|n| aside(path, n));
    older.chain([path.to_owned()]).filter(|p| p.exists()).collect()
}

/// The next whole record without its line break; a record that is not whole yet stays in `unfinished`.
fn next_record(file: &mut BufReader<File>, unfinished: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut part = io::Read::take(&mut *file, RECORD_BYTES_MAX);
    part.read_until(b'\n', unfinished)?;
    if unfinished.last() != Some(&b'\n') && (unfinished.len() as u64) < RECORD_BYTES_MAX {
        return Ok(None);
    }
    let mut line = std::mem::take(unfinished);
    line.pop_if(|last| *last == b'\n');
    Ok(Some(line))
}

fn count_lines(files: &[PathBuf], printer: &Printer) -> io::Result<u64> {
    let mut lines = 0;
    let mut unfinished = Vec::new();
    for path in files {
        let mut file = BufReader::new(File::open(path)?);
        while let Some(line) = next_record(&mut file, &mut unfinished)? {
            let ends = |r: &Record<'_>| r.whole && r.wanted(printer.options.streams, printer.options.since);
            lines += u64::from(Record::parse(&line).is_some_and(|r| ends(&r)));
        }
    }
    Ok(lines)
}

/// Turns records into what the client reads.
struct Printer {
    options: LogOptions,
    skip_lines: u64,
    left_bytes: Option<u64>,
    within_line: bool,
    unfinished: Vec<u8>,
    out: Vec<u8>,
}

impl Printer {
    fn new(options: LogOptions) -> Self {
        let left_bytes = options.limit_bytes;
        Self { options, skip_lines: 0, left_bytes, within_line: false, unfinished: Vec::new(), out: Vec::new() }
    }

    /// `false` when the client has had enough bytes.
    fn print(&mut self, line: &[u8]) -> bool {
        let Some(record) = Record::parse(line) else { return true };
        if !record.wanted(self.options.streams, self.options.since) {
            return true;
        }
        if self.skip_lines > 0 {
            self.skip_lines -= u64::from(record.whole);
            return true;
        }
        if self.options.timestamps && !self.within_line {
            self.push(record.time.as_bytes());
            self.push(b" ");
        }
        self.push(record.content);
        if record.whole {
            self.push(b"\n");
        }
        self.within_line = !record.whole;
        self.left_bytes != Some(0)
    }

    fn push(&mut self, bytes: &[u8]) {
        let room =
            self.left_bytes.map_or(bytes.len(), |left| bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        self.out.extend_from_slice(&bytes[..room]);
        if let Some(left) = &mut self.left_bytes {
            *left -= room as u64;
        }
    }
}

/// Number of the newest run that has a file in a container's folder.
pub(crate) fn newest_run(dir: &Path) -> Option<i32> {
    let names = std::fs::read_dir(dir).ok()?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.split_once(".log")?.0.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use podium_sandbox::{LogSink as _, Stream};

    use super::*;
    use crate::logs::{
        LogStreams,
        writer::{LogWriter, Rotation, Sink},
    };

    async fn text(stream: LogStream) -> String {
        let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap()).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }

    fn open(dir: &Path, file_bytes_max: u64) -> Arc<ContainerLog> {
        let rotation = Rotation { file_bytes_max, files_max: 5 };
        let writer = LogWriter::start(rotation, Arc::new(podium_client::SystemClock)).unwrap();
        writer.open(dir.join("app/0.log"))
    }

    #[tokio::test]
    async fn options_choose_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 150);
        for i in 1..=4 {
            Sink(log.clone()).write(Stream::Stdout, format!("out {i}\n").as_bytes());
            Sink(log.clone()).write(Stream::Stderr, format!("err {i}\n").as_bytes());
            log.flush().await;
        }
        let future = "2999-01-01T00:00:00Z".parse().unwrap();
        let all = LogOptions::default;
        for (options, expected) in [
            (all(), "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\n"),
            (LogOptions { tail_lines: Some(3), ..all() }, "err 3\nout 4\nerr 4\n"),
            (LogOptions { tail_lines: Some(0), ..all() }, ""),
            (LogOptions { limit_bytes: Some(8), ..all() }, "out 1\ner"),
            (LogOptions { streams: LogStreams::Stderr, tail_lines: Some(2), ..all() }, "err 3\nerr 4\n"),
            (LogOptions { since: Some(future), ..all() }, ""),
        ] {
            let found = text(read(log.path().to_owned(), 5, Some(log.clone()), options.clone())).await;
            assert_eq!(found, expected, "{options:?}");
        }
        let stamped = LogOptions { timestamps: true, tail_lines: Some(1), ..all() };
        let found = text(read(log.path().to_owned(), 5, None, stamped)).await;
        assert!(found.ends_with("Z err 4\n"), "{found}");
    }

    #[tokio::test]
    async fn followers_see_every_line_across_rotations_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), 4000);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let following = tokio::spawn(text(read(log.path().to_owned(), 5, Some(log.clone()), options)));
        let mut expected = String::new();
        for i in 0..200 {
            let line = format!("line {i} {}\n", "x".repeat(i));
            Sink(log.clone()).write(Stream::Stdout, line.as_bytes());
            expected.push_str(&line);
            if i % 20 == 0 {
                log.flush().await;
                tokio::task::yield_now().await;
            }
            if i % 50 == 49 {
                // Lets the follower catch up before more is put aside than is kept.
                for _ in 0..50 {
                    log.flush().await;
                }
            }
        }
        Sink(log.clone()).write(Stream::Stdout, b"no line break");
        log.close();
        let found = following.await.unwrap();
        assert!(found.ends_with("no line break\n"));
        let (found, expected): (Vec<_>, Vec<_>) = (found.lines().collect(), expected.lines().collect());
        assert_eq!(found[found.len() - 2], expected[expected.len() - 1]);
        assert!(found.len() > 50);
    }
}
