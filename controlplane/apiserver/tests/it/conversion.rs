//! Versions of custom resources that a webhook converts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{custom::*, harness::Cluster};

/// Converts: what `v1` calls `color` is `paint` in `v2`. Refuses what is called `broken`.
fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let (from, to) = if wanted == "example.com/v2" { ("color", "paint") } else { ("paint", "color") };
    let one = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = json!(wanted);
        let spec = object["spec"].as_object_mut().unwrap();
        if let Some(value) = spec.remove(from) {
            spec.insert(to.to_owned(), value);
        }
        object
    };
    let objects = request["objects"].as_array().unwrap();
    let broken = objects.iter().any(|o| o["metadata"]["name"] == "broken");
    let result =
        if broken { json!({"status": "Failed", "message": "it is broken"}) } else { json!({"status": "Success"}) };
    json!({
        "apiVersion": review["apiVersion"], "kind": review["kind"],
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects.iter().map(one).collect::<Vec<_>>()},
    })
}

/// Serves [`convert`] over TLS; answers with its port, its certificate, and the number of objects of each request.
async fn converter() -> (u16, String, std::sync::Arc<std::sync::Mutex<Vec<usize>>>) {
    use http_body_util::BodyExt as _;
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![certificate], private).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let counted = calls.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let counted = counted.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let counted = counted.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    counted.lock().unwrap().push(review["request"]["objects"].as_array().unwrap().len());
                    let answer = bytes::Bytes::from(convert(&review).to_string());
                    Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(answer)))
                }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
        }
    });
    (port, key.cert.pem(), calls)
}

#[tokio::test]
async fn versions_are_converted_by_a_webhook() {
    use base64::Engine as _;
    let cluster = Cluster::start().await;
    let (port, certificate, calls) = converter().await;
    let mut new = definition();
    let of_spec = |name: &str| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {(name): {"type": "string"}}}}});
    new["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": of_spec("color")}},
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": of_spec("paint")}},
    ]);
    let bundle = base64::engine::general_purpose::STANDARD.encode(certificate);
    new["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://localhost:{port}/convert"), "caBundle": bundle},
    }});
    let mut defined = define(&cluster, new).await;
    cluster.post(WIDGETS, widget("a", json!({"color": "red"}))).await.ok(201);
    let second = "/apis/example.com/v2/namespaces/default/widgets";
    let mut other = widget("b", json!({"paint": "blue"}));
    other["apiVersion"] = json!("example.com/v2");
    let written = cluster.post(second, other).await.ok(201);
    assert_eq!(written["spec"], json!({"paint": "blue"}));
    assert_eq!(cluster.get(&format!("{WIDGETS}/b")).await.ok(200)["spec"], json!({"color": "blue"}));

    calls.lock().unwrap().clear();
    let listed = cluster.get(second).await.ok(200);
    assert_eq!(
        (&listed["items"][0]["spec"], &listed["items"][1]["spec"]),
        (&json!({"paint": "red"}), &json!({"paint": "blue"}))
    );
    assert_eq!(*calls.lock().unwrap(), [2]);

    cluster.post(WIDGETS, widget("broken", json!({"color": "red"}))).await.ok(201);
    let message = cluster.get(&format!("{second}/broken")).await.refused(500);
    assert!(message.ends_with("conversion webhook for example.com/v1, Kind=Widget failed: it is broken"), "{message}");
    cluster.delete(&format!("{WIDGETS}/broken")).await.ok(200);

    // From now on another version is stored; what is there is still understood.
    defined["spec"]["versions"][0]["storage"] = json!(false);
    defined["spec"]["versions"][1]["storage"] = json!(true);
    let changed = cluster.put(&format!("{DEFINITIONS}/widgets.example.com"), defined).await.ok(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        cluster.patch(&format!("{WIDGETS}/a"), "merge-patch", json!({"spec": {"color": "green"}})).await.ok(200);
        let found = cluster.get(&format!("{second}/a")).await.ok(200);
        assert_eq!(found["spec"], json!({"paint": "green"}));
        calls.lock().unwrap().clear();
        cluster.get(&format!("{second}/a")).await.ok(200);
        if calls.lock().unwrap().is_empty() {
            break;
        }
        assert!(Instant::now() < until, "it is never stored as the new version");
    }
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await.ok(200)["spec"], json!({"color": "green"}));
    cluster.stop().await;
}
