//! What stays and what goes: restarts, bounds, mark and sweep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use podium_registry::{RegistryConfig, Swept};
use reqwest::Method;
use serde_json::json;

use super::{INDEX, MANIFEST, MOMENT, Served, digest, header, refusal};

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_and_all_stays() {
    let served = Served::start().await;
    let (found, _) = served.manifest("app", "v1", b"layer").await;
    let place = header(&served.send(Method::POST, "/v2/app/blobs/uploads/", &[], "").await, "location");
    served.send(Method::PATCH, &place, &[], "begun ").await;
    let Served { listener, folder, .. } = served;
    listener.shutdown(MOMENT).await;
    let config = RegistryConfig { disk_reserve_bytes: 0, ..RegistryConfig::new(folder.path()) };
    let served = Served::open(folder, config).await;
    let asked = served.get(&place).await;
    assert_eq!(header(&asked, "range"), "0-5");
    let end = format!("{place}?digest={}", digest(b"begun ended"));
    assert_eq!(served.send(Method::PUT, &end, &[("content-range", "6-10")], "ended").await.status(), 201);
    let got = served.get("/v2/app/manifests/v1").await;
    assert_eq!(header(&got, "docker-content-digest"), found);
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_leaves_nothing() {
    let served = Served::with(|config| {
        config.blob_bytes_max = 100;
        config.manifest_bytes_max = 50;
        config.uploads_max = 2;
    })
    .await;
    let path = format!("/v2/a/blobs/uploads/?digest={}", digest(&[0; 101]));
    assert_eq!(
        refusal(served.send(Method::POST, &path, &[], vec![0; 101]).await).await,
        (413, "SIZE_INVALID".to_owned())
    );
    let manifest = served.send(Method::PUT, "/v2/a/manifests/v1", &[], vec![b' '; 51]).await;
    assert_eq!(refusal(manifest).await, (413, "MANIFEST_INVALID".to_owned()));
    let begin = async || served.send(Method::POST, "/v2/a/blobs/uploads/", &[], "").await;
    let places = [header(&begin().await, "location"), header(&begin().await, "location")];
    assert_eq!(refusal(begin().await).await, (429, "TOOMANYREQUESTS".to_owned()));
    let too_long = served.send(Method::PATCH, &places[0], &[], vec![0; 101]).await;
    assert_eq!(too_long.status(), 413);
    assert_eq!(begin().await.status(), 202);
    let files = std::fs::read_dir(served.folder.path().join("repositories/a/_uploads")).unwrap().count();
    assert_eq!(files, 2);

    let full = Served::with(|config| config.disk_reserve_bytes = u64::MAX).await;
    let refused = full.send(Method::POST, "/v2/a/blobs/uploads/", &[], "").await;
    assert_eq!(refused.status(), 507);
    assert!(refused.text().await.unwrap().contains("disk is full"));
}

#[tokio::test]
async fn what_no_manifest_names_goes_when_it_is_old() {
    let served = Served::with(|config| config.grace = Duration::from_secs(3600)).await;
    let (found, _) = served.manifest("app", "v1", b"kept").await;
    let orphan = served.blob("app", b"orphan").await;
    assert_eq!(served.registry.sweep().await.unwrap(), Swept::default());
    let Served { listener, folder, .. } = served;
    listener.shutdown(MOMENT).await;
    let mut config = RegistryConfig::new(folder.path());
    (config.grace, config.upload_idle, config.disk_reserve_bytes) = (MOMENT, MOMENT, 0);
    let served = Served::open(folder, config).await;
    let place = header(&served.send(Method::POST, "/v2/app/blobs/uploads/", &[], "").await, "location");
    let swept = served.registry.sweep().await.unwrap();
    assert_eq!(swept, Swept { manifests: 0, blobs: 1, bytes: 6, uploads: 1 });
    assert_eq!(served.get(&format!("/v2/app/blobs/{orphan}")).await.status(), 404);
    assert_eq!(served.get(&place).await.status(), 404);
    assert_eq!(served.get("/v2/app/manifests/v1").await.status(), 200);
    assert_eq!(served.get(&format!("/v2/app/blobs/{}", digest(b"kept"))).await.status(), 200);
    served.send(Method::DELETE, &format!("/v2/app/manifests/{found}"), &[], "").await;
    assert_eq!(served.registry.sweep().await.unwrap().blobs, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_nothing_from_pushes_under_way() {
    let served = Arc::new(Served::start().await);
    let done = Arc::new(AtomicBool::new(false));
    let sweeping = {
        let (served, done) = (served.clone(), done.clone());
        tokio::spawn(async move {
            let mut sweeps = 0;
            while !done.load(Ordering::Relaxed) {
                served.registry.sweep().await.unwrap();
                sweeps += 1;
                tokio::task::yield_now().await;
            }
            sweeps
        })
    };
    let pushes = (0..40).map(|i| {
        let served = served.clone();
        async move {
            let layer = format!("layer {}", i % 5);
            served.manifest(&format!("app-{}", i % 3), &format!("v{i}"), layer.as_bytes()).await;
        }
    });
    futures::future::join_all(pushes).await;
    done.store(true, Ordering::Relaxed);
    assert!(sweeping.await.unwrap() > 0);
    for i in 0..40 {
        let path = format!("/v2/app-{}/blobs/{}", i % 3, digest(format!("layer {}", i % 5).as_bytes()));
        assert_eq!(served.get(&path).await.status(), 200);
        assert_eq!(served.get(&format!("/v2/app-{}/manifests/v{i}", i % 3)).await.status(), 200);
    }
}

/// Puts a document there by its own digest, which it answers with.
async fn put(served: &Served, kind: &str, document: &serde_json::Value) -> String {
    let bytes = document.to_string();
    let found = digest(bytes.as_bytes());
    let path = format!("/v2/app/manifests/{found}");
    assert_eq!(served.send(Method::PUT, &path, &[("content-type", kind)], bytes).await.status(), 201);
    found
}

async fn is_there(served: &Served, digest: &str) -> bool {
    served.get(&format!("/v2/app/manifests/{digest}")).await.status() == 200
}

#[tokio::test]
async fn manifests_without_a_tag_go_unless_something_leads_to_them() {
    let served = Served::with(|config| (config.grace, config.untagged_grace) = (MOMENT, MOMENT)).await;
    let (moved, _) = served.manifest("app", "v1", b"old").await;
    let (tagged, _) = served.manifest("app", "v1", b"new").await;
    let (used, bytes) = served.manifest("app", "v2", b"in use").await;
    served.send(Method::DELETE, "/v2/app/manifests/v2", &[], "").await;
    let (child, child_bytes) = served.manifest("app", "v3", b"child").await;
    let descriptor = |digest: &str, size| json!({ "mediaType": MANIFEST, "digest": digest, "size": size });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(&child, child_bytes.len())] });
    let tag = served.send(Method::PUT, "/v2/app/manifests/v3", &[("content-type", INDEX)], index.to_string()).await;
    assert_eq!(tag.status(), 201, "the tag is the index's now");
    let config = served.blob("app", b"{}").await;
    let signature = |of: &str, size| {
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": [], "subject": descriptor(of, size),
            "config": { "mediaType": "test/signature", "digest": config, "size": 2 } })
    };
    let of_used = put(&served, MANIFEST, &signature(&used, bytes.len())).await;
    let of_moved = put(&served, MANIFEST, &signature(&moved, 1)).await;

    assert_eq!(served.registry.sweep().await.unwrap().manifests, 0, "nobody knows what is in use");
    let in_use = Some([used.clone()].into());
    assert_eq!(served.registry.sweep_unused(in_use).await.unwrap().manifests, 2);
    for (found, what, there) in [
        (&tagged, "tagged", true),
        (&moved, "its tag moved on", false),
        (&used, "in use", true),
        (&child, "an index names it", true),
        (&of_used, "refers to what is kept", true),
        (&of_moved, "refers to what is gone", false),
    ] {
        assert_eq!(is_there(&served, found).await, there, "{what}");
    }
    let layer = format!("/v2/app/blobs/{}", digest(b"old"));
    assert_eq!(served.get(&layer).await.status(), 404, "what only it named is gone too");
    let referrers = served.get(&format!("/v2/app/referrers/{moved}")).await.text().await.unwrap();
    assert!(!referrers.contains(&of_moved), "{referrers}");
    // Now that nobody uses it: it, what refers to it, and nothing else.
    assert_eq!(served.registry.sweep_unused(Some([].into())).await.unwrap().manifests, 2);
    assert!(!is_there(&served, &used).await && is_there(&served, &child).await && is_there(&served, &tagged).await);
}

#[tokio::test]
async fn manifests_without_a_tag_have_their_time_and_their_number() {
    let served = Served::with(|config| config.untagged_max = 2).await;
    let mut found = Vec::new();
    for i in 0..5 {
        found.push(served.manifest("app", "v1", format!("layer {i}").as_bytes()).await.0);
    }
    let none = || Some([].into());
    assert_eq!(served.registry.sweep_unused(none()).await.unwrap(), Swept::default(), "all are young");
    let Served { listener, folder, .. } = served;
    listener.shutdown(MOMENT).await;
    let mut config = RegistryConfig::new(folder.path());
    (config.grace, config.untagged_max, config.disk_reserve_bytes) = (MOMENT, 2, 0);
    let served = Served::open(folder, config).await;
    assert_eq!(served.registry.sweep_unused(none()).await.unwrap().manifests, 2, "four have no tag, two are too many");
    let mut there = Vec::new();
    for digest in &found {
        there.push(is_there(&served, digest).await);
    }
    assert_eq!(there, [false, false, true, true, true]);
}
