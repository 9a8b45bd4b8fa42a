//! `wasi:http`: calls of a guest go out through [`crate::Outgoing`], or are refused.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use wasmtime::component::Linker;
use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::{Capability, Guest};
use crate::{
    BoxError, OutgoingError, OutgoingTimeouts,
    container::Container,
    traffic::{Counted, Way},
};

/// Bytes of one chunk of a body.
const BODY_CHUNK_BYTES: usize = 64 << 10;
/// Bytes of all headers of one message that a guest makes.
const FIELDS_BYTES_MAX: usize = 64 << 10;

pub(super) const CAPABILITY: Capability = Capability {
    group: "wasi:http",
    interfaces: &[("client", &["0.3"]), ("outgoing-handler", &["0.2"]), ("types", &["0.2", "0.3"])],
    can_be_empty: true,
    link,
};

fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)
}

/// What an instance holds of it.
pub(super) struct Http {
    ctx: WasiHttpCtx,
    exit: Exit,
}

impl Http {
    pub(super) fn new(container: &Arc<Container>) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(FIELDS_BYTES_MAX);
        Self { ctx, exit: Exit(container.clone()) }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.called();
        let Http { ctx, exit } = &mut self.http;
        WasiHttpCtxView { ctx, table: &mut self.table, hooks: exit }
    }
}

/// The way out.
struct Exit(Arc<Container>);

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
        let container = self.0.clone();
        Box::new(async move {
            let granted = container.is_granted(CAPABILITY.group);
            let outgoing = container.spec.outgoing.as_ref().filter(|_| granted).ok_or(HttpError::HttpRequestDenied)?;
            let sent =
                |body| Counted::new(body, container.clone(), Way::Out, |e| Box::new(e) as BoxError).boxed_unsync();
            let mut request = request.map(sent);
            request.extensions_mut().insert(timeouts(options.as_ref()));
            let sending = outgoing.send(request);
            let response = match options.and_then(|o| o.first_byte_timeout) {
                Some(limit) => {
                    tokio::time::timeout(limit, sending).await.map_err(|_| HttpError::ConnectionReadTimeout)?
                }
                None => sending.await,
            };
            let response = response.map_err(outgoing_error)?;
            let received = |body| Counted::new(body, container.clone(), Way::In, body_error).boxed_unsync();
            let response = response.map(received);
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

fn timeouts(options: Option<&RequestOptions>) -> OutgoingTimeouts {
    let of = |get: fn(&RequestOptions) -> Option<Duration>| options.and_then(get);
    OutgoingTimeouts {
        connect: of(|o| o.connect_timeout),
        first_byte: of(|o| o.first_byte_timeout),
        between_bytes: of(|o| o.between_bytes_timeout),
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
