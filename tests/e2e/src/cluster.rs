//! `podium up`, and nodes that join it, as child processes in a folder of their own, on free ports; killed and removed when
//! dropped.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a start may take. Generous: the machine may be busy with other tests.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a stop may take: the drain and some.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The binary under test: the one built beside the test, in the same profile.
///
/// # Errors
/// It has not been built.
pub fn podium_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this program?")?;
    // Tests lie in target/PROFILE/deps, the benchmarks in target/PROFILE.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join("podium")).find(|file| file.is_file());
    found.with_context(|| format!("no podium beside {}: cargo build first", own.display()))
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).unwrap_or(crate_dir).to_path_buf()
}

/// An address of loopback that nobody else has: clusters that run beside each other may choose the same node ports.
pub fn loopback() -> String {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let given = GIVEN.fetch_add(1, Ordering::Relaxed);
    let [.., a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{}.{c}", 32 + given % 128, a ^ b)
}

/// A `podium` process that ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// Runs `podium` to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(args: &[&str]) -> Result<Ended> {
    let output = Command::new(podium_binary()?).args(args).stdin(Stdio::null()).output().context("start podium")?;
    Ok(Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A running `podium up` or `podium node join`.
pub struct Podium {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: mpsc::Receiver<String>,
    /// All that it has printed so far.
    pub stdout: String,
    /// Where it serves Ingresses, for example `http://127.0.0.1:8080/`; empty where it does not.
    pub url: String,
    /// How long it took until everything was ready.
    pub start_time: Duration,
}

impl Podium {
    /// Starts `podium up` with these arguments and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended, or was not ready in time; with all that it printed.
    pub fn start(args: &[&str]) -> Result<Self> {
        let podium = Self::spawn(&["up"], args)?;
        ensure!(!podium.url.is_empty(), "no URL in what podium up printed:\n{}", podium.stdout);
        Ok(podium)
    }

    /// Starts `podium node join` with these arguments and waits until it has joined.
    ///
    /// # Errors
    /// It ended, or had not joined in time; with all that it printed.
    pub fn join(args: &[&str]) -> Result<Self> {
        Self::spawn(&["node", "join"], args)
    }

    /// Starts a command that runs until it is told to stop, and waits until it says how.
    fn spawn(command: &[&str], args: &[&str]) -> Result<Self> {
        let since = Instant::now();
        let mut child = Command::new(podium_binary()?)
            .args(command)
            .args(args)
            // Backtraces of errors that are no errors cost more than a guest's request.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start podium {}", command.join(" ")))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut stderr = child.stderr.take().context("stderr is piped")?;
        let (send_errors, errors) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            let _ = send_errors.send(String::from_utf8_lossy(&text).into_owned());
        });
        let lines = read_lines(stdout);
        let mut podium =
            Self { child, lines, errors, stdout: String::new(), url: String::new(), start_time: Duration::ZERO };
        podium.await_line("Ctrl-C", START_TIMEOUT)?;
        podium.start_time = since.elapsed();
        let url = podium.stdout.split_whitespace().find(|word| word.starts_with("http://"));
        podium.url = url.unwrap_or_default().to_owned();
        Ok(podium)
    }

    fn await_line(&mut self, needle: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.stdout.push_str(&line);
                    self.stdout.push('\n');
                    if line.contains(needle) {
                        return Ok(());
                    }
                }
                Err(_) => {
                    let _ = self.child.kill();
                    let stderr = self.errors.recv_timeout(STOP_TIMEOUT).unwrap_or_default();
                    bail!("podium did not print {needle:?}; it printed:\n{}\n{stderr}", self.stdout);
                }
            }
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> Result<Ended> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        kill_process(pid, Signal::INT).context("send SIGINT")?;
        self.wait()
    }

    /// Sends SIGKILL: no drain, no flush.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(mut self) -> Result<Ended> {
        self.child.kill().context("send SIGKILL")?;
        self.wait()
    }

    fn wait(&mut self) -> Result<Ended> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        // The end of its output is the end of the process: nothing is polled.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.stdout.push_str(&line);
            self.stdout.push('\n');
        }
        if Instant::now() >= deadline {
            let _ = self.child.kill();
            bail!("podium did not end within {STOP_TIMEOUT:?}; it printed:\n{}", self.stdout);
        }
        let status = self.child.wait().context("wait for podium")?;
        let stderr = self.errors.recv_timeout(STOP_TIMEOUT).unwrap_or_default();
        Ok(Ended { status, stdout: self.stdout.clone(), stderr })
    }
}

impl Drop for Podium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A cluster of its own in a folder of its own.
pub struct Cluster {
    /// The process.
    pub podium: Podium,
    /// Its data, the kubeconfig among it.
    pub data_dir: PathBuf,
    /// A copy of `fixtures`, where transcripts run.
    pub work_dir: PathBuf,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts a cluster that runs what the manifests in `files` say (paths below the repository).
    ///
    /// # Errors
    /// It did not start.
    pub fn start(files: &[&str]) -> Result<Self> {
        Self::start_with(files, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// It did not start.
    pub fn start_with(files: &[&str], more: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("podium-e2e-").tempdir().context("make a folder")?;
        let data_dir = folder.path().join("data");
        let work_dir = folder.path().join("work");
        copy(&repository().join("tests/e2e/fixtures"), &work_dir)?;
        copy(&repository().join("examples/hello"), &work_dir.join("hello"))?;
        let podium = Self::up(&data_dir, &work_dir, files, more)?;
        Ok(Self { podium, data_dir, work_dir, folder })
    }

    fn up(data_dir: &Path, work_dir: &Path, files: &[&str], more: &[&str]) -> Result<Podium> {
        let (data, work) = (data_dir.to_string_lossy(), work_dir.to_string_lossy());
        let hello = work_dir.join("hello");
        let hello = hello.to_string_lossy();
        let mut args = vec!["--data-dir", &data, "--api", "127.0.0.1:0", "--http", "127.0.0.1:0", "--image-dir", &work];
        args.extend(["--image-dir", &hello, "--node-name", "node-1"]);
        let files: Vec<String> = files.iter().map(|f| repository().join(f).to_string_lossy().into_owned()).collect();
        args.extend(files.iter().flat_map(|f| ["-f", f.as_str()]));
        args.extend(more);
        Podium::start(&args)
    }

    /// Starts it anew on the same data, after the process has been stopped or killed.
    ///
    /// # Errors
    /// It did not start.
    pub fn restart(self, end: fn(Podium) -> Result<Ended>) -> Result<(Ended, Self)> {
        let Self { podium, data_dir, work_dir, folder } = self;
        let ended = end(podium)?;
        let podium = Self::up(&data_dir, &work_dir, &[], &[])?;
        Ok((ended, Self { podium, data_dir, work_dir, folder }))
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// The folder that holds everything of this cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
