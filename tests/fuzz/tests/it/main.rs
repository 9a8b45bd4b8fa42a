//! Every property over its examples and thousands of mutations of them. A failing round names its seed and input.

use std::{fs, panic, path::Path};

use podium_fuzz::TARGETS;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

#[test]
fn properties_hold_for_mutated_examples() {
    for (name, target, rounds) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let examples: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(!examples.is_empty(), "no examples for {name}");
        examples.iter().for_each(|example| target(example));
        for seed in 0..rounds {
            let input = mutate(&examples, seed);
            let shown = String::from_utf8_lossy(&input).into_owned();
            if panic::catch_unwind(|| target(&input)).is_err() {
                panic!("{name} fails with seed {seed}:\n{shown}");
            }
        }
    }
}

/// An example with a few changes: bytes flipped, cut out, doubled, or pieces of another example put in.
fn mutate(examples: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pick = |n: usize| if n == 0 { 0 } else { rng.random_range(0..n) };
    let mut input = examples[pick(examples.len())].clone();
    for _ in 0..=pick(4) {
        let (from, length) = (pick(input.len()), pick(24));
        let to = (from + length).min(input.len());
        match pick(5) {
            0 => input[from..to].iter_mut().for_each(|b| *b ^= 1),
            1 => drop(input.drain(from..to)),
            2 => {
                let piece = input[from..to].to_vec();
                input.splice(from..from, piece);
            }
            3 => {
                let other = &examples[pick(examples.len())];
                let start = pick(other.len());
                let piece = other[start..(start + length).min(other.len())].to_vec();
                input.splice(from..to, piece);
            }
            _ => {
                let special = [&b"null"[..], b"{}", b"[]", b"\"\"", b"0", b"-1", b"1e99", b"true", b"\n", b"$patch"];
                input.splice(from..to, special[pick(special.len())].iter().copied());
            }
        }
    }
    input
}
