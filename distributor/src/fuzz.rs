//! The fuzz targets of this crate, one function each. A target takes any bytes and panics if a guarantee is broken. Each
//! oracle is next to the code that it checks.
//!
//! Compiled with the feature `fuzz` only. The package `fuzz` runs the targets over its corpora in every test run, and
//! under libFuzzer with `fuzz/run`.

/// Folders of the trusted zone.
pub fn folder(input: &[u8]) {
    crate::route::fuzz::folder(input);
}

/// Footers of Parquet files.
pub fn footer(input: &[u8]) {
    crate::footer::fuzz::footer(input);
}

/// Rows of Parquet files.
pub fn pages(input: &[u8]) {
    crate::decode::fuzz::pages(input);
}

/// Key runs.
pub fn key_run(input: &[u8]) {
    crate::window::key_run(input);
}
