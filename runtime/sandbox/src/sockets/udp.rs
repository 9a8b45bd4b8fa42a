//! A UDP socket, whatever interface the guest speaks. Datagrams wait in the network's queue, which has a size; nothing is
//! kept here but one that is being looked at.

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{Code, Family, Instance, Options, Ready, once, quota::Permit};
use crate::{SocketError, UdpSocket as Network, memory::Charge, traffic::Way};

/// Largest payload: what IPv4 leaves of 64 KiB after its header and UDP's.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Datagrams of others than the peer that one look skips.
const SKIPPED_MAX: usize = 64;

/// A UDP socket of a guest.
pub(crate) struct UdpSocket {
    instance: Instance,
    permit: Option<Permit>,
    pub(crate) family: Family,
    pub(crate) options: Options,
    bound: Option<Arc<Bound>>,
    remote: Option<SocketAddr>,
}

/// A port that is taken, as long as the socket or a call on it lives.
struct Bound {
    socket: Box<dyn Network>,
    _permit: Permit,
    _queue: Charge,
}

impl UdpSocket {
    /// A socket that is not used yet.
    pub(crate) fn new(instance: &Instance, family: Family) -> Result<Self, Code> {
        instance.net()?;
        let permit = Some(instance.permit()?);
        let options = Options::default();
        Ok(Self { instance: instance.clone(), permit, family, options, bound: None, remote: None })
    }

    pub(crate) fn bind(&mut self, local: SocketAddr) -> Result<(), Code> {
        if self.is_bound() {
            return Err(Code::InvalidState);
        }
        self.family.check_local(local)?;
        let queue_bytes = self.options.receive_buffer_bytes();
        let queue = self.instance.charge(queue_bytes)?;
        let socket = self.instance.net()?.bind_udp(local, usize::try_from(queue_bytes).unwrap_or(usize::MAX))?;
        let Some(permit) = self.permit.take() else { return Err(Code::InvalidState) };
        self.bound = Some(Arc::new(Bound { socket, _permit: permit, _queue: queue }));
        Ok(())
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// Takes a port, if there is none yet.
    fn bound(&mut self) -> Result<Arc<Bound>, Code> {
        if !self.is_bound() {
            self.bind(self.family.unspecified())?;
        }
        self.bound.clone().ok_or(Code::InvalidState)
    }

    /// Talks to one peer only, from now on.
    pub(crate) fn connect(&mut self, remote: SocketAddr) -> Result<(), Code> {
        self.family.check_remote(remote)?;
        self.bound()?;
        self.remote = Some(remote);
        Ok(())
    }

    pub(crate) fn disconnect(&mut self) -> Result<(), Code> {
        self.remote.take().map(drop).ok_or(Code::InvalidState)
    }

    pub(crate) fn local(&self) -> Result<SocketAddr, Code> {
        let socket = &self.bound.as_ref().ok_or(Code::InvalidState)?.socket;
        Ok(self.remote.map_or_else(|| socket.local(), |remote| socket.local_to(remote)))
    }

    pub(crate) fn remote(&self) -> Result<SocketAddr, Code> {
        self.remote.ok_or(Code::InvalidState)
    }

    /// For sending, to where it is connected now.
    pub(crate) fn outgoing(&mut self) -> Result<Outgoing, Code> {
        let (bound, instance) = (self.bound()?, self.instance.clone());
        Ok(Outgoing { instance, bound, family: self.family, remote: self.remote, sending: None })
    }

    /// Begins to send one datagram. Takes a port only when it may be sent.
    pub(crate) fn start_send(&mut self, bytes: Vec<u8>, to: Option<SocketAddr>) -> Result<Outgoing, Code> {
        target(self.family, self.remote, to)?;
        let mut outgoing = self.outgoing()?;
        outgoing.start(bytes, to)?;
        Ok(outgoing)
    }

    /// For receiving, from where it is connected now.
    pub(crate) fn incoming(&self) -> Result<Incoming, Code> {
        let bound = self.bound.clone().ok_or(Code::InvalidState)?;
        Ok(Incoming { instance: self.instance.clone(), bound, remote: self.remote, next: None })
    }
}

type Received = Result<(Bytes, SocketAddr), SocketError>;

/// Receives.
pub(crate) struct Incoming {
    instance: Instance,
    bound: Arc<Bound>,
    remote: Option<SocketAddr>,
    next: Option<Ready<Received>>,
}

impl Incoming {
    /// Waits until there is a datagram, or the network has failed.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..SKIPPED_MAX {
            let next = self.next.get_or_insert_with(|| {
                let bound = self.bound.clone();
                Ready::new(async move { bound.socket.recv_from().await })
            });
            match ready!(next.poll_ready(cx)) {
                Ok((_, from)) if self.remote.is_some_and(|remote| remote != *from) => self.next = None,
                Err(SocketError::ConnectionRefused(by)) if self.remote != Some(*by) => self.next = None,
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Bytes, SocketAddr), Code>> {
        ready!(self.poll_ready(cx));
        match self.next.take().and_then(Ready::done) {
            Some(Ok(received)) => {
                self.instance.container().traffic.count(Way::In, received.0.len());
                Poll::Ready(Ok(received))
            }
            Some(Err(error)) => Poll::Ready(Err(error.into())),
            None => Poll::Ready(Err(Code::Other)),
        }
    }
}

/// Sends.
pub(crate) struct Outgoing {
    instance: Instance,
    bound: Arc<Bound>,
    family: Family,
    remote: Option<SocketAddr>,
    sending: Option<Ready<Result<(), SocketError>>>,
}

impl Outgoing {
    /// Begins to send; only when nothing is being sent.
    pub(crate) fn start(&mut self, bytes: Vec<u8>, to: Option<SocketAddr>) -> Result<(), Code> {
        let to = target(self.family, self.remote, to)?;
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(Code::DatagramTooLarge);
        }
        let (bound, charge) = (self.bound.clone(), self.instance.charge(bytes.len() as u64)?);
        self.instance.container().traffic.count(Way::Out, bytes.len());
        self.sending = Some(Ready::new(async move {
            let _charge = charge;
            bound.socket.send_to(bytes.into(), to).await
        }));
        Ok(())
    }

    /// Waits until nothing is being sent.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sending {
            Some(sending) => sending.poll_ready(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Waits until what was begun is sent.
    pub(crate) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Code>> {
        ready!(self.poll_ready(cx));
        match self.sending.take().and_then(Ready::done) {
            Some(Err(error)) => Poll::Ready(Err(error.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Sends one, or leaves it on its way; an error of the one before is told now.
    pub(crate) fn try_send(&mut self, bytes: Vec<u8>, to: Option<SocketAddr>) -> Result<(), Code> {
        self.start(bytes, to)?;
        match self.poll_sent(&mut once()) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

/// Where a datagram goes that names this address, or none.
fn target(family: Family, connected: Option<SocketAddr>, to: Option<SocketAddr>) -> Result<SocketAddr, Code> {
    match (to, connected) {
        (Some(to), Some(remote)) if to != remote => Err(Code::InvalidArgument),
        (Some(to), _) => family.check_remote(to).map(|()| to),
        (None, remote) => remote.ok_or(Code::InvalidArgument),
    }
}
