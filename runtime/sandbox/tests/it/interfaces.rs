//! Interfaces beside those of a standard library: configuration, logging, key-value stores, exit codes. Each test runs as a 0.2
//! component and as a core module that becomes its component when it is loaded.

use std::{path::Path, sync::Arc};

use podium_sandbox::{ContainerSpec, Ending, FileStore, Grants, ImageKind, MemoryStore, StartError, StoreSet};

use crate::support::{self, INTERFACES_P1, INTERFACES_P2, load, sandbox, spec};

const BOTH: [&[u8]; 2] = [INTERFACES_P1, INTERFACES_P2];

/// Runs operations, their words apart by blanks; answers with the ending, what was printed, and what went to standard error.
async fn run(
    wasm: &'static [u8],
    operations: &[&str],
    change: impl FnOnce(&mut ContainerSpec),
) -> (Ending, Vec<String>, String) {
    let sandbox = sandbox();
    let image = load(&sandbox, wasm).await;
    assert_eq!(image.kind(), ImageKind::Command, "the core module has become its component");
    let joined = operations.join(" -- ");
    let args: Vec<_> = std::iter::once("interfaces").chain(joined.split(' ')).collect();
    let (mut spec, logs) = spec(&args);
    change(&mut spec);
    let ending = sandbox.command(&image, spec).unwrap().wait().await;
    let (stdout, stderr) = (logs.stdout.lock().clone(), logs.stderr.lock().clone());
    (ending, stdout.lines().map(str::to_owned).collect(), stderr)
}

