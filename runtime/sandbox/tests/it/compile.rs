//! Compiling what means harm: what ended it, how long it took, what it cost this process.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use podium_sandbox::{CompileLimits, CompilerCommand, LoadError, LoadOptions, Sandbox, SandboxConfig};

use crate::support::{self, COMMAND_P1, COMMAND_P2, HTTP_P2};

fn compiler() -> CompilerCommand {
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

/// Most memory that this process has had: KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
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

/// Functions that the compiler has to look at for long: many locals that are all alive at every turn of a large switch.
fn slow(functions: usize, arms: usize) -> String {
    let locals = "(local i64) ".repeat(800);
    let mut body = String::new();
    for i in 0..800 {
        body.push_str(&format!(
            "(local.set {} (i64.add (local.get {}) (local.get {})))",
            (i * 7) % 800,
            i,
            (i + 1) % 800
        ));
    }
    let opens = "(block ".repeat(arms);
    let table: String = (0..arms).map(|i| format!("{i} ")).collect();
    let closes: String = (0..arms).map(|i| format!(") (local.set {} (i64.const {i}))", i % 800)).collect();
    let function = format!(
        "(func (export \"\") {locals} (loop {opens} (br_table {table} (i32.wrap_i64 (local.get 0))) {closes} {body} (br_if 0 (i32.wrap_i64 (local.get 1)))))"
    );
    let functions = function.replace("(export \"\")", "").repeat(functions);
    format!("(module {functions} (func (export \"_start\")))")
}

fn nested(depth: usize) -> String {
    format!("(module (func (export \"_start\") {} {}))", "block ".repeat(depth), "end ".repeat(depth))
}

fn leb(mut n: u32, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn section(id: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    leb(content.len() as u32, out);
    out.extend(content);
}

/// A binary of `count` functions with one body each.
fn functions(count: u32, body: &[u8]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[1, 0x60, 0, 0], &mut wasm);
    let mut types = Vec::new();
    leb(count, &mut types);
    types.extend(std::iter::repeat_n(0, count as usize));
    section(3, &types, &mut wasm);
    section(7, b"\x01\x06_start\0\0", &mut wasm);
    let mut code = Vec::new();
    leb(count, &mut code);
    for _ in 0..count {
        leb(body.len() as u32, &mut code);
        code.extend(body);
    }
    section(10, &code, &mut wasm);
    wasm
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_modules_are_ended() {
    let _turn = support::alone().await;
    let limits = CompileLimits {
        time: Duration::from_secs(4),
        cpu_time: Duration::from_secs(8),
        memory_bytes: 1 << 30,
        ..CompileLimits::default()
    };
    let sandbox = Sandbox::new(SandboxConfig { compile: limits, ..config(None) }).unwrap();
    let mut gigantic = vec![0];
    gigantic.extend(std::iter::repeat_n(0x01, 7_000_000));
    gigantic.push(0x0b);
    let mut padding = functions(1, &[0, 0x0b]);
    section(0, &[&[1, b'x'][..], &vec![0; (256 << 20) - 100]].concat(), &mut padding);
    let many_locals = [&[1, 0xd0, 0x86, 0x03, 0x7e][..], &[0x0b]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a million functions", functions(1_000_000, &[0, 0x0b])),
        ("300,000 functions of 50,000 locals", functions(300_000, &many_locals)),
        ("one function of 7 MB", functions(1, &gigantic)),
        ("100,000 nested blocks", wat::parse_str(nested(100_000)).unwrap()),
        ("5,000 nested blocks", wat::parse_str(nested(5_000)).unwrap()),
        ("large switches over many locals", wat::parse_str(slow(400, 1500)).unwrap()),
        ("a file of 256 MiB", padding),
    ];
    for (what, wasm) in cases {
        let bytes = wasm.len();
        let before = peak_kib();
        let start = Instant::now();
        let result = sandbox.load(wasm.into()).await.map(|image| image.digest().to_owned());
        let took = start.elapsed();
        let grown = peak_kib().saturating_sub(before) >> 10;
        println!("{what} ({bytes} bytes): {result:?} after {took:?}; this process grew by {grown} MiB");
        assert!(took < limits.time * 2 + Duration::from_secs(10), "{what}: {took:?}");
        assert!(grown < 256, "{what}: {grown} MiB");
    }
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
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
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
