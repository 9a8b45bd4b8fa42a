//! Sockets of every interface, over a network in memory.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use podium_sandbox::{CommandContainer, ContainerSpec, Ending, Mount, Sandbox, Usage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    network::{Net, PIPE_BYTES, Pod},
    support::{self, Log, load, spec},
};

const P1: &[u8] = include_bytes!("../guests/sockets-p1.wasm");
const P2: &[u8] = include_bytes!("../guests/sockets-p2.wasm");
const P3: &[u8] = include_bytes!("../guests/sockets-p3.wasm");
/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Some containers of one pod.
struct World {
    sandbox: Sandbox,
    net: Arc<Net>,
}

struct Running {
    command: CommandContainer,
    log: Arc<Log>,
}

impl World {
    fn new() -> Self {
        Self { sandbox: support::sandbox(), net: Arc::default() }
    }

    async fn start(&self, wasm: &'static [u8], args: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> Running {
        let image = load(&self.sandbox, wasm).await;
        let args: Vec<_> = std::iter::once("guest").chain(args.iter().copied()).collect();
        let (mut spec, log) = spec(&args);
        spec.sockets = Some(Arc::new(Pod(self.net.clone())));
        change(&mut spec);
        Running { command: self.sandbox.command(&image, spec).unwrap(), log }
    }

    /// Starts one that says when it listens.
    async fn serve(&self, wasm: &'static [u8], args: &[&str]) -> Running {
        let running = self.start(wasm, args, |_| {}).await;
        running.said("listening").await;
        running
    }

    /// Runs one to its end: what it said.
    async fn run(&self, wasm: &'static [u8], args: &[&str]) -> String {
        self.start(wasm, args, |_| {}).await.output().await.0
    }

    /// Nothing of what guests held is left.
    async fn assert_empty(&self) {
        let empty = async {
            while self.net.ports() > 0 || self.sandbox.guest_memory_bytes().0 > 0 {
                tokio::task::yield_now().await;
            }
        };
        let left = tokio::time::timeout(PATIENCE, empty).await;
        assert!(left.is_ok(), "{} ports, {} bytes", self.net.ports(), self.sandbox.guest_memory_bytes().0);
    }
}

