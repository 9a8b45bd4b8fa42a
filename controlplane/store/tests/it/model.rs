//! Random histories on sled and on the reference model: the same answers, also after sled was opened again.

use podium_store::{Expect, MemoryStore, RangeRequest, Revision, Store, StoreError};
use tempfile::TempDir;

use crate::support::{delete, open, put, show, show_range, told};

/// A small generator (xorshift64*), so that a seed is enough to repeat a failure.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

fn answer<T>(result: Result<T, StoreError>, show: impl Fn(&T) -> String) -> String {
    match result {
        Ok(found) => show(&found),
        Err(StoreError::Conflict { key, found }) => format!("conflict {key} {:?}", found.as_ref().map(self::show)),
        Err(error) => error.to_string(),
    }
}

struct Step {
    key: String,
    expect: Expect,
    at: Option<Revision>,
    limit: Option<usize>,
    what: u64,
    value: String,
}

fn step(dice: &mut Dice, newest: Revision) -> Step {
    let revision = |dice: &mut Dice| Revision((newest.0 + 2).saturating_sub(dice.below(12)));
    Step {
        key: format!("/{}/{}", dice.below(2), dice.below(5)),
        expect: match dice.below(6) {
            0 => Expect::Absent,
            1 | 2 => Expect::At(revision(dice)),
            _ => Expect::Any,
        },
        at: (dice.below(3) > 0).then(|| revision(dice)),
        limit: (dice.below(2) > 0).then(|| dice.below(5) as usize),
        what: dice.below(100),
        value: "v".repeat(dice.below(40) as usize),
    }
}

async fn perform(store: &dyn Store, step: &Step) -> String {
    let Step { key, expect, at, limit, what, value } = step;
    let written = |w: &podium_store::Written| format!("{w:?}");
    match what {
        0..40 => answer(store.write(put(key, value.clone(), *expect)).await, written),
        40..60 => answer(store.write(delete(key, *expect)).await, written),
        60..80 => {
            let after = (what % 2 == 0).then(|| key.as_str().into());
            let request = RangeRequest { prefix: key[..3].to_owned(), after, limit: *limit, at: *at };
            answer(store.range(request).await, show_range)
        }
        80..88 => answer(store.get(key).await, |found| format!("{:?}", found.as_ref().map(show))),
        88..97 => match store.watch(&key[..3], at.unwrap_or_default()).await {
            Ok(mut watch) => format!("{:?}", told(&mut watch)),
            Err(error) => error.to_string(),
        },
        _ => answer(store.compact(at.unwrap_or_default()).await, |()| "compacted".to_owned()),
    }
}

#[tokio::test]
async fn sled_answers_as_the_model_does() {
    for seed in 1..=20 {
        let folder = TempDir::new().unwrap();
        let model = MemoryStore::new();
        let mut sled = open(folder.path());
        let mut dice = Dice::new(seed);
        for count in 0..250 {
            if dice.below(80) == 0 {
                sled.close().await;
                drop(sled);
                sled = open(folder.path());
            }
            let step = step(&mut dice, model.revision());
            let (expected, found) = (perform(&model, &step).await, perform(&sled, &step).await);
            assert_eq!(found, expected, "seed {seed} step {count} what {}", step.what);
            assert_eq!(sled.revision(), model.revision(), "seed {seed} step {count}");
        }
    }
}
