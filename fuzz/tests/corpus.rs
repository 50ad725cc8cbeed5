//! Runs every input of the corpora, and small mutations of them, in every test run.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Once;

use fuzz::{TARGETS, Target, limit_memory, silence_caught_panics};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// For each target.
const MUTANTS: u32 = 500;
/// Everybody clones them.
const CORPORA_BYTES: u64 = 300_000;

/// Both concern the whole process, and the tests run side by side.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        limit_memory().unwrap();
        silence_caught_panics();
    });
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// The inputs of a target, in the order of their names.
fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder(target.name)).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeSet<PathBuf> = files.collect();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// An input with bits flipped, bytes removed, inserted or repeated, or joined with another input.
fn mutant(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let (one, other) = (prop::sample::select(inputs.clone()), prop::sample::select(inputs));
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>(), 0..5_u8);
    (one, other, prop::collection::vec(edit, 1..5)).prop_map(|(mut input, other, edits)| {
        for (at, length, byte, kind) in edits {
            let at = at.index(input.len() + 1);
            let length = length.index((input.len() - at).min(16) + 1);
            match kind {
                0 if at < input.len() => input[at] ^= 1 << (byte % 8),
                1 => drop(input.drain(at..at + length)),
                2 => input.insert(at, byte),
                3 => input = [&input[..at], &input[at..at + length], &input[at..]].concat(),
                _ => input = [&input[..at], &other[other.len().min(at)..]].concat(),
            }
        }
        input
    })
}

#[test]
fn every_input_of_the_corpora_passes() {
    prepare();
    let mut failed = Vec::new();
    for target in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        let fails = |input: &[u8]| catch_unwind(|| (target.run)(input)).is_err();
        failed.extend(inputs.into_iter().filter(|(_, input)| fails(input)).map(|(path, _)| path));
        assert!(!fails(b""), "{} fails for no input", target.name);
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn small_mutations_of_the_corpora_pass() {
    prepare();
    for target in TARGETS {
        println!("{}", target.name);
        let inputs = corpus(target).into_iter().map(|(_, input)| input).collect();
        let config = Config { cases: MUTANTS, failure_persistence: None, ..Config::default() };
        let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let run = |input: Vec<u8>| {
            (target.run)(&input);
            Ok(())
        };
        TestRunner::new_with_rng(config, random).run(&mutant(inputs), run).unwrap();
    }
}

#[test]
fn the_corpora_are_small_and_belong_to_existing_targets() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let folders = fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(folders.collect::<BTreeSet<_>>(), names);
    let bytes: u64 = TARGETS.into_iter().flat_map(corpus).map(|(_, input)| input.len() as u64).sum();
    assert!(bytes <= CORPORA_BYTES, "{bytes} bytes");
}
