//! The fuzz targets of this crate, one function each. A target takes any bytes and panics if a guarantee is broken. Each
//! oracle is next to the code that it checks.
//!
//! Compiled with the feature `fuzz` only. The package `fuzz` runs the targets over its corpora in every test run, and
//! under libFuzzer with `fuzz/run`.

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
