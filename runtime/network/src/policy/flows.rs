//! What is open now, so that it can be cut when it is not allowed any more.
//!
//! Invariant: who opens something notes it here first and asks the policies then; so a change of policies that comes
//! between both is seen by one of them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Source;
use crate::{dialer::Own, egress::Way, stream::Cutter, table::Protocol};

/// What is open on this node.
#[derive(Clone, Default)]
pub(crate) struct Flows(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    next: u64,
    flows: HashMap<u64, (Opened, Cut)>,
}

/// What somebody has opened.
#[derive(Clone)]
pub(crate) enum Opened {
    /// To a pod.
    Within { from: Source, to: SocketAddr, protocol: Protocol },
    /// To a host outside.
    Outside(Arc<OutsideFlow>),
}

/// A connection to a host outside, and what it was granted by.
pub(crate) struct OutsideFlow {
    pub(crate) own: Weak<Own>,
    pub(crate) way: Way,
    pub(crate) to: SocketAddr,
    /// The names that led there.
    pub(crate) names: Vec<Arc<str>>,
    /// Open to all pods: the API server's.
    pub(crate) open_to_all: bool,
}

/// How something is cut.
pub(crate) enum Cut {
    Pipes(Cutter),
    Token(CancellationToken),
}

/// Something noted as open, until this is dropped.
pub(crate) struct FlowGuard {
    flows: Flows,
    id: u64,
}

/// What something open waits for beside its own progress: that it is cut.
pub(crate) struct Leash {
    pub(crate) token: CancellationToken,
    _guard: FlowGuard,
}

impl Flows {
    /// Notes something as open.
    pub(crate) fn note(&self, opened: Opened, cut: Cut) -> FlowGuard {
        let mut open = self.0.lock();
        let id = open.next;
        open.next += 1;
        open.flows.insert(id, (opened, cut));
        FlowGuard { flows: self.clone(), id }
    }

    /// Notes something as open that watches a token.
    pub(crate) fn leash(&self, opened: Opened) -> Leash {
        let token = CancellationToken::new();
        Leash { _guard: self.note(opened, Cut::Token(token.clone())), token }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().flows.is_empty()
    }

    /// All that is open.
    pub(crate) fn all(&self) -> Vec<(u64, Opened)> {
        self.0.lock().flows.iter().map(|(id, (opened, _))| (*id, opened.clone())).collect()
    }

    /// Cuts it, if it is still open.
    pub(crate) fn cut(&self, id: u64) -> bool {
        let Some((_, cut)) = self.0.lock().flows.remove(&id) else { return false };
        match cut {
            Cut::Pipes(cutter) => cutter.cut(),
            Cut::Token(token) => token.cancel(),
        }
        true
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        let gone = self.flows.0.lock().flows.remove(&self.id);
        // What it held goes when the lock has been given back.
        drop(gone);
    }
}
