//! Who has which port of a pod. A pod is seen at its own address by all, and at `localhost` by its containers.
//!
//! Each port of a pod has places: its own address, `127.0.0.1`, `::1`. Whoever binds an unspecified address takes
//! several; `[::]` stands for IPv4 as well where nobody else has that, as on Linux.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use parking_lot::RwLock;

/// Where ports begin that nobody has asked for by number.
const EPHEMERAL_FIRST: u16 = 49_152;

/// What somebody binds of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Own,
    Loopback4,
    Loopback6,
    Any4,
    Any6,
    /// All there is.
    Whole,
}

impl Scope {
    /// `None` when the address is not one of the pod's.
    pub(crate) fn of(at: IpAddr, pod: IpAddr) -> Option<Self> {
        match at.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() => Some(Self::Loopback4),
            IpAddr::V6(ip) if ip.is_loopback() => Some(Self::Loopback6),
            IpAddr::V4(ip) if ip.is_unspecified() => Some(Self::Any4),
            IpAddr::V6(ip) if ip.is_unspecified() => Some(Self::Any6),
            ip => (ip == pod).then_some(Self::Own),
        }
    }
}

/// From where somebody looks at a pod's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Own,
    Loopback4,
    Loopback6,
}

struct Places<T> {
    own: Option<Arc<T>>,
    loopback4: Option<Arc<T>>,
    loopback6: Option<Arc<T>>,
    any6: Option<Arc<T>>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { own: None, loopback4: None, loopback6: None, any6: None }
    }
}

impl<T> Places<T> {
    fn see(&self, view: View) -> Option<&Arc<T>> {
        match view {
            View::Own => self.own.as_ref().or(self.any6.as_ref()),
            View::Loopback4 => self.loopback4.as_ref().or(self.any6.as_ref()),
            View::Loopback6 => self.loopback6.as_ref().or(self.any6.as_ref()).or(self.loopback4.as_ref()),
        }
    }

    fn places(&mut self, scope: Scope) -> Vec<&mut Option<Arc<T>>> {
        match scope {
            Scope::Own => vec![&mut self.own],
            Scope::Loopback4 => vec![&mut self.loopback4],
            Scope::Loopback6 => vec![&mut self.loopback6],
            Scope::Any4 => vec![&mut self.own, &mut self.loopback4],
            Scope::Any6 => vec![&mut self.loopback6, &mut self.any6],
            Scope::Whole => vec![&mut self.own, &mut self.loopback4, &mut self.loopback6],
        }
    }

    fn is_free(&mut self, scope: Scope) -> bool {
        self.places(scope).iter().all(|place| place.is_none())
    }

    fn put(&mut self, scope: Scope, value: &Arc<T>) {
        for place in self.places(scope) {
            *place = Some(value.clone());
        }
    }

    /// Returns whether nobody is left.
    fn remove(&mut self, value: &Arc<T>) -> bool {
        let places = [&mut self.own, &mut self.loopback4, &mut self.loopback6, &mut self.any6];
        let mut empty = true;
        for place in places {
            if place.as_ref().is_some_and(|now| Arc::ptr_eq(now, value)) {
                *place = None;
            }
            empty &= place.is_none();
        }
        empty
    }
}

/// The ports of all pods of this node for one protocol.
pub(crate) struct Ports<T> {
    taken: RwLock<HashMap<SocketAddr, Places<T>>>,
    next: AtomicU16,
}

impl<T> Default for Ports<T> {
    fn default() -> Self {
        Self { taken: RwLock::default(), next: AtomicU16::new(0) }
    }
}

impl<T> Ports<T> {
    pub(crate) fn get(&self, address: SocketAddr, view: View) -> Option<Arc<T>> {
        self.taken.read().get(&address)?.see(view).cloned()
    }

    /// Takes a port of a pod; port 0: any that is free. `None` when there is none.
    pub(crate) fn take(
        &self,
        pod: IpAddr,
        port: u16,
        scope: Scope,
        make: impl FnOnce(SocketAddr) -> T,
    ) -> Option<Arc<T>> {
        let mut taken = self.taken.write();
        let mut free = |port: &u16| taken.get_mut(&SocketAddr::new(pod, *port)).is_none_or(|p| p.is_free(scope));
        let port = match port {
            0 => (0..=u16::MAX - EPHEMERAL_FIRST).map(|_| self.ephemeral()).find(&mut free)?,
            port => Some(port).filter(&mut free)?,
        };
        let address = SocketAddr::new(pod, port);
        let value = Arc::new(make(address));
        taken.entry(address).or_default().put(scope, &value);
        Some(value)
    }

