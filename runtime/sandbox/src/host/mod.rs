//! What a guest sees of its host. A capability is one file here plus one line in [`CAPABILITIES`]: it is linked once per
//! engine, configured per container by its [`crate::ContainerSpec`], and made per instance when the guest first asks.
//! Whatever was not given is there and refuses.
//!
//! Host-side memory per instance is bounded: resources and handles by number, a body's chunk and one host call's
//! arguments by bytes; output is handed on at once and never kept.

mod cli;
mod config;
mod filesystem;
mod http;
mod keyvalue;
mod listing;
mod logging;
mod open_files;
mod sockets;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use wasmtime::{
    Store, StoreContextMut,
    component::{Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_tls::WasiTlsCtx;

pub(crate) use self::{
    http::body_error,
    open_files::{OPEN_MAX, is_short},
};
use crate::{
    container::{Container, InstanceGuard},
    hidden::{Hidden, INSTANCE_BASE_BYTES, concurrent_bytes},
    memory::{Held, OutOfMemory},
    sockets::{Instance, Preview1},
    task::{Measured, Turn, yield_by_epoch},
};

/// Resources that one instance may hold at once.
const RESOURCES_MAX: usize = 10_000;
/// Tasks, streams, futures and sets of waitables that one instance may have at once. A task may keep one of the node's
/// stacks.
const CONCURRENT_MAX: usize = 4096;
/// What a core module's table of resources holds beside open files: its standard streams, and streams over files while they are read.
const STREAMS_MAX: usize = 64;
/// What an open file of a core module costs the host: its entries in two tables, its path, its place in the kernel.
const OPEN_FILE_BYTES: u64 = 1 << 10;
/// Bytes that one call of a guest may make the host copy.
const HOSTCALL_BYTES_MAX: usize = 16 << 20;

/// A group of interfaces that a component may import.
pub(crate) struct Capability {
    /// The package, for example `wasi:http`.
    pub(crate) group: &'static str,
    /// Its interfaces, and the versions of each.
    pub(crate) interfaces: &'static [(&'static str, &'static [&'static str])],
    /// Whether it can be there and refuse everything. Images that import others need them granted.
    pub(crate) can_be_empty: bool,
    /// Links it; may replace what the library links.
    link: fn(&mut Linker<Guest>) -> wasmtime::Result<()>,
}

/// Everything that a component may import.
pub(crate) const CAPABILITIES: &[Capability] = &[
    cli::CLI,
    cli::CLOCKS,
    cli::IO,
    cli::RANDOM,
    config::CAPABILITY,
    filesystem::CAPABILITY,
    http::CAPABILITY,
    keyvalue::CAPABILITY,
    logging::CAPABILITY,
    tls::CAPABILITY,
    sockets::CAPABILITY,
];

/// Links everything that a component may import.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    linker.allow_shadowing(true);
    for capability in CAPABILITIES {
        (capability.link)(linker)?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

/// State of a component's store.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: http::Http,
    tls: Option<Box<WasiTlsCtx>>,
    table: ResourceTable,
    own: Own,
}

/// State of a core module's store.
pub(crate) struct CoreGuest {
    pub(crate) preview1: Preview1,
    own: Own,
}

/// What every store holds.
pub(crate) struct Own {
    held: Held,
    hidden: Hidden,
    container: Arc<Container>,
    sockets: Instance,
    _counted: InstanceGuard,
}

impl Own {
    fn new(container: &Arc<Container>) -> Self {
        let mut held = Held::new(container.memory.clone());
        // A container that is full with this much ends when the guest takes its first step.
        let _ = held.hide(INSTANCE_BASE_BYTES);
        Self {
            held,
            hidden: Hidden::default(),
            container: container.clone(),
            sockets: Instance::new(container.clone()),
            _counted: InstanceGuard::new(container),
        }
    }
}

/// Makes the store of one instance of a component.
pub(crate) fn store(container: &Arc<Container>, turn: Arc<Turn>) -> Store<Guest> {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    let guest = Guest {
        wasi: cli::context(container).build(),
        http: http::Http::new(container),
        tls: None,
        table,
        own: Own::new(container),
    };
    let mut store = Store::new(&container.node.engine, guest);
    store.limiter(|guest| &mut guest.own.held);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(RESOURCES_MAX);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(CONCURRENT_MAX);
    }
    yield_by_epoch(&mut store, container.clone(), turn);
    store
}

/// Makes the store of one instance of a core module.
///
/// # Errors
/// When a mount cannot be opened.
pub(crate) fn core_store(container: &Arc<Container>, turn: Arc<Turn>) -> wasmtime::Result<Store<CoreGuest>> {
    let mut context = cli::context(container);
    let spec = &container.spec;
    let has_files = spec.grants.has(filesystem::GROUP);
    let mounts = if has_files { container.files.preopen(&mut context, spec.working_dir.as_deref())? } else { 0 };
    let may_listen = spec.listen.is_empty() || container.is_granted(crate::sockets::GROUP);
    let listen: &[SocketAddr] = if may_listen { &spec.listen } else { &[] };
    context.args(&spec.args).envs(Preview1::environment(listen).as_slice()).envs(&spec.env);
    if let Some(dir) = &spec.working_dir
        && spec.env.iter().all(|(name, _)| name != "PWD")
    {
        // As container runtimes set it; some guests go there when they start.
        context.env("PWD", dir);
    }
    let own = Own::new(container);
    let mut wasi = context.build_p1();
    wasi.ctx().table.set_max_capacity(OPEN_MAX + STREAMS_MAX);
    let preview1 = Preview1::new(wasi, own.sockets.clone(), listen, mounts)?;
    let guest = CoreGuest { preview1, own };
    let mut store = Store::new(&container.node.engine, guest);
    store.limiter(|guest| &mut guest.own.held);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    yield_by_epoch(&mut store, container.clone(), turn);
    Ok(store)
}

impl Guest {
    /// To be told of each call that may make the host allocate.
    fn called(&mut self) {
        self.own.hidden.called(&mut self.own.held, &mut self.table);
    }
}

impl Measured for Guest {
    fn measure(store: &mut StoreContextMut<'_, Self>) -> Result<(), OutOfMemory> {
        let concurrent = store.concurrent_resource_table().map(concurrent_bytes);
        let guest = store.data_mut();
        guest.own.hidden.look(&mut guest.own.held, &mut guest.table, concurrent)
    }
}

/// Its resources are its open files.
impl Measured for CoreGuest {
    fn measure(store: &mut StoreContextMut<'_, Self>) -> Result<(), OutOfMemory> {
        let guest = store.data_mut();
        let files = guest.preview1.open_files() as u64 * OPEN_FILE_BYTES;
        guest.own.held.hide(INSTANCE_BASE_BYTES + files)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.called();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
