//! A TCP socket's states, whatever interface the guest speaks.
//!
//! ```text
//! Unbound -> Bound -> Listening
//!        \-------\--> Connecting -> Connected
//!                              \--> Closed
//! ```

use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    Code, Family, Instance, Options, Ready, check_unicast,
    connection::{self, Open, Receiver, Sender},
    once,
    quota::Permit,
};
use crate::{SocketError, TcpConnection, TcpListener, TcpPort};

/// A TCP socket of a guest.
pub(crate) struct TcpSocket {
    instance: Instance,
    pub(crate) family: Family,
    /// Shared with its listener: what is accepted has the options of that moment.
    options: Arc<Mutex<Options>>,
    state: State,
}

enum State {
    Unbound(Permit),
    Bound(Permit, Box<dyn TcpPort>),
    Connecting(Permit, Ready<Result<TcpConnection, SocketError>>),
    /// The port is taken as long as the socket is there, even when nobody accepts.
    Listening {
        listener: Arc<dyn TcpListener>,
        _permit: Permit,
    },
    Connected(Connected),
    Closed(Code),
}

struct Connected {
    local: SocketAddr,
    remote: SocketAddr,
    receiver: Option<Receiver>,
    sender: Option<Sender>,
    _open: Arc<Open>,
}

impl TcpSocket {
    /// A socket that is not used yet.
    pub(crate) fn new(instance: &Instance, family: Family) -> Result<Self, Code> {
        instance.net()?;
        let state = State::Unbound(instance.permit()?);
        Ok(Self { instance: instance.clone(), family, options: Arc::default(), state })
    }

    /// A socket for a connection that was accepted, with its listener's options.
    fn accepted(instance: &Instance, options: Options, connection: TcpConnection, permit: Permit) -> Self {
        let family = Family::of(connection.local);
        let state = connected(connection, permit, instance).unwrap_or_else(State::Closed);
        Self { instance: instance.clone(), family, options: Arc::new(Mutex::new(options)), state }
    }

    pub(crate) fn options(&self) -> MutexGuard<'_, Options> {
        self.options.lock()
    }

    pub(crate) fn bind(&mut self, local: SocketAddr) -> Result<(), Code> {
        let State::Unbound(_) = &self.state else { return Err(Code::InvalidState) };
        self.family.check_local(local)?;
        check_unicast(local)?;
        let port = self.instance.net()?.bind_tcp(local)?;
        self.state = match self.take() {
            State::Unbound(permit) => State::Bound(permit, port),
            other => other,
        };
        Ok(())
    }

    pub(crate) fn is_bound(&self) -> bool {
        !matches!(self.state, State::Unbound(_))
    }

    /// Begins to connect. What comes of it is known from [`Self::poll_connected`].
    pub(crate) fn start_connect(&mut self, remote: SocketAddr) -> Result<(), Code> {
        if !matches!(self.state, State::Unbound(_) | State::Bound(..)) {
            return Err(Code::InvalidState);
        }
        self.family.check_remote(remote)?;
        check_unicast(remote)?;
        let net = self.instance.net()?.clone();
        let limit = self.instance.limits().connect_timeout;
        let (permit, port) = match self.take() {
            State::Unbound(permit) => (permit, None),
            State::Bound(permit, port) => (permit, Some(port)),
            other => {
                self.state = other;
                return Err(Code::InvalidState);
            }
        };
        let connecting = async move {
            let connect = async {
                match port {
                    Some(port) => port.connect(remote).await,
                    None => net.connect(remote).await,
                }
            };
            tokio::time::timeout(limit, connect).await.unwrap_or(Err(SocketError::TimedOut))
        };
        self.state = State::Connecting(permit, Ready::new(connecting));
        Ok(())
    }

    /// Waits for the connection. May be asked again.
    pub(crate) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Code>> {
        match &mut self.state {
            State::Connecting(_, connecting) => drop(ready!(connecting.poll_ready(cx)).is_ok()),
            State::Connected(_) => return Poll::Ready(Ok(())),
            State::Closed(code) => return Poll::Ready(Err(*code)),
            _ => return Poll::Ready(Err(Code::InvalidState)),
        }
        let State::Connecting(permit, connecting) = self.take() else { return Poll::Ready(Err(Code::InvalidState)) };
        let result = match connecting.done() {
            Some(Ok(connection)) => connected(connection, permit, &self.instance),
            Some(Err(error)) => Err(error.into()),
            None => Err(Code::Other),
        };
        let code = result.as_ref().err().copied();
        self.state = result.unwrap_or_else(State::Closed);
        Poll::Ready(code.map_or(Ok(()), Err))
    }

    /// Listens, at a port that the network chooses if the guest has not.
    pub(crate) fn listen(&mut self) -> Result<Listener, Code> {
        if let State::Unbound(_) = &self.state {
            self.bind(self.family.unspecified())?;
        }
        let (permit, port) = match self.take() {
            State::Bound(permit, port) => (permit, port),
            other => {
                self.state = other;
                return Err(Code::InvalidState);
            }
        };
        let backlog = self.options().backlog.min(self.instance.limits().backlog_max);
        match port.listen(backlog) {
            Ok(listener) => {
                let listener: Arc<dyn TcpListener> = listener.into();
                self.state = State::Listening { listener: listener.clone(), _permit: permit };
                Ok(Listener::new(&self.instance, self.options.clone(), listener))
            }
            Err(error) => {
                let code = error.into();
                self.state = State::Closed(code);
                Err(code)
            }
        }
    }

    /// The receiving half, once.
    pub(crate) fn take_receiver(&mut self) -> Result<Receiver, Code> {
        match &mut self.state {
            State::Connected(connected) => connected.receiver.take().ok_or(Code::InvalidState),
            State::Closed(code) => Err(*code),
            _ => Err(Code::InvalidState),
        }
    }

    /// The sending half, once.
    pub(crate) fn take_sender(&mut self) -> Result<Sender, Code> {
        match &mut self.state {
            State::Connected(connected) => connected.sender.take().ok_or(Code::InvalidState),
            State::Closed(code) => Err(*code),
            _ => Err(Code::InvalidState),
        }
    }

    pub(crate) fn local(&self) -> Result<SocketAddr, Code> {
        match &self.state {
            State::Bound(_, port) => Ok(port.local()),
            State::Listening { listener, .. } => Ok(listener.local()),
            State::Connected(connected) => Ok(connected.local),
            State::Closed(code) => Err(*code),
            State::Unbound(_) | State::Connecting(..) => Err(Code::InvalidState),
        }
    }

    pub(crate) fn remote(&self) -> Result<SocketAddr, Code> {
        match &self.state {
            State::Connected(connected) => Ok(connected.remote),
            State::Closed(code) => Err(*code),
            _ => Err(Code::InvalidState),
        }
    }

    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening { .. })
    }

    pub(crate) fn set_backlog(&mut self, value: u64) -> Result<(), Code> {
        match self.state {
            State::Connecting(..) | State::Connected(_) | State::Closed(_) => Err(Code::InvalidState),
            State::Listening { .. } if value != 0 => Err(Code::NotSupported),
            _ => self.options().set_backlog(value, self.instance.limits().backlog_max),
        }
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed(Code::InvalidState))
    }
}

