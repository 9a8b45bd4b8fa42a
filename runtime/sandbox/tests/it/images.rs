//! Loading: what is refused and why, what is compiled once, what the cache on disk is trusted with.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use podium_sandbox::{Ending, LoadError, Sandbox, SandboxConfig, StartError};

use crate::support::{self, COMMAND_P1, COMMAND_P2, HTTP_P2, load, sandbox, spec};

#[tokio::test]
async fn refusals_name_what_is_wrong() {
    let _turn = support::shared().await;
    const KEYVALUE: &str = r#"(component
        (import "wasi:keyvalue/store@0.2.0" (instance))
        (component $c (core module $m (func (export "run") (result i32) i32.const 0)) (core instance $i (instantiate $m))
            (type $r (func (result (result)))) (func $run (type $r) (canon lift (core func $i "run")))
            (export "run" (func $run)))
        (instance $i (instantiate $c))
        (export "wasi:cli/run@0.2.0" (instance $i)))"#;
    const UNKNOWN_FUNCTION: &str =
        r#"(module (import "wasi_snapshot_preview1" "fork" (func)) (func (export "_start")))"#;
    let sandbox = sandbox();
    let cases = [
        (KEYVALUE.as_bytes(), "imports wasi:keyvalue/store@0.2.0, which this host does not offer"),
        (UNKNOWN_FUNCTION.as_bytes(), "imports wasi_snapshot_preview1::fork, which this host does not offer"),
        (b"\x7fELF\x02\x01", "not a WebAssembly file: it begins with \"\\x7fELF\\x02\\x01\""),
        (&COMMAND_P1[..1000], "invalid WebAssembly: "),
        (b"(module (func (export \"_start\") i32.add))", "cannot compile: "),
    ];
    for (file, wanted) in cases {
        let error = sandbox.load(Bytes::from_static(file)).await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn size_is_bounded() {
    let _turn = support::shared().await;
    let config = SandboxConfig { image_bytes_max: 1000, instances_max: 16, ..SandboxConfig::default() };
    let error = Sandbox::new(config).unwrap().load(Bytes::from_static(COMMAND_P1)).await.unwrap_err();
    assert_eq!(error, LoadError::TooLarge { bytes: COMMAND_P1.len() as u64, limit_bytes: 1000 });
}

#[tokio::test]
async fn the_wrong_kind_does_not_start() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let (handler, command) = (load(&sandbox, HTTP_P2).await, load(&sandbox, COMMAND_P2).await);
    assert!(matches!(sandbox.http(&command, spec(&[]).0), Err(StartError::WrongKind { .. })));
    assert!(matches!(sandbox.command(&handler, spec(&[]).0), Err(StartError::WrongKind { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_compile_for_many_callers() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let images = futures::future::join_all((0..8).map(|_| load(&sandbox, HTTP_P2))).await;
    assert!(images.iter().all(|image| std::sync::Arc::ptr_eq(image, &images[0])));
    let digest = images[0].digest().to_owned();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    assert!(images[0].imports().iter().any(|import| import.starts_with("wasi:http/types@0.2")));
    assert!(sandbox.cached(&digest).is_some());
    assert!(sandbox.cached("sha256:0").is_none());
}

fn files(dir: &std::path::Path, extension: &str) -> Vec<PathBuf> {
    let engines = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let all = engines.flat_map(|engine| fs::read_dir(engine).unwrap().map(|e| e.unwrap().path()));
    all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

async fn runs(sandbox: &Sandbox, wasm: &'static [u8]) {
    let image = load(sandbox, wasm).await;
    let command = sandbox.command(&image, spec(&["command", "env"]).0).unwrap();
    assert_eq!(command.wait().await, Ending::Finished { code: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_code_is_compiled_again() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let cache_dir = Some(dir.path().to_owned());
        Sandbox::new(SandboxConfig { cache_dir, instances_max: 16, ..SandboxConfig::default() }).unwrap()
    };
    for wasm in [COMMAND_P1, COMMAND_P2] {
        runs(&open(), wasm).await;
    }
    let kept = files(dir.path(), "cwasm");
    assert_eq!(kept.len(), 2);
    let whole: Vec<_> = kept.iter().map(|path| fs::read(path).unwrap()).collect();

    // Whole files are used as they are: nothing is written again.
    let written = |path: &PathBuf| fs::metadata(path).unwrap().ino();
    use std::os::unix::fs::MetadataExt as _;
    let before: Vec<_> = kept.iter().map(written).collect();
    runs(&open(), COMMAND_P1).await;
    runs(&open(), COMMAND_P2).await;
    assert_eq!(kept.iter().map(written).collect::<Vec<_>>(), before);

    // A flipped byte, a cut, a foreign file: each is told by its checksum and replaced.
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| flip(bytes), |bytes| bytes.truncate(5000), |bytes| *bytes = b"\x7fELF".to_vec()];
    for damage in damages {
        for (path, whole) in kept.iter().zip(&whole) {
            let mut bytes = whole.clone();
            damage(&mut bytes);
            // A new file: the old one may still be mapped, and whoever cuts a mapped file kills who maps it.
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        }
        runs(&open(), COMMAND_P1).await;
        runs(&open(), COMMAND_P2).await;
        for (path, whole) in kept.iter().zip(&whole) {
            assert_eq!(fs::read(path).unwrap().len(), whole.len(), "replaced");
        }
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}
