//! Node ports of UDP: datagrams of clients outside go to a Service's pods, and their answers back.
//!
//! Each client stays with one pod while that is there and either of them says something. To the pod a client is the node,
//! at a port of its own. Clients are bounded: the one that was silent for the longest time is forgotten for a new one; what
//! does not fit is lost, as datagrams are.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    net::UdpSocket,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Network,
    balance::Moment,
    outer::Allowed,
    policy::Source,
    ports::{Scope, View},
    services::{Lookup, NodePort},
    table::Protocol,
    tunnel::datagrams::Datagram,
    udp::{DATAGRAM_BYTES_MAX, Queue},
};

/// Clients of one port at once.
const CLIENTS_MAX: usize = 4096;
/// Bytes of answers that wait for one client.
const QUEUE_BYTES: usize = 256 << 10;
/// How long a client that hears and says nothing stays with its pod.
///
/// # Source
/// `nf_conntrack_udp_timeout_stream` of Linux.
const IDLE: Duration = Duration::from_secs(120);

/// A client, and the pod that it talks with.
struct Flow {
    network: Network,
    /// Where the pod's answers come to.
    queue: Arc<Queue>,
    pod: SocketAddr,
    used: Arc<Mutex<Instant>>,
    answering: AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answering.abort();
        self.network.inner().attachments.udp.give_back(self.queue.address(), &self.queue);
    }
}

/// Serves a node port until `stop`.
pub(crate) async fn serve(
    network: Network,
    socket: UdpSocket,
    (to, allowed): (NodePort, Arc<Allowed>),
    stop: CancellationToken,
) {
    let front = Front { network, socket: Arc::new(socket), to };
    let mut flows = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut sweep = interval(IDLE / 4);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            received = front.socket.recv_from(&mut buffer) => match received {
                Ok((_, client)) if !allowed.has(client.ip()) => {}
                Ok((count, client)) => front.take(&mut flows, client, &buffer[..count]),
                // A client that has gone, most likely: the next one may fare better.
                Err(error) => {
                    tracing::debug!(service = %front.to.service, %error, "a node port received an error");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            },
            _ = sweep.tick(), if !flows.is_empty() => flows.retain(|_, flow| flow.used.lock().elapsed() < IDLE),
        }
    }
}

struct Front {
    network: Network,
    socket: Arc<UdpSocket>,
    to: NodePort,
}

impl Front {
    /// Hands a datagram to the client's pod.
    fn take(&self, flows: &mut HashMap<SocketAddr, Flow>, client: SocketAddr, datagram: &[u8]) {
        let inner = self.network.inner();
        let Lookup::Found(port) = inner.services.outer_port(&self.to.service, self.to.port, Protocol::Udp) else {
            return;
        };
        let pods: Vec<_> = port.endpoints.iter().map(|endpoint| endpoint.address).collect();
        if flows.get(&client).is_some_and(|flow| !pods.contains(&flow.pod)) {
            flows.remove(&client);
        }
        if !flows.contains_key(&client) {
            let Some(pod) = port.for_datagrams(self.network.visitor(client.ip()), Moment::now()) else { return };
            let Some(flow) = self.begin(client, pod) else { return };
            make_room(flows);
            flows.insert(client, flow);
        }
        let Some(flow) = flows.get(&client) else { return };
        *flow.used.lock() = Instant::now();
        if inner.policies.judge(self.network.visitor(client.ip()), flow.pod, Protocol::Udp).is_err() {
            return;
        }
        let (from, to) = (flow.queue.address(), flow.pod);
        let bytes = Bytes::copy_from_slice(datagram);
        if let Some(queue) = inner.attachments.udp.get(to, View::Own) {
            queue.hear_of(&self.network, from);
            queue.push(bytes, from);
        } else if let Some(peer) = self.network.elsewhere(to.ip()) {
            let asker = match self.network.visitor(client.ip()) {
                Source::Ip(ip) => Some(ip),
                Source::Node => None,
            };
            self.network.send_datagram(&peer, Datagram { from, to, asker, bytes });
        }
    }

    /// `None` when the node has no port left.
    fn begin(&self, client: SocketAddr, pod: SocketAddr) -> Option<Flow> {
        let ports = &self.network.inner().attachments.udp;
        let own = self.network.node_side().ip();
        let queue = ports.take(own, 0, Scope::Own, |address| Queue::outer(address, QUEUE_BYTES))?;
        let used = Arc::new(Mutex::new(Instant::now()));
        let answers = answer(self.socket.clone(), client, pod, queue.clone(), used.clone());
        let answering = tokio::spawn(answers).abort_handle();
        Some(Flow { network: self.network.clone(), queue, pod, used, answering })
    }
}

/// Forgets the client that was silent for the longest time, when there are too many.
fn make_room(flows: &mut HashMap<SocketAddr, Flow>) {
    if flows.len() < CLIENTS_MAX {
        return;
    }
    let oldest = flows.iter().min_by_key(|(_, flow)| *flow.used.lock()).map(|(client, _)| *client);
    oldest.and_then(|client| flows.remove(&client));
}

/// Sends a pod's answers to a client; what others send there is dropped.
async fn answer(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    pod: SocketAddr,
    queue: Arc<Queue>,
    used: Arc<Mutex<Instant>>,
) {
    loop {
        let (bytes, from) = queue.next().await;
        if from != pod {
            continue;
        }
        *used.lock() = Instant::now();
        if let Err(error) = socket.send_to(&bytes, client).await {
            tracing::debug!(%client, %error, "an answer could not be sent");
        }
    }
}
