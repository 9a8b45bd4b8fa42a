//! `wasi:sockets`, over what the container was given: see [`crate::sockets`].

use super::{Capability, Guest};
use crate::sockets::{self, SocketsHost, SocketsView};

pub(super) const CAPABILITY: Capability = Capability {
    group: sockets::GROUP,
    interfaces: &[
        ("instance-network", &["0.2"]),
        ("ip-name-lookup", &["0.2", "0.3"]),
        ("network", &["0.2"]),
        ("tcp", &["0.2"]),
        ("tcp-create-socket", &["0.2"]),
        ("types", &["0.3"]),
        ("udp", &["0.2"]),
        ("udp-create-socket", &["0.2"]),
    ],
    can_be_empty: true,
    link: sockets::link,
};

impl SocketsHost for Guest {
    fn sockets(&mut self) -> SocketsView<'_> {
        self.called();
        SocketsView { table: &mut self.table, instance: &self.own.sockets }
    }
}
