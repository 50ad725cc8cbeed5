//! What the fuzzer calls: one function a target. Each takes any bytes and panics where a guarantee does not hold. The
//! oracles stand beside what they judge.
//!
//! Compiled with the feature `fuzz` only. The package `fuzz` runs them: over its corpora in every test run, and over what
//! libFuzzer makes of these for as long as somebody wants.

/// Documents of the chain in the trusted zone.
pub fn document(input: &[u8]) {
    crate::chain::fuzz::document(input);
}

/// Folders of the trusted zone.
pub fn folder(input: &[u8]) {
    crate::route::fuzz::folder(input);
}

/// Footers of Parquet files.
pub fn footer(input: &[u8]) {
    crate::footer::fuzz::footer(input);
}

/// Key runs.
pub fn key_run(input: &[u8]) {
    crate::window::key_run(input);
}
