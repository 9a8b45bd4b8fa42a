//! Compiling in a process of its own, and what is kept of it. Modules that mean harm are rows of the table of hostile guests.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use podium_sandbox::{CompileLimits, CompilerCommand, LoadError, LoadOptions, Sandbox, SandboxConfig};

use crate::{
    hostile::modules::slow,
    support::{self, COMMAND_P1, COMMAND_P2, HTTP_P2},
};

/// The program that compiles for these tests.
pub fn compiler() -> CompilerCommand {
    CompilerCommand { program: PathBuf::from(env!("CARGO_BIN_EXE_compile-worker")), args: Vec::new() }
}

fn config(dir: Option<&Path>) -> SandboxConfig {
    SandboxConfig {
        cache_dir: dir.map(Path::to_owned),
        compiler: Some(compiler()),
        instances_max: 16,
        ..SandboxConfig::default()
    }
}

fn sandbox(dir: Option<&Path>) -> Sandbox {
    Sandbox::new(config(dir)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own_compiles_for_this_one() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    for (wasm, dir) in [(COMMAND_P1, Some(dir.path())), (COMMAND_P2, Some(dir.path())), (HTTP_P2, None)] {
        let sandbox = sandbox(dir);
        let start = Instant::now();
        let image = sandbox.load(Bytes::from_static(wasm)).await.unwrap();
        println!("{}: {} bytes compiled in {:?}", image.kind().is_http(), wasm.len(), start.elapsed());
    }
    let sandbox = sandbox(Some(dir.path()));
    let start = Instant::now();
    let image = sandbox.load(Bytes::from_static(COMMAND_P2)).await.unwrap();
    println!("from the cache in {:?}", start.elapsed());
    let command = sandbox.command(&image, support::spec(&["command", "env"]).0).unwrap();
    assert_eq!(command.wait().await, podium_sandbox::Ending::Finished { code: 0 });
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1, "nothing but the engine's folder: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_time_and_memory_are_named() {
    let _turn = support::alone().await;
    let slow = Bytes::from(wat::parse_str(slow(400, 1500)).unwrap());
    let limits = CompileLimits { time: Duration::from_millis(300), ..CompileLimits::default() };
    let error = Sandbox::new(SandboxConfig { compile: limits, ..config(None) }).unwrap().load(slow.clone()).await;
    assert_eq!(error.unwrap_err(), LoadError::CompileTimedOut { limit_millis: 300 });
    let limits = CompileLimits { memory_bytes: 160 << 20, ..CompileLimits::default() };
    let error = Sandbox::new(SandboxConfig { compile: limits, ..config(None) }).unwrap().load(slow).await;
    assert_eq!(error.unwrap_err(), LoadError::CompileOutOfMemory { limit_bytes: 160 << 20 });
    let missing = CompilerCommand { program: "/nowhere/compiler".into(), args: Vec::new() };
    let sandbox = Sandbox::new(SandboxConfig { compiler: Some(missing), ..config(None) }).unwrap();
    let error = sandbox.load(Bytes::from_static(HTTP_P2)).await.unwrap_err().to_string();
    assert!(error.contains("cannot start /nowhere/compiler"), "{error}");
    let error = self::sandbox(None).load(Bytes::from_static(b"(module (func (export \"_start\") i32.add))")).await;
    assert!(matches!(&error, Err(LoadError::Compile { reason }) if reason.contains("type mismatch")), "{error:?}");
}

/// What a guest puts into one the host would keep.
#[tokio::test(flavor = "multi_thread")]
async fn error_contexts_cannot_be_made() {
    let _turn = support::shared().await;
    const GUEST: &str = r#"(component
        (core module $m (memory (export "memory") 1))
        (core instance $m (instantiate $m))
        (core func (canon error-context.new (memory (core memory $m "memory"))))
        (core module $run (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $run))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
    let error = support::sandbox().load(GUEST.into()).await.unwrap_err().to_string();
    assert!(error.contains("error-context") || error.contains("error context"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_modules_pass_a_hostile_one() {
    let _turn = support::alone().await;
    let limits = CompileLimits { time: Duration::from_secs(6), ..CompileLimits::default() };
    let sandbox = Sandbox::new(SandboxConfig { compile: limits, ..config(None) }).unwrap();
    let hostile: Vec<_> = (0..4)
        .map(|i| {
            let mut text = slow(2000, 1500);
            text.push_str(&format!(" (; {i} ;)"));
            let wasm =
                wat::parse_str(text.replacen("(module", &format!("(module (global i32 (i32.const {i}))"), 1)).unwrap();
            let (sandbox, options) =
                (sandbox.clone(), LoadOptions { requester: "hostile".into(), ..LoadOptions::default() });
            tokio::spawn(async move { sandbox.load_with(wasm.into(), options).await.map(|_| ()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    for i in 0..5 {
        let text = format!("(module (global i32 (i32.const {i})) (func (export \"_start\")))");
        let options = LoadOptions { requester: "neighbour".into(), ..LoadOptions::default() };
        sandbox.load_with(text.into(), options).await.unwrap();
    }
    println!("five small modules beside four hostile ones: {:?}", start.elapsed());
    // Each of those takes all the time that it may; however slow the machine is, the small ones did not wait for all.
    assert!(hostile.iter().any(|task| !task.is_finished()), "{:?}", start.elapsed());
    for task in hostile {
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_may_have_written_is_never_mapped() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let load = async || {
        let start = Instant::now();
        sandbox(Some(dir.path())).load(Bytes::from_static(COMMAND_P1)).await.unwrap();
        start.elapsed()
    };
    load().await;
    let engine = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let file = |extension: &str| {
        let mut all = fs::read_dir(&engine).unwrap().map(|e| e.unwrap().path());
        all.find(|path| path.extension().is_some_and(|e| e == extension)).unwrap()
    };
    let (code, sum) = (file("cwasm"), file("sum"));
    // Inodes are used again, times of change move when a file is used.
    let number = || fs::symlink_metadata(&code).map(|meta| (meta.ino(), meta.created().unwrap())).unwrap();
    println!("mapped again in {:?}", load().await);
    let whole = number();
    load().await;
    assert_eq!(number(), whole, "whole files are used as they are");

    // Open to others.
    for path in [&code, &sum] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let before = number();
        load().await;
        assert_ne!(number(), before, "{}", path.display());
    }
    // Over a link, though what it leads to is right.
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&code, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &code).unwrap();
    load().await;
    assert!(fs::symlink_metadata(&code).unwrap().is_file());
    // Another engine's, with a checksum that matches: wasmtime itself knows it.
    let mut other = wasmtime::Config::new();
    other.epoch_interruption(false).cranelift_opt_level(wasmtime::OptLevel::None);
    let foreign = wasmtime::Engine::new(&other).unwrap().precompile_module(COMMAND_P1).unwrap();
    let before = number();
    fs::remove_file(&code).unwrap();
    fs::write(&code, &foreign).unwrap();
    fs::write(&sum, hex(&foreign)).unwrap();
    for path in [&code, &sum] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    load().await;
    assert_ne!(fs::read(&code).unwrap(), foreign);
    assert_ne!(number(), before);
    // Somebody else's: only root can make such a file.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&code, Some(65534), Some(65534)).unwrap();
        let before = number();
        load().await;
        assert_ne!(number(), before);
        assert_eq!(fs::metadata(&code).unwrap().uid(), 0);
    }
}

fn hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
