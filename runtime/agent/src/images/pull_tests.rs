//! Pulls from a registry that misbehaves in every way there is, over real sockets.

#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use podium_registry::Listener;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    ImageError,
    credentials::Keyring,
    digest,
    puller::{Progress, PullConfig, Puller},
    reference::Reference,
    registries::{Registries, Registry},
    remote::Patience,
    store::{Entry, Pins, Store},
};

const WASM: &[u8] = b"\0asm\x01\0\0\0 a module, as far as a registry can tell: it is never run here";
const TOKEN: &str = "s3cr3t-token";

/// What the registry has, and how it misbehaves: by the first word of a repository's name.
#[derive(Default)]
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    seen: Mutex<HashMap<String, u32>>,
}

impl Content {
    fn blob(&mut self, bytes: &[u8]) -> Value {
        self.blobs.insert(digest(bytes), bytes.to_owned());
        json!({ "mediaType": "application/wasm", "digest": digest(bytes), "size": bytes.len() })
    }

    fn image(&mut self, name: &str, config: &Value, layers: &[Value]) -> String {
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string().into_bytes();
        let found = digest(&manifest);
        self.manifests.insert(name.to_owned(), manifest.clone());
        self.manifests.insert(found.clone(), manifest);
        found
    }

    fn artifact(&mut self, name: &str, wasm: &[u8]) -> String {
        let mut config = self.blob(b"{}");
        config["mediaType"] = json!("application/vnd.wasm.config.v0+json");
        let layer = self.blob(wasm);
        self.image(name, &config, &[layer])
    }

    fn container(&mut self, name: &str, config: &Value, layers: &[Vec<u8>]) -> String {
        let mut descriptor = self.blob(config.to_string().as_bytes());
        descriptor["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let mut all = Vec::new();
        for layer in layers {
            let mut layer_descriptor = self.blob(layer);
            layer_descriptor["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
            all.push(layer_descriptor);
        }
        self.image(name, &descriptor, &all)
    }
}

async fn answer(State(content): State<Arc<Content>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let count = {
        let mut seen = content.seen.lock();
        let count = seen.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    let plain = |status: StatusCode, body: Vec<u8>| Response::builder().status(status).body(Body::from(body)).unwrap();
    if path == "/token" {
        let basic = request.headers().get(header::AUTHORIZATION).is_some_and(|a| a == "Basic bWU6cGFzcw==");
        return match basic {
            true => plain(StatusCode::OK, json!({ "token": TOKEN }).to_string().into_bytes()),
            false => plain(StatusCode::UNAUTHORIZED, b"no".to_vec()),
        };
    }
    let manner = path.trim_start_matches("/v2/").split('/').next().unwrap_or_default().to_owned();
    let manifest = path.contains("/manifests/");
    match (manner.as_str(), manifest) {
        ("secret", _)
            if request.headers().get(header::AUTHORIZATION).is_none_or(|a| a != &format!("Bearer {TOKEN}")) =>
        {
            let host = request.headers()[header::HOST].to_str().unwrap();
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"x\"");
            Response::builder().status(401).header(header::WWW_AUTHENTICATE, challenge).body(Body::empty()).unwrap()
        }
        ("busy", _) if count <= 2 => {
            Response::builder().status(429).header(header::RETRY_AFTER, "0").body(Body::empty()).unwrap()
        }
        ("later", _) => {
            Response::builder().status(429).header(header::RETRY_AFTER, "9999").body(Body::empty()).unwrap()
        }
        ("down", _) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, br#"{"errors":[{"message":"out\u0007 of order"}]}"#.to_vec())
        }
        ("loop", _) => Response::builder().status(307).header(header::LOCATION, path).body(Body::empty()).unwrap(),
        ("huge", true) => plain(StatusCode::OK, vec![b' '; 5 << 20]),
        ("nonsense", true) => plain(StatusCode::OK, b"<html>".to_vec()),
        ("stall", false) => {
            let first = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"\0asm"))]);
            let never = futures::StreamExt::chain(first, futures::stream::pending());
            Response::new(Body::from_stream(never))
        }
        (_, true) => {
            let name = path.trim_start_matches("/v2/").replace("/manifests/", ":");
            let version = path.rsplit('/').next().unwrap_or_default();
            match content.manifests.get(&name).or_else(|| content.manifests.get(version)) {
                Some(bytes) => plain(StatusCode::OK, bytes.clone()),
                None => plain(StatusCode::NOT_FOUND, Vec::new()),
            }
        }
        (manner, false) => blob(&content, manner, &path, request.headers(), count),
    }
}

