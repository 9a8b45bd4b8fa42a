//! `wasi:sockets/udp` 0.2: a socket, and two streams of datagrams that are made anew to change the peer.

use std::{future::poll_fn, net::SocketAddr, task::Poll};

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::{
    DynPollable, Pollable, SocketError, SocketResult,
    bindings::sockets::{
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network},
        udp::{
            Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
            IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket,
        },
    },
    subscribe,
};

use crate::sockets::{SocketsView, handle, once, udp};

/// Datagrams that one call takes or gives.
const DATAGRAMS_MAX: usize = 16;
/// Bytes after which one call gives no more of them.
const RECEIVED_BYTES_MAX: usize = 64 << 10;

/// A socket with what 0.2 has beside its state.
pub(super) struct Socket {
    socket: udp::UdpSocket,
    binding: bool,
}

struct Incoming(udp::Incoming);

struct Outgoing {
    outgoing: udp::Outgoing,
    permitted: usize,
}

impl Socket {
    pub(super) fn new(socket: udp::UdpSocket) -> Self {
        Self { socket, binding: false }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Socket {
    /// Binding is done when it has begun.
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        poll_fn(|cx| self.0.poll_ready(cx)).await;
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        poll_fn(|cx| self.outgoing.poll_ready(cx)).await;
    }
}

fn get<'a>(table: &'a ResourceTable, socket: &Resource<UdpSocket>) -> SocketResult<&'a Socket> {
    Ok(table.get(&handle(socket))?)
}

fn get_mut<'a>(table: &'a mut ResourceTable, socket: &Resource<UdpSocket>) -> SocketResult<&'a mut Socket> {
    Ok(table.get_mut(&handle(socket))?)
}

impl Host for SocketsView<'_> {}

impl HostUdpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.check_network(&network)?;
        let socket = get_mut(self.table, &this)?;
        if socket.binding {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        socket.socket.bind(local.into())?;
        socket.binding = true;
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        let socket = get_mut(self.table, &this)?;
        if !socket.binding {
            return Err(ErrorCode::NotInProgress.into());
        }
        socket.binding = false;
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let this: Resource<Socket> = handle(&this);
        let in_use = self.table.iter_children(&this)?.any(|child| child.is::<Incoming>() || child.is::<Outgoing>());
        if in_use {
            return Err(SocketError::trap(wasmtime::format_err!("the socket's streams are not dropped yet")));
        }
        let socket = &mut self.table.get_mut(&this)?.socket;
        if !socket.is_bound() {
            return Err(ErrorCode::InvalidState.into());
        }
        match remote {
            Some(remote) => socket.connect(remote.into())?,
            // One that is not connected stays so.
            None => drop(socket.disconnect()),
        }
        let (incoming, outgoing) = (Incoming(socket.incoming()?), socket.outgoing()?);
        let incoming = self.table.push_child(incoming, &this)?;
        let outgoing = self.table.push_child(Outgoing { outgoing, permitted: 0 }, &this)?;
        Ok((handle(&incoming), handle(&outgoing)))
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(get(self.table, &this)?.socket.local()?.into())
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(get(self.table, &this)?.socket.remote()?.into())
    }

    fn address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(get(self.table, &this)?.socket.family.into())
    }

    fn unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(get(self.table, &this)?.socket.options.hop_limit())
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options.set_hop_limit(value)?)
    }

    fn receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.socket.options.receive_buffer_bytes())
    }

    fn set_receive_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options.set_receive_buffer_bytes(value)?)
    }

    fn send_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(get(self.table, &this)?.socket.options.send_buffer_bytes())
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        Ok(get_mut(self.table, &this)?.socket.options.set_send_buffer_bytes(value)?)
    }

    fn subscribe(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Socket>(self.table, handle(&this))
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete::<Socket>(handle(&this))?;
        Ok(())
    }
}

impl HostIncomingDatagramStream for SocketsView<'_> {
    fn receive(&mut self, this: Resource<IncomingDatagramStream>, most: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(DATAGRAMS_MAX);
        let Incoming(incoming) = self.table.get_mut(&handle(&this))?;
        let (mut datagrams, mut bytes) = (Vec::new(), 0);
        while datagrams.len() < most && bytes < RECEIVED_BYTES_MAX {
            match incoming.poll_receive(&mut once()) {
                Poll::Ready(Ok((data, from))) => {
                    bytes += data.len();
                    datagrams.push(IncomingDatagram { data: data.into(), remote_address: from.into() });
                }
                Poll::Ready(Err(code)) if datagrams.is_empty() => return Err(code.into()),
                _ => break,
            }
        }
        Ok(datagrams)
    }

    fn subscribe(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Incoming>(self.table, handle(&this))
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete::<Incoming>(handle(&this))?;
        Ok(())
    }
}

impl HostOutgoingDatagramStream for SocketsView<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        let stream: &mut Outgoing = self.table.get_mut(&handle(&this))?;
        stream.permitted = if stream.outgoing.poll_ready(&mut once()).is_ready() { DATAGRAMS_MAX } else { 0 };
        Ok(stream.permitted as u64)
    }

    /// Sends as many as the network takes; an error is told only when none was sent.
    fn send(&mut self, this: Resource<OutgoingDatagramStream>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let stream: &mut Outgoing = self.table.get_mut(&handle(&this))?;
        if datagrams.is_empty() {
            return Ok(0);
        }
        if datagrams.len() > stream.permitted {
            return Err(SocketError::trap(wasmtime::format_err!("sent more than check-send permitted")));
        }
        stream.permitted = 0;
        let mut sent = 0;
        for datagram in datagrams {
            if stream.outgoing.poll_ready(&mut once()).is_pending() {
                break;
            }
            match stream.outgoing.try_send(datagram.data, datagram.remote_address.map(SocketAddr::from)) {
                Ok(()) => sent += 1,
                Err(code) if sent == 0 => return Err(code.into()),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Outgoing>(self.table, handle(&this))
    }

    /// Waits until the last datagram has left, as a guest is told that it was sent; the network takes it at once, or loses it.
    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        let mut stream: Outgoing = self.table.delete(handle(&this))?;
        poll_fn(|cx| stream.outgoing.poll_ready(cx)).await;
        Ok(())
    }
}
