//! The table: each hostile guest and what has to end it.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use podium_sandbox::{Body, ContainerSpec};

use super::{
    guests::{self, core, forever},
    modules,
};
use crate::support;

/// How a case is run.
pub enum Run {
    /// As a command.
    Command(String),
    /// As one request to the hostile handler.
    Request(fn() -> http::Request<Body>),
    /// As requests for this path, by so many callers at once.
    Path(&'static str, usize),
    /// As a module that is compiled.
    Module(fn() -> Vec<u8>),
}

/// What has to happen within a case's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It asked for too much memory.
    OutOfMemory,
    /// It trapped, and the message says so.
    Trap(&'static str),
    /// It goes on, within its quota, until it is killed.
    Throttled,
    /// Its request ends at the deadline.
    TimedOut,
    /// It is answered.
    Answered,
    /// It is refused before the guest sees it.
    Refused,
    /// It is not compiled: for its shape, or because that takes too long or too much.
    NotCompiled,
    /// It is compiled, and that costs no more than it may.
    Compiled,
}

/// One row.
pub struct Case {
    pub name: &'static str,
    pub run: Run,
    pub wanted: Wanted,
    pub change: fn(&mut ContainerSpec),
    /// What a single call into the host may take, which nothing can stop.
    pub host_call: Duration,
}

impl Case {
    const fn new(name: &'static str, run: Run, wanted: Wanted) -> Self {
        Self { name, run, wanted, change: |_| {}, host_call: Duration::ZERO }
    }
}

fn command(name: &'static str, wat: impl Into<String>, wanted: Wanted) -> Case {
    Case::new(name, Run::Command(wat.into()), wanted)
}

fn path(name: &'static str, path: &'static str, wanted: Wanted) -> Case {
    Case::new(name, Run::Path(path, 4), wanted)
}

pub fn all() -> Vec<Case> {
    let mut all = computing();
    all.extend(calling());
    all.extend(growing());
    all.extend(making());
    all.extend(requests());
    all.extend(compiled());
    all
}

/// Those that compute and never return.
fn computing() -> Vec<Case> {
    use Wanted::{Throttled, Trap};
    vec![
        command("loop in _start", core("", &forever("")), Throttled),
        command("loop in the start function", guests::START_FUNCTION, Throttled),
        command("loop in realloc", guests::REALLOC, Throttled),
        command("loop after return", guests::post_return(), Throttled),
        command("calls in a circle", core("(func $f (call $g)) (func $g)", &forever("(call $f)")), Throttled),
        command("deep recursion", core("(func $f (call $f) (call $f))", "(call $f)"), Trap("call stack exhausted")),
        command("memory.fill", filling("(memory.fill (i32.const 0) (i32.const 7) (i32.const 33554432))"), Throttled),
        command(
            "memory.copy",
            filling("(memory.copy (i32.const 0) (i32.const 16777216) (i32.const 16777216))"),
            Throttled,
        ),
        command(
            "table.fill",
            core(
                "(table $t 100000 funcref)",
                &forever("(table.fill $t (i32.const 0) (ref.null func) (i32.const 100000))"),
            ),
            Throttled,
        ),
        command("garbage", guests::GC_CHURN, Throttled),
        command("strings between components", guests::ADAPTERS, Throttled),
        command("callbacks without end (0.3)", guests::YIELDS, Throttled),
    ]
}

/// Grows its memory to 32 MiB first.
fn filling(body: &str) -> String {
    core("", &format!("(drop (memory.grow (i32.const 496))) {}", forever(body)))
}

/// Those that call the host in a loop.
fn calling() -> Vec<Case> {
    use Wanted::Throttled;
    let poll = "(i32.store8 (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 1))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))";
    vec![
        command(
            "clock_time_get",
            core("", &forever("(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0)))")),
            Throttled,
        ),
        command(
            "random_get of a megabyte",
            core("", &forever("(drop (call $random (i32.const 0) (i32.const 1000000)))")),
            Throttled,
        ),
        command("sched_yield", core("", &forever("(drop (call $yield))")), Throttled),
        command("poll_oneoff of a nanosecond", core("", &forever(poll)), Throttled),
        command(
            "log flood",
            core(
                "",
                &format!(
                    "(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65000)) {}",
                    forever("(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))")
                ),
            ),
            Throttled,
        ),
        command(
            "writes of nothing",
            core("", &forever("(drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 16)))")),
            Throttled,
        ),
        path("clock (0.2)", "/clock", Wanted::TimedOut),
        path("random numbers (0.2)", "/random", Wanted::TimedOut),
        path("polls of what is ready (0.2)", "/ready-polled", Wanted::TimedOut),
        path("sleeps of nothing (0.2)", "/sleeps-of-nothing", Wanted::TimedOut),
        path("writes of nothing (0.2)", "/writes-of-nothing", Wanted::TimedOut),
        path("resources made and dropped (0.2)", "/resources-churned", Wanted::TimedOut),
        // Each poll makes a timer of each: one walk over 4,500 of them.
        Case {
            host_call: Duration::from_millis(2),
            ..path("thousands of timers polled (0.2)", "/timers-polled", Wanted::TimedOut)
        },
        path("log flood (0.2)", "/log", Wanted::TimedOut),
    ]
}

/// Those that ask for memory.
fn growing() -> Vec<Case> {
    use Wanted::OutOfMemory;
    vec![
        command("memory.grow", core("", &forever("(drop (memory.grow (i32.const 16)))")), OutOfMemory),
        command("four gigabytes at once", guests::HUGE_MEMORY, OutOfMemory),
        Case {
            change: |spec| spec.limits.memory_bytes_max = (1 << 20) + (512 << 10),
            ..command(
                "table.grow",
                core("(table $t 1 funcref)", &forever("(drop (table.grow $t (ref.null func) (i32.const 9000)))")),
                OutOfMemory,
            )
        },
        command("structs in a list", guests::GC_LIST, OutOfMemory),
        path("allocations (0.2)", "/allocations", OutOfMemory),
        Case { change: tight, ..path("headers kept (0.2)", "/headers-kept", OutOfMemory) },
        Case { change: tight, ..path("requests kept (0.2)", "/requests-kept", OutOfMemory) },
        Case { change: tight, ..path("bodies kept (0.2)", "/bodies-kept", OutOfMemory) },
    ]
}

/// So that the time that a row has is enough.
fn tight(spec: &mut ContainerSpec) {
    spec.limits.memory_bytes_max = 24 << 20;
}

/// Those that make things without end.
fn making() -> Vec<Case> {
    let stream = r#"(type $s (stream u8)) (core func $new (canon stream.new $s))"#;
    let future = r#"(type $f (future u8)) (core func $new (canon future.new $f))"#;
    let set = r#"(core func $new (canon waitable-set.new))"#;
    vec![
        command("resources", guests::resources(), Wanted::Trap("handle")),
        command("streams", guests::waitables(stream, "i64"), Wanted::Trap("")),
        command("futures", guests::waitables(future, "i64"), Wanted::Trap("")),
        command("sets of waitables", guests::waitables(set, "i32"), Wanted::Trap("")),
        path("timers kept (0.2)", "/timers-kept", Wanted::Trap("")),
        command("two hundred empty memories", guests::memories(200), Wanted::Refused),
    ]
}

/// Those that mean harm to the compiler.
fn compiled() -> Vec<Case> {
    use Wanted::{Compiled, NotCompiled};
    let module = |name, make, wanted| Case::new(name, Run::Module(make), wanted);
    vec![
        module("a million functions", modules::million_functions, NotCompiled),
        module("300,000 functions of 50,000 locals", modules::many_locals, NotCompiled),
        module("a function of 7 MB", modules::gigantic_function, NotCompiled),
        module("100,000 nested blocks", modules::nested_blocks, NotCompiled),
        module("large switches over many locals", modules::switches, NotCompiled),
        module("a file of 256 MiB", modules::padding, Compiled),
    ]
}

/// Those that misuse requests and answers.
fn requests() -> Vec<Case> {
    vec![
        request("ten thousand headers in", headers_in, Wanted::Answered),
        request("a body never read", unread, Wanted::TimedOut),
        request("a body that never ends coming in", endless, Wanted::TimedOut),
        path("as many headers out as it may", "/header-flood", Wanted::Answered),
        path("a body without end", "/body-flood", Wanted::TimedOut),
        path("a body that comes slowly", "/slow-body", Wanted::TimedOut),
        path("deep recursion (0.2)", "/recursion", Wanted::Trap("wasm trap")),
    ]
}

fn request(name: &'static str, run: fn() -> http::Request<Body>, wanted: Wanted) -> Case {
    Case::new(name, Run::Request(run), wanted)
}

fn headers_in() -> http::Request<Body> {
    let mut request = support::get("/");
    for n in 0..10_000 {
        let name: http::HeaderName = format!("x-flood-{n}").parse().unwrap();
        request.headers_mut().insert(name, http::HeaderValue::from_static("flood"));
    }
    request
}

fn unread() -> http::Request<Body> {
    support::request("/unread", Bytes::from(vec![b'x'; 4 << 20]))
}

fn endless() -> http::Request<Body> {
    let chunk = Bytes::from(vec![b'x'; 16 << 10]);
    let chunks = futures::stream::repeat(chunk).map(|chunk| Ok(http_body::Frame::data(chunk)));
    support::get("/read").map(|_| StreamBody::new(chunks).boxed_unsync())
}
