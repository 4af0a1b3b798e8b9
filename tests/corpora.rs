//! Plays every input of `fuzz/corpus/` to the function that its fuzz target calls, and changed inputs made from them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    clippy::needless_pass_by_value,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "test code"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock to bound their time"
)]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Changed inputs for each target, at most; and how long they may take, for a machine that is busy.
const CHANGED: u64 = 2000;
const PATIENCE: Duration = Duration::from_millis(1500);

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// The kept inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder("corpus").join(target)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// Words that the protocols are made of.
fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder("dictionaries").join(format!("{target}.dict")));
    let unescaped = |line: &str| {
        let quoted = line.trim().strip_prefix('"')?.strip_suffix('"')?;
        let (mut out, mut rest) = (Vec::new(), quoted.as_bytes());
        while let Some((octet, after)) = rest.split_first() {
            rest = after;
            match (octet, rest) {
                (b'\\', [b'x', high, low, after @ ..]) => {
                    let hex = String::from_utf8(vec![*high, *low]).unwrap();
                    out.push(u8::from_str_radix(&hex, 16).unwrap());
                    rest = after;
                }
                (b'\\', [own, after @ ..]) => {
                    out.push(*own);
                    rest = after;
                }
                _ => out.push(*octet),
            }
        }
        Some(out)
    };
    text.unwrap_or_default()
        .lines()
        .filter_map(unescaped)
        .collect()
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap()
    }
}

/// One to four changes: octets changed, put in, taken out, doubled; words; the tail of another input.
fn changed(dice: &mut Dice, inputs: &[(String, Vec<u8>)], words: &[Vec<u8>]) -> Vec<u8> {
    const EDGES: &[u8] = b"\r\n\0.: \t<>\"\\@=;,\xff\x7f-NWD";
    let mut octets = inputs[dice.below(inputs.len())].1.clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(octets.len() + 1);
        match dice.below(7) {
            0 if at < octets.len() => octets[at] ^= 1 << dice.below(8),
            1 => octets.insert(at, EDGES[dice.below(EDGES.len())]),
            2 if at < octets.len() => {
                octets.remove(at);
            }
            3 => octets.truncate(at),
            4 => {
                let end = (at + dice.below(40)).min(octets.len());
                let again = octets[at..end].to_vec();
                octets.splice(at..at, again);
            }
            5 if !words.is_empty() => {
                let word = words[dice.below(words.len())].clone();
                octets.splice(at..at, word);
            }
            _ => {
                let other = &inputs[dice.below(inputs.len())].1;
                octets.truncate(at);
                octets.extend_from_slice(&other[dice.below(other.len() + 1)..]);
            }
        }
    }
    octets.truncate(20_000);
    octets
}

/// Whether an input keeps the invariants; what broke them is printed.
fn holds(target: &str, entry: fuzz::Entry, input: &[u8], name: &str) -> bool {
    let held = catch_unwind(AssertUnwindSafe(|| entry(input))).is_ok();
    if !held {
        eprintln!("{target}, {name}: \"{}\"", input.escape_ascii());
    }
    held
}

/// The kept inputs, then changed ones while there is time; how many of these there were, or the first that fails.
fn play(target: &str, entry: fuzz::Entry, seed: u64) -> Result<u64, String> {
    let inputs = corpus(target);
    assert!(inputs.len() >= 5, "{target} has a corpus");
    for (name, input) in &inputs {
        if !holds(target, entry, input, name) {
            return Err(format!("{target}: {name}"));
        }
    }
    let (words, start) = (dictionary(target), Instant::now());
    let mut dice = Dice(seed);
    for turn in 0..CHANGED {
        let input = changed(&mut dice, &inputs, &words);
        if !holds(target, entry, &input, &format!("changed input {turn}")) {
            return Err(format!("{target}: changed input {turn}"));
        }
        if start.elapsed() > PATIENCE {
            return Ok(turn + 1);
        }
    }
    Ok(CHANGED)
}

/// One after the other, so that the targets do not keep one another from their time.
#[test]
fn every_corpus_and_what_is_made_of_it_keeps_the_invariants() {
    let results: Vec<_> = fuzz::TARGETS
        .iter()
        .zip(0..)
        .map(|((target, entry), seed)| (target, play(target, *entry, seed)))
        .collect();
    fuzz::leave();
    println!("changed inputs: {results:?}");
    let failed: Vec<_> = results
        .iter()
        .filter_map(|(_, result)| result.as_ref().err())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A target that cargo-fuzz does not know, or that nobody calls, would be one that never runs.
#[test]
fn targets_corpora_and_the_manifest_name_the_same() {
    let named: BTreeSet<String> = fuzz::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let files = |part: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder(part)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(files("fuzz_targets"), named);
    assert_eq!(files("corpus"), named);
    assert_eq!(files("dictionaries"), named);
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    for name in &named {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let target =
            std::fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("entry(\"{name}\")")), "{name}");
    }
}
