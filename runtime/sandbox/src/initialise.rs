//! Snapshots: what an image does once when it is loaded, so that no instance has to do it again.
//!
//! A component or core module that exports a function `wizer-initialize`, or one that [`crate::LoadOptions`] names, is made
//! once, the function is called (after `_initialize`, if a core module has that), and memories and globals as it leaves them
//! become what every instance begins with. The result is compiled and kept in the cache under the file's digest and the
//! function's name, which are all that it depends on: this happens once on a node, not at each start.
//!
//! It runs within bounds, and is granted nothing. Whatever it reads of clocks and random numbers is the same in all
//! instances. It may keep nothing of the host (streams, files): handles do not outlive it, and a component that keeps some is
//! refused. A core module is granted no file that it could keep. Tables are not part of a snapshot.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use wasmparser::{ComponentExternalKind, ExternalKind, Parser, Payload};
use wasmtime::{
    Module, Store, Val,
    component::{Component, Instance, Lift, WasmList},
};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wizer::{ComponentInstanceState, InstanceState, SnapshotVal, ValType, Wizer};

use crate::{
    ContainerSpec, Initialise, LoadError,
    container::Container,
    failure::Failure,
    host::{self, CoreGuest, Guest},
    image::Compiled,
    sandbox::Node,
    task::{self, Turn},
};

/// The export that asks for it.
const EXPORT: &str = "wizer-initialize";
/// What a core module without `_start` wants to be called before anything else.
const FIRST: &str = "_initialize";
/// Memory of all that it makes.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// How long it may take.
const TIME: Duration = Duration::from_secs(30);

/// The function to call, if there is one: as asked for, or as the image exports it.
pub(crate) fn wanted(wasm: &[u8], asked: Initialise) -> Option<String> {
    match asked {
        Initialise::Export(export) => Some(export),
        Initialise::Usual => exports(wasm, EXPORT).then(|| EXPORT.to_owned()),
        Initialise::Never => None,
    }
}

