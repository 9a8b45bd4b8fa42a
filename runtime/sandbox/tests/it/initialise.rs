//! Snapshots: initialised once, at load, within bounds; and seen by every instance.

use std::time::{Duration, Instant};

use bytes::Bytes;
use podium_sandbox::{Ending, Initialise, LoadError, LoadOptions, Sandbox, SandboxConfig};

use crate::support::{self, sandbox, spec};

/// A command that works on a table: it fills it first, which takes `rounds`, unless that was done. Fails when `must` and
/// it was not.
fn command(export: &str, init: &str, rounds: u64, must: bool) -> String {
    format!(
        r#"(component
        (core module $m
            (memory (export "memory") 1)
            (global $ready (mut i32) (i32.const 0))
            (func $fill (local $i i64) (local $sum i64)
                (loop $next
                    (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 6364136223846793005)) (local.get $i)))
                    (local.set $i (i64.add (local.get $i) (i64.const 1)))
                    (br_if $next (i64.lt_u (local.get $i) (i64.const {rounds}))))
                (i64.store (i32.const 1024) (local.get $sum))
                (global.set $ready (i32.const 1)))
            (func (export "{export}") {init})
            (func (export "run") (result i32)
                (if (i32.eqz (global.get $ready)) (then
                    (if (i32.const {must}) (then (return (i32.const 1))))
                    (call $fill)))
                (i64.eqz (i64.load (i32.const 1024)))))
        (core instance $i (instantiate $m))
        (func (export "{export}") (canon lift (core func $i "{export}")))
        (component $c
            (import "f" (func $f (result (result))))
            (export "run" (func $f)))
        (type $r (func (result (result))))
        (func $run (type $r) (canon lift (core func $i "run")))
        (instance $c (instantiate $c (with "f" (func $run))))
        (export "wasi:cli/run@0.2.0" (instance $c)))"#,
        must = i32::from(must)
    )
}

fn with(initialise: Initialise) -> LoadOptions {
    LoadOptions { initialise, ..LoadOptions::default() }
}

async fn run(sandbox: &Sandbox, wat: &str, options: LoadOptions) -> Result<(Ending, Duration), LoadError> {
    let image = sandbox.load_with(Bytes::copy_from_slice(wat.as_bytes()), options).await?;
    let start = Instant::now();
    let command = sandbox.command(&image, spec(&["c"]).0).unwrap();
    Ok((command.wait().await, start.elapsed()))
}

/// The quickest of five runs that find their table filled: machines that run tests do other things too.
async fn quickest(sandbox: &Sandbox, wat: &str, options: &LoadOptions) -> Duration {
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let (ending, took) = run(sandbox, wat, options.clone()).await.unwrap();
        assert_eq!(ending, Ending::Finished { code: 0 }, "it finds its table filled");
        quickest = quickest.min(took);
    }
    quickest
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_at_load_is_not_done_again() {
    let _turn = support::shared().await;
    let rounds = 30_000_000;
    let without = command("start-here", "call $fill", rounds, false);
    let ready = command("wizer-initialize", "call $fill", rounds, true);
    let sandbox = sandbox();
    let (ending, slow) = run(&sandbox, &without, LoadOptions::default()).await.unwrap();
    assert_eq!(ending, Ending::Finished { code: 0 });
    let quick = quickest(&sandbox, &ready, &LoadOptions::default()).await;
    println!("a run: {slow:?} without, {quick:?} with a snapshot");
    assert!(quick * 3 < slow, "{quick:?} and {slow:?}");
    // By name, as another image than the same file without.
    let quick = quickest(&sandbox, &without, &with(Initialise::Export("start-here".into()))).await;
    assert!(quick * 3 < slow, "{quick:?} and {slow:?}");
    let (ending, _) = run(&sandbox, &ready, with(Initialise::Never)).await.unwrap();
    assert_eq!(ending, Ending::Finished { code: 1 }, "its table is empty");
}

