//! Commands of every format: what they see, how they end.

use std::time::Duration;

use podium_sandbox::{Ending, ImageKind, Usage};

use crate::support::{self, COMMAND_P1, COMMAND_P2, COMMAND_P3, load, sandbox, spec};

async fn run(wasm: &'static [u8], args: &[&str]) -> (Ending, String, String, Usage) {
    let sandbox = sandbox();
    let image = load(&sandbox, wasm).await;
    let (spec, logs) = spec(args);
    let command = sandbox.command(&image, spec).unwrap();
    let ending = command.wait().await;
    let (stdout, stderr) = (logs.stdout.lock().clone(), logs.stderr.lock().clone());
    (ending, stdout, stderr, command.usage())
}

#[tokio::test(flavor = "multi_thread")]
async fn formats() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    for (wasm, kind) in
        [(COMMAND_P1, ImageKind::CoreCommand), (COMMAND_P2, ImageKind::Command), (COMMAND_P3, ImageKind::AsyncCommand)]
    {
        assert_eq!(load(&sandbox, wasm).await.kind(), kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_environment_and_output() {
    let _turn = support::shared().await;
    for wasm in [COMMAND_P1, COMMAND_P2] {
        let (ending, stdout, stderr, usage) = run(wasm, &["command", "env"]).await;
        assert_eq!(ending, Ending::Finished { code: 0 });
        assert_eq!(stdout, "[\"command\", \"env\"] [(\"GREETING\", \"hello there\")]\n");
        assert_eq!(stderr, "");
        assert!(usage.cpu > Duration::ZERO && usage.memory_bytes_peak >= 1 << 20, "{usage:?}");
        assert_eq!((usage.memory_bytes, usage.instances), (0, 0), "everything is given back");
    }
    let (ending, stdout, ..) = run(COMMAND_P3, &["command", "x"]).await;
    assert_eq!((ending, stdout.as_str()), (Ending::Finished { code: 0 }, "[\"command\", \"x\"]\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes() {
    let _turn = support::shared().await;
    let cases = [
        (COMMAND_P1, ["command", "exit", "3"], 3),
        (COMMAND_P1, ["command", "exit", "0"], 0),
        (COMMAND_P2, ["command", "exit", "1"], 1),
        (COMMAND_P3, ["command", "fail", ""], 1),
    ];
    for (wasm, args, code) in cases {
        assert_eq!(run(wasm, &args).await.0, Ending::Finished { code }, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_tells_where() {
    let _turn = support::shared().await;
    for wasm in [COMMAND_P1, COMMAND_P2] {
        let (ending, _, stderr, _) = run(wasm, &["command", "panic"]).await;
        let Ending::Trapped { message, backtrace } = ending else { panic!("{ending:?}") };
        assert!(message.contains("unreachable"), "{message}");
        assert!(!backtrace.is_empty() && backtrace[0].starts_with("0:"), "{backtrace:?}");
        assert!(stderr.contains("asked to"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn growing_past_the_limit_is_out_of_memory() {
    let _turn = support::shared().await;
    for wasm in [COMMAND_P1, COMMAND_P2] {
        let sandbox = sandbox();
        let image = load(&sandbox, wasm).await;
        let (mut spec, _) = spec(&["command", "alloc", "64"]);
        spec.limits.memory_bytes_max = 32 << 20;
        let command = sandbox.command(&image, spec.clone()).unwrap();
        assert_eq!(command.wait().await, Ending::OutOfMemory { limit_bytes: 32 << 20 });
        let peak = command.usage().memory_bytes_peak;
        assert!(peak <= 32 << 20 && peak > 24 << 20, "{peak}");

        spec.limits.memory_bytes_max = 80 << 20;
        let command = sandbox.command(&image, spec).unwrap();
        assert_eq!(command.wait().await, Ending::Finished { code: 0 });
        assert_eq!(sandbox.guest_memory_bytes().0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_ends_a_spinner_and_a_sleeper() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let image = load(&sandbox, COMMAND_P2).await;
    for verb in ["spin", "sleep"] {
        let (spec, _) = spec(&["command", verb, "600000"]);
        let command = sandbox.command(&image, spec).unwrap();
        while command.usage().memory_bytes == 0 {
            tokio::task::yield_now().await;
        }
        command.kill();
        let ending = tokio::time::timeout(Duration::from_secs(5), command.wait()).await;
        assert_eq!(ending, Ok(Ending::Killed), "{verb}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_modules_end_alone() {
    let _turn = support::shared().await;
    const FOREVER: &str = r#"(module (func (export "_start") (loop $l (br $l))))"#;
    const DEEP: &str = r#"(module (func $f (export "_start") (call $f)))"#;
    const TABLE: &str = r#"(module (table $t 1 funcref)
        (func (export "_start") (drop (table.grow $t (ref.null func) (i32.const 99999)))))"#;
    const HUGE: &str = r#"(module (memory 60000) (func (export "_start")))"#;
    const START: &str = r#"(module (memory 1) (func $s unreachable) (start $s) (func (export "_start")))"#;
    let sandbox = sandbox();
    let end = async |wat: &'static str, memory: u64| {
        let image = load(&sandbox, wat.as_bytes()).await;
        let (mut spec, _) = spec(&[]);
        spec.limits.memory_bytes_max = memory;
        let command = sandbox.command(&image, spec).unwrap();
        // All but one come to an end, however slow the machine is.
        let time = if wat == FOREVER { Duration::from_millis(300) } else { Duration::from_secs(60) };
        match tokio::time::timeout(time, command.wait()).await {
            Ok(Ending::Trapped { message, .. }) => message,
            Ok(ending) => format!("{ending:?}"),
            Err(_) => "still running".to_owned(),
        }
    };
    assert_eq!(end(FOREVER, 1 << 20).await, "still running");
    assert!(end(DEEP, 1 << 20).await.contains("call stack exhausted"));
    assert_eq!(end(TABLE, 100_000).await, "OutOfMemory { limit_bytes: 100000 }");
    assert_eq!(end(HUGE, 1 << 30).await, "OutOfMemory { limit_bytes: 1073741824 }");
    assert!(end(START, 1 << 20).await.contains("unreachable"));
    // Their threads give it back when they get their turn.
    let given_back = async {
        while sandbox.guest_memory_bytes().0 > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), given_back).await.expect("all memory is given back");
}