fn blob(content: &Content, manner: &str, path: &str, headers: &HeaderMap, count: u32) -> Response {
    let Some(bytes) = content.blobs.get(path.rsplit('/').next().unwrap_or_default()) else {
        return Response::builder().status(404).body(Body::empty()).unwrap();
    };
    let range = headers
        .get(header::RANGE)
        .and_then(|r| r.to_str().ok()?.strip_prefix("bytes=")?.trim_end_matches('-').parse::<usize>().ok());
    let from = range.unwrap_or(0);
    let mut body = bytes[from.min(bytes.len())..].to_vec();
    match manner {
        // A few bytes with each answer, until it is there.
        "cut" if count < 6 => body.truncate(body.len() / 2),
        "short" => body.truncate(7),
        "wrong" => body.iter_mut().for_each(|byte| *byte ^= 1),
        "long" => body.extend(vec![0; 100]),
        _ => {}
    }
    let status = if range.is_some() && manner != "short" { 206 } else { 200 };
    let body = if manner == "short" { bytes[..7].to_vec() } else { body };
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

/// A node and the registry.
struct Bench {
    listener: Listener,
    content: Arc<Content>,
    puller: Puller,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new(fill: impl FnOnce(&mut Content)) -> Self {
        let mut content = Content::default();
        fill(&mut content);
        let content = Arc::new(content);
        let router = Router::new().fallback(answer).with_state(content.clone());
        let listener = Listener::start(([127, 0, 0, 1], 0).into(), router).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let puller = Puller::new(config(&listener), Arc::new(Store::open(folder.path()).unwrap()));
        Self { listener, content, puller, folder }
    }

    async fn pull(&self, image: &str) -> Result<Arc<Entry>, String> {
        self.pull_with(image, &Keyring::default()).await
    }

    async fn pull_with(&self, image: &str, keyring: &Keyring) -> Result<Arc<Entry>, String> {
        let reference = Reference::parse(image, &self.puller.config.registries).unwrap();
        let (progress, _) = watch::channel(Progress::default());
        let outcome = self.puller.pull(image, &reference, keyring, &progress).await;
        outcome.map_err(|error| match error {
            ImageError::Pull(why) | ImageError::InvalidName(why) => why,
        })
    }

    fn files(&self, dir: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(dir)).unwrap().count()
    }

    fn seen(&self, path: &str) -> u32 {
        self.content.seen.lock().iter().filter(|(seen, _)| seen.contains(path)).map(|(_, count)| count).sum()
    }
}

