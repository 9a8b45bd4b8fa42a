//! The table of hostile guests: what ended each, what its neighbours felt of it, how far the process' memory grew.
//!
//! Machines that run tests do other things too: a row has several tries, with the neighbours' latency measured alone
//! before each, and what was felt in the quietest of them counts. A try beside which other processes have computed says nothing
//! about latency: where there is no other, the row says `busy`. What ends the guest must be right in all, however long that takes.

mod cases;
mod guests;
pub mod load;
pub mod modules;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use podium_sandbox::{
    CallFailure, CommandContainer, CompileLimits, ContainerSpec, Ending, HttpContainer, Image, RequestTimeout, Sandbox,
    SandboxConfig,
};

use self::{
    cases::{Case, Run, Wanted},
    load::Load,
};
use crate::support::{self, HTTP_P2, get, load, quota, sandbox, text};

const HOSTILE: &[u8] = include_bytes!("../../guests/hostile.wasm");
/// How long a hostile guest may try.
const TIME: Duration = Duration::from_millis(500);
const MEMORY_BYTES: u64 = 64 << 20;
/// What the process may grow by beside what the guest was given: freed slots that stay warm, the allocator's slack.
const SLACK_BYTES: u64 = 48 << 20;
/// The same for a module that is compiled: what the file itself takes is read and hashed here.
const COMPILE_BYTES: u64 = 256 << 20;
/// How long a guest may take to come to its end on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a compile may take that has to be given up. One that has to end well has all the time that it needs.
const COMPILE_TIME: Duration = Duration::from_secs(4);
/// Half a core.
const QUOTA_MILLICORES: u32 = 500;
const TRIES: usize = 8;
/// Tries of a row while other processes compute.
const BUSY_TRIES: usize = 2;
/// Added to twice the latency alone: a tick, within which no guest can be stopped, and the turn of a guest and of the kernel's
/// scheduler that a neighbour may wait for after it. Alone a p99 is a fraction of a millisecond, of which twice would be less
/// than one such turn.
const GRACE: Duration = Duration::from_millis(1);

struct Table {
    sandbox: Sandbox,
    /// One that compiles in processes of its own, and gives up soon.
    compiling: Sandbox,
    /// The same with patience.
    patient: Sandbox,
    neighbour: HttpContainer,
    hostile: Arc<Image>,
}

/// What was seen of one try.
#[derive(Debug)]
struct Seen {
    ended: String,
    right: bool,
    alone: Duration,
    beside: Duration,
    grown_bytes: u64,
    grown_bytes_max: u64,
    cpu: Duration,
    wall: Duration,
    /// Whether other processes have computed meanwhile.
    busy: bool,
}

impl Seen {
    fn neighbours_are_well(&self, case: &Case) -> bool {
        self.busy || self.beside <= self.alone * 2 + GRACE + case.host_call
    }

    fn is_bounded(&self) -> bool {
        self.grown_bytes <= self.grown_bytes_max
    }

    fn is_well(&self, case: &Case) -> bool {
        self.right && self.neighbours_are_well(case) && self.is_bounded() && self.is_within_quota()
    }

