//! `tcp-socket` of `wasi:sockets/types` 0.3.

use std::{future::poll_fn, iter, net::SocketAddr, task::Poll};

use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureReader, Resource, ResourceTable, StreamReader};
use wasmtime_wasi::p3::{
    bindings::sockets::types::{
        Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress, TcpSocket,
    },
    sockets::SocketResult,
};

use super::{
    streams::{Accepted, Incoming, Outgoing},
    trap,
};
use crate::sockets::{HasSockets, SocketsView, handle, tcp};

type Told = FutureReader<Result<(), ErrorCode>>;

fn get<'a>(table: &'a ResourceTable, socket: &Resource<TcpSocket>) -> SocketResult<&'a tcp::TcpSocket> {
    table.get(&handle(socket)).map_err(trap)
}

fn get_mut<'a>(table: &'a mut ResourceTable, socket: &Resource<TcpSocket>) -> SocketResult<&'a mut tcp::TcpSocket> {
    table.get_mut(&handle(socket)).map_err(trap)
}

/// Told at once.
fn told<T>(store: &mut Access<'_, T, HasSockets>, code: ErrorCode) -> wasmtime::Result<Told> {
    FutureReader::new(store, async move { wasmtime::error::Ok(Err(code)) })
}

impl<T: Send> HostTcpSocketWithStore<T> for HasSockets {
    async fn connect(
        store: &Accessor<T, Self>,
        socket: Resource<TcpSocket>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        store.with(|mut store| SocketResult::Ok(get_mut(store.get().table, &socket)?.start_connect(remote.into())?))?;
        poll_fn(|cx| {
            store.with(|mut store| match get_mut(store.get().table, &socket) {
                Ok(socket) => socket.poll_connected(cx).map_err(Into::into),
                Err(error) => Poll::Ready(Err(error)),
            })
        })
        .await
    }

    async fn listen(
        mut store: Access<'_, T, Self>,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let getter = store.getter();
        let listener = get_mut(store.get().table, &socket)?.listen()?;
        StreamReader::new(&mut store, Accepted { listener, getter }).map_err(trap)
    }

    fn send(
        mut store: Access<'_, T, Self>,
        socket: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<Told> {
        match get_mut(store.get().table, &socket)?.take_sender() {
            Ok(sender) => {
                let (told, result) = oneshot::channel();
                data.pipe(&mut store, Outgoing(Some((sender, told))))?;
                FutureReader::new(&mut store, result)
            }
            Err(code) => {
                data.close(&mut store)?;
                told(&mut store, code.into())
            }
        }
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        socket: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, Told)> {
        match get_mut(store.get().table, &socket)?.take_receiver() {
            Ok(receiver) => {
                let (told, result) = oneshot::channel();
                let stream = StreamReader::new(&mut store, Incoming(Some((receiver, told))))?;
                Ok((stream, FutureReader::new(&mut store, result)?))
            }
            Err(code) => Ok((StreamReader::new(&mut store, iter::empty())?, told(&mut store, code.into())?)),
        }
    }
}

impl HostTcpSocket for SocketsView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let socket = tcp::TcpSocket::new(self.instance, family.into())?;
        Ok(handle(&self.table.push(socket).map_err(trap)?))
    }

    async fn bind(&mut self, this: Resource<TcpSocket>, local: IpSocketAddress) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.bind(local.into())?)
    }

    fn get_local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(get(self.table, &this)?.local()?.into())
    }

    fn get_remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let remote: SocketAddr = get(self.table, &this)?.remote()?;
        Ok(remote.into())
    }

    fn get_is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(get(self.table, &this)?.is_listening())
    }

    fn get_address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(get(self.table, &this)?.family.into())
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.set_backlog(value)?)
    }

    fn get_keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(get(self.table, &this)?.options().keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        get_mut(self.table, &this)?.options().keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<Duration> {
        Ok(get(self.table, &this)?.options().keep_alive_idle_ns())
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, value: Duration) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options().set_keep_alive_idle_ns(value)?)
    }

    fn get_keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<Duration> {
        Ok(get(self.table, &this)?.options().keep_alive_interval_ns())
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, value: Duration) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options().set_keep_alive_interval_ns(value)?)
    }

    fn get_keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(get(self.table, &this)?.options().keep_alive_count())
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options().set_keep_alive_count(value)?)
    }

    fn get_hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(get(self.table, &this)?.options().hop_limit())
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options().set_hop_limit(value)?)
    }

    fn get_receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.options().receive_buffer_bytes())
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options().set_receive_buffer_bytes(value)?)
    }

    fn get_send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.options().send_buffer_bytes())
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.options().set_send_buffer_bytes(value)?)
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete::<tcp::TcpSocket>(handle(&this))?;
        Ok(())
    }
}
