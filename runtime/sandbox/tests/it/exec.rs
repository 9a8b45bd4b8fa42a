//! Commands within a running container, input, terminals, grants.

use std::{sync::Arc, time::Duration};

use podium_sandbox::{Ending, ExecSpec, Grants, LogSink, Mount, StartError, Stdin};

use crate::support::{self, FILES_P1, FILES_P2, HTTP_P2, Log, get, load, sandbox, spec};

fn exec(args: &[&str]) -> (ExecSpec, Arc<Log>) {
    let logs = Arc::new(Log::default());
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    (ExecSpec::new(args, logs.clone() as Arc<dyn LogSink>), logs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_shares_the_container() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let dir = tempfile::tempdir().unwrap();
    let (handler, tools) = (load(&sandbox, HTTP_P2).await, load(&sandbox, FILES_P2).await);
    let (mut spec, of_container) = spec(&["web"]);
    let source = Arc::new(dir.path().to_owned());
    spec.mounts = vec![Mount { guest_path: "/data".into(), source, sub_path: None, read_only: false }];
    spec.env.push(("TIER".into(), "front".into()));
    let container = sandbox.http(&handler, spec).unwrap();
    let operations = "write /data/x hi -- env GREETING -- env TIER -- env ADDED -- echo -- exit 3";
    let (mut exec, logs) = exec(&[&["tool"], &operations.split(' ').collect::<Vec<_>>()[..]].concat());
    exec.env = vec![("ADDED".into(), "yes".into()), ("TIER".into(), "changed".into())];
    exec.stdin = Some(Stdin::new(&b"typed"[..]));
    let before = container.usage().cpu;
    let running = container.exec(&tools, exec).unwrap();
    assert_eq!(running.wait().await, Ending::Finished { code: 1 }, "0.2 knows success and failure only");
    assert_eq!(*logs.stdout.lock(), "ok\nhello there\nchanged\nyes\ntyped\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("x")).unwrap(), "hi");
    assert_eq!(*of_container.stdout.lock(), "", "its output is its own");
    assert!(container.usage().cpu > before, "the container pays");
    assert_eq!(container.call(get("/")).await.unwrap().status(), 200, "the container goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_alone_or_with_its_container() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for wasm in [FILES_P1, FILES_P2] {
        let image = load(&sandbox, wasm).await;
        let container = sandbox.command(&image, spec(&["files", "sleep", "600000"]).0).unwrap();
        let killed = container.exec(&image, exec(&["files", "sleep", "600000"]).0).unwrap();
        let other = container.exec(&image, exec(&["files", "sleep", "600000"]).0).unwrap();
        killed.kill();
        assert_eq!(killed.wait().await, Ending::Killed);
        assert!(tokio::time::timeout(Duration::from_millis(20), other.wait()).await.is_err(), "the other goes on");
        container.kill();
        assert_eq!((other.wait().await, container.wait().await), (Ending::Killed, Ending::Killed));
        let error = container.exec(&image, exec(&["files"]).0).unwrap_err();
        assert_eq!(error, StartError::Ended);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_of_one_account() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let image = load(&sandbox, FILES_P2).await;
    let (mut spec, _) = spec(&["files", "sleep", "600000"]);
    spec.limits.memory_bytes_max = 32 << 20;
    let container = sandbox.command(&image, spec).unwrap();
    let greedy = container.exec(&image, exec(&["files", "alloc", "64"]).0).unwrap();
    let wanted = Ending::OutOfMemory { limit_bytes: 32 << 20 };
    assert_eq!((greedy.wait().await, container.wait().await), (wanted.clone(), wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_and_terminals() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for wasm in [FILES_P1, FILES_P2] {
        let image = load(&sandbox, wasm).await;
        for tty in [false, true] {
            let (mut spec, logs) = spec(&["files", "tty", "--", "echo"]);
            spec.tty = tty;
            spec.stdin = Some(Stdin::new(&b"typed in"[..]));
            let command = sandbox.command(&image, spec).unwrap();
            assert_eq!(command.wait().await, Ending::Finished { code: 0 });
            assert_eq!(*logs.stdout.lock(), format!("{tty} {tty} {tty}\ntyped in\n"));
        }
        let (spec, logs) = spec(&["files", "echo", "--", "cwd"]);
        assert_eq!(sandbox.command(&image, spec).unwrap().wait().await, Ending::Finished { code: 0 });
        assert!(logs.stdout.lock().starts_with('\n'), "no input is an empty one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_interface_keeps_an_image_from_starting() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let command = load(&sandbox, FILES_P2).await;
    let core = load(&sandbox, FILES_P1).await;
    let handler = load(&sandbox, HTTP_P2).await;
    let with = |change: &dyn Fn(&mut Grants)| {
        let mut grants = Grants::default();
        change(&mut grants);
        let (mut spec, _) = spec(&["files"]);
        spec.grants = Arc::new(grants);
        spec
    };
    let refused = |patterns: &[&str]| with(&|grants| grants.refused = patterns.iter().map(|p| (*p).into()).collect());
    let error = sandbox.command(&command, refused(&["wasi:filesystem"])).unwrap_err().to_string();
    let digest = command.digest();
    assert!(error.starts_with(&format!("the image {digest} imports wasi:filesystem/")), "{error}");
    assert!(error.ends_with("its container refuses wasi:filesystem"), "{error}");
    assert!(sandbox.command(&core, refused(&["wasi_snapshot_preview1::path_open"])).is_err());
    assert!(sandbox.http(&handler, refused(&["wasi:http/outgoing*"])).is_err());
    assert!(sandbox.http(&handler, refused(&["wasi:keyvalue", "wasi:http@0.3"])).is_ok());
    let error = sandbox
        .command(
            &command,
            with(&|grants| {
                grants.granted.remove("wasi:cli");
            }),
        )
        .unwrap_err();
    assert!(error.to_string().contains("wasi:cli is not granted"), "{error}");
    // Not granted, yet it can be there and refuse.
    assert!(
        sandbox
            .http(
                &handler,
                with(&|grants| {
                    grants.granted.remove("wasi:http");
                })
            )
            .is_ok()
    );
    // A command within a container is bound by its container's grants.
    let container = sandbox.http(&handler, refused(&["wasi:io/streams@0.2.6"])).unwrap();
    assert!(matches!(container.exec(&command, exec(&["files"]).0), Err(StartError::Refused { .. })));
}
