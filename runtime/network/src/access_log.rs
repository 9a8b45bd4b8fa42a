//! The access log: a line of JSON for each request that clients outside make, when its answer has ended.
//!
//! A thread of its own writes. What it cannot keep up with is left out and counted: no request waits for its line. Queries are
//! not written, they may hold secrets.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use http::{Request, StatusCode, Version, header};
use serde_json::json;

use crate::{Body, bodies::Hears, table::Name};

/// Lines that wait to be written.
const WAITING_MAX: usize = 8192;
/// Bytes of a file; then it becomes `FILE.1`, in place of the one before.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Characters of what a client says of itself.
const TEXT_MAX: usize = 1024;
/// How long a line may wait in a buffer.
const FLUSH: Duration = Duration::from_millis(200);

/// Where the lines go. Clones share it.
#[derive(Clone)]
pub struct AccessLog(Arc<Lines>);

struct Lines {
    to: SyncSender<String>,
    left_out: Arc<AtomicU64>,
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("left_out", &self.left_out()).finish()
    }
}

impl AccessLog {
    /// Writes to a file, after what is in it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Self::start(Sink::file(path, FILE_BYTES_MAX)?)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn to_stdout() -> io::Result<Self> {
        Self::start(Sink { to: Box::new(io::stdout()), file: None })
    }

    fn start(sink: Sink) -> io::Result<Self> {
        let (to, lines) = sync_channel(WAITING_MAX);
        let left_out = Arc::new(AtomicU64::new(0));
        let counted = left_out.clone();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(sink, &lines, &counted))?;
        Ok(Self(Arc::new(Lines { to, left_out })))
    }

    /// How many lines were left out since the last one that was written.
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }

    /// Begins a line.
    pub(crate) fn begin(&self, client: IpAddr, scheme: &'static str, host: &str, request: &Request<Body>) -> Line {
        let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        Line {
            log: self.clone(),
            since: Instant::now(),
            client,
            scheme,
            method: request.method().to_string(),
            host: cut(host),
            path: cut(request.uri().path()),
            version: request.version(),
            agent: agent.map(cut),
            found: None,
            service: None,
            status: None,
            bytes: 0,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// A line that is written when it is dropped.
pub(crate) struct Line {
    log: AccessLog,
    since: Instant,
    client: IpAddr,
    scheme: &'static str,
    method: String,
    host: String,
    path: String,
    version: Version,
    agent: Option<String>,
    pub(crate) found: Option<Arc<str>>,
    pub(crate) service: Option<Name>,
    pub(crate) status: Option<StatusCode>,
    bytes: u64,
}

impl Hears for Line {
    fn bytes(&mut self, count: u64) {
        self.bytes += count;
    }
}

impl Line {
    fn text(&self, time: jiff::Timestamp) -> String {
        let mut line = json!({
            "time": format!("{time:.3}"),
            "client": self.client,
            "method": self.method,
            "scheme": self.scheme,
            "host": self.host,
            "path": self.path,
            "protocol": format!("{:?}", self.version),
            "status": self.status.map_or(0, |status| status.as_u16()),
            "bytes": self.bytes,
            "milliseconds": u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        if let Some(route) = &self.found {
            line["route"] = route.as_ref().into();
        }
        if let Some(service) = &self.service {
            line["service"] = service.to_string().into();
        }
        if let Some(agent) = &self.agent {
            line["agent"] = agent.as_str().into();
        }
        format!("{line}\n")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.log.0.to.try_send(self.text(jiff::Timestamp::now())).is_err() {
            self.log.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where a thread writes.
struct Sink {
    to: Box<dyn Write + Send>,
    file: Option<Rotated>,
}

struct Rotated {
    path: PathBuf,
    bytes: u64,
    bytes_max: u64,
}

impl Sink {
    fn file(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        let rotated = Rotated { path: path.to_owned(), bytes, bytes_max };
        Ok(Self { to: Box::new(BufWriter::new(file)), file: Some(rotated) })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            if file.bytes > 0 && file.bytes + line.len() as u64 > file.bytes_max {
                self.to.flush()?;
                let mut before = file.path.clone().into_os_string();
                before.push(".1");
                std::fs::rename(&file.path, before)?;
                self.to = Box::new(BufWriter::new(open(&file.path)?));
                file.bytes = 0;
            }
            file.bytes += line.len() as u64;
        }
        self.to.write_all(line.as_bytes())
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Writes until nobody is left who could have a line. Nothing to write: it sleeps.
fn write(mut sink: Sink, lines: &Receiver<String>, left_out: &AtomicU64) {
    let mut failing = false;
    while let Ok(first) = lines.recv() {
        let mut next = Ok(first);
        let mut done = Ok(());
        while let Ok(line) = &next {
            let missing = match left_out.swap(0, Ordering::Relaxed) {
                0 => String::new(),
                count => format!("{}\n", json!({ "left_out": count })),
            };
            done = done.and(sink.write(&format!("{missing}{line}")));
            next = lines.recv_timeout(FLUSH);
        }
        done = done.and(sink.to.flush());
        if let Err(error) = &done
            && !failing
        {
            tracing::warn!(%error, "the access log cannot be written");
        }
        failing = done.is_err();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn line(log: &AccessLog, uri: &str) -> Line {
        let body = Full::from("").map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(uri).header("user-agent", "curl\"8").body(body).unwrap();
        log.begin([10, 0, 0, 1].into(), "http", "a.test", &request)
    }

    #[test]
    fn a_line_is_json_without_the_query() {
        let (to, lines) = sync_channel(1);
        let log = AccessLog(Arc::new(Lines { to, left_out: Arc::default() }));
        let mut first = line(&log, "/a%22b?password=1");
        first.found = Some("Ingress d/i".into());
        first.service = Some(Name::new("d", "web"));
        first.status = Some(StatusCode::OK);
        first.bytes(7);
        drop(first);
        drop(line(&log, "/"));
        assert_eq!(log.left_out(), 1, "only one may wait");
        let mut read: serde_json::Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        let (time, took) = (read["time"].take(), read["milliseconds"].take());
        assert!(time.as_str().unwrap().ends_with('Z') && took.is_u64());
        let expected = json!({
            "time": null, "milliseconds": null, "client": "10.0.0.1", "method": "GET", "scheme": "http",
            "host": "a.test", "path": "/a%22b", "protocol": "HTTP/1.1", "status": 200, "bytes": 7,
            "route": "Ingress d/i", "service": "d/web", "agent": "curl\"8",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_file_that_is_full_makes_room() {
        let dir = std::env::temp_dir().join(format!("podium-access-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("access.log");
        let mut sink = Sink::file(&path, 10).unwrap();
        for line in ["one..\n", "two..\n", "three\n"] {
            sink.write(line).unwrap();
        }
        sink.to.flush().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!((read("access.log").as_str(), read("access.log.1").as_str()), ("three\n", "two..\n"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
