//! `udp-socket` of `wasi:sockets/types` 0.3.

use std::{future::poll_fn, net::SocketAddr};

use wasmtime::component::{Accessor, Resource, ResourceTable};
use wasmtime_wasi::p3::{
    bindings::sockets::types::{HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress, UdpSocket},
    sockets::SocketResult,
};

use super::trap;
use crate::sockets::{HasSockets, SocketsView, handle, udp};

fn get<'a>(table: &'a ResourceTable, socket: &Resource<UdpSocket>) -> SocketResult<&'a udp::UdpSocket> {
    table.get(&handle(socket)).map_err(trap)
}

fn get_mut<'a>(table: &'a mut ResourceTable, socket: &Resource<UdpSocket>) -> SocketResult<&'a mut udp::UdpSocket> {
    table.get_mut(&handle(socket)).map_err(trap)
}

impl<T: Send> HostUdpSocketWithStore<T> for HasSockets {
    async fn send(
        store: &Accessor<T, Self>,
        socket: Resource<UdpSocket>,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let mut outgoing = store.with(|mut view| -> SocketResult<_> {
            Ok(get_mut(view.get().table, &socket)?.start_send(data, remote.map(SocketAddr::from))?)
        })?;
        Ok(poll_fn(|cx| outgoing.poll_sent(cx)).await?)
    }

    async fn receive(
        store: &Accessor<T, Self>,
        socket: Resource<UdpSocket>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let mut incoming =
            store.with(|mut view| -> SocketResult<_> { Ok(get(view.get().table, &socket)?.incoming()?) })?;
        let (bytes, from) = poll_fn(|cx| incoming.poll_receive(cx)).await?;
        Ok((bytes.into(), from.into()))
    }
}

impl HostUdpSocket for SocketsView<'_> {
    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let socket = udp::UdpSocket::new(self.instance, family.into())?;
        Ok(handle(&self.table.push(socket).map_err(trap)?))
    }

    async fn bind(&mut self, this: Resource<UdpSocket>, local: IpSocketAddress) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.bind(local.into())?)
    }

    async fn connect(&mut self, this: Resource<UdpSocket>, remote: IpSocketAddress) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.connect(remote.into())?)
    }

    fn disconnect(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.disconnect()?)
    }

    fn get_local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(get(self.table, &this)?.local()?.into())
    }

    fn get_remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(get(self.table, &this)?.remote()?.into())
    }

    fn get_address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(get(self.table, &this)?.family.into())
    }

    fn get_unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(get(self.table, &this)?.options.hop_limit())
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options.set_hop_limit(value)?)
    }

    fn get_receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.options.receive_buffer_bytes())
    }

    fn set_receive_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options.set_receive_buffer_bytes(value)?)
    }

    fn get_send_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.options.send_buffer_bytes())
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options.set_send_buffer_bytes(value)?)
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete::<udp::UdpSocket>(handle(&this))?;
        Ok(())
    }
}
