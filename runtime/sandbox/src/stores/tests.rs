//! One contract for both kinds of stores, and what each promises beyond it.

use std::path::Path;

use super::*;

const ROOM: u64 = 1 << 20;

fn both(dir: &Path) -> [Arc<dyn Store>; 2] {
    [MemoryStore::new(ROOM), FileStore::new(dir.join("store"), ROOM)]
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn values_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let long = "Ä/".repeat(300);
    for store in both(dir.path()) {
        for key in ["a", "B", "..", "../../etc/passwd", "a b\n%41", &long] {
            assert_eq!(store.get(key).await, Ok(None));
            store.set(key, bytes("one")).await.unwrap();
            store.set(key, bytes("two")).await.unwrap();
            assert_eq!(store.get(key).await, Ok(Some(bytes("two"))), "{key}");
        }
        let mut wanted = vec!["..", "../../etc/passwd", "B", "a", "a b\n%41", &long];
        assert_eq!(store.list(None, 100).await.unwrap(), wanted);
        assert_eq!(store.list(Some("B"), 2).await.unwrap(), wanted[3..5]);
        store.delete("B").await.unwrap();
        store.delete("B").await.unwrap();
        wanted.remove(2);
        assert_eq!(store.list(None, 100).await.unwrap(), wanted);
    }
}

#[tokio::test]
async fn only_one_of_two_writers_wins() {
    let dir = tempfile::tempdir().unwrap();
    for store in both(dir.path()) {
        assert_eq!(store.compare_and_set("n", Some(b"0"), bytes("1")).await, Ok(false));
        assert_eq!(store.compare_and_set("n", None, bytes("1")).await, Ok(true));
        assert_eq!(store.compare_and_set("n", None, bytes("2")).await, Ok(false));
        assert_eq!(store.compare_and_set("n", Some(b"1"), bytes("2")).await, Ok(true));
        assert_eq!(store.get("n").await, Ok(Some(bytes("2"))));
    }
}

#[tokio::test]
async fn a_full_store_says_so_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let small = 3 * 4096;
    let stores: [Arc<dyn Store>; 2] = [MemoryStore::new(small), FileStore::new(dir.path().join("s"), small)];
    for store in stores {
        let third = Bytes::from(vec![1; 4000]);
        for key in ["a", "b", "b"] {
            store.set(key, third.clone()).await.unwrap();
        }
        let error = store.set("c", Bytes::from(vec![1; 9000])).await.unwrap_err().to_string();
        assert!(error.starts_with("the store is full"), "{error}");
        assert_eq!(store.get("c").await, Ok(None));
        store.delete("a").await.unwrap();
        store.set("c", third).await.unwrap();
        assert_eq!(store.list(None, 9).await.unwrap(), ["b", "c"]);
    }
}

#[tokio::test]
async fn a_folder_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = FileStore::new(path.clone(), 8192);
    store.set("kept", bytes("value")).await.unwrap();
    let second = FileStore::new(path.clone(), 8192);
    let error = second.get("kept").await.unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "one user at a time: {error}");
    drop(store);

    // What a crash leaves in the middle of a write is not seen, and its room is given back.
    std::fs::write(path.join("new"), vec![0; 5000]).unwrap();
    assert_eq!(second.get("kept").await, Ok(Some(bytes("value"))));
    second.set("other", bytes("value")).await.unwrap();
    assert!(second.set("third", bytes("value")).await.is_err(), "two blocks are all there is");
}

#[tokio::test]
async fn no_link_leads_out_of_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let path = dir.path().join("store");
    let store = FileStore::new(path.clone(), ROOM);
    store.set("mine", bytes("value")).await.unwrap();
    std::os::unix::fs::symlink("../secret", path.join("k-theirs")).unwrap();
    assert!(store.get("theirs").await.is_err());
    store.set("theirs", bytes("new")).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"secret", "the link was replaced, not followed");
}
