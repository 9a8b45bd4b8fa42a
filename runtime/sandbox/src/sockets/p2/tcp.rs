//! `wasi:sockets/tcp` 0.2: calls that begin and calls that finish, with a pollable between them.

use std::{future::poll_fn, net::SocketAddr, task::Poll};

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, Pollable, SocketResult,
    bindings::sockets::{
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network},
        tcp::{Host, HostTcpSocket, ShutdownType, TcpSocket},
    },
    subscribe,
};

use super::streams::{Reader, Writer};
use crate::sockets::{Code, SocketsView, handle, once, tcp};

/// A socket with what 0.2 has beside its state.
pub(super) struct Socket {
    socket: tcp::TcpSocket,
    begun: Option<Begun>,
    listener: Option<tcp::Listener>,
    streams: Option<(Reader, Writer)>,
}

/// A call that has begun and is to be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Bind,
    Connect,
    Listen,
}

impl Socket {
    pub(super) fn new(socket: tcp::TcpSocket) -> Self {
        Self { socket, begun: None, listener: None, streams: None }
    }

    fn begin(&self) -> Result<(), ErrorCode> {
        if self.begun.is_some() { Err(ErrorCode::ConcurrencyConflict) } else { Ok(()) }
    }

    fn finish(&mut self, begun: Begun) -> Result<(), ErrorCode> {
        if self.begun != Some(begun) {
            return Err(ErrorCode::NotInProgress);
        }
        self.begun = None;
        Ok(())
    }

    fn take_streams(&mut self) -> Result<(DynInputStream, DynOutputStream), Code> {
        let reader = Reader::new(self.socket.take_receiver()?);
        let writer = Writer::new(self.socket.take_sender()?);
        self.streams = Some((reader.clone(), writer.clone()));
        Ok((Box::new(reader), Box::new(writer)))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Socket {
    async fn ready(&mut self) {
        match (self.begun, &mut self.listener) {
            (Some(Begun::Connect), _) => drop(poll_fn(|cx| self.socket.poll_connected(cx)).await),
            (None, Some(listener)) => poll_fn(|cx| listener.poll_ready(cx)).await,
            _ => {}
        }
    }
}

type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

fn get<'a>(table: &'a ResourceTable, socket: &Resource<TcpSocket>) -> SocketResult<&'a Socket> {
    Ok(table.get(&handle(socket))?)
}

fn get_mut<'a>(table: &'a mut ResourceTable, socket: &Resource<TcpSocket>) -> SocketResult<&'a mut Socket> {
    Ok(table.get_mut(&handle(socket))?)
}

fn push_streams(table: &mut ResourceTable, of: &Resource<Socket>) -> SocketResult<Streams> {
    let (input, output) = table.get_mut(of)?.take_streams()?;
    Ok((table.push_child(input, of)?, table.push_child(output, of)?))
}

impl Host for SocketsView<'_> {}

impl HostTcpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.check_network(&network)?;
        let socket = get_mut(self.table, &this)?;
        socket.begin()?;
        socket.socket.bind(local.into())?;
        socket.begun = Some(Begun::Bind);
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.finish(Begun::Bind)?)
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.check_network(&network)?;
        let socket = get_mut(self.table, &this)?;
        socket.begin()?;
        socket.socket.start_connect(remote.into())?;
        socket.begun = Some(Begun::Connect);
        Ok(())
    }

    fn finish_connect(&mut self, this: Resource<TcpSocket>) -> SocketResult<Streams> {
        let socket = get_mut(self.table, &this)?;
        if socket.begun != Some(Begun::Connect) {
            return Err(ErrorCode::NotInProgress.into());
        }
        let Poll::Ready(result) = socket.socket.poll_connected(&mut once()) else {
            return Err(ErrorCode::WouldBlock.into());
        };
        socket.begun = None;
        result?;
        push_streams(self.table, &handle(&this))
    }

    async fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = get_mut(self.table, &this)?;
        socket.begin()?;
        if !socket.socket.is_bound() {
            return Err(ErrorCode::InvalidState.into());
        }
        socket.listener = Some(socket.socket.listen()?);
        socket.begun = Some(Begun::Listen);
        Ok(())
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.finish(Begun::Listen)?)
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = get_mut(self.table, &this)?;
        let Some(listener) = &mut socket.listener else { return Err(ErrorCode::InvalidState.into()) };
        let Poll::Ready(accepted) = listener.try_accept() else { return Err(ErrorCode::WouldBlock.into()) };
        let accepted = self.table.push(Socket::new(accepted?))?;
        let (input, output) = push_streams(self.table, &accepted)?;
        Ok((handle(&accepted), input, output))
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(get(self.table, &this)?.socket.local()?.into())
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let remote: SocketAddr = get(self.table, &this)?.socket.remote()?;
        Ok(remote.into())
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(get(self.table, &this)?.socket.is_listening())
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(get(self.table, &this)?.socket.family.into())
    }

    fn set_listen_backlog_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.set_backlog(value)?)
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(get(self.table, &this)?.socket.options().keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        get_mut(self.table, &this)?.socket.options().keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.socket.options().keep_alive_idle_ns())
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options().set_keep_alive_idle_ns(value)?)
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.socket.options().keep_alive_interval_ns())
    }

    fn set_keep_alive_interval(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options().set_keep_alive_interval_ns(value)?)
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(get(self.table, &this)?.socket.options().keep_alive_count())
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options().set_keep_alive_count(value)?)
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(get(self.table, &this)?.socket.options().hop_limit())
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options().set_hop_limit(value)?)
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.socket.options().receive_buffer_bytes())
    }

    fn set_receive_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options().set_receive_buffer_bytes(value)?)
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.socket.options().send_buffer_bytes())
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options().set_send_buffer_bytes(value)?)
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Socket>(self.table, handle(&this))
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, what: ShutdownType) -> SocketResult<()> {
        let socket = get(self.table, &this)?;
        let Some((reader, writer)) = &socket.streams else { return Err(ErrorCode::InvalidState.into()) };
        if matches!(what, ShutdownType::Receive | ShutdownType::Both) {
            reader.shutdown();
        }
        if matches!(what, ShutdownType::Send | ShutdownType::Both) {
            writer.shutdown();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete::<Socket>(handle(&this))?;
        Ok(())
    }
}
