//! Damaged databases, folders that others hold or have written, reads while writes are on their way to the disk.

use std::path::Path;

use podium_store::{
    Expect, Store,
    sled::{SledConfig, SledStore},
};
use tempfile::TempDir;

use crate::support::{delete, open, put};

fn refusal(path: &Path) -> String {
    SledStore::open(SledConfig::new(path)).err().map_or_else(|| "opened".to_owned(), |e| e.to_string())
}

#[tokio::test]
async fn a_folder_is_held_by_one() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let error = refusal(folder.path());
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    store.close().await;
    drop(store);
    assert_eq!(refusal(folder.path()), "opened");
}

/// A folder with a few hundred records, closed.
async fn filled() -> TempDir {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    for i in 0..300 {
        let key = format!("/a/{i}");
        store.write(put(&key, key.repeat(20), Expect::Any)).await.unwrap();
    }
    store.close().await;
    folder
}

#[tokio::test]
async fn another_version_is_refused() {
    let folder = filled().await;
    let database = ::sled::Config::new().path(folder.path().join("db")).open().unwrap();
    database.insert(b"f", &99_u32.to_be_bytes()).unwrap();
    database.flush().unwrap();
    drop(database);
    let error = refusal(folder.path());
    assert!(error.contains("format 99") && error.contains("format 1"), "{error}");
}

#[tokio::test]
async fn damage_is_said() {
    for damage in ["cut", "zeros", "gone"] {
        let folder = filled().await;
        let file = folder.path().join("db/db");
        let bytes = std::fs::metadata(&file).unwrap().len() as usize;
        match damage {
            "cut" => std::fs::write(&file, b"").unwrap(),
            "zeros" => std::fs::write(&file, vec![0; bytes]).unwrap(),
            _ => std::fs::remove_dir_all(folder.path().join("db")).unwrap(),
        }
        let error = refusal(folder.path());
        assert!(error.contains(folder.path().to_str().unwrap()), "{damage}: {error}");
        assert!(error.contains("cannot be opened"), "{damage}: {error}");
    }
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_said() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"x").unwrap();
    assert!(refusal(&path).contains(path.to_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_never_run_ahead_of_the_revision() {
    let folder = TempDir::new().unwrap();
    let store = std::sync::Arc::new(open(folder.path()));
    let writer = store.clone();
    let writes = tokio::spawn(async move {
        for i in 0..400_u32 {
            let write = if i % 3 == 2 { delete("/a", Expect::Any) } else { put("/a", i.to_string(), Expect::Any) };
            writer.write(write).await.unwrap();
        }
    });
    while !writes.is_finished() {
        let found = store.get("/a").await.unwrap();
        let newest = store.revision();
        assert!(found.is_none_or(|r| r.modified <= newest), "read above {newest}");
    }
    writes.await.unwrap();
}
