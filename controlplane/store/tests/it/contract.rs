//! What every backend promises. Each test runs over all of them.

use std::sync::Arc;

use podium_store::{Expect, KEY_BYTES_MAX, RangeRequest, Revision, StoreError, VALUE_BYTES_MAX, WATCH_BATCHES_MAX};

use crate::support::{Bed, delete, events, memory, put, range, show_range, sled, told};

macro_rules! over_all {
    ($($test:ident)*) => {
        mod over_memory {
            $(#[tokio::test] async fn $test() { super::$test(super::memory()).await; })*
        }
        mod over_sled {
            $(#[tokio::test] async fn $test() { super::$test(super::sled()).await; })*
        }
    };
}

over_all! {
    revisions_count_changes conditions_are_checked deletions history_is_readable pages watch_replays_then_lives
    prefixes_are_apart compaction_forgets compaction_of_deletions bounds_are_kept a_slow_watcher_is_cut_off
    closing racing_creates_have_one_winner long_history_is_told_in_order
}

async fn revisions_count_changes(bed: Bed) {
    assert_eq!(bed.store.revision(), Revision(0));
    assert_eq!(bed.put("/a", "1").await.revision, Revision(1));
    assert_eq!(bed.put("/b", "1").await.revision, Revision(2));
    let again = bed.put("/a", "2").await;
    assert_eq!((again.created, again.revision), (Revision(1), Revision(3)));
    assert_eq!(bed.store.revision(), Revision(3));
    assert_eq!(bed.now("/").await, "/a=2(1,3) /b=1(2,2) @3 +0");
    assert_eq!(bed.store.get("/a").await.unwrap().unwrap().modified, Revision(3));
    assert!(bed.store.get("/none").await.unwrap().is_none());
}

async fn conditions_are_checked(bed: Bed) {
    let write = |expect, value: &'static str| bed.store.write(put("/a", value, expect));
    assert!(matches!(write(Expect::At(Revision(1)), "x").await, Err(StoreError::Conflict { found: None, .. })));
    write(Expect::Absent, "1").await.unwrap();
    for expect in [Expect::Absent, Expect::At(Revision(7))] {
        let Err(StoreError::Conflict { found: Some(found), key }) = write(expect, "x").await else {
            panic!("no conflict")
        };
        assert_eq!((&*key, &*found.value, found.modified), ("/a", &b"1"[..], Revision(1)));
    }
    write(Expect::At(Revision(1)), "2").await.unwrap();
    assert_eq!(bed.now("/").await, "/a=2(1,2) @2 +0");
}

async fn deletions(bed: Bed) {
    bed.put("/a", "1").await;
    let deleted = bed.store.write(delete("/a", Expect::At(Revision(1)))).await.unwrap();
    assert_eq!((deleted.revision, deleted.created), (Revision(2), Revision(1)));
    assert!(bed.store.get("/a").await.unwrap().is_none());
    assert!(matches!(
        bed.store.write(delete("/a", Expect::At(Revision(2)))).await,
        Err(StoreError::Conflict { found: None, .. })
    ));
    assert!(bed.store.write(delete("/a", Expect::Absent)).await.is_err());
    assert_eq!(bed.delete("/a").await.revision, Revision(2), "deleting what is not there changes nothing");
    bed.store.write(put("/a", "2", Expect::Absent)).await.unwrap();
    assert_eq!(bed.now("/").await, "/a=2(3,3) @3 +0");
    assert_eq!(bed.at("/", 2).await.unwrap(), " @2 +0");
}

async fn history_is_readable(bed: Bed) {
    bed.put("/a", "1").await;
    bed.put("/b", "1").await;
    bed.put("/a", "2").await;
    bed.delete("/b").await;
    bed.put("/a", "3").await;
    bed.put("/b", "2").await;
    for (at, there) in [
        (0, " @0 +0"),
        (1, "/a=1(1,1) @1 +0"),
        (2, "/a=1(1,1) /b=1(2,2) @2 +0"),
        (3, "/a=2(1,3) /b=1(2,2) @3 +0"),
        (4, "/a=2(1,3) @4 +0"),
        (5, "/a=3(1,5) @5 +0"),
        (6, "/a=3(1,5) /b=2(6,6) @6 +0"),
    ] {
        assert_eq!(bed.at("/", at).await.unwrap(), there);
    }
    assert!(matches!(bed.at("/", 7).await, Err(StoreError::Future { asked: Revision(7), newest: Revision(6) })));
}

async fn pages(bed: Bed) {
    for key in ["/p/a", "/p/b", "/p/c", "/p/d", "/q"] {
        bed.put(key, "1").await;
    }
    let page = async |after: Option<&str>, limit, at: Option<u64>| {
        let after = after.map(Into::into);
        let request = RangeRequest { prefix: "/p/".to_owned(), after, limit: Some(limit), at: at.map(Revision) };
        show_range(&bed.store.range(request).await.unwrap())
    };
    assert_eq!(page(None, 2, None).await, "/p/a=1(1,1) /p/b=1(2,2) @5 +2");
    bed.delete("/p/c").await;
    bed.put("/p/bb", "1").await;
    assert_eq!(page(Some("/p/b"), 2, Some(5)).await, "/p/c=1(3,3) /p/d=1(4,4) @5 +0");
    assert_eq!(page(Some("/p/b"), 1, None).await, "/p/bb=1(7,7) @7 +1");
    assert_eq!(page(Some("/p/d"), 2, None).await, " @7 +0");
    assert_eq!(page(Some("/p/b/gone"), 1, Some(5)).await, "/p/c=1(3,3) @5 +1");
    assert_eq!(page(Some("/a"), 1, None).await, "/p/a=1(1,1) @7 +3", "a token before the prefix");
}

async fn watch_replays_then_lives(bed: Bed) {
    bed.put("/a", "1").await;
    bed.put("/a", "2").await;
    bed.delete("/a").await;
    let mut all = bed.store.watch("/", Revision(0)).await.unwrap();
    let mut some = bed.store.watch("/", Revision(1)).await.unwrap();
    let mut live = bed.store.watch("/", Revision(3)).await.unwrap();
    bed.put("/b", "1").await;
    let tail = ["put /a=2(1,2) was /a=1(1,1)", "del@3 /a=2(1,2)", "new /b=1(4,4)"];
    assert_eq!(told(&mut some), tail);
    assert_eq!(told(&mut all)[1..], tail);
    assert_eq!(told(&mut live), tail[2..]);
    assert!(matches!(bed.store.watch("/", Revision(5)).await, Err(StoreError::Future { .. })));
}

async fn prefixes_are_apart(bed: Bed) {
    bed.put("/pods/a", "1").await;
    bed.put("/podsx/a", "1").await;
    let mut watch = bed.store.watch("/pods/", Revision(0)).await.unwrap();
    bed.put("/podsx/b", "1").await;
    bed.put("/pods/b", "1").await;
    assert_eq!(told(&mut watch), ["new /pods/a=1(1,1)", "new /pods/b=1(4,4)"]);
    assert_eq!(bed.now("/pods/").await, "/pods/a=1(1,1) /pods/b=1(4,4) @4 +0");
}

async fn compaction_forgets(bed: Bed) {
    for value in ["1", "2", "3", "4"] {
        bed.put("/a", value).await;
    }
    bed.put("/old", "1").await;
    bed.store.compact(Revision(3)).await.unwrap();
    let gone =
        |asked| move |e: StoreError| matches!(e, StoreError::Compacted { asked: a, oldest: Revision(3) } if a == asked);
    assert!(bed.at("/", 2).await.is_err_and(gone(Revision(2))));
    assert!(bed.store.watch("/", Revision(2)).await.err().is_some_and(gone(Revision(2))));
    assert!(bed.store.compact(Revision(2)).await.is_err_and(gone(Revision(2))));
    assert!(matches!(bed.store.compact(Revision(6)).await, Err(StoreError::Future { .. })));
    assert_eq!(bed.at("/", 3).await.unwrap(), "/a=3(1,3) @3 +0");
    let mut watch = bed.store.watch("/", Revision(3)).await.unwrap();
    assert_eq!(told(&mut watch), ["put /a=4(1,4) was /a=3(1,3)", "new /old=1(5,5)"]);
    bed.store.compact(Revision(5)).await.unwrap();
    assert_eq!(bed.now("/").await, "/a=4(1,4) /old=1(5,5) @5 +0");
}

async fn compaction_of_deletions(bed: Bed) {
    bed.put("/a", "1").await;
    bed.delete("/a").await;
    bed.store.compact(Revision(2)).await.unwrap();
    assert_eq!(bed.store.revision(), Revision(2));
    assert_eq!(bed.now("/").await, " @2 +0");
    bed.store.write(put("/a", "2", Expect::Absent)).await.unwrap();
    assert_eq!(bed.at("/", 2).await.unwrap(), " @2 +0");
    let mut watch = bed.store.watch("/", Revision(2)).await.unwrap();
    assert_eq!(told(&mut watch), ["new /a=2(3,3)"]);
}

async fn bounds_are_kept(bed: Bed) {
    let long = "/".repeat(KEY_BYTES_MAX + 1);
    let key = bed.store.write(put(&long, "", Expect::Any)).await;
    assert!(matches!(key, Err(StoreError::TooLarge { what: "key", .. })));
    let value = bed.store.write(put("/a", vec![0; VALUE_BYTES_MAX + 1], Expect::Any)).await;
    assert!(matches!(value, Err(StoreError::TooLarge { what: "value", bytes, .. }) if bytes == VALUE_BYTES_MAX + 1));
    bed.store.write(put(&long[1..], vec![7; VALUE_BYTES_MAX], Expect::Any)).await.unwrap();
    assert_eq!(bed.store.get(&long[1..]).await.unwrap().unwrap().value, vec![7; VALUE_BYTES_MAX]);
}

async fn a_slow_watcher_is_cut_off(bed: Bed) {
    let mut slow = bed.store.watch("/", Revision(0)).await.unwrap();
    for _ in 0..=WATCH_BATCHES_MAX {
        bed.put("/a", "1").await;
    }
    let told = events(&mut slow);
    assert_eq!(told.len(), WATCH_BATCHES_MAX, "each of these writes was a batch of its own");
    assert!(slow.recv().await.is_none());
    let mut again = bed.store.watch("/", Revision(WATCH_BATCHES_MAX as u64)).await.unwrap();
    assert_eq!(events(&mut again).len(), 1);
}

async fn closing(bed: Bed) {
    bed.put("/a", "1").await;
    let mut watch = bed.store.watch("/", Revision(1)).await.unwrap();
    bed.store.close().await;
    assert!(matches!(bed.store.write(put("/a", "2", Expect::Any)).await, Err(StoreError::Closed)));
    assert!(watch.recv().await.is_none());
    assert_eq!(bed.now("/").await, "/a=1(1,1) @1 +0");
    assert!(bed.store.failure().is_none());
    bed.store.close().await;
}

async fn racing_creates_have_one_winner(bed: Bed) {
    let mut watch = bed.store.watch("/", Revision(0)).await.unwrap();
    let racers: Vec<_> = (0..64)
        .map(|i: u32| {
            let store = Arc::clone(&bed.store);
            tokio::spawn(async move { store.write(put("/a", i.to_string(), Expect::Absent)).await })
        })
        .collect();
    let mut won = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(written) => won.push(written.revision),
            Err(StoreError::Conflict { found, .. }) => assert_eq!(found.unwrap().modified, Revision(1)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, [Revision(1)]);
    assert_eq!(told(&mut watch).len(), 1);
}

async fn long_history_is_told_in_order(bed: Bed) {
    let writes: Vec<_> = (0..3000)
        .map(|i| {
            let store = Arc::clone(&bed.store);
            tokio::spawn(async move { store.write(put(&format!("/k/{}", i % 7), "v", Expect::Any)).await.unwrap() })
        })
        .collect();
    let mut early = bed.store.watch("/", Revision(0)).await.unwrap();
    for write in writes {
        write.await.unwrap();
    }
    let mut late = bed.store.watch("/", Revision(0)).await.unwrap();
    for watch in [&mut early, &mut late] {
        let revisions: Vec<u64> = events(watch).iter().map(|e| e.revision().0).collect();
        assert_eq!(revisions, (1..=3000).collect::<Vec<_>>());
    }
    assert_eq!(bed.store.range(range("/", None)).await.unwrap().records.len(), 7);
}