impl Running {
    async fn said(&self, text: &str) {
        let said = async {
            while !self.log.stdout.lock().contains(text) {
                tokio::task::yield_now().await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        assert!(said.is_ok(), "{} {}", self.log.stdout.lock(), self.log.stderr.lock());
    }

    async fn output(&self) -> (String, Usage) {
        let ending = tokio::time::timeout(PATIENCE, self.command.wait()).await.expect("it ends");
        let (stdout, stderr) = (self.log.stdout.lock().clone(), self.log.stderr.lock().clone());
        assert_eq!(ending, Ending::Finished { code: 0 }, "{stdout} {stderr} {:?}", self.command.usage());
        (stdout, self.command.usage())
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn listening(at: &'static [u16]) -> impl FnOnce(&mut ContainerSpec) {
    |spec| spec.listen = at.iter().map(|port| (Ipv4Addr::UNSPECIFIED, *port).into()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_both_ways_at_once_with_half_close() {
    let _turn = support::shared().await;
    let world = World::new();
    for (server, client) in [(P2, P2), (P2, P3), (P3, P2), (P3, P3)] {
        let serving = world.serve(server, &["serve", "80", "2"]).await;
        for bytes in ["0", "3000000"] {
            let said = world.run(client, &["call", "localhost", "80", bytes]).await;
            assert_eq!(said, format!("received {bytes} true\n"));
        }
        let (said, usage) = serving.output().await;
        assert!(said.contains("echoed 0") && said.contains("echoed 3000000"), "{said}");
        assert!(usage.memory_bytes_peak < 3 << 20, "{usage:?}");
    }
    world.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_in_one_instance() {
    let _turn = support::shared().await;
    let world = World::new();
    let serving = world.serve(P3, &["serve", "80", "20"]).await;
    // All are open before the first one sends.
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(world.net.dial(local(80)).await.unwrap().stream);
    }
    for stream in open.iter_mut().rev() {
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut echoed = String::new();
        stream.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "hello<end>");
    }
    assert_eq!(serving.output().await.0.matches("echoed 5").count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_refusals() {
    let _turn = support::shared().await;
    let world = World::new();
    let found = "[IpAddress::Ipv4((127, 0, 0, 1)), IpAddress::Ipv6((0, 0, 0, 0, 0, 0, 0, 1))]";
    let cases = [
        (P2, "localhost", format!("Ok({found})\n")),
        (P3, "localhost", format!("Ok({found})\n")),
        (P2, "10.1.2.3", "Ok([IpAddress::Ipv4((10, 1, 2, 3))])\n".to_owned()),
        (P2, "nobody.test", "Err(name-unresolvable)\n".to_owned()),
        (P3, "nobody.test", "Err(name-unresolvable)\n".to_owned()),
        (P2, "no name", "Err(invalid-argument)\n".to_owned()),
        (P3, "no name", "Err(invalid-argument)\n".to_owned()),
    ];
    for (wasm, name, wanted) in cases {
        let said = world.run(wasm, &["lookup", name]).await;
        assert_eq!(brief(&said), wanted, "{name}");
    }
    assert_eq!(world.net.lookups.load(Ordering::Relaxed), 4, "addresses and what is no name are never asked for");
    for wasm in [P2, P3] {
        let said = world.run(wasm, &["connect", "localhost", "81"]).await;
        assert_eq!(brief(&said), "Err(connection-refused)\n");
        let quick = |spec: &mut ContainerSpec| spec.limits.sockets.connect_timeout = Duration::from_millis(20);
        let running = world.start(wasm, &["connect", "10.9.9.9", "81"], quick).await;
        let said = running.output().await.0;
        assert_eq!(brief(&said), "Err(timeout)\n");
    }
    let quick = |spec: &mut ContainerSpec| spec.limits.sockets.lookup_timeout = Duration::from_millis(20);
    let said = world.start(P2, &["lookup", "slow.test"], quick).await.output().await.0;
    assert_eq!(brief(&said), "Err(temporary-resolver-failure)\n");
    world.assert_empty().await;
}

/// What a guest said, error codes by the names that they have in WIT: bindings print them in different ways.
fn brief(said: &str) -> String {
    let mut brief = String::new();
    let mut rest = said;
    while let Some((before, after)) = rest.split_once("ErrorCode") {
        brief.push_str(before);
        if let Some(name) = after.strip_prefix("::") {
            let end = name.find(|c: char| !c.is_alphanumeric()).unwrap();
            for (index, letter) in name[..end].char_indices() {
                brief.push_str(if letter.is_uppercase() && index > 0 { "-" } else { "" });
                brief.push(letter.to_ascii_lowercase());
            }
            rest = &name[end..];
        } else {
            brief.push_str(after.split('"').nth(1).unwrap());
            rest = after.split_once("\" }").unwrap().1;
        }
    }
    brief + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_allowed_without_a_network() {
    let _turn = support::shared().await;
    let world = World::new();
    for (wasm, args) in [
        (P2, &["hoard", "tcp"][..]),
        (P2, &["hoard", "udp"]),
        (P2, &["lookup", "localhost"]),
        (P2, &["lookup", "10.0.0.1"]),
        (P3, &["hoard"]),
        (P3, &["lookup", "localhost"]),
    ] {
        let said = world.start(wasm, args, |spec| spec.sockets = None).await.output().await.0;
        assert!(brief(&said).contains("access-denied"), "{args:?}: {said}");
    }
    let denied = world.start(P1, &["look"], |spec| {
        spec.sockets = None;
        spec.listen = vec![local(80)];
    });
    let Ending::Trapped { message, .. } = denied.await.command.wait().await else { panic!("it runs") };
    assert_eq!(message, "cannot listen at 127.0.0.1:80: access denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn states() {
    let _turn = support::shared().await;
    let world = World::new();
    assert_eq!(
        brief(&world.run(P2, &["twice", "80"]).await),
        "Ok(()) Err(address-in-use)\nOk(())\nErr(invalid-state) Err(not-in-progress)\n"
    );
    let said = brief(&world.run(P2, &["fields"]).await);
    assert_eq!(said, "Ok(true) Ok(9) Err(invalid-argument) Err(address-not-bindable)\n");
    world.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams() {
    let _turn = support::shared().await;
    let world = World::new();
    for server in [P2, P3] {
        let serving = world.serve(server, &["udp-serve", "53", "4"]).await;
        let said = brief(&world.run(P2, &["udp-call", "53"]).await);
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].starts_with("false 1400") && lines[2].starts_with("true 1400"), "{said}");
        assert!(lines[0].contains("port: 53") && lines[0].contains("127, 0, 0, 1"), "{said}");
        assert_eq!((lines[1], lines[3]), ("Err(datagram-too-large)", "Err(datagram-too-large)"));
        let said = brief(&world.run(P3, &["udp-call", "53"]).await);
        assert_eq!(said, "1400\n65507\nErr(datagram-too-large)\n");
        serving.output().await;
    }
    world.assert_empty().await;
}

/// Who reads nothing holds up who writes: some KiB are kept, and paid for, not more.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_sleeps_stops_the_writer() {
    let _turn = support::shared().await;
    let world = World::new();
    let listener = podium_sandbox::Sockets::bind_tcp(&Pod(world.net.clone()), local(80)).unwrap().listen(1).unwrap();
    let running = world.start(P2, &["fill", "80"], |_| {}).await;
    let mut connection = listener.accept().await.unwrap();
    let (said, usage) = running.output().await;
    assert!(said.ends_with("then no more\n"), "{said}");
    let written: usize = said["wrote ".len()..].split(',').next().unwrap().parse().unwrap();
    assert!((PIPE_BYTES..PIPE_BYTES + (128 << 10)).contains(&written), "{said}");
    assert!(usage.memory_bytes_peak < 3 << 20, "{usage:?}");

    // What it wrote is not lost though it has ended.
    let mut received = Vec::new();
    connection.stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), written);
    drop((connection, listener));
    world.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_leaves_behind_goes_after_a_while() {
    let _turn = support::shared().await;
    let world = World::new();
    let listener = podium_sandbox::Sockets::bind_tcp(&Pod(world.net.clone()), local(80)).unwrap().listen(1).unwrap();
    let short = |spec: &mut ContainerSpec| spec.limits.sockets.linger = Duration::from_millis(20);
    let running = world.start(P2, &["leave", "80"], short).await;
    let connection = listener.accept().await.unwrap();
    running.output().await;
    // Nobody reads, and nobody will.
    drop(listener);
    world.assert_empty().await;
    drop(connection);
}

/// A bomb of whatever ends with an error code, at its limit.
#[tokio::test(flavor = "multi_thread")]
async fn hoards_end_with_an_error_code() {
    let _turn = support::shared().await;
    let world = World::new();
    for (what, wanted) in [
        ("tcp", "40 new-socket-limit"),
        ("udp", "40 new-socket-limit"),
        ("listeners", "40 new-socket-limit"),
        ("connections", "19 new-socket-limit"),
        ("lookups", "7 temporary-resolver-failure"),
    ] {
        let limited = |spec: &mut ContainerSpec| {
            spec.limits.sockets.instance_max = 40;
            spec.limits.sockets.lookups_max = 7;
        };
        let said = world.start(P2, &["hoard", what], limited).await.output().await.0;
        assert_eq!(brief(&said), format!("{wanted}\n"), "{what}");
    }
    let limited = |spec: &mut ContainerSpec| spec.limits.sockets.container_max = 30;
    let said = world.start(P3, &["hoard"], limited).await.output().await.0;
    assert!(said.starts_with("30 ") && said.contains("too many sockets"), "{said}");
    for (what, least) in [("tcp", 100), ("ports", 10), ("connections", 10)] {
        let small = |spec: &mut ContainerSpec| spec.limits.memory_bytes_max = 4 << 20;
        let (said, usage) = world.start(P2, &["hoard", what], small).await.output().await;
        let count: usize = said.split(' ').next().unwrap().parse().unwrap();
        assert!(brief(&said).contains("out-of-memory") && count >= least, "{what}: {said}");
        assert!(usage.memory_bytes_peak <= 4 << 20, "{usage:?}");
    }
    world.assert_empty().await;
}

/// Asking for what is ready is work of the guest: it pays, and its quota holds it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_polls_cost_whoever_polls() {
    let _turn = support::alone().await;
    let world = World::new();
    let _listener = podium_sandbox::Sockets::bind_tcp(&Pod(world.net.clone()), local(80)).unwrap().listen(8).unwrap();
    let quick = world.start(P2, &["polls", "80", "1000000"], |_| {}).await.output().await;
    assert_eq!(quick.0, "1000000\n");

    let limited = |spec: &mut ContainerSpec| spec.limits.cpu = support::quota(250);
    let started = std::time::Instant::now();
    let (said, usage) = world.start(P2, &["polls", "80", "300000"], limited).await.output().await;
    assert_eq!(said, "300000\n");
    let share = usage.cpu.as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(usage.cpu > quick.1.cpu / 10 && share < 0.35, "{share} {usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_serves_one_after_the_other() {
    let _turn = support::shared().await;
    let world = World::new();
    let serving = world.start(P1, &["serve", "3"], listening(&[80])).await;
    while world.net.ports() == 0 {
        tokio::task::yield_now().await;
    }
    for (client, bytes) in [(P2, "4"), (P3, "2000000"), (P2, "700000")] {
        let said = world.run(client, &["call", "localhost", "80", bytes]).await;
        assert_eq!(said, format!("received {bytes} true\n"));
    }
    let said = serving.output().await.0;
    assert_eq!(said.matches("on 4, then PIPE, closed true").count(), 3, "{said}");
    world.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_polls_listeners_connections_and_clocks() {
    let _turn = support::shared().await;
    let world = World::new();
    let serving = world.start(P1, &["poll", "12"], listening(&[80, 81])).await;
    serving.said("listening").await;
    let mut open = Vec::new();
    for port in [80, 81].repeat(6) {
        open.push(world.net.dial(local(port)).await.unwrap().stream);
    }
    for mut stream in open {
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut echoed = String::new();
        stream.read_to_string(&mut echoed).await.unwrap();
        assert_eq!(echoed, "hello<end>");
    }
    assert!(serving.output().await.0.ends_with("echoed 60 in 12\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_core_modules_descriptors() {
    let _turn = support::shared().await;
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello.txt"), "hello").unwrap();
    let mount = Mount {
        guest_path: "/data".into(),
        source: Arc::new(folder.path().to_owned()),
        sub_path: None,
        read_only: true,
    };
    let running = world.start(P1, &["look"], |spec| {
        spec.mounts = vec![mount];
        spec.listen = vec![local(80), local(81)];
    });
    let said = running.await.output().await.0;
    let wanted = "3 Ok(6)\n4 Ok(6)\n5 Ok(3)\n6 Err(\"BADF\")\n\
        Err(\"SPIPE\")\nErr(\"NOTSOCK\")\nErr(\"NOTCONN\")\nhello 4102\n";
    assert!(said.ends_with(wanted), "{said}");

    let taken = world.start(P1, &["look"], |spec| spec.listen = vec![local(80), local(80)]).await;
    let Ending::Trapped { message, .. } = taken.command.wait().await else { panic!("it runs") };
    assert_eq!(message, "cannot listen at 127.0.0.1:80: address in use");
    world.assert_empty().await;
}

/// Looks for folders as Go does: passes over what is preopened and no folder, until a number is not taken. Exits with what it found.
const LOOKS_FOR_FOLDERS: &[u8] = br#"(module
    (import "wasi_snapshot_preview1" "sock_accept" (func (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (local $fd i32) (local $found i32) (local $errno i32)
        (local.set $fd (i32.const 3))
        (loop $next
            (i32.store (i32.const 0) (i32.const -1))
            (local.set $errno (call $get (local.get $fd) (i32.const 0)))
            (if (i32.eq (local.get $errno) (i32.const 8)) (then (call $exit (local.get $found))))
            (if (local.get $errno) (then (unreachable)))
            (if (call $name (local.get $fd) (i32.const 64) (i32.load (i32.const 4))) (then (unreachable)))
            (local.set $found (i32.add (local.get $found)
                (select (i32.const 10) (i32.const 1) (i32.load8_u (i32.const 0)))))
            (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
            (br $next))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_socket_keeps_nobody_from_finding_folders() {
    let _turn = support::shared().await;
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(folder.path().to_owned());
    for (listeners, mounts, wanted) in [(0, 0, 0), (0, 2, 2), (1, 0, 10), (2, 1, 21), (3, 3, 33)] {
        let running = world.start(LOOKS_FOR_FOLDERS, &[], |spec| {
            let mount =
                |n| Mount { guest_path: format!("/{n}"), source: source.clone(), sub_path: None, read_only: true };
            spec.mounts = (0..mounts).map(mount).collect();
            spec.listen = (0..listeners).map(|n| local(80 + n)).collect();
        });
        let ending = running.await.command.wait().await;
        assert_eq!(ending, Ending::Finished { code: wanted }, "{listeners} {mounts}");
    }
    world.assert_empty().await;
}
