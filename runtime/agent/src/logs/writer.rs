//! Takes guests' output to files. A guest only appends to a bounded buffer; one thread writes for all.
//!
//! Bounds: [`PENDING_BYTES_MAX`] waiting for the thread in each container (more is dropped, and the log says so), one
//! unfinished line in each stream, [`OPEN_FILES_MAX`] files open. A container that writes nothing has no file.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use podium_client::ClockRef;
use podium_sandbox::{LogSink, Stream};
use tokio::sync::{Notify, oneshot};

use super::cri::{self, LINE_BYTES_MAX};
use crate::streams::pipe::Pipes;

/// Bytes of one container that may wait to be written.
pub(crate) const PENDING_BYTES_MAX: usize = 256 << 10;
/// Bytes of one container that are written at once, without waiting for more.
const URGENT_BYTES: usize = PENDING_BYTES_MAX / 4;
/// How long output may lie before it is written. Waking the thread costs more than a guest's whole request.
const GATHER: Duration = Duration::from_millis(5);
/// Files that the writer keeps open.
const OPEN_FILES_MAX: usize = 64;

/// Bounds of log files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Size at which a file is put aside.
    pub(crate) file_bytes_max: u64,
    /// Files kept, the current one included.
    pub(crate) files_max: u32,
}

enum Job {
    /// Soon, together with what comes until then.
    Drain(Arc<ContainerLog>),
    Urgent(Arc<ContainerLog>),
    Flush(Arc<ContainerLog>, oneshot::Sender<()>),
    Remove(PathBuf),
    Stop(oneshot::Sender<()>),
}

/// The handle on the writing thread.
#[derive(Clone)]
pub(crate) struct LogWriter {
    jobs: mpsc::Sender<Job>,
    clock: ClockRef,
}

/// The log of one run of one container.
pub(crate) struct ContainerLog {
    path: PathBuf,
    writer: LogWriter,
    buffer: Mutex<Buffer>,
    queued: AtomicBool,
    urgent: AtomicBool,
    closed: AtomicBool,
    written: Notify,
    /// Clients that see the output as it is written.
    taps: Mutex<Vec<Weak<Pipes>>>,
    tapped: AtomicBool,
}

#[derive(Default)]
struct Buffer {
    ready: Vec<u8>,
    partial: [Vec<u8>; 2],
    dropped_bytes: u64,
}

impl LogWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(rotation: Rotation, clock: ClockRef) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel();
        std::thread::Builder::new().name("podium-logs".to_owned()).spawn(move || Files::new(rotation).run(&inbox))?;
        Ok(Self { jobs, clock })
    }

    /// A log at this path; the file is made when something is written.
    pub(crate) fn open(&self, path: PathBuf) -> Arc<ContainerLog> {
        Arc::new(ContainerLog {
            path,
            writer: self.clone(),
            buffer: Mutex::default(),
            queued: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            written: Notify::new(),
            taps: Mutex::default(),
            tapped: AtomicBool::new(false),
        })
    }

    /// Removes a folder of logs, after what waits to be written.
    pub(crate) fn remove(&self, dir: PathBuf) {
        let _ = self.jobs.send(Job::Remove(dir));
    }

    /// Writes what waits and ends the thread.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.jobs.send(Job::Stop(done)).is_ok() {
            let _ = stopped.await;
        }
    }
}

