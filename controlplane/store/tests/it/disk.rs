//! Disks that are full or damaged, folders that others hold or have written.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podium_store::{
    Expect, Store, StoreError,
    sled::{SledConfig, SledStore},
};
use tempfile::TempDir;

use crate::{
    crash::{is_whole, say, this_binary, value},
    support::{delete, open, put, range},
};

const FOLDER: &str = "PODIUM_TEST_FULL_FOLDER";

/// Writes until the disk is full; by itself, without a folder, it has nothing to do.
#[test]
fn filling_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(&folder);
        for i in 0..100_000 {
            let key = format!("/full/{i}");
            match store.write(put(&key, value(&key, i), Expect::Absent)).await {
                Ok(written) => say(&format!("@ack {} {key}", written.revision)),
                Err(error) => {
                    say(&format!("@failed {error}"));
                    break;
                }
            }
        }
        let after = store.write(delete("/full/0", Expect::Any)).await;
        say(&format!("@after {}", matches!(after, Err(StoreError::Failed(_))) && store.failure().is_some()));
        let read = store.get("/full/0").await;
        say(&format!("@read {}", read.is_ok_and(|r| r.is_some_and(|r| is_whole("/full/0", &r.value)))));
        let newest = store.range(range("/full/", None)).await;
        say(&format!("@newest {}", newest.map_or_else(|e| e.to_string(), |r| r.records.len().to_string())));
    });
}

/// Runs [`filling_process`] where files may not grow past 4 MiB, which fails writes as a full disk does.
fn fill(folder: &Path) -> String {
    let inner = this_binary("disk::filling_process", FOLDER, folder);
    let mut limited = std::process::Command::new("sh");
    // 8192 blocks of 512 bytes; an ignored signal stays ignored in the process that takes over.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""]).arg(inner.get_program());
    limited.args(inner.get_args()).env(FOLDER, folder);
    String::from_utf8(limited.output().unwrap().stdout).unwrap()
}

#[tokio::test]
async fn a_full_disk_loses_nothing_answered() {
    let folder = TempDir::new().unwrap();
    let said = fill(folder.path());
    let after = |what: &str| said.lines().find_map(|l| l.split_once(what)).map(|(_, rest)| rest.to_owned());
    let failed = after("@failed ").unwrap_or_else(|| panic!("it never failed: {said}"));
    assert!(failed.contains("takes no writes") && failed.contains(folder.path().to_str().unwrap()), "{failed}");
    assert_eq!(after("@after ").as_deref(), Some("true"), "{failed}");
    assert_eq!(after("@read ").as_deref(), Some("true"), "{failed}");
    let acks: Vec<&str> =
        said.lines().filter_map(|l| l.split_once("@ack ")).filter_map(|(_, a)| Some(a.split_once(' ')?.1)).collect();
    assert!(acks.len() > 100, "{}", acks.len());
    // sled may refuse to read once it could not write; what it must not do is show what was not answered.
    let shown = after("@newest ").unwrap();
    assert!(shown == acks.len().to_string() || shown.contains("takes no writes"), "{shown} of {}", acks.len());
    let store = open(folder.path());
    for key in &acks {
        let found = store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is lost"));
        assert!(is_whole(key, &found.value), "{key}");
    }
    store.write(put("/more", "1", Expect::Absent)).await.unwrap();
}

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
        store.write(put(&key, value(&key, i), Expect::Any)).await.unwrap();
    }
    store.close().await;
    folder
}

/// A database as sled alone opens it. Its file stays locked for a moment after a store is closed, when another test forks
/// just then: the lock is the child's too until it has become another program.
fn bare(path: &Path) -> ::sled::Db {
    let begun = Instant::now();
    loop {
        match ::sled::Config::new().path(path).open() {
            Ok(database) => return database,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn another_version_is_refused() {
    let folder = filled().await;
    let database = bare(&folder.path().join("db"));
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

/// What is in sled but not flushed is nobody's business; here, that reads agree with revisions under load.
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
