//! Functions that an embedder calls.

use std::time::Duration;

use podium_sandbox::{CallFailure, ContainerSpec, Limits, Plugin, Sandbox, SandboxConfig, StartError, Value};

use crate::support;

const PLUGIN: &str = r#"(component
    (core module $code
        (memory (export "memory") 1)
        (global $calls (mut i32) (i32.const 0))
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "count") (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
        (func (export "spin") (loop $again (br $again)))
        (func (export "trap") unreachable)
        (func (export "grow") (result i32) (memory.grow (i32.const 4096))))
    (core instance $i (instantiate $code))
    (func $add (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
    (func (export "count") (result u32) (canon lift (core func $i "count")))
    (func (export "spin") (canon lift (core func $i "spin")))
    (func (export "trap") (canon lift (core func $i "trap")))
    (func (export "grow") (result u32) (canon lift (core func $i "grow")))
    (instance $math (export "sum" (func $add)))
    (export "shop:rules/math@1.0.0" (instance $math)))"#;

async fn plugin(limits: Limits) -> Plugin {
    let sandbox = Sandbox::new(SandboxConfig { instances_max: 64, ..SandboxConfig::default() }).unwrap();
    let image = sandbox.load(PLUGIN.into()).await.unwrap();
    let failed = sandbox.command(&image, ContainerSpec::new("no command")).unwrap_err();
    assert!(matches!(failed, StartError::WrongKind { .. }), "{failed}");
    sandbox.plugin(&image, ContainerSpec { limits, ..ContainerSpec::new("plugin") }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called_by_name_each_in_an_instance_of_its_own() {
    let _turn = support::shared().await;
    let plugin = plugin(Limits::default()).await;
    let pair = [Value::U32(40), Value::U32(2)];
    assert_eq!(plugin.call("add", &pair).await, Ok(vec![Value::U32(42)]));
    assert_eq!(plugin.call("shop:rules/math@1.0.0#sum", &pair).await, Ok(vec![Value::U32(42)]));
    for _ in 0..2 {
        assert_eq!(plugin.call("count", &[]).await, Ok(vec![Value::U32(1)]));
    }
    let usage = plugin.usage();
    assert_eq!((usage.requests, usage.instances), (4, 0));
    assert!(usage.cpu > Duration::ZERO && usage.memory_bytes_peak > 0, "{usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_ends_that_call_alone() {
    let _turn = support::shared().await;
    // Long for the one that spins, so that the others have their time on a slow machine too.
    let plugin = plugin(Limits { request_timeout: Duration::from_secs(5), ..Limits::default() }).await;
    for (function, parameters, wanted) in [
        ("none", vec![], "the component exports no function \"none\""),
        ("add", vec![], "\"add\" takes 2 parameters, not 0"),
        ("add", vec![Value::Bool(true), Value::U32(1)], "\"add\" cannot be called like this"),
    ] {
        let failure = plugin.call(function, &parameters).await.unwrap_err();
        assert!(matches!(&failure, CallFailure::BadRequest { .. }), "{failure:?}");
        assert!(failure.to_string().contains(wanted), "{failure}");
    }
    let trapped = plugin.call("trap", &[]).await.unwrap_err();
    assert!(matches!(&trapped, CallFailure::Trapped { backtrace, .. } if backtrace.len() == 1), "{trapped:?}");
    assert_eq!(plugin.call("spin", &[]).await, Err(CallFailure::TimedOut));
    assert_eq!(plugin.call("add", &[Value::U32(1), Value::U32(1)]).await, Ok(vec![Value::U32(2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_ends_the_plugin() {
    let _turn = support::shared().await;
    let plugin = plugin(Limits { memory_bytes_max: 8 << 20, ..Limits::default() }).await;
    let failure = plugin.call("grow", &[]).await.unwrap_err();
    assert_eq!(failure, CallFailure::OutOfMemory { limit_bytes: 8 << 20 });
    assert_eq!(plugin.call("count", &[]).await, Err(CallFailure::Stopped));
}
