//! Runs the WASI test suite (<https://github.com/WebAssembly/wasi-testsuite>, branch `prod/testsuite-base`, which has the tests built)
//! against the sandbox and tells how many pass: `wasi-suite FOLDER [NAME]`, FOLDER being the suite's `tests`.
//!
//! Ends with code 1 when a test fails that is not named in `KNOWN`. Tests that need a network of their own
//! (servers for `http-client-*`, peers for `sockets-*`) are counted as skipped: those interfaces have tests of their own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use podium_sandbox::{
    CommandContainer, ContainerSpec, Ending, Image, LogSink, Mount, Sandbox, SandboxConfig, Stdin, Stream,
};
use serde::Deserialize;
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    sync::Notify,
};

/// Time that one test may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Tests that fail, each with the reason.
const KNOWN: &[(&str, &str)] =
    &[("http-request", "the library that wasmtime reads paths with takes none without a slash at its beginning")];

/// A test's JSON, of the old kind or the new.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Test {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    root: Option<String>,
    exit_code: i32,
    stdout: Option<String>,
    operations: Option<Vec<Operation>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Operation {
    Run {
        #[serde(default)]
        args: Vec<String>,
        #[serde(default)]
        env: BTreeMap<String, String>,
        root: Option<String>,
    },
    Wait {
        #[serde(default)]
        exit_code: i32,
    },
    Read {
        id: Option<String>,
        payload: String,
    },
    Write {
        payload: String,
    },
    Request {
        method: String,
        path: String,
        #[serde(default)]
        headers: BTreeMap<String, String>,
        body: Option<String>,
        response: Response,
    },
    Kill,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Response {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Test {
    fn read(wasm: &Path) -> anyhow::Result<Self> {
        let path = wasm.with_extension("json");
        let mut test: Self = match path.exists() {
            true => serde_json::from_slice(&fs::read(&path)?).with_context(|| path.display().to_string())?,
            false => Self::default(),
        };
        let run = Operation::Run { args: test.args.clone(), env: test.env.clone(), root: test.root.clone() };
        let payload = test.stdout.clone().map(|payload| Operation::Read { id: None, payload });
        let wait = Operation::Wait { exit_code: test.exit_code };
        let old = || std::iter::once(run).chain(payload).chain([wait]).collect();
        test.operations = Some(test.operations.take().unwrap_or_else(old));
        Ok(test)
    }
}

/// What a guest has written and nobody has read.
#[derive(Default)]
struct Output {
    text: Mutex<[String; 2]>,
    changed: Notify,
}

impl LogSink for Output {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let index = usize::from(stream == Stream::Stderr);
        self.text.lock()[index].push_str(&String::from_utf8_lossy(bytes));
        self.changed.notify_one();
    }
}

impl Output {
    /// Takes what is expected, as soon as it is there.
    async fn take(&self, index: usize, wanted: &str) {
        loop {
            let changed = self.changed.notified();
            if self.is_taken(index, wanted) {
                return;
            }
            changed.await;
        }
    }

    fn is_taken(&self, index: usize, wanted: &str) -> bool {
        let text = &mut self.text.lock()[index];
        let there = text.starts_with(wanted);
        if there {
            text.drain(..wanted.len());
        }
        there
    }
}

/// A test under way.
struct Running<'a> {
    sandbox: &'a Sandbox,
    image: Arc<Image>,
    dir: &'a Path,
    name: String,
    scratch: tempfile::TempDir,
    output: Arc<Output>,
    spec: Option<ContainerSpec>,
    command: Option<CommandContainer>,
    stdin: Option<DuplexStream>,
}