    /// A quota's worth, a period saved up, and a slice for each thread.
    fn is_within_quota(&self) -> bool {
        let share = f64::from(QUOTA_MILLICORES) / 1000.0;
        self.cpu.as_secs_f64() <= self.wall.as_secs_f64() * share * 1.05 + 0.04
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_guests_harm_nobody_but_themselves() {
    let _turn = support::alone().await;
    let sandbox = sandbox();
    let image = load(&sandbox, HTTP_P2).await;
    let neighbour = sandbox.http(&image, support::spec(&["web"]).0).unwrap();
    let hostile = load(&sandbox, HOSTILE).await;
    let compiling = |time| SandboxConfig {
        compiler: Some(crate::compile::compiler()),
        instances_max: 16,
        compile: CompileLimits { time, cpu_time: COMPILE_TIME * 2, memory_bytes: 1 << 30, ..CompileLimits::default() },
        ..SandboxConfig::default()
    };
    let [compiling, patient] = [COMPILE_TIME, PATIENCE].map(|time| Sandbox::new(compiling(time)).unwrap());
    let table = Table { sandbox, compiling, patient, neighbour, hostile };
    latency(&table.neighbour, TIME).await;
    println!("{:36} {:34} {:>9} {:>9} {:>9} {:>8}", "guest", "ended by", "p99 alone", "p99", "grown", "CPU");
    let mut wrong = Vec::new();
    for case in cases::all() {
        let seen = table.row(&case).await;
        println!(
            "{:36} {:34} {:>9.2?} {:>9.2?} {:>5.1} MiB {:>8.2?}{}",
            case.name,
            seen.ended,
            seen.alone,
            seen.beside,
            seen.grown_bytes as f64 / 1_048_576.0,
            seen.cpu,
            if seen.busy { " busy" } else { "" }
        );
        if !seen.is_well(&case) {
            wrong.push(format!("{}: {seen:?}, wanted {:?}", case.name, case.wanted));
        }
    }
    assert_eq!(table.sandbox.guest_memory_bytes().0, 0, "everything is given back");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

impl Table {
    /// Tries until all is well.
    async fn row(&self, case: &Case) -> Seen {
        let (mut alone, mut beside) = (Duration::ZERO, Duration::MAX);
        let (mut tries, mut quiet) = (0, 0);
        loop {
            let mut seen = self.attempt(case).await;
            tries += 1;
            if !seen.busy {
                alone = alone.max(seen.alone);
                beside = beside.min(seen.beside);
                quiet += 1;
            }
            if quiet > 0 {
                (seen.alone, seen.beside, seen.busy) = (alone, beside, false);
            }
            // Whoever is busy now may not be the next time.
            let tried = if quiet > 0 { seen.is_well(case) || quiet == TRIES } else { tries == BUSY_TRIES };
            if !seen.right || tried || tries == TRIES + BUSY_TRIES {
                return seen;
            }
        }
    }

    async fn attempt(&self, case: &Case) -> Seen {
        let (mut spec, _) = support::spec(&["guest"]);
        spec.logs = ContainerSpec::new("").logs;
        spec.limits.memory_bytes_max = MEMORY_BYTES;
        spec.limits.cpu = quota(QUOTA_MILLICORES);
        (case.change)(&mut spec);
        let module = match &case.run {
            Run::Module(make) => Bytes::from(make()),
            _ => Bytes::new(),
        };
        let load = Load::now();
        let alone = latency(&self.neighbour, TIME).await;
        let before = reset_peak();
        let started = Instant::now();
        let (ended, right, beside, cpu) = match &case.run {
            Run::Command(wat) => {
                let Some(command) = self.command(wat, spec).await else {
                    return Seen::refused(case.wanted);
                };
                let beside = latency(&self.neighbour, TIME).await;
                let (ended, right) = end_of_command(&command, case.wanted).await;
                (ended, right, beside, command.usage().cpu)
            }
            Run::Path(path, callers) => {
                let requests = (0..*callers).map(|_| get(path)).collect();
                self.requests(requests, spec, case.wanted).await
            }
            Run::Request(request) => self.requests(vec![request()], spec, case.wanted).await,
            Run::Module(_) => self.compile(module, case.wanted).await,
        };
        let (grown_bytes, wall) = (peak_bytes().saturating_sub(before), started.elapsed());
        let grown_bytes_max = match case.run {
            Run::Module(_) => COMPILE_BYTES,
            _ => MEMORY_BYTES + SLACK_BYTES,
        };
        Seen { ended, right, alone, beside, grown_bytes, grown_bytes_max, cpu, wall, busy: load.is_busy_elsewhere() }
    }

    /// The compiler's own bounds are told, so its CPU time is not of the container's quota.
    async fn compile(&self, wasm: Bytes, wanted: Wanted) -> (String, bool, Duration, Duration) {
        let sandbox = if wanted == Wanted::Compiled { self.patient.clone() } else { self.compiling.clone() };
        let loading = tokio::spawn(async move { sandbox.load(wasm).await.map(drop) });
        let beside = latency(&self.neighbour, TIME).await;
        let result = loading.await.unwrap();
        let right = match wanted {
            Wanted::NotCompiled => result.is_err(),
            Wanted::Compiled => result.is_ok(),
            _ => false,
        };
        let ended = result.map_or_else(|error| error.to_string(), |()| "compiled".to_owned());
        (short(&ended), right, beside, Duration::ZERO)
    }

    async fn command(&self, wat: &str, spec: ContainerSpec) -> Option<CommandContainer> {
        let image = match self.sandbox.load(Bytes::from(wat.to_owned())).await {
            Ok(image) => image,
            Err(error) => {
                println!("{error}");
                return None;
            }
        };
        Some(self.sandbox.command(&image, spec).unwrap())
    }

    /// Several callers, each with one request.
    async fn requests(
        &self,
        requests: Vec<http::Request<podium_sandbox::Body>>,
        spec: ContainerSpec,
        wanted: Wanted,
    ) -> (String, bool, Duration, Duration) {
        let pod = Arc::new(self.sandbox.http(&self.hostile, spec).unwrap());
        // Who is to come to another end gets the time for it.
        let time = if matches!(wanted, Wanted::TimedOut) { TIME } else { PATIENCE };
        let calls = requests.into_iter().map(|mut request| {
            request.extensions_mut().insert(RequestTimeout(time));
            tokio::spawn(call(pod.clone(), request))
        });
        // Each a task of its own, as callers are: what they do is not to hold up the neighbours' caller.
        let calls: Vec<_> = calls.collect();
        let beside = latency(&self.neighbour, TIME).await;
        let answers: Vec<_> = futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert!(pod.drain(PATIENCE).await, "what is over leaves nothing");
        // Who comes when the container has ended already hears just that.
        let late = |answer: &Result<String, CallFailure>| {
            wanted == Wanted::OutOfMemory && matches!(answer, Err(CallFailure::Stopped))
        };
        let right = answers.iter().any(|answer| matches_wanted(answer, wanted))
            && answers.iter().all(|answer| matches_wanted(answer, wanted) || late(answer));
        let ended = match &answers[0] {
            Ok(answer) => answer.clone(),
            Err(failure) => failure.to_string(),
        };
        (short(&ended), right, beside, pod.usage().cpu)
    }
}

impl Seen {
    fn refused(wanted: Wanted) -> Self {
        let none = Duration::ZERO;
        let right = wanted == Wanted::Refused;
        let (ended, grown_bytes_max) = ("refused".into(), MEMORY_BYTES);
        Self {
            ended,
            right,
            alone: none,
            beside: none,
            grown_bytes: 0,
            grown_bytes_max,
            cpu: none,
            wall: none,
            busy: false,
        }
    }
}

/// Reads an answer to its end, wherever that is.
async fn call(pod: Arc<HttpContainer>, request: http::Request<podium_sandbox::Body>) -> Result<String, CallFailure> {
    let response = pod.call(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.into_data().map_or(0, |data| data.len()),
            Err(_) => return Ok(format!("body broken off after {bytes} bytes")),
        }
    }
    Ok(format!("{status}, {bytes} bytes"))
}

fn matches_wanted(answer: &Result<String, CallFailure>, wanted: Wanted) -> bool {
    match (wanted, answer) {
        (Wanted::OutOfMemory, Err(CallFailure::OutOfMemory { .. }))
        | (Wanted::TimedOut, Err(CallFailure::TimedOut)) => true,
        (Wanted::TimedOut, Ok(answer)) => answer.starts_with("body broken off"),
        (Wanted::Trap(part), Err(CallFailure::Trapped { message, .. })) => message.contains(part),
        (Wanted::Answered, Ok(answer)) => answer.starts_with("200"),
        _ => false,
    }
}

/// Its end: of itself, or by being killed.
async fn end_of_command(command: &CommandContainer, wanted: Wanted) -> (String, bool) {
    let time = if wanted == Wanted::Throttled { Duration::from_millis(1) } else { PATIENCE };
    let ending = match tokio::time::timeout(time, command.wait()).await {
        Ok(ending) => ending,
        Err(_) => {
            let throttled = command.usage().throttled;
            command.kill();
            let killed = tokio::time::timeout(PATIENCE, command.wait()).await;
            let right = killed.is_ok() && wanted == Wanted::Throttled;
            return (format!("killed, after {throttled:.0?} throttled"), right);
        }
    };
    match (wanted, &ending) {
        (Wanted::OutOfMemory, Ending::OutOfMemory { .. }) => ("out of memory".into(), true),
        (Wanted::Trap(part), Ending::Trapped { message, .. }) => (short(message), message.contains(part)),
        _ => (short(&format!("{ending:?}")), false),
    }
}

fn short(text: &str) -> String {
    text.chars().take(34).collect()
}

/// A neighbour's p99, asked for twice in a millisecond for so long.
async fn latency(neighbour: &HttpContainer, time: Duration) -> Duration {
    let start = Instant::now();
    let mut all = Vec::new();
    while start.elapsed() < time {
        let sent = Instant::now();
        text(neighbour, "/").await.unwrap();
        all.push(sent.elapsed());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    all.sort();
    all[all.len() * 99 / 100]
}

/// Most bytes that were resident since the last [`reset_peak`].
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Has the kernel begin anew, and answers with what is resident now.
fn reset_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak_bytes()
}