fn without(group: &str) -> Arc<Grants> {
    let mut grants = Grants::default();
    assert!(grants.granted.remove(group));
    Arc::new(grants)
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration() {
    let _turn = support::shared().await;
    let config: Arc<[_]> = [("tier", "front"), ("limit", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    for wasm in BOTH {
        let operations = ["config tier", "config missing", "config"];
        let (ending, printed, _) = run(wasm, &operations, |spec| spec.config = config.clone()).await;
        assert_eq!(ending, Ending::Finished { code: 0 });
        assert_eq!(printed, ["Some(\"front\")", "None", "[(\"tier\", \"front\"), (\"limit\", \"3\")]"]);
        let (_, printed, _) = run(wasm, &operations, |spec| {
            spec.config = config.clone();
            spec.grants = without("wasi:config");
        })
        .await;
        assert_eq!(printed, ["None", "None", "[]"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logging() {
    let _turn = support::shared().await;
    for wasm in BOTH {
        let (_, printed, stderr) = run(wasm, &["log web started"], |_| {}).await;
        assert_eq!((printed, stderr.as_str()), (vec!["logged".to_owned()], "INFO web: started\nCRITICAL started\n"));
        let (_, _, stderr) = run(wasm, &["log web started"], |spec| spec.grants = without("wasi:logging")).await;
        assert_eq!(stderr, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_beyond_one() {
    let _turn = support::shared().await;
    for wasm in BOTH {
        for code in [0, 1, 3, 255] {
            let (ending, printed, _) = run(wasm, &[&format!("exit {code}")], |_| {}).await;
            assert_eq!((ending, printed.len()), (Ending::Finished { code }, 0));
        }
    }
}

fn stores(dir: &Path) -> Arc<StoreSet> {
    let set = StoreSet::new().with("", MemoryStore::new(1 << 20));
    Arc::new(set.with("disk", FileStore::new(dir.join("disk"), 64 << 20)))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values() {
    let _turn = support::shared().await;
    for wasm in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let stores = stores(dir.path());
        for (name, count) in [("default", 2100), ("disk", 60)] {
            let cases = [
                ("get NAME a", "none"),
                ("set NAME a one", "ok"),
                ("get NAME a", "one"),
                ("exists NAME a", "true"),
                ("delete NAME a", "ok"),
                ("exists NAME a", "false"),
                ("increment NAME n 5", "5"),
                ("increment NAME n 37", "42"),
                ("get NAME n", "42"),
                ("set NAME text x", "ok"),
                ("increment NAME text 1", "the value is not a number"),
                ("set NAME n 18446744073709551615", "ok"),
                ("increment NAME n 1", "\"n\" would be larger than 18446744073709551615"),
                ("fill NAME COUNT", "ok"),
                (
                    "list NAME",
                    if count == 60 { "1 pages, 62 keys, sorted: true" } else { "3 pages, 2102 keys, sorted: true" },
                ),
                ("many NAME key-00007 gone n", "key-00007=7 none n=18446744073709551615"),
                (
                    "list NAME",
                    if count == 60 { "1 pages, 60 keys, sorted: true" } else { "3 pages, 2100 keys, sorted: true" },
                ),
                ("large NAME long 1", "a key of 2000 bytes: at most 1024 are taken"),
                ("large NAME k 1048577", "a value of 1048577 bytes: at most 1048576 are taken"),
                ("get elsewhere a", "no such store"),
            ];
            let operations: Vec<_> = cases
                .iter()
                .map(|(operation, _)| operation.replace("NAME", name).replace("COUNT", &count.to_string()))
                .collect();
            let operations: Vec<_> = operations.iter().map(String::as_str).collect();
            let (ending, printed, stderr) = run(wasm, &operations, |spec| spec.stores = Some(stores.clone())).await;
            assert_eq!(ending, Ending::Finished { code: 0 }, "{stderr}");
            for ((operation, wanted), printed) in cases.iter().zip(printed) {
                assert_eq!(printed, *wanted, "{operation} of {name}");
            }
        }
        // What one instance has written, the next one reads.
        let (_, printed, _) =
            run(wasm, &["get disk text", "get default text"], |spec| spec.stores = Some(stores)).await;
        assert_eq!(printed, ["x", "x"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stores_but_those_given() {
    let _turn = support::shared().await;
    let dir = tempfile::tempdir().unwrap();
    for wasm in BOTH {
        let (_, printed, _) = run(wasm, &["get default a"], |_| {}).await;
        assert_eq!(printed, ["access denied"]);
        let (_, printed, _) = run(wasm, &["get default a"], |spec| {
            spec.stores = Some(stores(dir.path()));
            spec.grants = without("wasi:keyvalue");
        })
        .await;
        assert_eq!(printed, ["access denied"]);
    }
}

/// What a call of a core module without `_start` prints, or why there is none.
async fn call(wat: &'static str, args: &[&str]) -> String {
    let sandbox = sandbox();
    let image = load(&sandbox, wat.as_bytes()).await;
    assert_eq!(image.kind(), ImageKind::CoreReactor);
    let (spec, logs) = spec(args);
    match sandbox.command(&image, spec) {
        Ok(command) => match command.wait().await {
            Ending::Finished { code: 0 } => logs.stdout.lock().clone(),
            Ending::Trapped { message, .. } => message,
            ending => format!("{ending:?}"),
        },
        Err(error @ StartError::Call { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_without_start_runs_what_is_asked_for() {
    let _turn = support::shared().await;
    const MODULE: &str = r#"(module
        (global $ready (mut i32) (i32.const 0))
        (memory (export "memory") 1)
        (func (export "_initialize") (global.set $ready (i32.const 1)))
        (func (export "ready") (result i32) (global.get $ready))
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "mixed") (param i64 f32 f64) (result i64 f32 f64) (local.get 0) (local.get 1) (local.get 2))
        (func (export "nothing"))
        (func (export "trap") unreachable)
        (func (export "reference") (param externref)))"#;
    let all = "ready(), add(i32 i32), mixed(i64 f32 f64), nothing(), trap(), reference((ref null extern))";
    let prefix = "the image is a core module without _start: ";
    let cases: &[(&[&str], String)] = &[
        (&["m", "ready"], "1\n".into()),
        (&["m", "add", "40", "2"], "42\n".into()),
        (&["m", "add", "-1", "4294967295"], "-2\n".into()),
        (&["m", "mixed", "-5", "1.5", "2.25"], "-5\n1.5\n2.25\n".into()),
        (&["m", "nothing"], String::new()),
        (&["m"], format!("{prefix}the first argument has to name one of its functions: {all}")),
        (&["m", "memory"], format!("{prefix}it has no function \"memory\", only {all}")),
        (&["m", "add", "1"], format!("{prefix}add(i32 i32) takes 2 arguments, not 1")),
        (&["m", "add", "1", "two"], format!("{prefix}\"two\" is no i32, as add(i32 i32) takes it")),
        (
            &["m", "reference", "x"],
            format!("{prefix}\"x\" is no (ref null extern), as reference((ref null extern)) takes it"),
        ),
    ];
    for (args, wanted) in cases {
        assert_eq!(call(MODULE, args).await, *wanted, "{args:?}");
    }
    assert!(call(MODULE, &["m", "trap"]).await.contains("unreachable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_says_nonsense_about_its_component_is_refused() {
    let _turn = support::shared().await;
    const NONSENSE: &str = r#"(module (@custom "component-type:x" "nonsense") (func (export "_start")))"#;
    let error = sandbox().load(NONSENSE.into()).await.unwrap_err().to_string();
    assert!(error.starts_with("invalid WebAssembly: a core module that cannot become its component: "), "{error}");
}
