//! What the specification's own conformance suite asks for: pull, push, content discovery, content management.

use reqwest::Method;
use serde_json::{Value, json};

use super::{INDEX, MANIFEST, Served, digest, header, refusal};

#[tokio::test]
async fn whole_chunked_and_broken_uploads() {
    let served = Served::start().await;
    assert_eq!(served.get("/v2/").await.status(), 200);
    let (first, second) = (b"first half, ".to_vec(), b"second half".to_vec());
    let whole = digest(&[first.clone(), second.clone()].concat());

    let begun = served.send(Method::POST, "/v2/a/b/blobs/uploads/", &[], "").await;
    assert_eq!(begun.status(), 202);
    let place = header(&begun, "location");
    let range = format!("0-{}", first.len() - 1);
    let patched = served.send(Method::PATCH, &place, &[("content-range", &range)], first.clone()).await;
    assert_eq!((patched.status().as_u16(), header(&patched, "range")), (202, range.clone()));
    let place = header(&patched, "location");

    // Out of order, and again what is there already: the answer says where it goes on.
    for wrong in ["0-11", "30-40"] {
        let refused = served.send(Method::PATCH, &place, &[("content-range", wrong)], vec![0; 12]).await;
        assert_eq!((refused.status().as_u16(), header(&refused, "range")), (416, range.clone()));
    }
    let asked = served.get(&place).await;
    assert_eq!((asked.status().as_u16(), header(&asked, "range")), (204, range));

    let end = format!("{place}?digest={whole}");
    let range = format!("{}-{}", first.len(), first.len() + second.len() - 1);
    let done = served.send(Method::PUT, &end, &[("content-range", &range)], second).await;
    assert_eq!((done.status().as_u16(), header(&done, "docker-content-digest")), (201, whole.clone()));
    let got = served.get(&header(&done, "location")).await;
    assert_eq!(got.bytes().await.unwrap(), "first half, second half");
    assert_eq!(refusal(served.get(&place).await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));

    // POST then PUT; a wrong digest; one that was given up.
    let begin = async || header(&served.send(Method::POST, "/v2/a/b/blobs/uploads/", &[], "").await, "location");
    let put = async |place: String, digest: &str, bytes: &'static str| {
        served.send(Method::PUT, &format!("{place}?digest={digest}"), &[], bytes).await
    };
    assert_eq!(put(begin().await, &digest(b"abc"), "abc").await.status(), 201);
    assert_eq!(refusal(put(begin().await, &digest(b"abc"), "abd").await).await, (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(refusal(put(begin().await, "sha512:00", "x").await).await, (400, "DIGEST_INVALID".to_owned()));
    let place = begin().await;
    assert_eq!(served.send(Method::DELETE, &place, &[], "").await.status(), 204);
    assert_eq!(refusal(put(place, &digest(b"abc"), "abc").await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    // An upload of one repository is none of another.
    let place = begin().await.replace("/a/b/", "/other/");
    assert_eq!(refusal(served.get(&place).await).await, (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn blobs_are_read_in_part_mounted_and_removed() {
    let served = Served::start().await;
    let blob = served.blob("one", b"0123456789").await;
    let path = format!("/v2/one/blobs/{blob}");
    let head = served.send(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10".to_owned()));
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=99-", 416, "bytes */10", ""),
    ] {
        let got = served.send(Method::GET, &path, &[("range", range)], "").await;
        assert_eq!(
            (got.status().as_u16(), header(&got, "content-range")),
            (status, content_range.to_owned()),
            "{range}"
        );
        if status == 206 {
            assert_eq!(got.text().await.unwrap(), body);
        }
    }
    let elsewhere = format!("/v2/two/blobs/{blob}");
    assert_eq!(refusal(served.get(&elsewhere).await).await, (404, "BLOB_UNKNOWN".to_owned()));
    let mount = async |from: &str, what: &str| {
        served.send(Method::POST, &format!("/v2/two/blobs/uploads/?mount={what}&from={from}"), &[], "").await.status()
    };
    assert_eq!(mount("one", &digest(b"other")).await, 202);
    assert_eq!(mount("none", &blob).await, 202);
    assert_eq!(mount("one", &blob).await, 201);
    assert_eq!(served.get(&elsewhere).await.text().await.unwrap(), "0123456789");
    assert_eq!(served.send(Method::DELETE, &elsewhere, &[], "").await.status(), 202);
    assert_eq!(served.get(&elsewhere).await.status(), 404);
    assert_eq!(served.get(&path).await.status(), 200);
}

#[tokio::test]
async fn manifests_need_what_they_name() {
    let served = Served::start().await;
    let (found, bytes) = served.manifest("app", "v1", b"layer").await;
    for reference in ["v1", &found] {
        let got = served.get(&format!("/v2/app/manifests/{reference}")).await;
        assert_eq!(
            (header(&got, "content-type"), header(&got, "docker-content-digest")),
            (MANIFEST.into(), found.clone())
        );
        assert_eq!(got.bytes().await.unwrap(), bytes);
    }
    let head = served.send(Method::HEAD, "/v2/app/manifests/v1", &[], "").await;
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    let missing = json!({ "mediaType": "x", "digest": digest(b"nowhere"), "size": 7 });
    let config = json!({ "mediaType": "x", "digest": digest(b"{}"), "size": 2 });
    let image = |config: &Value, layers: &[&Value]| json!({ "schemaVersion": 2, "config": config, "layers": layers });
    for (reference, kind, document, expected) in [
        ("v2", MANIFEST, image(&config, &[&missing]), (400, "MANIFEST_BLOB_UNKNOWN")),
        ("v2", MANIFEST, image(&missing, &[]), (400, "MANIFEST_BLOB_UNKNOWN")),
        ("v2", INDEX, json!({ "schemaVersion": 2, "manifests": [missing] }), (400, "MANIFEST_BLOB_UNKNOWN")),
        ("v2", INDEX, image(&config, &[]), (400, "MANIFEST_INVALID")),
        ("v2", "text/plain", image(&config, &[]), (400, "MANIFEST_INVALID")),
        ("v2", MANIFEST, json!({ "schemaVersion": 1 }), (400, "MANIFEST_INVALID")),
        ("v2", MANIFEST, json!([]), (400, "MANIFEST_INVALID")),
        (found.as_str(), MANIFEST, image(&config, &[]), (400, "DIGEST_INVALID")),
        (".bad", MANIFEST, image(&config, &[]), (400, "MANIFEST_INVALID")),
    ] {
        let path = format!("/v2/app/manifests/{reference}");
        let answer = served.send(Method::PUT, &path, &[("content-type", kind)], document.to_string()).await;
        assert_eq!(refusal(answer).await, (expected.0, expected.1.to_owned()), "{document}");
    }
    assert_eq!(refusal(served.get("/v2/app/manifests/v2").await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    assert_eq!(refusal(served.get("/v2/UPPER/manifests/v2").await).await, (400, "NAME_INVALID".to_owned()));
    assert_eq!(refusal(served.get("/v3/").await).await, (404, "NAME_UNKNOWN".to_owned()));

    // A tag goes alone; a manifest takes its tags along.
    served.manifest("app", "v3", b"layer").await;
    assert_eq!(served.send(Method::DELETE, "/v2/app/manifests/v3", &[], "").await.status(), 202);
    assert_eq!(served.get("/v2/app/manifests/v1").await.status(), 200);
    assert_eq!(served.send(Method::DELETE, &format!("/v2/app/manifests/{found}"), &[], "").await.status(), 202);
    assert_eq!(served.get("/v2/app/manifests/v1").await.status(), 404);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let served = Served::start().await;
    assert_eq!(refusal(served.get("/v2/none/tags/list").await).await, (404, "NAME_UNKNOWN".to_owned()));
    for tag in ["b", "a", "v10", "v2", "C"] {
        served.manifest("demo/app", tag, b"layer").await;
    }
    served.manifest("demo", "x", b"layer").await;
    let tags = async |query: &str| {
        let answer = served.get(&format!("/v2/demo/app/tags/list{query}")).await;
        let link = header(&answer, "link");
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(body["name"], "demo/app");
        let names = body["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        format!("{names}|{link}")
    };
    for (query, expected) in [
        ("", "C a b v10 v2|"),
        ("?n=2", "C a|</v2/demo/app/tags/list?n=2&last=a>; rel=\"next\""),
        ("?n=2&last=a", "b v10|</v2/demo/app/tags/list?n=2&last=v10>; rel=\"next\""),
        ("?n=2&last=v10", "v2|"),
        ("?n=0", "|"),
    ] {
        assert_eq!(tags(query).await, expected, "{query}");
    }
    assert_eq!(served.get("/v2/demo/app/tags/list?n=x").await.status(), 400);
    assert_eq!(served.get("/v2/_catalog").await.text().await.unwrap(), r#"{"repositories":["demo","demo/app"]}"#);
}

#[tokio::test]
async fn referrers_are_found_by_their_subject() {
    let served = Served::start().await;
    let config = served.blob("app", b"{}").await;
    // The subject need not be there.
    let subject = digest(b"a manifest to come");
    let refer = async |kind: &str| {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "layers": [],
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
            "subject": { "mediaType": MANIFEST, "digest": subject, "size": 1 },
            "annotations": { "made": kind },
        });
        let bytes = manifest.to_string();
        let path = format!("/v2/app/manifests/{}", digest(bytes.as_bytes()));
        let answer = served.send(Method::PUT, &path, &[("content-type", MANIFEST)], bytes).await;
        assert_eq!((answer.status().as_u16(), header(&answer, "oci-subject")), (201, subject.clone()));
        path
    };
    let first = refer("test/sbom").await;
    refer("test/signature").await;
    let listed = async |query: &str| {
        let answer = served.get(&format!("/v2/app/referrers/{subject}{query}")).await;
        assert_eq!(header(&answer, "content-type"), INDEX);
        let filtered = header(&answer, "oci-filters-applied");
        let index: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let kinds = index["manifests"].as_array().unwrap().iter().map(|m| m["annotations"]["made"].to_string());
        let mut kinds: Vec<_> = kinds.collect();
        kinds.sort();
        format!("{} {filtered}", kinds.join(" "))
    };
    assert_eq!(listed("").await, r#""test/sbom" "test/signature" "#);
    assert_eq!(listed("?artifactType=test%2Fsbom").await, r#""test/sbom" artifactType"#);
    assert_eq!(served.send(Method::DELETE, &first, &[], "").await.status(), 202);
    assert_eq!(listed("").await, r#""test/signature" "#);
    assert_eq!(served.get("/v2/app/referrers/nothing").await.status(), 400);
}
