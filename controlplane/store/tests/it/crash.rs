//! Kills a writing process hundreds of times over one folder, and checks what is left each time.
//!
//! The process is this test binary again, with the folder in its environment; it says each answered write on its
//! standard output. No failure of the disk's cache is simulated: that takes a machine to lose power.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use podium_store::{Change, Event, Expect, Revision, Store};
use tempfile::TempDir;

use crate::{
    model::Dice,
    support::{delete, events, open, put, range},
};

const FOLDER: &str = "PODIUM_TEST_CRASH_FOLDER";
const ROUNDS: u64 = 240;
const WRITERS: u64 = 16;
const KEYS_EACH: u64 = 12;

/// What is written as number `seq`: what is read can be checked against it.
pub(crate) fn value(key: &str, seq: u64) -> Vec<u8> {
    let bytes = if seq.is_multiple_of(97) { 70_000 } else { 40 + (seq * 37 % 1500) as usize };
    format!("{key} {seq} ").into_bytes().into_iter().cycle().take(bytes).collect()
}

/// Whether a value is one that [`value`] makes.
pub(crate) fn is_whole(key: &str, found: &[u8]) -> bool {
    let text = String::from_utf8_lossy(found);
    let seq = text.split(' ').nth(1).and_then(|seq| seq.parse().ok());
    seq.is_some_and(|seq| value(key, seq) == found)
}

/// A test of this binary, run in a process of its own with a folder.
pub(crate) fn this_binary(test: &str, variable: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may have stopped listening.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// The writing process; by itself, without a folder, it has nothing to do.
#[test]
fn writer_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(open(&folder));
        say("@ready");
        let writers: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(write_on(store.clone(), w))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write_on(store: Arc<dyn Store>, writer: u64) {
    let begun = store.revision().0;
    for i in 0..20_000 {
        let key = format!("/c/{writer}/{}", i % KEYS_EACH);
        let seq = begun + i;
        let write = if i % 9 == 8 { delete(&key, Expect::Any) } else { put(&key, value(&key, seq), Expect::Any) };
        let deletes = matches!(write.change, Change::Delete);
        match store.write(write).await {
            // Nothing was there to delete: nothing was written.
            Ok(written) if deletes && written.revision == written.created => {}
            Ok(written) => say(&format!("@ack {} {key}", written.revision)),
            Err(error) => return say(&format!("@error {error}")),
        }
    }
}

/// Reads what a process says until `enough` writes were answered, kills it, and reads the rest.
fn answered(mut child: Child, enough: u64) -> Vec<(Revision, String)> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut acks, mut line, mut ready) = (Vec::new(), String::new(), false);
    let mut killed = false;
    while out.read_line(&mut line).unwrap() > 0 {
        // The last line may have been cut by the kill.
        if line.ends_with('\n') {
            assert!(!line.contains("@error"), "{line}");
            ready |= line.contains("@ready");
            if let Some((_, ack)) = line.trim_end().split_once("@ack ") {
                let (revision, key) = ack.split_once(' ').unwrap();
                acks.push((Revision(revision.parse().unwrap()), key.to_owned()));
            }
        }
        line.clear();
        if ready && !killed && acks.len() as u64 >= enough {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the writing process ended by itself");
    acks
}

/// What the parent knows of the folder.
#[derive(Default)]
struct Known {
    revision: Revision,
    keys: BTreeMap<String, (Revision, bytes::Bytes)>,
    acked: usize,
}

impl Known {
    /// Everything that happened since the last round, from the history; it must hold all that was answered.
    async fn check(&mut self, store: &dyn Store, acks: &[(Revision, String)], round: u64) {
        let newest = store.revision();
        assert!(newest >= self.revision, "round {round}: revisions went back");
        let mut watch = store.watch("/", self.revision).await.unwrap();
        let happened = events(&mut watch);
        let revisions: Vec<u64> = happened.iter().map(|e| e.revision().0).collect();
        assert_eq!(revisions, (self.revision.0 + 1..=newest.0).collect::<Vec<_>>(), "round {round}: a gap");
        let base = self.revision.0 + 1;
        for (revision, key) in acks.iter().filter(|(revision, _)| revision.0 >= base) {
            let event = happened.get((revision.0 - base) as usize);
            assert!(event.is_some_and(|e| **e.key() == **key), "round {round}: {key} at {revision} is lost");
        }
        self.acked += acks.len();
        for event in &happened {
            self.take_in(event, round);
        }
        self.revision = newest;
        let found = store.range(range("/", None)).await.unwrap();
        let found: BTreeMap<_, _> =
            found.records.into_iter().map(|r| (r.key.to_string(), (r.modified, r.value))).collect();
        assert!(found == self.keys, "round {round}: index and history do not agree");
    }

    fn take_in(&mut self, event: &Event, round: u64) {
        match event {
            Event::Put { record, .. } => {
                assert!(is_whole(&record.key, &record.value), "round {round}: {} is half there", record.key);
                self.keys.insert(record.key.to_string(), (record.modified, record.value.clone()));
            }
            Event::Delete { previous, .. } => {
                self.keys.remove(&*previous.key);
            }
        }
    }
}

#[tokio::test]
async fn nothing_answered_is_lost_by_kills() {
    let folder = TempDir::new().unwrap();
    let (mut known, mut dice) = (Known::default(), Dice::new(7));
    for round in 0..ROUNDS {
        let child = this_binary("crash::writer_process", FOLDER, folder.path()).spawn().unwrap();
        let acks = answered(child, dice.below(200));
        let store = open(folder.path());
        known.check(&store, &acks, round).await;
        // The next process begins with a compaction cut short, or with none.
        if round % 8 == 7 {
            store.compact(Revision(known.revision.0 - known.revision.0 / 10)).await.unwrap();
        }
        store.close().await;
    }
    assert!(known.acked > ROUNDS as usize, "only {} writes were answered", known.acked);
}
