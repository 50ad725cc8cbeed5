//! The fuzz targets of this crate, one function each. A target takes any bytes and panics if a guarantee is broken. Each
//! oracle is next to the code that it checks.
//!
//! Compiled with the feature `fuzz` only. The package `fuzz` runs the targets over its corpora in every test run, and
//! under libFuzzer with `fuzz/run`.

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

/// Lengths of pieces, at least 1: derived from the input, so that a failure can be repeated.
pub(crate) fn lengths(input: &[u8]) -> Vec<usize> {
    let numbers = xxhash_rust::xxh3::xxh3_128(input).to_le_bytes();
    numbers.iter().take(4).map(|number| 1 + usize::from(number & 0x7f)).collect()
}
