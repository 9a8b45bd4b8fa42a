//! Core dumps: whole and readable, with the stack and memory of what trapped; within bounds; only on request.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use podium_sandbox::{CallFailure, ContainerSpec, CoreDumps, Ending, Sandbox};
use wasmparser::{DataKind, KnownCustom, Parser, Payload, Validator};

use crate::support::{self, HTTP_P2, HTTP_P3, load, sandbox, spec, text};

/// Traps two frames below its start, with something to find in its memory.
const TRAPS: &str = r#"(module $guest
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (global (mut i32) (i32.const 77))
    (data (i32.const 4096) "find me")
    (func $boil unreachable)
    (func $heat call $boil)
    (func (export "_start") call $heat))"#;

/// What a dump says.
#[derive(Debug, Default)]
struct Dump {
    name: String,
    modules: Vec<String>,
    instances: usize,
    /// Function and module of each frame, innermost first.
    frames: Vec<(u32, String)>,
    memory: Vec<u8>,
}

fn read(path: &Path) -> Dump {
    let bytes = std::fs::read(path).unwrap();
    Validator::new().validate_all(&bytes).unwrap();
    let mut dump = Dump::default();
    let mut of_instances = Vec::new();
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::CoreDump(section) => dump.name = section.name.to_owned(),
                KnownCustom::CoreDumpModules(section) => {
                    dump.modules = section.modules.iter().map(|name| (*name).to_owned()).collect();
                }
                KnownCustom::CoreDumpInstances(section) => {
                    dump.instances = section.instances.len();
                    of_instances = section.instances.iter().map(|i| i.module_index).collect();
                }
                KnownCustom::CoreDumpStack(section) => {
                    let module = |instance: u32| dump.modules[of_instances[instance as usize] as usize].clone();
                    dump.frames = section.frames.iter().map(|f| (f.funcidx, module(f.instanceidx))).collect();
                }
                _ => {}
            },
            Payload::DataSection(section) => {
                for data in section {
                    let data = data.unwrap();
                    assert!(matches!(data.kind, DataKind::Active { .. }));
                    dump.memory.extend_from_slice(data.data);
                }
            }
            _ => {}
        }
    }
    dump
}

fn asked(dir: &Path, spec: &mut ContainerSpec) {
    spec.core_dumps = Some(CoreDumps { dir: dir.to_owned(), bytes_max: 64 << 20, count_max: 2 });
}

/// The dump that a message names, once it is written.
async fn named(dir: &Path, message: &str) -> PathBuf {
    let name = message.split_once("(core dump ").unwrap_or_else(|| panic!("{message}")).1.trim_end_matches(')');
    let path = dir.join(name);
    let written = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();
    path
}

async fn run(sandbox: &Sandbox, wat: &str, change: impl FnOnce(&mut ContainerSpec)) -> (Ending, String) {
    let image = sandbox.load(Bytes::copy_from_slice(wat.as_bytes())).await.unwrap();
    let (mut spec, log) = spec(&["guest"]);
    change(&mut spec);
    let ending = sandbox.command(&image, spec).unwrap().wait().await;
    let said = log.stderr.lock().clone();
    (ending, said)
}

fn message(ending: &Ending) -> &str {
    match ending {
        Ending::Trapped { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_leaves_its_stack_and_memory() {
    let _turn = support::shared().await;
    let (sandbox, dir) = (sandbox(), tempfile::tempdir().unwrap());
    let (ending, _) = run(&sandbox, TRAPS, |spec| asked(dir.path(), spec)).await;
    let dump = read(&named(dir.path(), message(&ending)).await);
    assert_eq!((dump.name.as_str(), dump.modules.as_slice()), ("test/pod/guest", &["guest".to_owned()][..]));
    let functions: Vec<_> = dump.frames.iter().map(|(function, _)| *function).collect();
    assert_eq!(functions, [1, 2, 3], "boil, heat, _start: after the one that is imported");
    assert!(dump.memory.windows(7).any(|bytes| bytes == b"find me"));

    let (ending, _) = run(&sandbox, TRAPS, |_| {}).await;
    assert_eq!(message(&ending), "wasm trap: wasm `unreachable` instruction executed", "nobody asked for one");
    assert_eq!(sandbox.guest_memory_bytes().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn components_leave_all_their_instances() {
    let _turn = support::shared().await;
    let (sandbox, dir) = (sandbox(), tempfile::tempdir().unwrap());
    for (wasm, path) in [(HTTP_P2, "/trap?n=7"), (HTTP_P3, "/trap")] {
        let image = load(&sandbox, wasm).await;
        let (mut spec, log) = spec(&["web"]);
        asked(dir.path(), &mut spec);
        let web = sandbox.http(&image, spec).unwrap();
        let Err(CallFailure::Trapped { message, backtrace }) = text(&web, path).await else { panic!("no trap") };
        let dump = read(&named(dir.path(), &message).await);
        assert_eq!(dump.frames.len(), backtrace.iter().filter(|line| line.contains(" - ")).count(), "{backtrace:#?}");
        assert!(dump.instances > 1, "a component is made of several: {:?}", dump.modules);
        assert!(!dump.memory.is_empty());
        assert!(log.stderr.lock().contains(&message), "the log names it too");
        // Soon after another one there is none.
        let Err(CallFailure::Trapped { message, .. }) = text(&web, path).await else { panic!("no trap") };
        assert!(!message.contains("core dump"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_are_few_small_and_of_traps_alone() {
    let _turn = support::shared().await;
    let (sandbox, dir) = (sandbox(), tempfile::tempdir().unwrap());
    let mut paths = Vec::new();
    for _ in 0..3 {
        let (ending, _) = run(&sandbox, TRAPS, |spec| asked(dir.path(), spec)).await;
        paths.push(named(dir.path(), message(&ending)).await);
    }
    let kept = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    assert_eq!((kept(dir.path()), paths[0].exists(), paths[2].exists()), (2, false, true), "the oldest goes");

    let small = |spec: &mut ContainerSpec| {
        asked(dir.path(), spec);
        spec.core_dumps.as_mut().unwrap().bytes_max = 65_535;
    };
    let (ending, said) = run(&sandbox, TRAPS, small).await;
    assert!(!message(&ending).contains("core dump"));
    assert_eq!(said, "no core dump: 65536 bytes are more than the 65535 that one may have\n");

    let empty = tempfile::tempdir().unwrap();
    let exits = TRAPS.replace("(func $boil unreachable)", "(func $boil (call $exit (i32.const 3)))");
    let (ending, _) = run(&sandbox, &exits, |spec| asked(empty.path(), spec)).await;
    assert_eq!(ending, Ending::Finished { code: 3 });
    let grows = TRAPS.replace("(func $boil unreachable)", "(func $boil (drop (memory.grow (i32.const 9000))))");
    let (ending, _) = run(&sandbox, &grows, |spec| asked(empty.path(), spec)).await;
    assert!(matches!(ending, Ending::OutOfMemory { .. }), "{ending:?}");
    assert_eq!(kept(empty.path()), 0);

    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let (ending, _) = run(&sandbox, TRAPS, |spec| asked(&file, spec)).await;
    assert!(message(&ending).contains("core dump"), "what cannot be written is said in the log later");
}