/// A core module whose `_start` fails unless memory and every kind of global are as the export leaves them.
fn core_module(export: &str, init: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 1)
            (global $first (mut i32) (i32.const 0))
            (global $wide (mut i64) (i64.const 0))
            (global $single (mut f32) (f32.const 0))
            (global $double (mut f64) (f64.const 0))
            (func (export "{export}")
                {init}
                (global.set $wide (i64.const -5))
                (global.set $single (f32.const 1.5))
                (global.set $double (f64.const 2.5))
                (i64.store (i32.const 70000) (i64.const 77)))
            (func (export "_start")
                (if (i32.eqz (global.get $first)) (then unreachable))
                (if (i64.ne (global.get $wide) (i64.const -5)) (then unreachable))
                (if (f32.ne (global.get $single) (f32.const 1.5)) (then unreachable))
                (if (f64.ne (global.get $double) (f64.const 2.5)) (then unreachable))
                (if (i64.ne (i64.load (i32.const 70000)) (i64.const 77)) (then unreachable))))"#
    )
}

const GROWS: &str = "(drop (memory.grow (i32.const 1))) (global.set $first (i32.const 1))";

#[tokio::test(flavor = "multi_thread")]
async fn core_modules_are_initialised_too() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for (export, options) in
        [("wizer-initialize", LoadOptions::default()), ("begin", with(Initialise::Export("begin".into())))]
    {
        for _ in 0..2 {
            let (ending, _) = run(&sandbox, &core_module(export, GROWS), options.clone()).await.unwrap();
            assert_eq!(ending, Ending::Finished { code: 0 }, "{export}");
        }
    }
    let (ending, _) = run(&sandbox, &core_module("begin", GROWS), LoadOptions::default()).await.unwrap();
    assert!(matches!(ending, Ending::Trapped { .. }), "nobody asked for it: {ending:?}");
    let failing = core_module("wizer-initialize", "unreachable");
    for (options, wanted) in [
        (LoadOptions::default(), "unreachable"),
        (with(Initialise::Export("nowhere".into())), "nowhere"),
        (with(Initialise::Export("memory".into())), "memory"),
    ] {
        let error = run(&sandbox, &failing, options).await.unwrap_err();
        assert!(matches!(error, LoadError::Initialise { .. }) && error.to_string().contains(wanted), "{error}");
    }
    // A reactor: what it wants to be called first is called first, and not again.
    let reactor = r#"(module
        (memory (export "memory") 1)
        (global $n (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $n (i32.add (global.get $n) (i32.const 1))))
        (func (export "wizer-initialize") (global.set $n (i32.mul (global.get $n) (i32.const 10))))
        (func (export "show") (result i32) (global.get $n)))"#;
    let image = sandbox.load(Bytes::copy_from_slice(reactor.as_bytes())).await.unwrap();
    let (spec, log) = spec(&["r", "show"]);
    assert_eq!(sandbox.command(&image, spec).unwrap().wait().await, Ending::Finished { code: 0 });
    assert_eq!(*log.stdout.lock(), "10\n");
    assert_eq!(sandbox.guest_memory_bytes().0, 0, "nothing is left of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_made_once_on_a_node() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let config =
        || SandboxConfig { cache_dir: Some(dir.path().to_owned()), instances_max: 16, ..SandboxConfig::default() };
    let wat = command("wizer-initialize", "call $fill", 100_000_000, true);
    let load = async || {
        let sandbox = Sandbox::new(config()).unwrap();
        let start = Instant::now();
        let (ending, _) = run(&sandbox, &wat, LoadOptions::default()).await.unwrap();
        assert_eq!(ending, Ending::Finished { code: 0 });
        start.elapsed()
    };
    let first = load().await;
    let mut again = Duration::MAX;
    for _ in 0..3 {
        again = again.min(load().await);
    }
    println!("loaded and run: in {first:?} at first, then in {again:?}");
    assert!(again * 2 < first, "{first:?}, then {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn initialisations_that_fail_say_how() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for (init, wanted) in [
        ("unreachable", "unreachable"),
        ("(drop (memory.grow (i32.const 20000)))", "more than 536870912 bytes"),
        ("(i64.store (i32.const 70000) (i64.const 1))", "out of bounds"),
    ] {
        let wat = command("wizer-initialize", init, 1, true);
        let error = run(&sandbox, &wat, LoadOptions::default()).await.unwrap_err();
        assert!(matches!(&error, LoadError::Initialise { export, .. } if export == "wizer-initialize"), "{error:?}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let options = with(Initialise::Export("nowhere".into()));
    let error = run(&sandbox, &command("x", "call $fill", 1, false), options).await.unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(sandbox.guest_memory_bytes().0, 0, "nothing is left of them");
}