fn connected(connection: TcpConnection, permit: Permit, instance: &Instance) -> Result<State, Code> {
    let (local, remote) = (connection.local, connection.remote);
    let (open, receiver, sender) = connection::open(connection, permit, instance)?;
    Ok(State::Connected(Connected { local, remote, receiver: Some(receiver), sender: Some(sender), _open: open }))
}

/// Accepts connections: one at a time is taken from the network, the others wait in its backlog.
pub(crate) struct Listener {
    instance: Instance,
    options: Arc<Mutex<Options>>,
    listener: Arc<dyn TcpListener>,
    next: Option<Ready<Result<TcpConnection, SocketError>>>,
    permit: Option<Ready<Result<Permit, Code>>>,
}

impl Listener {
    fn new(instance: &Instance, options: Arc<Mutex<Options>>, listener: Arc<dyn TcpListener>) -> Self {
        Self { instance: instance.clone(), options, listener, next: None, permit: None }
    }

    /// Waits until there is a connection, or the network has failed.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let next = self.next.get_or_insert_with(|| {
            let listener = self.listener.clone();
            Ready::new(async move { listener.accept().await })
        });
        next.poll_ready(cx).map(drop)
    }

    /// The next connection, if it is there. When there are too many sockets it stays where it is.
    pub(crate) fn try_accept(&mut self) -> Poll<Result<TcpSocket, Code>> {
        ready!(self.poll_ready(&mut once()));
        let permit = match self.next {
            Some(Ready::Done(Ok(_))) => self.instance.permit().map(Some),
            _ => Ok(None),
        };
        match permit {
            Ok(permit) => Poll::Ready(self.take(permit)),
            Err(code) => Poll::Ready(Err(code)),
        }
    }

    /// The next connection, as soon as there may be one more socket.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<TcpSocket, Code>> {
        ready!(self.poll_ready(cx));
        if !matches!(self.next, Some(Ready::Done(Ok(_)))) {
            return Poll::Ready(self.take(None));
        }
        let waiting = self.permit.get_or_insert_with(|| Ready::new(self.instance.clone().wait_for_permit()));
        let _ = ready!(waiting.poll_ready(cx));
        match self.permit.take().and_then(Ready::done) {
            Some(Ok(permit)) => Poll::Ready(self.take(Some(permit))),
            // There is no telling when there will be memory: this one is closed, the next may fit.
            Some(Err(code)) => {
                self.next = None;
                Poll::Ready(Err(code))
            }
            None => Poll::Ready(Err(Code::Other)),
        }
    }

    fn take(&mut self, permit: Option<Permit>) -> Result<TcpSocket, Code> {
        match (self.next.take().and_then(Ready::done), permit) {
            (Some(Ok(connection)), Some(permit)) => {
                let options = self.options.lock().clone();
                Ok(TcpSocket::accepted(&self.instance, options, connection, permit))
            }
            (Some(Err(error)), _) => Err(error.into()),
            _ => Err(Code::Other),
        }
    }
}
