//! Interfaces that a container is not granted: they are there and refuse, and somebody is told.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use parking_lot::Mutex;
use podium_sandbox::{ContainerSpec, Ending, Grants, Mount, Observer, Sandbox, StartError};

use crate::{
    network::{Net, Pod},
    support::{self, COMMAND_P3, FILES_P1, FILES_P2, HTTP_P2, get, load, sandbox, spec},
};

const SOCKETS_P1: &[u8] = include_bytes!("../guests/sockets-p1.wasm");
const SOCKETS_P2: &[u8] = include_bytes!("../guests/sockets-p2.wasm");
const SOCKETS_P3: &[u8] = include_bytes!("../guests/sockets-p3.wasm");

/// Remembers which groups were refused.
#[derive(Default)]
struct Told(Mutex<BTreeSet<&'static str>>);

impl Observer for Told {
    fn trapped(&self, _: &str, _: &[String]) {}

    fn refused(&self, group: &'static str) {
        self.0.lock().insert(group);
    }
}

impl Told {
    fn groups(&self) -> Vec<&'static str> {
        self.0.lock().iter().copied().collect()
    }
}

fn without(group: &str) -> Arc<Grants> {
    let mut grants = Grants::default();
    assert!(grants.granted.remove(group));
    Arc::new(grants)
}

/// What a command prints without a group, and which groups were asked for.
async fn run(
    sandbox: &Sandbox,
    wasm: &'static [u8],
    args: &[&str],
    group: &str,
    change: impl FnOnce(&mut ContainerSpec),
) -> (String, Vec<&'static str>) {
    let image = load(sandbox, wasm).await;
    let (mut spec, logs) = spec(args);
    let told = Arc::new(Told::default());
    spec.grants = without(group);
    spec.observer = Some(told.clone());
    change(&mut spec);
    let ending = sandbox.command(&image, spec).unwrap().wait().await;
    assert_eq!(ending, Ending::Finished { code: 0 }, "{}", logs.stderr.lock());
    let said = logs.stdout.lock().clone();
    (said, told.groups())
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_refuse() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let net = Arc::<Net>::default();
    let connected = |spec: &mut ContainerSpec| spec.sockets = Some(Arc::new(Pod(net.clone())));
    for (wasm, args) in [
        (SOCKETS_P2, &["guest", "hoard", "tcp"][..]),
        (SOCKETS_P2, &["guest", "hoard", "udp"]),
        (SOCKETS_P2, &["guest", "lookup", "localhost"]),
        (SOCKETS_P3, &["guest", "hoard"]),
        (SOCKETS_P3, &["guest", "lookup", "localhost"]),
    ] {
        let (said, told) = run(&sandbox, wasm, args, "wasi:sockets", connected).await;
        assert!(said.to_lowercase().replace(['-', '_'], "").contains("accessdenied"), "{args:?}: {said}");
        assert_eq!(told, ["wasi:sockets"], "{args:?}");
        let (said, told) = run(&sandbox, wasm, args, "wasi:tls", connected).await;
        assert!(!said.to_lowercase().contains("denied") && told.is_empty(), "{args:?}: {said}");
    }
    // Preview 1 has no words for it: a module is given none that listen.
    let listening = |spec: &mut ContainerSpec| {
        connected(spec);
        spec.listen = vec![(Ipv4Addr::UNSPECIFIED, 80).into()];
    };
    let (said, told) = run(&sandbox, SOCKETS_P1, &["guest", "look"], "wasi:sockets", listening).await;
    assert!(said.contains("\n3 Err(\"BADF\")\n") && told == ["wasi:sockets"], "{said} {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_not_there() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "text").unwrap();
    let mounted = |spec: &mut ContainerSpec| {
        let source = Arc::new(dir.path().to_owned());
        spec.mounts = vec![Mount { guest_path: "/data".into(), source, sub_path: None, read_only: false }];
    };
    for wasm in [FILES_P1, FILES_P2] {
        let (said, _) = run(&sandbox, wasm, &["files", "read", "/data/text"], "wasi:http", mounted).await;
        assert_eq!(said, "text\n");
        let (said, told) = run(&sandbox, wasm, &["files", "read", "/data/text"], "wasi:filesystem", mounted).await;
        assert_ne!(said, "text\n");
        assert!(told.is_empty(), "libc libraries look whether or not the program does");
    }
    let (said, _) = run(&sandbox, COMMAND_P3, &["command", "read", "/data/text"], "wasi:filesystem", mounted).await;
    assert!(!said.contains("text"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_is_told_of() {
    let _turn = support::shared().await;
    let told = Arc::new(Told::default());
    let (container, _) = support::http(HTTP_P2, |spec| {
        spec.grants = without("wasi:http");
        spec.observer = Some(told.clone());
    })
    .await;
    assert_eq!(container.call(get("/")).await.unwrap().status(), 200, "it is called all the same");
    assert!(told.groups().is_empty());
    let said = support::text(&container, "/fetch?url=elsewhere.test/").await.unwrap();
    assert!(said.contains("HttpRequestDenied"), "{said}");
    assert_eq!(told.groups(), ["wasi:http"]);
}

/// Preview 1 is another name for some of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_group_takes_preview_1_with_it() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let image = load(&sandbox, SOCKETS_P1).await;
    let with = |pattern: &str| {
        let (mut spec, _) = spec(&["guest", "look"]);
        spec.grants = Arc::new(Grants { refused: vec![pattern.into()], ..Grants::default() });
        spec
    };
    let error = sandbox.command(&image, with("wasi:sockets")).unwrap_err();
    let StartError::Refused { interface, why, .. } = error else { panic!("{error}") };
    assert!(interface.starts_with("wasi_snapshot_preview1::sock_"), "{interface}");
    assert_eq!(why, "its container refuses wasi:sockets");
    assert!(sandbox.command(&image, with("wasi:sockets@0.2")).is_ok());
}
