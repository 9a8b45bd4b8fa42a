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

use crate::{Caller, Inner, SocketError, tunnel::wire::Identity};

/// The pods that have sockets, by address.
#[derive(Default)]
pub(crate) struct Pods(Mutex<HashMap<IpAddr, Weak<Pod>>>);

/// A pod's share of the network. Held by its dialers, listeners and connections.
pub(crate) struct Pod {
    ip: Option<IpAddr>,
    /// Who it is to others, if it is somebody.
    identity: Option<Arc<Identity>>,
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

    /// Who the pod at an address is to others.
    pub(crate) fn identity(&self, ip: IpAddr) -> Option<Arc<Identity>> {
        self.get(ip)?.identity.clone()
    }
}

impl Pod {
    /// The pod at an address; callers without one have nothing in common.
    pub(crate) fn of(network: &Arc<Inner>, caller: &Caller) -> Arc<Self> {
        let ip = caller.ip;
        let domain = &network.config.cluster_domain;
        let identity = Identity::new(domain, &caller.namespace, &caller.service_account, &caller.pod).map(Arc::new);
        let make = || {
            let (sockets, sockets_max) = (AtomicUsize::new(0), network.config.sockets_per_pod_max);
            Arc::new(Self { ip, identity: identity.clone(), sockets, sockets_max, network: Arc::downgrade(network) })
        };
        let Some(ip) = ip else { return make() };
        let mut all = network.pods.0.lock();
        let known = all.get(&ip).and_then(Weak::upgrade);
        // Who has no identity of its own here, a probe, comes as the pod that is there. Another pod is another.
        if let Some(pod) = known.filter(|pod| identity.is_none() || pod.identity == identity) {
            return pod;
        }
        let pod = make();
        all.insert(ip, Arc::downgrade(&pod));
        pod
    }

    /// Who it is to others.
    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
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
