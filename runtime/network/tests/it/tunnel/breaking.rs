//! Nodes that die, and wires that are cut.

use super::*;

/// Nothing here takes longer, or the test has failed.
const AT_MOST: Duration = Duration::from_secs(60);

/// Three nodes, the first of which reaches the second through a proxy.
async fn three() -> ([Node; 3], Proxy) {
    let ca = Ca::new();
    let a = Node::new(&ca, 1, quick()).await;
    let (b, c) = (Node::new(&ca, 2, quick()).await, Node::new(&ca, 3, quick()).await);
    let proxy = Proxy::to(b.remote.address).await;
    acquaint(&[&a, &b, &c]);
    let through = RemoteNode { address: proxy.address, ..b.remote.clone() };
    a.network.set_nodes(vec![a.remote.clone(), through, c.remote.clone()]);
    ([a, b, c], proxy)
}

/// Clients that never pause, until they are stopped. None of their requests may fail.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(dialer: &Dialer, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (dialer, stop, answered) = (dialer.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    ask(&dialer, "http://web/").await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop, answered }
    }

    /// Waits until so many more were answered.
    async fn go_on(&self, more: usize) {
        let until_now = self.answered.load(Ordering::Relaxed);
        let done = || self.answered.load(Ordering::Relaxed) >= until_now + more;
        until(|| done() || self.has_failed()).await;
    }

    /// Whether a client ended before it was stopped; [`Load::end`] tells why.
    fn has_failed(&self) -> bool {
        self.clients.iter().any(|client| client.is_finished())
    }

    /// How many requests a pod has served once it serves no more, as what had reached it before may begin late.
    async fn last_of(&self, pod: &Pod) -> usize {
        let (mut last, mut still) = (pod.served.load(Ordering::SeqCst), 0);
        while still < 2 {
            self.go_on(100).await;
            let now = pod.served.load(Ordering::SeqCst);
            still = if now == last { still + 1 } else { 0 };
            last = now;
        }
        last
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

async fn a_node_is_lost_under_load(how: Wire) {
    let ([a, b, c], proxy) = three().await;
    a.network.put_service(service(None));
    let pods: Vec<_> = (1..4).flat_map(|last| [b.at(last, 0), c.at(last, 0)]).collect();
    a.network.put_slice(spread(&pods));
    let (there, other) = (Pod::new("b"), Pod::new("c"));
    let _ports: Vec<_> = (1..4)
        .flat_map(|last| {
            [b.network.attach(b.ip(last), 8080, there.clone()), c.network.attach(c.ip(last), 8080, other.clone())]
        })
        .collect();
    let load = Load::start(&a.pod(3), 6);
    load.go_on(300).await;
    let both = || [&there, &other].iter().all(|pod| pod.served.load(Ordering::SeqCst) > 0);
    tokio::time::timeout(AT_MOST, until(|| both() || load.has_failed())).await.unwrap();
    proxy.wire.send(how).unwrap();
    until(|| count(&a.network, "podium_tunnel_failures_total", &["broken"]) > 0.0).await;
    proxy.wire.send(Wire::Cut).unwrap();
    let lost = tokio::time::timeout(AT_MOST, load.last_of(&there)).await.unwrap();
    load.go_on(300).await;
    assert_eq!(there.served.load(Ordering::SeqCst), lost, "nothing goes where nothing can go");
    proxy.wire.send(Wire::Fine).unwrap();
    until(|| there.served.load(Ordering::SeqCst) > lost || load.has_failed()).await;
    load.go_on(100).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_loses_no_safe_request_and_comes_back() {
    a_node_is_lost_under_load(Wire::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_loses_no_safe_request_and_comes_back() {
    a_node_is_lost_under_load(Wire::Silent).await;
}

#[tokio::test]
async fn what_is_under_way_fails_at_once_when_the_connection_dies() {
    let ([a, b, _], proxy) = three().await;
    let gate = Arc::new(Notify::new());
    let slow = b.network.attach(b.ip(7), 8080, Pod::gated("slow", &gate));
    let (first, second) = (a.pod(3), a.pod(4));
    let asked = tokio::spawn(async move { ask(&first, "http://10.244.2.7:8080/").await });
    until(|| slow.under_way() == 1).await;
    proxy.wire.send(Wire::Cut).unwrap();
    let failed = asked.await.unwrap();
    assert!(matches!(failed, Err(CallError::Failed(_))), "{failed:?}");
    until(|| slow.under_way() == 0).await;
    let lost = loop {
        // One that comes while the connection is tried again waits for that.
        match ask(&second, "http://10.244.2.7:8080/").await {
            Err(CallError::NotAccepted(why)) => break why,
            other => assert!(other.is_err(), "{other:?}"),
        }
    };
    assert!(lost.starts_with("node node-2 cannot be reached"), "{lost}");
    proxy.wire.send(Wire::Fine).unwrap();
    gate.notify_one();
    while ask(&second, "http://10.244.2.7:8080/").await.as_deref() != Ok("slow") {
        gate.notify_one();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_node_that_goes_down_in_peace_finishes_what_is_under_way() {
    let (a, b) = two(quick()).await;
    let gate = Arc::new(Notify::new());
    let slow = b.network.attach(b.ip(7), 8080, Pod::gated("slow", &gate));
    let dialer = a.pod(3);
    let asked = tokio::spawn(async move { ask(&dialer, "http://10.244.2.7:8080/").await });
    until(|| slow.under_way() == 1).await;
    let down = tokio::spawn({
        let network = b.network.clone();
        async move { network.shutdown(Duration::from_secs(60)).await }
    });
    let other = a.pod(4);
    while !matches!(ask(&other, "http://10.244.2.8:8080/").await, Err(CallError::NotAccepted(_))) {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    assert_eq!(asked.await.unwrap().as_deref(), Ok("slow"));
    down.await.unwrap();
}

#[tokio::test]
async fn a_node_that_moves_is_found_where_it_is() {
    let ([a, b, _], proxy) = three().await;
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let dialer = a.pod(3);
    assert_eq!(ask(&dialer, "http://10.244.2.7:8080/").await.as_deref(), Ok("b"));
    proxy.wire.send(Wire::Cut).unwrap();
    a.network.set_nodes(vec![a.remote.clone(), b.remote.clone()]);
    assert_eq!(ask(&dialer, "http://10.244.2.7:8080/").await.as_deref(), Ok("b"));
    a.network.set_nodes(vec![a.remote.clone()]);
    let gone = ask(&dialer, "http://10.244.2.7:8080/").await;
    assert_eq!(gone, Err(CallError::Refused("nobody listens at 10.244.2.7:8080".into())));
}

/// Pods of another node are replaced one after the other, and this node hears of it late: none of the requests may fail,
/// though they may do something and carry something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_on_another_node_loses_no_request() {
    let (a, b) = two(quick()).await;
    a.network.put_service(service(None));
    b.network.put_service(service(None));
    let attach = |last| (b.at(last, 0), b.network.attach(b.ip(last), 8080, Pod::new("pod")));
    let mut pods: std::collections::VecDeque<_> = [1, 2, 3].map(attach).into();
    let ready = |pods: &std::collections::VecDeque<(SocketAddr, _)>| -> Vec<SocketAddr> {
        pods.iter().map(|(at, _)| *at).collect()
    };
    for network in [&a.network, &b.network] {
        network.put_slice(spread(&ready(&pods)));
    }
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = |_| {
        let (dialer, stop, answered) = (a.pod(9), stop.clone(), answered.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let body = Full::new(Bytes::from(vec![7; 2000])).map_err(|never| match never {}).boxed_unsync();
                let answer = dialer.send(Request::post("http://web/").body(body).unwrap()).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "pod");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let clients: Vec<_> = (0..4).map(client).collect();
    for last in 4..40 {
        pods.push_back(attach(last));
        let (_, old) = pods.pop_front().unwrap();
        b.network.put_slice(spread(&ready(&pods)));
        assert!(old.drain(Duration::from_secs(30)).await);
        drop(old);
        let before = answered.load(Ordering::Relaxed);
        let late = || answered.load(Ordering::Relaxed) >= before + 10;
        until(|| late() || clients.iter().any(|client| client.is_finished())).await;
        a.network.put_slice(spread(&ready(&pods)));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_somebody_wants_is_tried_soon_however_long_it_was_away() {
    let ca = Ca::new();
    let hour = Duration::from_secs(3600);
    let patient = TunnelLimits { backoff_min: hour, backoff_max: hour, ..quick() };
    let (a, b) = (Node::new(&ca, 1, patient).await, Node::new(&ca, 2, quick()).await);
    let proxy = Proxy::to(b.remote.address).await;
    a.network.set_nodes(vec![a.remote.clone(), RemoteNode { address: proxy.address, ..b.remote.clone() }]);
    b.network.set_nodes(vec![a.remote.clone(), b.remote.clone()]);
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let dialer = a.pod(3);
    assert_eq!(ask(&dialer, "http://10.244.2.7:8080/").await.as_deref(), Ok("b"));
    proxy.wire.send(Wire::Cut).unwrap();
    while ask(&dialer, "http://10.244.2.7:8080/").await.is_ok() {
        tokio::task::yield_now().await;
    }
    proxy.wire.send(Wire::Fine).unwrap();
    while ask(&dialer, "http://10.244.2.7:8080/").await.as_deref() != Ok("b") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
