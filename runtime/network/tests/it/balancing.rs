//! Requests to Services: tried again where that is safe, within limits, to those who can.

use podium_network::{Observer, Outliers, Settings, table::Distribution};

use crate::*;

/// Answers with a status, or not at all.
struct Fails {
    status: StatusCode,
    asked: AtomicUsize,
}

impl Fails {
    fn new(status: u16) -> Arc<Self> {
        Arc::new(Self { status: StatusCode::from_u16(status).unwrap(), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl HttpHandler for Fails {
    async fn call(&self, _: Request<Body>) -> Result<Response<Body>, CallError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.status == StatusCode::IM_A_TEAPOT {
            return Err(CallError::Failed("it broke".into()));
        }
        let body = Full::new(Bytes::from_static(b"no")).map_err(|never| match never {}).boxed_unsync();
        Ok(Response::builder().status(self.status).body(body).unwrap())
    }
}

fn with(settings: Settings) -> Service {
    Service { traffic: Traffic { settings: Arc::new(settings), ..Traffic::default() }, ..service(None) }
}

async fn status(network: &Network, request: Request<Body>) -> Result<StatusCode, CallError> {
    network.dialer(caller()).send(request).await.map(|response| response.status())
}

fn request(method: &str, body: &'static str) -> Request<Body> {
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    Request::builder().method(method).uri("http://web/").body(body).unwrap()
}

/// Ten times a Service with two endpoints of which one always fails; requests one after the other. Answers with how many
/// failed, how many came to the one that fails, and how often it was passed over.
async fn two(settings: Settings, failing: u16, method: &str) -> (usize, usize, f64) {
    let (mut failed, mut asked, mut ejected) = (0, 0, 0.0);
    for _ in 0..10 {
        let network = network();
        network.put_service(with(settings.clone()));
        network.put_slice(slice(&[1, 2], &[]));
        let bad = Fails::new(failing);
        let _bad = network.attach(ip(1), 8080, bad.clone());
        let _good = network.attach(ip(2), 8080, Pod::new("good"));
        for _ in 0..50 {
            let answer = status(&network, request(method, "")).await;
            failed += usize::from(answer != Ok(StatusCode::OK));
        }
        asked += bad.asked.load(Ordering::SeqCst);
        ejected += counted(&network, "podium_service_ejections_total");
    }
    (failed, asked, ejected)
}

fn counted(network: &Network, name: &str) -> f64 {
    let families = network.metrics().collectors().into_iter().flat_map(|c| c.collect());
    let all = families.filter(|family| family.name() == name).flat_map(|family| family.get_metric().to_vec());
    all.map(|metric| metric.get_counter().get_value()).sum()
}

#[tokio::test]
async fn safe_requests_go_to_another_endpoint_and_one_that_fails_is_passed_over() {
    for failing in [418, 503, 502, 504] {
        let (failed, asked, _) = two(Settings::default(), failing, "GET").await;
        assert_eq!(failed, 0, "{failing}");
        assert!((1..=50).contains(&asked), "{failing}: {asked}");
    }
    let once = Settings { outliers: Outliers { failures_max: 1, ..Outliers::default() }, ..Settings::default() };
    let (failed, asked, ejected) = two(once.clone(), 418, "POST").await;
    assert_eq!(failed, asked, "what may do something is not sent twice");
    assert!((1..=10).contains(&asked) && ejected == asked as f64, "{asked} {ejected}");
    let (failed, asked, _) = two(Settings { retries: 0, ..once.clone() }, 503, "GET").await;
    assert!(failed == asked && (1..=10).contains(&failed), "{failed}");
    let (failed, asked, ejected) = two(once, 500, "GET").await;
    assert!(failed == asked && ejected == 0.0, "an application's own error says nothing of its endpoint");
}

#[tokio::test]
async fn the_only_endpoint_answers_for_itself() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let bad = Fails::new(503);
    let _bad = network.attach(ip(1), 8080, bad.clone());
    for _ in 0..20 {
        assert_eq!(status(&network, request("GET", "")).await, Ok(StatusCode::SERVICE_UNAVAILABLE));
    }
    assert_eq!(bad.asked.load(Ordering::SeqCst), 20);
}

#[tokio::test(start_paused = true)]
async fn requests_take_no_longer_than_their_service_says() {
    let network = network();
    let (second, gate) = (Duration::from_secs(1), Arc::new(Notify::new()));
    network.put_service(with(Settings { request_timeout: Some(second), ..Settings::default() }));
    network.put_slice(slice(&[1], &[]));
    let _slow = network.attach(ip(1), 8080, Pod::gated("slow", &gate));
    let error = status(&network, request("GET", "")).await.unwrap_err();
    assert_eq!(error, CallError::TimedOut("service default/web did not answer within 1s".into()));
    network.put_service(with(Settings { try_timeout: Some(second), ..Settings::default() }));
    let error = status(&network, request("GET", "")).await.unwrap_err();
    assert_eq!(error, CallError::TimedOut("10.244.0.1:8080 did not answer within 1s".into()));
    let _quick = network.attach(ip(2), 8080, Pod::new("quick"));
    network.put_slice(slice(&[1, 2], &[]));
    for _ in 0..20 {
        assert_eq!(status(&network, request("GET", "")).await, Ok(StatusCode::OK), "another one is tried");
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_requests_are_under_way_and_so_many_wait() {
    let network = network();
    let gate = Arc::new(Notify::new());
    network.put_service(with(Settings { requests_max: Some(2), pending_max: 1, ..Settings::default() }));
    network.put_slice(slice(&[1], &[]));
    let pod = Pod::gated("one", &gate);
    let _pod = network.attach(ip(1), 8080, pod.clone());
    let send = || {
        let network = network.clone();
        tokio::spawn(async move { get(&network, "http://web/").await })
    };
    let under_way = [send(), send(), send()];
    tokio::time::sleep(Duration::from_millis(1)).await;
    let error = get(&network, "http://web/").await.unwrap_err();
    let words = "service default/web has 2 requests under way, and more wait";
    assert_eq!(error, CallError::NotAccepted(words.into()));
    for _ in 0..3 {
        gate.notify_one();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for answer in under_way {
        assert_eq!(answer.await.unwrap(), Ok("one".into()));
    }
    assert_eq!(pod.served.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn clients_come_back_to_their_endpoint_until_they_stay_away() {
    let network = network();
    let traffic = Traffic { affinity: Some(Duration::from_secs(60)), ..Traffic::default() };
    network.put_service(Service { traffic, ..service(None) });
    let all: Vec<u8> = (1..=8).collect();
    network.put_slice(slice(&all, &[]));
    const NAMES: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let mut pods: Vec<_> =
        all.iter().map(|last| network.attach(ip(*last), 8080, Pod::new(NAMES[usize::from(*last) - 1]))).collect();
    let ask = |client: u8| {
        let dialer = pod(&network, client);
        async move {
            let response = dialer.send(request("GET", "")).await.unwrap();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(bytes.to_vec()).unwrap()
        }
    };
    let mut different = std::collections::BTreeSet::new();
    for client in 20..60 {
        let first = ask(client).await;
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(ask(client).await, first);
        }
        different.insert(first);
    }
    assert!(different.len() > 3, "{different:?}");
    let first: u8 = ask(20).await.parse().unwrap();
    let left: Vec<u8> = all.iter().copied().filter(|last| *last != first).collect();
    pods.remove(usize::from(first) - 1);
    network.put_slice(slice(&left, &[]));
    let second = ask(20).await;
    assert_ne!(second, first.to_string(), "who has gone is not waited for");
    assert_eq!(ask(20).await, second);
}

#[derive(Default)]
struct Heard(parking_lot::Mutex<Vec<String>>);

impl Observer for Heard {
    fn no_endpoints(&self, service: &Name, port: u16) {
        self.0.lock().push(format!("{service}:{port}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_has_nobody_is_told_of_but_not_each_time() {
    let network = network();
    let heard = Arc::new(Heard::default());
    network.observe(heard.clone());
    network.put_service(service(None));
    for _ in 0..10 {
        let error = get(&network, "http://web/").await.unwrap_err();
        assert_eq!(error, CallError::Refused("service default/web has no ready endpoints".into()));
        assert!(pod(&network, 9).connect(at("10.96.0.10:80")).await.is_err());
    }
    assert_eq!(heard.0.lock().len(), 1);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(get(&network, "http://web/").await.is_err());
    assert_eq!(*heard.0.lock(), ["default/web:80", "default/web:80"]);
}

#[tokio::test]
async fn endpoints_near_by_are_preferred_where_that_is_wanted() {
    let network = network();
    network.locate("n1", Some("z1"));
    let place = |node: &str, zone: &str| Place { node: Some(node.into()), zone: Some(zone.into()), ..Place::default() };
    let mut slice = slice(&[1, 2, 3], &[]);
    for (endpoint, place) in slice.endpoints.iter_mut().zip([place("n1", "z1"), place("n2", "z1"), place("n3", "z2")]) {
        endpoint.place = place;
    }
    network.put_slice(slice);
    let seen = |traffic: Traffic| {
        network.put_service(Service { traffic, ..service(None) });
        let ready = network.ready_endpoints(&Name::new("default", "web"), 80);
        ready.iter().map(|at| at.to_string().replace("10.244.0.", "").replace(":8080", "")).collect::<String>()
    };
    let distribution = |of| Traffic { distribution: Some(of), ..Traffic::default() };
    assert_eq!(seen(Traffic::default()), "123");
    assert_eq!(seen(distribution(Distribution::SameZone)), "12");
    assert_eq!(seen(distribution(Distribution::SameNode)), "1");
    assert_eq!(seen(Traffic { internal_local: true, ..Traffic::default() }), "1");
    assert_eq!(seen(Traffic { external_local: true, ..Traffic::default() }), "123");
    network.locate("n3", Some("z2"));
    assert_eq!(seen(distribution(Distribution::SameZone)), "3");
}

/// Begins an answer, and never ends it.
struct Streams(AtomicUsize);

#[async_trait]
impl HttpHandler for Streams {
    async fn call(&self, _: Request<Body>) -> Result<Response<Body>, CallError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let body = http_body_util::StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, _>>());
        Ok(Response::new(body.boxed_unsync()))
    }
}

#[tokio::test]
async fn an_answer_counts_until_it_ends() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1, 2], &[]));
    let pods = [1, 2].map(|last| (last, Arc::new(Streams(AtomicUsize::new(0)))));
    let _attached = pods.clone().map(|(last, pod)| network.attach(ip(last), 8080, pod));
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(network.dialer(caller()).send(request("GET", "")).await.unwrap());
        let [one, two] = pods.each_ref().map(|(_, pod)| pod.0.load(Ordering::SeqCst));
        assert!(one.abs_diff(two) <= 1, "{one} and {two} streams are open");
    }
}
