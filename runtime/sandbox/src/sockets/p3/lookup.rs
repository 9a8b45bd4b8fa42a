//! `wasi:sockets/ip-name-lookup` 0.3.

use wasmtime::component::Accessor;
use wasmtime_wasi::p3::bindings::sockets::{
    ip_name_lookup::{ErrorCode, Host, HostWithStore},
    types::IpAddress,
};

use crate::sockets::{
    HasSockets, SocketsView,
    lookup::{LOOKUP_BYTES, lookup},
};

impl Host for SocketsView<'_> {}

impl<T: Send> HostWithStore<T> for HasSockets {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, ErrorCode>> {
        let started = store.with(|mut view| {
            let instance = view.get().instance;
            Ok((instance.charge(LOOKUP_BYTES)?, lookup(instance, &name)?))
        });
        let found = match started {
            Ok((_charge, looking)) => looking.await,
            Err(code) => Err(code),
        };
        Ok(found.map(|found| found.into_iter().map(IpAddress::from).collect()).map_err(ErrorCode::from))
    }
}
