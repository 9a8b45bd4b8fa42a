//! What the tests share: guests, specs, a log that remembers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use podium_sandbox::{
    Body, CallFailure, ContainerSpec, CpuLimit, HttpContainer, Image, LogSink, RequestTimeout, Sandbox, SandboxConfig,
    Stream,
};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests that measure time run alone; all others beside each other.
static TURNS: RwLock<()> = RwLock::const_new(());

pub async fn shared() -> RwLockReadGuard<'static, ()> {
    TURNS.read().await
}

pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    TURNS.write().await
}

pub const HTTP_P2: &[u8] = include_bytes!("../guests/http-p2.wasm");
pub const HTTP_P3: &[u8] = include_bytes!("../guests/http-p3.wasm");
pub const COMMAND_P1: &[u8] = include_bytes!("../guests/command-p1.wasm");
pub const COMMAND_P2: &[u8] = include_bytes!("../guests/command-p2.wasm");
pub const FILES_P1: &[u8] = include_bytes!("../guests/files-p1.wasm");
pub const FILES_P2: &[u8] = include_bytes!("../guests/files-p2.wasm");
pub const INTERFACES_P1: &[u8] = include_bytes!("../guests/interfaces-p1.wasm");
pub const INTERFACES_P2: &[u8] = include_bytes!("../guests/interfaces-p2.wasm");
pub const TLS_P2: &[u8] = include_bytes!("../guests/tls-p2.wasm");
pub const TLS_P3: &[u8] = include_bytes!("../guests/tls-p3.wasm");
pub const HELLO_C: &[u8] = include_bytes!("../guests/hello-c.wasm");
pub const COMMAND_P3: &[u8] = include_bytes!("../guests/command-p3.wasm");

pub fn sandbox() -> Sandbox {
    Sandbox::new(SandboxConfig { instances_max: 256, ..SandboxConfig::default() }).unwrap()
}

pub async fn load(sandbox: &Sandbox, wasm: &'static [u8]) -> Arc<Image> {
    sandbox.load(Bytes::from_static(wasm)).await.unwrap()
}

#[derive(Default)]
pub struct Log {
    pub stdout: Mutex<String>,
    pub stderr: Mutex<String>,
}

impl LogSink for Log {
    fn write(&self, stream: Stream, bytes: &[u8]) {
        let text = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        text.lock().push_str(&String::from_utf8_lossy(bytes));
    }
}

pub fn spec(args: &[&str]) -> (ContainerSpec, Arc<Log>) {
    let logs = Arc::new(Log::default());
    let spec = ContainerSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![("GREETING".into(), "hello there".into())],
        logs: logs.clone(),
        ..ContainerSpec::new("test/pod/guest")
    };
    (spec, logs)
}

pub fn quota(millicores: u32) -> CpuLimit {
    CpuLimit { quota_millicores: Some(millicores), weight_millicores: millicores }
}

pub async fn http(wasm: &'static [u8], change: impl FnOnce(&mut ContainerSpec)) -> (HttpContainer, Arc<Log>) {
    let sandbox = sandbox();
    let image = load(&sandbox, wasm).await;
    let (mut spec, logs) = spec(&["web"]);
    change(&mut spec);
    (sandbox.http(&image, spec).unwrap(), logs)
}

pub fn get(path: &str) -> http::Request<Body> {
    request(path, Bytes::new())
}

/// A request with a deadline of its own, beside others that have to be answered however slow the machine is.
pub fn get_within(path: &str, timeout: Duration) -> http::Request<Body> {
    let mut request = get(path);
    request.extensions_mut().insert(RequestTimeout(timeout));
    request
}

pub fn request(path: &str, body: Bytes) -> http::Request<Body> {
    let body = Full::new(body).map_err(|e| match e {}).boxed_unsync();
    http::Request::builder().uri(format!("http://web.test{path}")).body(body).unwrap()
}

pub async fn text(container: &HttpContainer, path: &str) -> Result<String, CallFailure> {
    let response = container.call(get(path)).await?;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}
