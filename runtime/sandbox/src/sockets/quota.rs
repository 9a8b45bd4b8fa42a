//! What an instance may still open: counts of sockets and lookups, and the container's memory account.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Code, GROUP, SocketLimits};
use crate::{Sockets, container::Container, memory::Charge};

/// What a socket costs its container beside its buffers: the states of both sides and a small read-ahead.
const SOCKET_BYTES: u64 = 8 << 10;

/// What all instances of a container share.
#[derive(Debug)]
pub(crate) struct SocketQuota {
    sockets: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

impl SocketQuota {
    pub(crate) fn new(limits: &SocketLimits) -> Self {
        Self { sockets: semaphore(limits.container_max), lookups: semaphore(limits.lookups_max) }
    }
}

/// One instance's way to sockets.
#[derive(Clone)]
pub(crate) struct Instance {
    container: Arc<Container>,
    sockets: Arc<Semaphore>,
}

/// The right to one socket. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _instance: OwnedSemaphorePermit,
    _container: OwnedSemaphorePermit,
    _charge: Charge,
}

impl Instance {
    pub(crate) fn new(container: Arc<Container>) -> Self {
        let sockets = semaphore(container.spec.limits.sockets.instance_max);
        Self { container, sockets }
    }

    /// The network, if the container has one and may use it.
    pub(crate) fn net(&self) -> Result<&Arc<dyn Sockets>, Code> {
        let granted = self.container.is_granted(GROUP);
        self.container.spec.sockets.as_ref().filter(|_| granted).ok_or(Code::AccessDenied)
    }

    pub(crate) fn limits(&self) -> &SocketLimits {
        &self.container.spec.limits.sockets
    }

    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// The right to one more socket.
    pub(crate) fn permit(&self) -> Result<Permit, Code> {
        let instance = self.sockets.clone().try_acquire_owned().map_err(|_| Code::NewSocketLimit)?;
        let container = self.container.sockets.sockets.clone().try_acquire_owned().map_err(|_| Code::NewSocketLimit)?;
        Ok(Permit { _instance: instance, _container: container, _charge: self.charge(SOCKET_BYTES)? })
    }

    /// Waits until there may be one more socket.
    pub(crate) async fn wait_for_permit(self) -> Result<Permit, Code> {
        let instance = self.sockets.clone().acquire_owned().await.map_err(|_| Code::NewSocketLimit)?;
        let shared = self.container.sockets.sockets.clone();
        let container = shared.acquire_owned().await.map_err(|_| Code::NewSocketLimit)?;
        Ok(Permit { _instance: instance, _container: container, _charge: self.charge(SOCKET_BYTES)? })
    }

    /// The right to look up one more name now.
    pub(crate) fn lookup_permit(&self) -> Result<OwnedSemaphorePermit, Code> {
        let lookups = self.container.sockets.lookups.clone();
        lookups.try_acquire_owned().map_err(|_| Code::TemporaryResolverFailure)
    }

    /// Takes host memory from the container's account.
    pub(crate) fn charge(&self, bytes: u64) -> Result<Charge, Code> {
        Charge::new(self.container.memory.clone(), bytes).ok_or(Code::OutOfMemory)
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(permits).unwrap_or(Semaphore::MAX_PERMITS)))
}