    /// Takes a port whoever has it.
    pub(crate) fn replace(&self, address: SocketAddr, scope: Scope, value: &Arc<T>) {
        self.taken.write().entry(address).or_default().put(scope, value);
    }

    /// Gives back what `value` has of a port.
    pub(crate) fn give_back(&self, address: SocketAddr, value: &Arc<T>) {
        let mut taken = self.taken.write();
        if taken.get_mut(&address).is_some_and(|places| places.remove(value)) {
            taken.remove(&address);
        }
    }

    /// The next port for somebody who does not care.
    pub(crate) fn ephemeral(&self) -> u16 {
        EPHEMERAL_FIRST + self.next.fetch_add(1, Ordering::Relaxed) % (u16::MAX - EPHEMERAL_FIRST + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 7));

    /// Binds one after the other; answers with who was refused, and with who is seen from where.
    fn check(binds: &[Scope], refused: &[usize], [own, four, six]: [Option<usize>; 3]) {
        let ports = Ports::default();
        let taken: Vec<_> = (0..binds.len()).map(|i| ports.take(POD, 80, binds[i], |_| i)).collect();
        let not: Vec<_> = (0..binds.len()).filter(|i| taken[*i].is_none()).collect();
        assert_eq!(not, refused, "{binds:?}");
        let see = |view| ports.get(SocketAddr::new(POD, 80), view).map(|v| *v);
        assert_eq!([see(View::Own), see(View::Loopback4), see(View::Loopback6)], [own, four, six], "{binds:?}");
        for value in taken.iter().flatten() {
            ports.give_back(SocketAddr::new(POD, 80), value);
        }
        assert!(ports.taken.read().is_empty(), "{binds:?}");
    }

    #[test]
    fn ports_are_taken_by_address() {
        use Scope::*;
        check(&[Any4], &[], [Some(0), Some(0), Some(0)]);
        check(&[Any6], &[], [Some(0), Some(0), Some(0)]);
        check(&[Any4, Any6], &[], [Some(0), Some(0), Some(1)]);
        check(&[Any4, Any4], &[1], [Some(0), Some(0), Some(0)]);
        check(&[Loopback4], &[], [None, Some(0), Some(0)]);
        check(&[Loopback4, Own], &[], [Some(1), Some(0), Some(0)]);
        check(&[Loopback4, Any4], &[1], [None, Some(0), Some(0)]);
        check(&[Loopback6, Any4, Any6], &[2], [Some(1), Some(1), Some(0)]);
        check(&[Whole, Own, Loopback4, Loopback6], &[1, 2, 3], [Some(0), Some(0), Some(0)]);
    }

    #[test]
    fn ports_that_nobody_asked_for_are_free_ones() {
        let ports = Ports::default();
        let first = ports.take(POD, 0, Scope::Any4, |at| at.port());
        let second = ports.take(POD, 0, Scope::Any4, |at| at.port());
        assert_eq!([first, second].map(|p| *p.unwrap()), [EPHEMERAL_FIRST, EPHEMERAL_FIRST + 1]);
        let held: Vec<_> = (2..=u16::MAX - EPHEMERAL_FIRST).map(|_| ports.take(POD, 0, Scope::Own, |_| 0)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(ports.take(POD, 0, Scope::Own, |_| 0).is_none(), "all are taken");
    }

    #[test]
    fn addresses_of_others_are_not_bound() {
        for (at, scope) in [
            ("10.244.0.7", Some(Scope::Own)),
            ("127.0.0.1", Some(Scope::Loopback4)),
            ("127.8.0.1", Some(Scope::Loopback4)),
            ("::ffff:127.0.0.1", Some(Scope::Loopback4)),
            ("::1", Some(Scope::Loopback6)),
            ("0.0.0.0", Some(Scope::Any4)),
            ("::", Some(Scope::Any6)),
            ("10.244.0.8", None),
            ("fe80::1", None),
        ] {
            assert_eq!(Scope::of(at.parse().unwrap(), POD), scope, "{at}");
        }
    }
}