impl Running<'_> {
    async fn step(&mut self, operation: Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Run { args, env, root } => self.run(args, env, root),
            Operation::Wait { exit_code } => self.wait(exit_code).await,
            Operation::Read { id, payload } => {
                self.output.take(usize::from(id.as_deref() == Some("stderr")), &payload).await;
                Ok(())
            }
            Operation::Write { payload } => {
                let stdin = self.stdin.as_mut().context("nothing runs")?;
                Ok(stdin.write_all(payload.as_bytes()).await?)
            }
            Operation::Request { method, path, headers, body, response } => {
                let mut request = http::Request::builder().method(&*method).uri(format!("http://localhost{path}"));
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let body = Full::new(body.unwrap_or_default().into()).map_err(|never| match never {}).boxed_unsync();
                self.request(request.body(body)?, response).await
            }
            Operation::Kill => Ok(()),
            Operation::Other => bail!("an operation that is not known"),
        }
    }

    fn run(&mut self, args: Vec<String>, env: BTreeMap<String, String>, root: Option<String>) -> anyhow::Result<()> {
        let mut spec = ContainerSpec::new("suite");
        spec.args = std::iter::once(self.name.clone()).chain(args).collect();
        spec.env = env.into_iter().collect();
        spec.logs = self.output.clone();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        spec.stdin = Some(Stdin::new(theirs));
        self.stdin = Some(ours);
        if let Some(root) = root {
            let copy = self.scratch.path().join("root");
            copy_folder(&self.dir.join(root), &copy)?;
            let source = Arc::new(copy);
            spec.mounts.push(Mount { guest_path: "/".to_owned(), source, sub_path: None, read_only: false });
        }
        if !self.image.kind().is_http() {
            self.command = Some(self.sandbox.command(&self.image, spec.clone())?);
        }
        self.spec = Some(spec);
        Ok(())
    }

    async fn wait(&mut self, exit_code: i32) -> anyhow::Result<()> {
        drop(self.stdin.take());
        let Some(command) = &self.command else { return Ok(()) };
        let ending = command.wait().await;
        ensure!(ending == Ending::Finished { code: exit_code }, "{ending:?} {:?}", self.output.text.lock()[1]);
        Ok(())
    }

    async fn request(&self, request: http::Request<podium_sandbox::Body>, wanted: Response) -> anyhow::Result<()> {
        let container = self.sandbox.http(&self.image, self.spec.clone().context("nothing runs")?)?;
        let response = container.call(request).await?;
        ensure!(response.status().as_u16() == wanted.status, "status {}", response.status());
        for (name, value) in &wanted.headers {
            let found = response.headers().get(name).map(http::HeaderValue::as_bytes);
            ensure!(found == Some(value.as_bytes()), "header {name}: {found:?}");
        }
        let body = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        ensure!(body == wanted.body, "body {body:?}");
        Ok(())
    }
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let at = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy_folder(&entry.path(), &at)?,
            kind if kind.is_symlink() => std::os::unix::fs::symlink(fs::read_link(entry.path())?, at)?,
            _ => drop(fs::copy(entry.path(), at)?),
        }
    }
    Ok(())
}

async fn test(sandbox: &Sandbox, wasm: &Path) -> anyhow::Result<()> {
    let test = Test::read(wasm)?;
    let image = sandbox.load(fs::read(wasm)?.into()).await?;
    let dir = wasm.parent().context("a file lies in a folder")?;
    let mut running = Running {
        sandbox,
        image,
        dir,
        name: wasm.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        scratch: tempfile::tempdir()?,
        output: Arc::default(),
        spec: None,
        command: None,
        stdin: None,
    };
    for operation in test.operations.unwrap_or_default() {
        let shown = format!("{operation:?}");
        let done = tokio::time::timeout(TIME_MAX, running.step(operation)).await;
        done.with_context(|| format!("timed out: {shown}, {:?}", running.output.text.lock()))?
            .with_context(|| format!("after {shown}"))?;
    }
    Ok(())
}

/// The `.wasm` files of the suite, by folder.
fn find(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "wasm") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().context("usage: wasi-suite FOLDER [NAME]")?;
    let only = args.next();
    let mut files = Vec::new();
    find(Path::new(&dir), &mut files)?;
    let sandbox = Sandbox::new(SandboxConfig { instances_max: 64, ..SandboxConfig::default() })?;
    let mut counts = BTreeMap::<String, Count>::new();
    let mut unexpected = 0;
    for wasm in files {
        let name = wasm.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let suite = wasm.parent().and_then(|dir| dir.strip_prefix(dir.ancestors().nth(3)?).ok());
        let count = counts.entry(suite.unwrap_or(Path::new("?")).display().to_string()).or_default();
        if name.starts_with("sockets-") || name.starts_with("http-client") {
            count.skipped += 1;
            continue;
        }
        match test(&sandbox, &wasm).await {
            Ok(()) => count.passed += 1,
            Err(error) => {
                count.failed += 1;
                let known = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason);
                unexpected += u32::from(known.is_none());
                println!(
                    "FAILED {}: {error:#}{}",
                    wasm.display(),
                    known.map(|it| format!(" ({it})")).unwrap_or_default()
                );
            }
        }
    }
    for (suite, Count { passed, failed, skipped }) in counts {
        println!("{suite}: {passed} passed, {failed} failed, {skipped} skipped");
    }
    ensure!(unexpected == 0, "{unexpected} failed that are not known to");
    Ok(())
}