/// Whether a component or core module exports a function. What cannot be read exports nothing: others say what is wrong with it.
fn exports(wasm: &[u8], name: &str) -> bool {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentExportSection(section)) if depth == 0 => {
                let mut functions = section.into_iter().flatten().filter(|e| e.kind == ComponentExternalKind::Func);
                if functions.any(|export| export.name.name == name) {
                    return true;
                }
            }
            Ok(Payload::ExportSection(section)) if depth == 0 => {
                let mut functions = section.into_iter().flatten().filter(|e| e.kind == ExternalKind::Func);
                if functions.any(|export| export.name == name) {
                    return true;
                }
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

/// What is to be compiled so that the function can be called and its outcome be read.
pub(crate) fn instrumented(wasm: &[u8], export: &str) -> Result<Bytes, LoadError> {
    let wizer = wizer(export);
    let instrumented = if Parser::is_component(wasm) {
        wizer.instrument_component(wasm).map(|(_, instrumented)| instrumented)
    } else {
        wizer.instrument(wasm).map(|(_, instrumented)| instrumented)
    };
    instrumented.map(Bytes::from).map_err(|e| failed(export, &e))
}

fn wizer(export: &str) -> Wizer {
    let mut wizer = Wizer::new();
    // Else it would be taken out of all core modules too, of which the component's own is lifted.
    wizer.init_func(export).keep_init_func(true);
    wizer
}

fn failed(export: &str, error: &wasmtime::Error) -> LoadError {
    LoadError::Initialise { export: export.to_owned(), reason: format!("{error:#}") }
}

/// Calls the function in the instrumented image, and answers with the image as that left it.
pub(crate) async fn snapshot(
    node: &Arc<Node>,
    wasm: Bytes,
    instrumented: Compiled,
    export: String,
) -> Result<Bytes, LoadError> {
    let refused = |reason: String| LoadError::Initialise { export: export.clone(), reason };
    let mut spec = ContainerSpec::new(format!("initialise/{export}"));
    spec.limits.memory_bytes_max = MEMORY_BYTES_MAX;
    let container = Container::new(node.clone(), spec).map_err(|e| refused(e.to_string()))?;
    let (answer, outcome) = oneshot::channel();
    let (guest, turn) = (container.clone(), Arc::new(Turn::default()));
    let (of_guest, named) = (turn.clone(), export.clone());
    let work = async move {
        let done = tokio::select! {
            biased;
            () = guest.ended.cancelled() => Err(wasmtime::format_err!("it took too long")),
            done = initialised(&guest, of_guest, &instrumented, &wasm, &named) => done,
        };
        let _ = answer.send(done);
    };
    task::spawn(&Handle::current(), container.clone(), turn, Box::pin(work));
    let outcome = timeout(TIME, outcome).await;
    container.end(crate::Ending::Killed);
    match outcome {
        Ok(Ok(Ok(snapshot))) => Ok(snapshot),
        Ok(Ok(Err(error))) => Err(refused(words(&error))),
        // A panic while the snapshot was written: of a component that the library did not expect.
        Ok(Err(_)) => Err(refused("its state cannot be read".to_owned())),
        Err(_) => Err(refused(format!("it took longer than {} s", TIME.as_secs()))),
    }
}

/// With the frames of a trap.
fn words(error: &wasmtime::Error) -> String {
    match Failure::of(error) {
        Failure::Trap { message, backtrace } if backtrace.is_empty() => message,
        Failure::Trap { message, backtrace } => format!("{message}\n{}", backtrace.join("\n")),
        Failure::OutOfMemory => format!("it needs more than {MEMORY_BYTES_MAX} bytes of memory"),
        Failure::Exit(code) => format!("it exited with code {code}"),
        Failure::NodeFull(reason) => reason,
    }
}

async fn initialised(
    container: &Arc<Container>,
    turn: Arc<Turn>,
    instrumented: &Compiled,
    wasm: &[u8],
    export: &str,
) -> wasmtime::Result<Bytes> {
    match instrumented {
        Compiled::Component(component) => of_component(container, turn, component, wasm, export).await,
        Compiled::Core(module) => of_core(container, turn, module, wasm, export).await,
    }
}

async fn of_core(
    container: &Arc<Container>,
    turn: Arc<Turn>,
    module: &Module,
    wasm: &[u8],
    export: &str,
) -> wasmtime::Result<Bytes> {
    let mut store = host::core_store(container, turn)?;
    let instance = container.node.linkers.core.instantiate_async(&mut store, module).await?;
    if export != FIRST
        && let Some(first) = instance.get_func(&mut store, FIRST)
    {
        first.call_async(&mut store, &[], &mut []).await?;
    }
    let function = instance.get_typed_func::<(), ()>(&mut store, export)?;
    function.call_async(&mut store, ()).await?;
    let wizer = wizer(export);
    let (context, _) = wizer.instrument(wasm)?;
    let mut state = CoreState { store, instance, failed: None };
    let snapshot = wizer.snapshot(&context, &mut state).await?;
    match state.failed {
        Some(error) => Err(error),
        None => Ok(snapshot.into()),
    }
}

async fn of_component(
    container: &Arc<Container>,
    turn: Arc<Turn>,
    component: &Component,
    wasm: &[u8],
    export: &str,
) -> wasmtime::Result<Bytes> {
    let mut store = host::store(container, turn);
    let instance = container.node.linkers.component.instantiate_async(&mut store, component).await?;
    let function = instance.get_typed_func::<(), ()>(&mut store, export)?;
    function.call_async(&mut store, ()).await?;
    if !store.data_mut().http().table.is_empty() {
        wasmtime::bail!("it keeps streams, files or other things of the host, which no instance would have");
    }
    // What it has left is read as one list for each memory.
    store.set_hostcall_fuel(usize::MAX);
    let wizer = wizer(export);
    let (context, _) = wizer.instrument_component(wasm)?;
    let mut state = State { store, instance, failed: None };
    let snapshot = wizer.snapshot_component(&context, &mut state).await?;
    match state.failed {
        Some(error) => Err(error),
        None => Ok(snapshot.into()),
    }
}

/// An instance of a core module, whose state is exported by what it was instrumented with.
struct CoreState {
    store: Store<CoreGuest>,
    instance: wasmtime::Instance,
    /// As of [`State`].
    failed: Option<wasmtime::Error>,
}

impl CoreState {
    fn fail(&mut self, what: &str, name: &str) {
        self.failed.get_or_insert_with(|| wasmtime::format_err!("it cannot be read: {what} {name}"));
    }
}

impl InstanceState for CoreState {
    async fn global_get(&mut self, name: &str, of: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name);
        match global.map(|global| global.get(&mut self.store)) {
            Some(Val::I32(value)) => return SnapshotVal::I32(value),
            Some(Val::I64(value)) => return SnapshotVal::I64(value),
            Some(Val::F32(bits)) => return SnapshotVal::F32(bits),
            Some(Val::F64(bits)) => return SnapshotVal::F64(bits),
            Some(Val::V128(bits)) => return SnapshotVal::V128(bits.as_u128()),
            _ => self.fail("the global", name),
        }
        match of {
            ValType::I64 => SnapshotVal::I64(0),
            ValType::F32 => SnapshotVal::F32(0),
            ValType::F64 => SnapshotVal::F64(0),
            ValType::V128 => SnapshotVal::V128(0),
            _ => SnapshotVal::I32(0),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        match self.instance.get_memory(&mut self.store, name) {
            Some(memory) => contents(memory.data(&self.store)),
            None => {
                self.fail("the memory", name);
                contents(&[]);
            }
        }
    }
}

/// An instance of a component, whose state is read by what it was instrumented with.
struct State {
    store: Store<Guest>,
    instance: Instance,
    /// The reader can be told of no failure: it goes on with nothing, and its result is thrown away.
    failed: Option<wasmtime::Error>,
}

impl State {
    async fn read<R, T: Default>(&mut self, of: &str, name: &str, with: impl FnOnce(&Store<Guest>, R) -> T) -> T
    where
        R: Lift + Send + Sync + 'static,
    {
        match self.call(of, name).await {
            Ok(value) => with(&self.store, value),
            Err(error) => {
                self.failed.get_or_insert(error);
                T::default()
            }
        }
    }

    async fn call<R: Lift + Send + Sync + 'static>(&mut self, of: &str, name: &str) -> wasmtime::Result<R> {
        let missing = || wasmtime::format_err!("it cannot be read: {of} has no {name}");
        let (_, of_index) = self.instance.get_export(&mut self.store, None, of).ok_or_else(missing)?;
        let (_, index) = self.instance.get_export(&mut self.store, Some(&of_index), name).ok_or_else(missing)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, index)?;
        Ok(function.call_async(&mut self.store, ()).await?.0)
    }
}

impl ComponentInstanceState for State {
    async fn call_func_ret_list_u8(&mut self, instance: &str, func: &str, contents: impl FnOnce(&[u8]) + Send) {
        self.read(instance, func, |store, list: WasmList<u8>| contents(list.as_le_slice(store))).await;
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.read(instance, func, |_, value: i32| value).await
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.read(instance, func, |_, value: i64| value).await
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.read(instance, func, |_, value: f32| value.to_bits()).await
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.read(instance, func, |_, value: f64| value.to_bits()).await
    }
}
