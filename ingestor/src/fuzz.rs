//! What the fuzzer calls: one function a target. Each takes any bytes and panics where a guarantee does not hold. The
//! oracles stand beside what they judge.
//!
//! Compiled with the feature `fuzz` only. The package `fuzz` runs them: over its corpora in every test run, and over what
//! libFuzzer makes of these for as long as somebody wants.

/// Names in `processed/`.
pub fn archive_names(input: &[u8]) {
    crate::archive::archive_names(input);
}

/// Decompression of landing files.
pub fn content(input: &[u8]) {
    crate::content::fuzz::content(input);
}

/// Finding events in a landing file.
pub fn framing(input: &[u8]) {
    crate::framing::fuzz::framing(input);
}

/// Records of a ledger partition.
pub fn ledger(input: &[u8]) {
    crate::ledger::fuzz::ledger(input);
}

/// Messages of a queue.
pub fn queue_message(input: &[u8]) {
    crate::hints::sqs::queue_message(input);
}

/// Lengths of pieces, from 1 on: other ones for every input, and the same ones every time.
pub(crate) fn lengths(input: &[u8]) -> Vec<usize> {
    let numbers = xxhash_rust::xxh3::xxh3_128(input).to_le_bytes();
    numbers.iter().take(4).map(|number| 1 + usize::from(number & 0x7f)).collect()
}