impl ContainerLog {
    /// Where it is written.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing more will come.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Resolves at the next write or at the end.
    pub(crate) fn written(&self) -> tokio::sync::futures::Notified<'_> {
        self.written.notified()
    }

    /// Waits until everything taken so far is in the file.
    pub(crate) async fn flush(self: &Arc<Self>) {
        let (done, flushed) = oneshot::channel();
        if self.writer.jobs.send(Job::Flush(self.clone(), done)).is_ok() {
            let _ = flushed.await;
        }
    }

    /// Takes one line of the agent's own, for example why the guest ended.
    pub(crate) fn note(self: &Arc<Self>, text: &str) {
        for line in text.lines() {
            self.take(Stream::Stderr, format!("podium: {line}\n").as_bytes());
        }
    }

    /// The container has ended: an unfinished line is a line.
    pub(crate) fn close(self: &Arc<Self>) {
        let now = self.writer.clock.now();
        self.buffer.lock().finish(now);
        self.closed.store(true, Ordering::Release);
        let _ = self.writer.jobs.send(Job::Urgent(self.clone()));
        self.onlookers().iter().for_each(|pipes| pipes.end());
    }

    /// Shows a client what is written from now on. It holds the guest up while it does not read, for some seconds.
    pub(crate) fn tap(&self, pipes: &Arc<Pipes>) {
        let mut taps = self.taps.lock();
        taps.retain(|tap| tap.strong_count() > 0);
        taps.push(Arc::downgrade(pipes));
        self.tapped.store(true, Ordering::Release);
        drop(taps);
        if self.is_closed() {
            pipes.end();
        }
    }

    fn onlookers(&self) -> Vec<Arc<Pipes>> {
        if !self.tapped.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut taps = self.taps.lock();
        let found: Vec<_> = taps.iter().filter_map(Weak::upgrade).filter(|pipes| !pipes.is_left()).collect();
        if found.is_empty() {
            taps.clear();
            self.tapped.store(false, Ordering::Release);
        }
        found
    }

    fn take(self: &Arc<Self>, stream: Stream, bytes: &[u8]) {
        let now = self.writer.clock.now();
        let ready = {
            let mut buffer = self.buffer.lock();
            buffer.take(now, stream, bytes);
            buffer.ready.len()
        };
        if ready >= URGENT_BYTES && !self.urgent.swap(true, Ordering::AcqRel) {
            let _ = self.writer.jobs.send(Job::Urgent(self.clone()));
        } else if ready > 0 && !self.queued.swap(true, Ordering::AcqRel) {
            let _ = self.writer.jobs.send(Job::Drain(self.clone()));
        }
    }
}

/// The sink that a guest writes into.
pub(crate) struct Sink(pub(crate) Arc<ContainerLog>);

impl LogSink for Sink {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        self.0.take(stream, bytes);
        self.0.onlookers().iter().for_each(|pipes| pipes.write(stream, bytes));
    }

    fn room_bytes(&self, stream: Stream) -> usize {
        self.0.onlookers().iter().map(|pipes| pipes.room_bytes(stream)).min().unwrap_or(usize::MAX)
    }

    fn held_bytes(&self) -> usize {
        let own = self.0.buffer.lock().held_bytes();
        own + self.0.onlookers().iter().map(|pipes| pipes.held_bytes()).sum::<usize>()
    }

    fn ready(&self, stream: Stream) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for pipes in self.0.onlookers() {
                pipes.ready_or_leave(stream).await;
            }
        })
    }
}

impl Buffer {
    fn take(&mut self, now: Timestamp, stream: Stream, mut bytes: &[u8]) {
        let place = stream as usize;
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial[place].len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            let used = end.unwrap_or(bytes.len().min(room));
            self.partial[place].extend_from_slice(&bytes[..used]);
            bytes = &bytes[used + usize::from(end.is_some())..];
            if end.is_some() || self.partial[place].len() == LINE_BYTES_MAX {
                let mut line = std::mem::take(&mut self.partial[place]);
                self.record(now, stream, &line, end.is_some());
                line.clear();
                self.partial[place] = if line.capacity() <= 1024 { line } else { Vec::new() };
            }
        }
    }

    fn held_bytes(&self) -> usize {
        self.ready.capacity() + self.partial.iter().map(Vec::capacity).sum::<usize>()
    }

    fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(&mut self.partial[stream as usize]);
            if !line.is_empty() {
                self.record(now, stream, &line, true);
            }
        }
    }

    fn record(&mut self, now: Timestamp, stream: Stream, line: &[u8], whole: bool) {
        if self.ready.len() + line.len() > PENDING_BYTES_MAX {
            self.dropped_bytes += line.len() as u64;
            return;
        }
        cri::write(&mut self.ready, now, stream, line, whole);
    }

    /// What is to be written, with a word about what was lost.
    fn drain(&mut self, now: Timestamp) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.ready);
        if self.dropped_bytes > 0 {
            let words = format!(
                "podium: {} bytes of output were dropped: written faster than the disk takes them",
                self.dropped_bytes
            );
            cri::write(&mut bytes, now, Stream::Stderr, words.as_bytes(), true);
            self.dropped_bytes = 0;
        }
        bytes
    }
}

