//! What a guest sees of its host: arguments, environment, output, clocks, random numbers, and calls through
//! [`crate::Outgoing`]. No files, no sockets, no names; their interfaces are there and refuse.
//!
//! Host-side memory per instance is bounded: resources and handles by number, a body's chunk and one host call's
//! arguments by bytes; output is handed on at once and never kept.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use wasmtime::{
    Store,
    component::{HasData, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, p1::WasiP1Ctx};
use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use crate::{
    BoxError, ContainerSpec, Outgoing, OutgoingError, Stream,
    container::{Container, InstanceGuard},
    log::LogStream,
    memory::Held,
    task::{Turn, yield_by_epoch},
};

/// Resources that one instance may hold at once.
const RESOURCES_MAX: usize = 10_000;
/// Bytes that one call of a guest may make the host copy.
const HOSTCALL_BYTES_MAX: usize = 16 << 20;
/// Bytes of one chunk of a body.
const BODY_CHUNK_BYTES: usize = 64 << 10;

/// State of a component's store.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    exit: Exit,
    own: Own,
}

/// State of a core module's store.
pub(crate) struct CoreGuest {
    pub(crate) wasi: WasiP1Ctx,
    own: Own,
}

/// What every store holds.
pub(crate) struct Own {
    held: Held,
    container: Arc<Container>,
    _counted: InstanceGuard,
}

impl Own {
    fn new(container: &Arc<Container>) -> Self {
        Self {
            held: Held::new(container.memory.clone()),
            container: container.clone(),
            _counted: InstanceGuard::new(container.clone()),
        }
    }
}

/// Makes the store of one instance of a component.
pub(crate) fn store(container: &Arc<Container>, turn: Arc<Turn>) -> Store<Guest> {
    let mut table = ResourceTable::new();
    table.set_max_capacity(RESOURCES_MAX);
    let guest = Guest {
        wasi: context(&container.spec).build(),
        http: WasiHttpCtx::new(),
        table,
        exit: Exit(container.spec.outgoing.clone()),
        own: Own::new(container),
    };
    let mut store = Store::new(&container.node.engine, guest);
    store.limiter(|guest| &mut guest.own.held);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(RESOURCES_MAX);
    yield_by_epoch(&mut store, container.clone(), turn);
    store
}

/// Makes the store of one instance of a core module.
pub(crate) fn core_store(container: &Arc<Container>, turn: Arc<Turn>) -> Store<CoreGuest> {
    let mut context = context(&container.spec);
    context.args(&container.spec.args).envs(&container.spec.env);
    let guest = CoreGuest { wasi: context.build_p1(), own: Own::new(container) };
    let mut store = Store::new(&container.node.engine, guest);
    store.limiter(|guest| &mut guest.own.held);
    yield_by_epoch(&mut store, container.clone(), turn);
    store
}

/// Arguments and environment are not in here for components: see [`Environment`].
fn context(spec: &ContainerSpec) -> WasiCtxBuilder {
    let mut context = WasiCtxBuilder::new();
    context
        .stdout(LogStream::new(spec.logs.clone(), Stream::Stdout))
        .stderr(LogStream::new(spec.logs.clone(), Stream::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    if let Some(stdin) = &spec.stdin {
        context.stdin(stdin.stream(spec.tty));
    }
    context
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.exit }
    }
}

/// Links everything that a component may import.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    linker.allow_shadowing(true);
    wasmtime_wasi::p2::bindings::cli::environment::add_to_linker::<_, HasEnvironment>(linker, Guest::environment)?;
    wasmtime_wasi::p3::bindings::cli::environment::add_to_linker::<_, HasEnvironment>(linker, Guest::environment)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Guest {
    fn environment(&mut self) -> Environment<'_> {
        Environment(&self.own.container.spec)
    }
}

/// Arguments and environment straight from the spec: an instance that does not ask for them pays nothing, however
/// many variables a pod has.
struct Environment<'a>(&'a ContainerSpec);

struct HasEnvironment;

impl HasData for HasEnvironment {
    type Data<'a> = Environment<'a>;
}

impl wasmtime_wasi::p2::bindings::cli::environment::Host for Environment<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.0.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.0.args.clone())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl wasmtime_wasi::p3::bindings::cli::environment::Host for Environment<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.0.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.0.args.clone())
    }

    fn get_initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

/// The way out.
struct Exit(Option<Arc<dyn Outgoing>>);

type HttpError = wasmtime_wasi_http::Error;
type IoDone = Box<dyn Future<Output = Result<(), HttpError>> + Send>;
type Sent = Result<(http::Response<WasiBody>, IoDone), HttpError>;

impl WasiHttpHooks for Exit {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_done: IoDone,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let outgoing = self.0.clone();
        Box::new(async move {
            let outgoing = outgoing.ok_or(HttpError::HttpRequestDenied)?;
            let sending = outgoing.send(request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync()));
            let response = match options.and_then(|o| o.first_byte_timeout) {
                Some(limit) => {
                    tokio::time::timeout(limit, sending).await.map_err(|_| HttpError::ConnectionReadTimeout)?
                }
                None => sending.await,
            };
            let response = response.map_err(outgoing_error)?;
            let response = response.map(|body| body.map_err(body_error).boxed_unsync());
            Ok((response, Box::new(std::future::ready(Ok(()))) as IoDone))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// A body's failure, as a guest sees it.
pub(crate) fn body_error(error: BoxError) -> HttpError {
    match error.downcast::<HttpError>() {
        Ok(error) => *error,
        Err(error) => HttpError::InternalError(Some(error.to_string())),
    }
}

fn outgoing_error(error: OutgoingError) -> HttpError {
    match error {
        OutgoingError::Denied(_) => HttpError::HttpRequestDenied,
        OutgoingError::NameNotFound(name) => {
            HttpError::DnsError { rcode: Some(format!("name not found: {name}")), info_code: None }
        }
        OutgoingError::Refused(_) => HttpError::ConnectionRefused,
        OutgoingError::TimedOut(_) => HttpError::ConnectionTimeout,
        OutgoingError::Other(reason) => HttpError::InternalError(Some(reason)),
    }
}
