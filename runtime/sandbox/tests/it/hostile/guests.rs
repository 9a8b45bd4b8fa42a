//! Hostile guests in WebAssembly's text format: core modules over preview 1, and components that import next to nothing.

/// A core module whose `_start` is given: `body`, with `fields` of the module before it.
pub fn core(fields: &str, body: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
            (memory (export "memory") 16)
            {fields}
            (func (export "_start") (local $i i32) {body}))"#
    )
}

/// For ever.
pub fn forever(body: &str) -> String {
    format!("(loop $l {body} (br $l))")
}

/// A core module that does not come to its `_start`.
pub const START_FUNCTION: &str = r#"(module
    (func $s (loop $l (br $l)))
    (start $s)
    (func (export "_start")))"#;

/// Makes structs and keeps them in a list.
pub const GC_LIST: &str = r#"(module
    (type $list (struct (field (mut (ref null $list))) (field i64) (field i64)))
    (global $head (mut (ref null $list)) (ref.null $list))
    (func (export "_start")
        (loop $l
            (global.set $head (struct.new $list (global.get $head) (i64.const 1) (i64.const 2)))
            (br $l))))"#;

/// Makes arrays of a megabyte and drops them.
pub const GC_CHURN: &str = r#"(module
    (type $bytes (array (mut i8)))
    (func (export "_start")
        (loop $l
            (drop (array.new $bytes (i32.const 7) (i32.const 1000000)))
            (br $l))))"#;

/// Asks for its whole memory at once.
pub const HUGE_MEMORY: &str = r#"(module (memory (export "memory") 65536) (func (export "_start")))"#;

/// A component with a `wasi:cli/run` 0.2 made of `run`; `fields` define what its core module imports as `host`.
pub fn component(fields: &str, imports: &str, exports: &str, run: &str) -> String {
    format!(
        r#"(component
            {fields}
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core module $m
                {imports}
                (func (export "run") (result i32) (local $i i32) {run} (i32.const 0))
                (func (export "after") (param i32) (loop $l (br $l))))
            (core instance $i (instantiate $m (with "host" (instance {exports}))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    )
}

/// Makes resources of its own.
pub fn resources() -> String {
    component(
        r#"(type $r (resource (rep i32)))
           (core func $new (canon resource.new $r))"#,
        r#"(import "host" "new" (func $new (param i32) (result i32)))"#,
        r#"(export "new" (func $new))"#,
        &forever("(drop (call $new (i32.const 1)))"),
    )
}

/// Makes streams, futures or sets of waitables: `make` is the definition of `$new`, whose result is `result`.
pub fn waitables(make: &str, result: &str) -> String {
    component(
        make,
        &format!(r#"(import "host" "new" (func $new (result {result})))"#),
        r#"(export "new" (func $new))"#,
        &forever("(drop (call $new))"),
    )
}

/// Returns, and then computes for ever in its post-return function.
pub fn post_return() -> String {
    component("", "", "", "").replace(
        r#"(canon lift (core func $i "run"))"#,
        r#"(canon lift (core func $i "run") (post-return (core func $i "after")))"#,
    )
}

/// Asks for its arguments and never gives the host the memory to put them in.
pub const REALLOC: &str = r#"(component
    (import "wasi:cli/environment@0.2.0" (instance $environment
        (export "get-arguments" (func (result (list string))))))
    (alias export $environment "get-arguments" (func $arguments))
    (core module $memory
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (loop $l (br $l)) (unreachable)))
    (core instance $memory (instantiate $memory))
    (core func $arguments (canon lower (func $arguments)
        (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
    (core module $m
        (import "host" "arguments" (func $arguments (param i32)))
        (func (export "run") (result i32) (call $arguments (i32.const 0)) (i32.const 0)))
    (core instance $i (instantiate $m (with "host" (instance (export "arguments" (func $arguments))))))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $cli (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $cli)))"#;

/// A 0.3 command that asks to be called back at once, for ever.
pub const YIELDS: &str = r#"(component
    (core module $m
        (func (export "run") (result i32) (i32.const 1))
        (func (export "again") (param i32 i32 i32) (result i32) (i32.const 1)))
    (core instance $i (instantiate $m))
    (func $run async (result (result))
        (canon lift (core func $i "run") async (callback (core func $i "again"))))
    (instance $cli (export "run" (func $run)))
    (export "wasi:cli/run@0.3.0" (instance $cli)))"#;

/// A component that hands a megabyte of text to another in it, which wants it in another encoding.
pub const ADAPTERS: &str = r#"(component
    (component $callee
        (core module $m
            (memory (export "memory") 64)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
            (func (export "take") (param i32 i32)))
        (core instance $i (instantiate $m))
        (func (export "take") (param "text" string)
            (canon lift (core func $i "take") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))
                string-encoding=utf16)))
    (component $caller
        (import "take" (func $take (param "text" string)))
        (core module $memory (memory (export "memory") 64))
        (core instance $memory (instantiate $memory))
        (core func $take (canon lower (func $take) (memory (core memory $memory "memory"))))
        (core module $m
            (import "host" "take" (func $take (param i32 i32)))
            (func (export "run") (result i32)
                (loop $l (call $take (i32.const 0) (i32.const 1000000)) (br $l))
                (unreachable)))
        (core instance $i (instantiate $m (with "host" (instance (export "take" (func $take))))))
        (func (export "run") (result (result)) (canon lift (core func $i "run"))))
    (instance $callee (instantiate $callee))
    (instance $caller (instantiate $caller (with "take" (func $callee "take"))))
    (instance $cli (export "run" (func $caller "run")))
    (export "wasi:cli/run@0.2.0" (instance $cli)))"#;

/// A component with that many linear memories, none of which has a byte.
pub fn memories(count: usize) -> String {
    let instances = "(core instance (instantiate $empty))".repeat(count);
    component(&format!("(core module $empty (memory 0)) {instances}"), "", "", "")
}
