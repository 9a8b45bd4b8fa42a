//! What the containers of one pod have in common: a bound on their sockets.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{Inner, SocketError};

/// The pods that have sockets, by address.
#[derive(Default)]
pub(crate) struct Pods(Mutex<HashMap<IpAddr, Weak<Pod>>>);

/// A pod's share of the network. Held by its dialers, listeners and connections.
pub(crate) struct Pod {
    ip: Option<IpAddr>,
    sockets: AtomicUsize,
    sockets_max: usize,
    network: Weak<Inner>,
}

/// One socket of a pod.
pub(crate) struct Permit(Arc<Pod>);

impl Pods {
    pub(crate) fn get(&self, ip: IpAddr) -> Option<Arc<Pod>> {
        self.0.lock().get(&ip)?.upgrade()
    }
}

impl Pod {
    /// The pod at an address; callers without one have nothing in common.
    pub(crate) fn of(network: &Arc<Inner>, ip: Option<IpAddr>) -> Arc<Self> {
        let make = || {
            let sockets_max = network.config.sockets_per_pod_max;
            Arc::new(Self { ip, sockets: AtomicUsize::new(0), sockets_max, network: Arc::downgrade(network) })
        };
        let Some(ip) = ip else { return make() };
        let mut all = network.pods.0.lock();
        if let Some(pod) = all.get(&ip).and_then(Weak::upgrade) {
            return pod;
        }
        let pod = make();
        all.insert(ip, Arc::downgrade(&pod));
        pod
    }

    /// Counts one more socket.
    pub(crate) fn permit(self: &Arc<Self>) -> Result<Permit, SocketError> {
        let limit = self.sockets_max;
        let more = |n| (n < limit).then_some(n + 1);
        match self.sockets.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Permit(self.clone())),
            Err(_) => Err(SocketError::TooMany { limit }),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let (Some(ip), Some(network)) = (self.ip, self.network.upgrade()) else { return };
        let mut all = network.pods.0.lock();
        // Another may have the address already.
        if all.get(&ip).is_some_and(|pod| pod.strong_count() == 0) {
            all.remove(&ip);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::AcqRel);
    }
}