fn config(listener: &Listener) -> PullConfig {
    let built_in = Some(listener.address().to_string());
    let down = Registry {
        host: "mirrored.example".to_owned(),
        mirrors: vec!["http://127.0.0.1:1".to_owned(), format!("http://{}/good", listener.address())],
        ..Registry::default()
    };
    let registries = Registries { built_in, registries: vec![down], ..Registries::default() };
    let patience = Patience { connect: Duration::from_secs(5), stall: Duration::from_secs(10) };
    PullConfig { patience, retry_after: Duration::from_millis(1), ..PullConfig::new(registries, 1 << 20, 2) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_misbehaves_gives_an_error_and_leaves_nothing() {
    let bench = Bench::new(|content| {
        for manner in ["wrong", "long", "short"] {
            content.artifact(&format!("{manner}/app:v1"), WASM);
        }
        let config = content.blob(b"{}");
        let giant = json!({ "mediaType": "application/wasm", "digest": digest(b"x"), "size": 10_u64 << 30 });
        content.image("giant/app:v1", &config, &[giant]);
        let gone = json!({ "mediaType": "application/wasm", "digest": digest(b"gone"), "size": 4 });
        content.image("gone/app:v1", &config, &[gone]);
        content.manifests.insert("index/app:v1".to_owned(), br#"{"schemaVersion":2,"manifests":[]}"#.to_vec());
    })
    .await;
    for (image, expected) in [
        ("absent/app:v1", "the cluster's registry: not found"),
        ("gone/app:v1", "not found"),
        ("wrong/app:v1", "what the registry sent is not what it should be"),
        ("long/app:v1", "a layer is longer than the 70 bytes that its manifest says"),
        ("short/app:v1", "the transfer broke off early"),
        ("giant/app:v1", "its layers have 10737418240 bytes, more than 1048576, the limit for images"),
        ("huge/app:v1", "an answer is longer than 4194304 bytes"),
        ("nonsense/app:v1", "its manifest cannot be read"),
        ("index/app:v1", "not for WebAssembly"),
        ("down/app:v1", "it answered 500 Internal Server Error: out of order"),
        ("later/app:v1", "it answered 429"),
        ("loop/app:v1", "more than 5 redirects"),
        ("secret/app:v1", "may require authorization"),
    ] {
        let error = bench.pull(image).await.unwrap_err();
        assert!(error.contains(expected), "{image}: {error}");
        bench.puller.sweep();
        assert_eq!((bench.files("blobs"), bench.files("partial"), bench.files("names")), (0, 0, 0), "{image}");
    }
    let other = format!("wrong/app@{}", digest(b"other"));
    assert!(bench.pull(&other).await.unwrap_err().contains("not found"));
    assert!(bench.seen("/v2/later/") == 1 && bench.seen("/v2/down/") == 4);
}

/// With little patience, of which the others need more on a slow machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stalls_is_given_up() {
    let mut bench = Bench::new(|content| _ = content.artifact("stall/app:v1", WASM)).await;
    let mut config = config(&bench.listener);
    config.patience.stall = Duration::from_millis(300);
    bench.puller = Puller::new(config, bench.puller.store.clone());
    let error = bench.pull("stall/app:v1").await.unwrap_err();
    assert!(error.contains("operation timed out"), "{error}");
    bench.puller.sweep();
    assert_eq!((bench.files("blobs"), bench.files("partial"), bench.files("names")), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_goes_on_and_what_is_busy_is_asked_again() {
    let bench = Bench::new(|content| {
        content.artifact("cut/app:v1", WASM);
        content.artifact("busy/app:v1", &[WASM, b"2"].concat());
        content.artifact("good/deep/app:v1", &[WASM, b"3"].concat());
    })
    .await;
    let cut = bench.pull("cut/app:v1").await.unwrap();
    assert_eq!(bench.puller.store.module(cut.record.main.as_deref().unwrap()).unwrap().unwrap(), WASM);
    assert_eq!(cut.record.config.entrypoint, ["app.wasm"]);
    bench.pull("busy/app:v1").await.unwrap();
    // The first mirror is down, the second one has it below a folder.
    let mirrored = bench.pull("mirrored.example/deep/app:v1").await.unwrap();
    assert_eq!(mirrored.name, "mirrored.example/deep/app:v1");
    // Again: the manifest is asked for, nothing is fetched.
    let before = bench.seen("/blobs/");
    assert_eq!(bench.pull("cut/app:v1").await.unwrap().record, cut.record);
    assert_eq!(bench.seen("/blobs/"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_outlives_the_registry_and_damage() {
    let bench = Bench::new(|content| {
        content.artifact("good/app:v1", WASM);
        content.artifact("good/other:v1", &[WASM, b"2"].concat());
    })
    .await;
    let entry = bench.pull("good/app:v1").await.unwrap();
    let other = bench.pull("good/other:v1").await.unwrap();
    let Bench { listener, puller, folder, .. } = bench;
    drop(puller);
    std::fs::write(folder.path().join("partial/half"), b"half").unwrap();
    let main = entry.record.main.clone().unwrap();
    std::fs::write(folder.path().join("blobs").join(&main[7..]), b"\0asm damaged").unwrap();
    std::fs::write(folder.path().join("names/nonsense.json"), b"{").unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    assert_eq!(store.find(&other.name).unwrap(), other);
    assert!(store.module(other.record.main.as_deref().unwrap()).unwrap().is_some());
    assert_eq!(store.module(&main).unwrap(), None);
    let puller = Puller::new(config(&listener), store.clone());
    let reference = Reference::parse("good/app:v1", &puller.config.registries).unwrap();
    let (progress, _) = watch::channel(Progress::default());
    puller.pull("good/app:v1", &reference, &Keyring::default(), &progress).await.unwrap();
    assert_eq!(store.module(&main).unwrap().unwrap(), WASM);
    assert!(store.remove(&entry.name).unwrap() > 0 && !store.has(&main));
    assert!(store.all().iter().all(|kept| kept.used <= SystemTime::now()));
}

fn keyring(host: &str, user: &str, password: &str) -> Keyring {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let config = json!({ "auths": { host: { "username": user, "password": password } } }).to_string();
    let secret = json!({ "metadata": {}, "data": { ".dockerconfigjson": STANDARD.encode(config) } });
    let mut keyring = Keyring::default();
    keyring.add(&serde_json::from_value(secret).unwrap()).unwrap();
    keyring
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_open_what_is_closed_and_are_told_to_nobody() {
    let bench = Bench::new(|content| {
        content.artifact("secret/app:v1", WASM);
    })
    .await;
    let host = bench.listener.address().to_string();
    let image = format!("{host}/secret/app:v1");
    let wrong = bench.pull_with(&image, &keyring(&host, "me", "wr0ng")).await.unwrap_err();
    assert!(wrong.contains("may require authorization") && !wrong.contains("wr0ng"), "{wrong}");
    let right = keyring(&host, "me", "pass");
    let entry = bench.pull_with(&image, &right).await.unwrap();
    let ids: Vec<_> = right.find(&host, "secret/app").iter().map(super::credentials::Credential::id).collect();
    assert_eq!(entry.opened_by, ids);
    let on_disk = std::fs::read_dir(bench.folder.path().join("names")).unwrap().flatten();
    for file in on_disk {
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains("pass\"") && !text.contains(TOKEN), "{text}");
    }
}

/// A layer: paths with contents; `-> x` is a link.
fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        // As hostile archives do: the name goes in unchecked.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(target) = content.strip_prefix(b"-> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name(std::str::from_utf8(target).unwrap()).unwrap();
            header.set_size(0);
            header.set_cksum();
            archive.append(&header, std::io::empty()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, *content).unwrap();
        }
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn container_images_are_unpacked_in_memory_of_paths_alone() {
    let (ls, cat): (&[u8], &[u8]) = (b"\0asm ls", b"\0asm cat");
    let wasi = |run: Value| json!({ "os": "wasip1", "architecture": "wasm", "config": run });
    let bomb = layer(&[("zeros", &vec![0; 9 << 20])]);
    let bench = Bench::new(|content| {
        let run =
            json!({ "Entrypoint": ["/app.wasm"], "Cmd": ["serve"], "Env": ["A=1"], "ExposedPorts": { "80/tcp": {} } });
        let lower = layer(&[
            ("app.wasm", WASM),
            ("old.wasm", ls),
            ("etc/passwd", b"x"),
            ("gone/a.wasm", ls),
            ("gone/b.wasm", cat),
        ]);
        let upper = layer(&[(".wh.old.wasm", b""), ("gone/.wh..wh..opq", b""), ("gone/c.wasm", cat)]);
        content.container("good/app:v1", &wasi(run), &[lower, upper]);
        let tools = layer(&[
            ("usr/bin/ls.wasm", ls),
            ("usr/bin/cat.wasm", cat),
            ("bin", b"-> usr/bin"),
            ("usr/bin/dir", b"-> ls.wasm"),
            ("usr/bin/self", b"-> self"),
        ]);
        content.container("good/tools:v1", &wasi(json!({})), std::slice::from_ref(&tools));
        content.container(
            "good/relative:v1",
            &wasi(json!({ "Cmd": ["cat.wasm"], "WorkingDir": "/usr/bin" })),
            &[tools],
        );
        for (name, files) in
            [("escape", layer(&[("../../evil.wasm", ls)])), ("none", layer(&[("a.txt", b"hello")])), ("bomb", bomb)]
        {
            content.container(&format!("good/{name}:v1"), &wasi(json!({})), &[files]);
        }
        content.container(
            "good/linux:v1",
            &json!({ "os": "linux", "architecture": "amd64", "config": { "Cmd": ["/bin/sh"] } }),
            &[],
        );
        let missing = wasi(json!({ "Entrypoint": ["/no.wasm"] }));
        content.container("good/missing:v1", &missing, &[layer(&[("a.wasm", ls), ("b.wasm", cat)])]);
    })
    .await;
    let app = bench.pull("good/app:v1").await.unwrap().record.clone();
    assert_eq!(app.modules.keys().map(String::as_str).collect::<Vec<_>>(), ["/app.wasm", "/gone/c.wasm"]);
    assert_eq!((app.main.as_deref(), app.config.cmd.len()), (Some(digest(WASM).as_str()), 1));
    assert_eq!(app.config.exposed_ports, [80]);

    let tools = bench.pull("good/tools:v1").await.unwrap().record.clone();
    assert_eq!(tools.main, None);
    for (command, expected) in
        [("ls", Some(ls)), ("/usr/bin/cat", Some(cat)), ("dir", Some(ls)), ("rm", None), ("self", None)]
    {
        assert_eq!(tools.command(command), expected.map(digest).as_deref(), "{command}");
    }
    assert!(tools.chosen(None).unwrap_err().contains("no command specified"));
    assert!(tools.chosen(Some("rm")).unwrap_err().contains("no such module"));
    let relative = bench.pull("good/relative:v1").await.unwrap().record.clone();
    assert_eq!(relative.main.as_deref(), Some(digest(cat).as_str()));

    for (name, expected) in [
        ("escape", "which leads out of the image"),
        ("none", "no layer holds a WebAssembly module"),
        ("bomb", "more than 4194304 bytes unpacked"),
        ("missing", "begins with \"/no.wasm\", which is no WebAssembly module of it"),
    ] {
        let error = bench.pull(&format!("good/{name}:v1")).await.unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(bench.files("partial"), 0, "{name}");
    }
    assert!(bench.pull("good/linux:v1").await.unwrap_err().contains("it has no layers"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_runs_stays_when_its_name_moves_on() {
    let bench = Bench::new(|content| {
        let tools = layer(&[("bin/ls.wasm", b"\0asm ls"), ("bin/cat.wasm", b"\0asm cat")]);
        content.container("good/tools:v1", &json!({ "os": "wasip1", "architecture": "wasm" }), &[tools]);
        content.artifact("good/tools:v2", WASM);
    })
    .await;
    let before = bench.pull("good/tools:v1").await.unwrap();
    let after = bench.pull("good/tools:v2").await.unwrap();
    let store = &bench.puller.store;
    let mut pins = Pins::new(store.clone());
    before.record.modules.values().for_each(|digest| pins.add(digest));
    store.put(Entry { record: after.record.clone(), ..Entry::clone(&before) }).unwrap();
    bench.puller.sweep();
    assert!(store.is_whole(&before.record), "a container runs it");
    drop(pins);
    assert!(bench.puller.sweep() > 0);
    assert!(before.record.modules.values().all(|digest| !store.has(digest)));
    assert!(store.is_whole(&after.record));
}
