//! [`RemoteApi`] against a scripted server behind `kube::Client`'s service seam: no socket, virtual time.

use std::{collections::VecDeque, convert::Infallible};

use podium_api::k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;
use crate::Delta;

type Script = Arc<Mutex<VecDeque<(u16, String)>>>;
type Asked = Arc<Mutex<Vec<String>>>;

/// A client whose server answers one after the other; when there is no more it hangs.
fn scripted(answers: Vec<(u16, String)>) -> (RemoteApi, Asked) {
    scripted_by(&Arc::new(Mutex::new(answers.into())))
}

/// The same with a script that goes on later.
fn scripted_by(script: &Script) -> (RemoteApi, Asked) {
    let script = Arc::clone(script);
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().push(format!("{} {}", request.method(), request.uri()));
        let answer = script.lock().pop_front();
        async move {
            let Some((code, body)) = answer else { return std::future::pending().await };
            let response = http::Response::builder().status(code).body(http_body_util::Full::from(body));
            Ok::<_, Infallible>(response.expect("a valid response"))
        }
    });
    (RemoteApi::new(Client::new(service, "default")), asked)
}

fn map(name: &str, revision: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": revision.to_string()}})
}

fn page(items: &[Value], revision: u64, token: &str) -> (u16, String) {
    let metadata = json!({"resourceVersion": revision.to_string(), "continue": token});
    (200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string())
}

fn events(events: &[(&str, Value)]) -> (u16, String) {
    let line = |(kind, object): &(&str, Value)| format!("{}\n", json!({"type": kind, "object": object}));
    (200, events.iter().map(line).collect())
}

fn expired() -> Value {
    json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"})
}

async fn next(deltas: &mut tokio::sync::mpsc::UnboundedReceiver<Delta>) -> String {
    match deltas.recv().await.expect("the mirror lives") {
        Delta::Put { old: None, new } => format!("+{}", new.key()),
        Delta::Put { old: Some(_), new } => format!("~{}", new.key()),
        Delta::Delete { old, .. } => format!("-{}", old.key()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_lists_in_pages_watches_reconnects_and_lists_again_after_410() {
    let (api, asked) = scripted(vec![
        page(&[map("a", 1)], 5, "more"),
        page(&[map("b", 2)], 5, ""),
        events(&[("ADDED", map("c", 6)), ("BOOKMARK", map("", 9))]),
        (500, "broken".to_owned()),
        events(&[("MODIFIED", map("a", 10)), ("ERROR", expired())]),
        page(&[map("a", 12), map("c", 6)], 12, ""),
        events(&[("DELETED", map("c", 13))]),
    ]);
    let mirror = api.mirror(&kind_of::<ConfigMap>(), MirrorScope::default()).await.unwrap();
    let mut deltas = mirror.subscribe();
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(next(&mut deltas).await);
    }
    assert_eq!(seen, ["+d/a", "+d/b", "+d/c", "~d/a", "-d/b", "~d/a", "-d/c"]);
    let watch = "GET /api/v1/configmaps?watch=1&allowWatchBookmarks=true&timeoutSeconds=290&resourceVersion=";
    while asked.lock().len() < 8 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        *asked.lock(),
        [
            "GET /api/v1/configmaps?limit=500".to_owned(),
            "GET /api/v1/configmaps?limit=500&continue=more".to_owned(),
            format!("{watch}5"),
            format!("{watch}9"),
            format!("{watch}9"),
            "GET /api/v1/configmaps?limit=500".to_owned(),
            format!("{watch}12"),
            format!("{watch}13"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_given_up_goes_on_from_where_it_was() {
    let script: Script = Arc::new(Mutex::new(vec![page(&[map("a", 1)], 5, "")].into()));
    let (api, asked) = scripted_by(&script);
    let mirror = api.mirror(&kind_of::<ConfigMap>(), MirrorScope::default()).await.unwrap();
    let mut deltas = mirror.subscribe();
    assert_eq!(next(&mut deltas).await, "+d/a");
    // The watch is silent: it is opened again when somebody says that the server is.
    while asked.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    let since = tokio::time::Instant::now();
    script.lock().push_back(events(&[("ADDED", map("b", 7))]));
    api.give_up_connections();
    assert_eq!(next(&mut deltas).await, "+d/b");
    while asked.lock().len() < 4 {
        tokio::task::yield_now().await;
    }
    // One that waits to be tried again does not wait any longer.
    script.lock().extend([(500, "broken".to_owned()), events(&[("ADDED", map("c", 8))])]);
    api.give_up_connections();
    while asked.lock().len() < 5 {
        tokio::task::yield_now().await;
    }
    api.give_up_connections();
    assert_eq!(next(&mut deltas).await, "+d/c");
    assert_eq!(since.elapsed(), Duration::ZERO);
    let from = |at: usize| asked.lock()[at].rsplit('=').next().map(str::to_owned).unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(from), ["5", "5", "7", "7", "7"]);
}

#[tokio::test(start_paused = true)]
async fn errors_are_those_of_the_server() {
    let not_found = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
        "message": "configmaps \"a\" not found"});
    let (api, _) = scripted(vec![(404, not_found.to_string()), (503, "upstream".to_owned())]);
    let (kind, key) = (kind_of::<ConfigMap>(), ObjectKey::new("d", "a"));
    let error = api.get(&kind, &key).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.message, "configmaps \"a\" not found");
    let error = api.get(&kind, &key).await.unwrap_err();
    assert_eq!(error.reason, Reason::ServiceUnavailable);
    let error = api.get(&kind, &key).await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::Timeout, "the API server did not answer within 30 s"));
}

#[tokio::test]
async fn each_call_goes_to_its_path() {
    let body = map("a", 1).to_string();
    let (api, asked) = scripted(vec![(200, body); 6]);
    let (kind, key) = (kind_of::<ConfigMap>(), ObjectKey::new("d", "a"));
    let object = || kind.decode(map("a", 1).to_string().as_bytes()).unwrap().object;
    api.create(object()).await.unwrap();
    api.update(object(), Some("status")).await.unwrap();
    api.patch(&kind, &key, Patch::Merge(json!({})), None).await.unwrap();
    api.delete(&kind, &key, DeleteOptions::default()).await.unwrap();
    api.delete_collection(&kind, "d").await.unwrap();
    api.bind(&ObjectKey::new("d", "p"), "u", "n1").await.unwrap();
    assert_eq!(
        *asked.lock(),
        [
            "POST /api/v1/namespaces/d/configmaps",
            "PUT /api/v1/namespaces/d/configmaps/a/status",
            "PATCH /api/v1/namespaces/d/configmaps/a",
            "DELETE /api/v1/namespaces/d/configmaps/a",
            "DELETE /api/v1/namespaces/d/configmaps",
            "POST /api/v1/namespaces/d/pods/p/binding",
        ]
    );
}
