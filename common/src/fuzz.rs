//! What the fuzzer calls: one function a target. Each takes any bytes and panics where a guarantee does not hold. The
//! oracles stand beside what they judge.
//!
//! Compiled with the feature `fuzz` only. The package `fuzz` runs them: over its corpora in every test run, and over what
//! libFuzzer makes of these for as long as somebody wants.

/// Chunks of the embedded log.
pub fn chunk(input: &[u8]) {
    crate::log::chunk(input);
}

/// Events, and the columns that are read from their `data`.
pub fn event(input: &[u8]) {
    crate::event::event(input);
}

/// JSON text.
pub fn json(input: &[u8]) {
    crate::json::fuzz::json(input);
}

/// Times of events: text, numbers, patterns.
pub fn timestamp(input: &[u8]) {
    crate::event::timestamp(input);
}