/// Logs that are written when the first of them has waited long enough.
#[derive(Default)]
struct Gathered {
    logs: Vec<Arc<ContainerLog>>,
    due: Option<Instant>,
}

impl Gathered {
    /// The next job, or that it is time for what was gathered: however many jobs there are, nobody waits behind them for longer.
    fn next(&self, inbox: &mpsc::Receiver<Job>) -> Result<Job, mpsc::RecvTimeoutError> {
        match self.due.map(|due| due.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(mpsc::RecvTimeoutError::Timeout),
            Some(left) => inbox.recv_timeout(left),
            None => inbox.recv().map_err(mpsc::RecvTimeoutError::from),
        }
    }

    fn add(&mut self, log: Arc<ContainerLog>) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
        self.logs.push(log);
    }

    fn take(&mut self) -> Vec<Arc<ContainerLog>> {
        self.due = None;
        std::mem::take(&mut self.logs)
    }
}

struct Files {
    rotation: Rotation,
    open: HashMap<PathBuf, (File, u64)>,
}

impl Files {
    fn new(rotation: Rotation) -> Self {
        Self { rotation, open: HashMap::new() }
    }

    fn run(mut self, inbox: &mpsc::Receiver<Job>) {
        let mut gathered = Gathered::default();
        loop {
            let job = match gathered.next(inbox) {
                Ok(job) => job,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    gathered.take().iter().for_each(|log| self.drain(log));
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            match job {
                Job::Drain(log) => gathered.add(log),
                Job::Urgent(log) => self.drain(&log),
                Job::Flush(log, done) => {
                    self.drain(&log);
                    let _ = done.send(());
                }
                Job::Remove(dir) => {
                    gathered.take().iter().for_each(|log| self.drain(log));
                    self.remove(&dir);
                }
                Job::Stop(done) => {
                    gathered.take().iter().for_each(|log| self.drain(log));
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn drain(&mut self, log: &ContainerLog) {
        log.queued.store(false, Ordering::Release);
        log.urgent.store(false, Ordering::Release);
        let closed = log.is_closed();
        let bytes = log.buffer.lock().drain(log.writer.clock.now());
        if !bytes.is_empty()
            && let Err(error) = self.append(&log.path, &bytes)
        {
            tracing::warn!(path = %log.path.display(), %error, "a container's log cannot be written");
            self.open.remove(&log.path);
        }
        if closed {
            self.open.remove(&log.path);
        }
        log.written.notify_waiters();
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if !self.open.contains_key(path) {
            self.make_room();
            let opened = open(path)?;
            self.open.insert(path.to_owned(), opened);
        }
        let Some((file, size)) = self.open.get_mut(path) else { return Ok(()) };
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        if *size >= self.rotation.file_bytes_max {
            self.open.remove(path);
            rotate(path, self.rotation.files_max)?;
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.open.len() >= OPEN_FILES_MAX
            && let Some(any) = self.open.keys().next().cloned()
        {
            self.open.remove(&any);
        }
    }

    fn remove(&mut self, dir: &Path) {
        self.open.retain(|path, _| !path.starts_with(dir));
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "a gone pod's logs cannot be removed");
            }
            _ => {}
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// `0.log` becomes `0.log.1`, `0.log.1` becomes `0.log.2`, and so on; the oldest goes.
fn rotate(path: &Path, files_max: u32) -> io::Result<()> {
    if files_max <= 1 {
        return fs::remove_file(path);
    }
    for n in (1..files_max).rev() {
        let from = if n == 1 { path.to_owned() } else { aside(path, n - 1) };
        match fs::rename(&from, aside(path, n)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The `n`th file put aside; the greater, the older.
pub(crate) fn aside(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(buffer: &mut Buffer) -> String {
        let text = String::from_utf8(buffer.drain(Timestamp::UNIX_EPOCH)).unwrap();
        text.replace("1970-01-01T00:00:00.000000000Z ", "").replace('\n', "|")
    }

    fn buffer(writes: &[(Stream, &str)]) -> Buffer {
        let mut buffer = Buffer::default();
        for (stream, text) in writes {
            buffer.take(Timestamp::UNIX_EPOCH, *stream, text.as_bytes());
        }
        buffer
    }

    #[test]
    fn output_becomes_lines() {
        use Stream::{Stderr, Stdout};
        for (writes, now, at_end) in [
            (vec![(Stdout, "a\nb\n")], "stdout F a|stdout F b|", ""),
            (vec![(Stdout, "a"), (Stderr, "x\n"), (Stdout, "b\nc")], "stderr F x|stdout F ab|", "stdout F c|"),
            (vec![(Stdout, "\n\n")], "stdout F |stdout F |", ""),
            (vec![], "", ""),
        ] {
            let mut buffer = buffer(&writes);
            assert_eq!(records(&mut buffer), now, "{writes:?}");
            buffer.finish(Timestamp::UNIX_EPOCH);
            assert_eq!(records(&mut buffer), at_end, "{writes:?}");
        }
    }

    #[test]
    fn long_lines_are_split_and_floods_are_dropped_with_a_word() {
        let long = "x".repeat(LINE_BYTES_MAX + 3) + "\n";
        let text = records(&mut buffer(&[(Stream::Stdout, &long)]));
        assert!(text.starts_with("stdout P xxx") && text.ends_with("|stdout F xxx|"), "{}", text.len());

        let line = "y".repeat(1023) + "\n";
        let flood = line.repeat(PENDING_BYTES_MAX / 1024 + 10);
        let text = records(&mut buffer(&[(Stream::Stdout, &flood)]));
        assert!(text.len() <= PENDING_BYTES_MAX + 200, "{}", text.len());
        assert!(text.contains("bytes of output were dropped"));
    }

    #[tokio::test]
    async fn nobody_waits_behind_those_who_write_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { file_bytes_max: 1 << 20, files_max: 3 };
        let writer = LogWriter::start(rotation, Arc::new(podium_client::SystemClock)).unwrap();
        let log = |name: &str| writer.open(dir.path().join(name));
        let (jobs, inbox) = mpsc::channel();
        for _ in 0..3 {
            jobs.send(Job::Urgent(log("loud.log"))).unwrap();
        }
        let mut gathered = Gathered::default();
        gathered.add(log("quiet.log"));
        gathered.due = Some(Instant::now());
        assert!(matches!(gathered.next(&inbox), Err(mpsc::RecvTimeoutError::Timeout)));
        assert_eq!(gathered.take().len(), 1);
        assert!(matches!(gathered.next(&inbox), Ok(Job::Urgent(_))));
        writer.stop().await;
    }

    #[tokio::test]
    async fn what_waits_to_be_written_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { file_bytes_max: 1 << 20, files_max: 3 };
        let writer = LogWriter::start(rotation, Arc::new(podium_client::SystemClock)).unwrap();
        let sink = Sink(writer.open(dir.path().join("0.log")));
        assert_eq!(sink.held_bytes(), 0);
        sink.write(Stream::Stdout, b"the beginning of a line");
        sink.0.flush().await;
        assert!((23..1024).contains(&sink.held_bytes()), "{}", sink.held_bytes());
        let pipes = Pipes::new(false);
        sink.0.tap(&pipes);
        sink.write(Stream::Stderr, &[b'x'; 5000]);
        assert!(sink.held_bytes() > 10_000, "by the log and by a client that has not read it");
        drop(pipes);
        sink.write(Stream::Stderr, b"\n");
        sink.0.flush().await;
        sink.0.close();
        sink.0.flush().await;
        assert_eq!(sink.held_bytes(), 0);
        writer.stop().await;
    }

    #[tokio::test]
    async fn files_are_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { file_bytes_max: 100, files_max: 3 };
        let writer = LogWriter::start(rotation, Arc::new(podium_client::SystemClock)).unwrap();
        let log = writer.open(dir.path().join("app/0.log"));
        for i in 0..10 {
            Sink(log.clone()).write(Stream::Stdout, format!("line {i} {}\n", "z".repeat(60)).as_bytes());
            log.flush().await;
        }
        let mut names: Vec<_> = fs::read_dir(dir.path().join("app"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log.1", "0.log.2"]);
        assert!(fs::read_to_string(dir.path().join("app/0.log.1")).unwrap().contains("line 9"));
        writer.remove(dir.path().join("app"));
        writer.stop().await;
        assert!(!dir.path().join("app").exists());
    }
}
