//! `wasi:sockets/ip-name-lookup` 0.2.

use std::{future::poll_fn, net::IpAddr, task::Poll, vec};

use wasmtime::component::Resource;
use wasmtime_wasi::p2::{
    DynPollable, Pollable, SocketResult,
    bindings::sockets::{
        ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream},
        network::{ErrorCode, IpAddress, Network},
    },
    subscribe,
};

use crate::{
    memory::Charge,
    sockets::{
        Code, Ready, SocketsView, handle,
        lookup::{LOOKUP_BYTES, lookup},
        once,
    },
};

/// A lookup under way, or the addresses that are left.
struct Addresses {
    found: Ready<Result<vec::IntoIter<IpAddr>, Code>>,
    _charge: Charge,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {
        poll_fn(|cx| self.found.poll_ready(cx).map(drop)).await;
    }
}

impl Host for SocketsView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.check_network(&network)?;
        let charge = self.instance.charge(LOOKUP_BYTES)?;
        let looking = lookup(self.instance, &name)?;
        let found = Ready::new(async move { looking.await.map(Vec::into_iter) });
        Ok(handle(&self.table.push(Addresses { found, _charge: charge })?))
    }
}

impl HostResolveAddressStream for SocketsView<'_> {
    fn resolve_next_address(&mut self, this: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let addresses: &mut Addresses = self.table.get_mut(&handle(&this))?;
        match addresses.found.poll_ready(&mut once()) {
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(Ok(left)) => Ok(left.next().map(IpAddress::from)),
            Poll::Ready(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Addresses>(self.table, handle(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete::<Addresses>(handle(&this))?;
        Ok(())
    }
}
