//! A single pass over one JSON value: whether it is valid, where it ends, and where a few wanted values are.
//!
//! Event Distributor reads JSON of other programs and needs five small parts of it. Therefore [`scan`] builds no
//! values. It reads the bytes once, checks them against RFC 8259, and records the byte spans of the values at a set of
//! JSON pointers.
//!
//! # Guarantees
//!
//! 1. A value is accepted exactly if RFC 8259 allows it: numbers, literals, escapes (four hexadecimal digits after
//!    `\u`; a lone surrogate is grammatical), no raw control character within a string. Only the encoding is not
//!    checked: bytes from 0x80 pass within strings, and the caller checks that they are UTF-8.
//! 2. The scan is a loop, not a recursion: depth costs one bit each, up to [`MAX_DEPTH`], for every input.
//! 3. A key matches by its meaning, not by its spelling: `"\u0061"` is the key `a`.
//! 4. Nothing is allocated, except for a wanted key that is written with escapes.
//!
//! ```
//! use common::json::{FieldPaths, Pointer, Spans, scan};
//!
//! let mut paths = FieldPaths::default();
//! let id = paths.add(&Pointer::parse("/user/id")?)?;
//! let text = br#"{"user": {"id": 17}} and more"#;
//! let mut spans = Spans::default();
//! let end = scan(text, &paths, 128, &mut spans).map_err(|error| error.to_string())?;
//! assert_eq!(end, 20);
//! assert_eq!(spans.get(id).map(|span| &text[span.start..span.end]), Some(&b"17"[..]));
//! # Ok::<(), String>(())
//! ```

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod nesting;
mod number;
mod paths;
mod pointer;
mod scanner;
mod string;
mod surrogates;

use std::fmt;

pub use nesting::Nesting;
pub use paths::{FieldPaths, MAX_SLOTS};
pub use pointer::{MAX_SEGMENTS, Pointer};
pub use scanner::{Opened, Span, Spans, find_array, scan};
pub use string::{key_means, unescape};
pub use surrogates::{has_lone_surrogate, replace_lone_surrogates};

/// Deepest nesting that a caller can permit. RFC 8259, section 9, lets an implementation limit it.
pub const MAX_DEPTH: usize = 1024;

/// The reason why a value was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanError {
    /// Index of the byte that shows the error.
    pub at: usize,
    pub kind: ScanErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanErrorKind {
    /// The bytes end inside the value; they may be the beginning of a valid one.
    Eof,
    /// No continuation makes the value valid; holds the reason.
    Syntax(&'static str),
    /// Arrays and objects nested more deeply than permitted.
    TooDeep,
    /// The value is valid and ends before `end`, but the key of this slot, or one on the way to it, occurs twice in one
    /// object. Which of them is meant is undefined (RFC 8259, section 4).
    Duplicate { slot: usize, end: usize },
}

impl ScanError {
    fn eof(bytes: &[u8]) -> Self {
        Self { at: bytes.len(), kind: ScanErrorKind::Eof }
    }

    fn syntax(at: usize, what: &'static str) -> Self {
        Self { at, kind: ScanErrorKind::Syntax(what) }
    }

    /// An error at `at`, or [`ScanErrorKind::Eof`] if the bytes end there.
    fn at(bytes: &[u8], at: usize, what: &'static str) -> Self {
        if at < bytes.len() { Self::syntax(at, what) } else { Self::eof(bytes) }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ScanErrorKind::Eof => write!(formatter, "ends after {} bytes, inside a value", self.at),
            ScanErrorKind::Syntax(what) => write!(formatter, "{what} at byte {}", self.at),
            ScanErrorKind::TooDeep => write!(formatter, "nested too deep at byte {}", self.at),
            ScanErrorKind::Duplicate { .. } => write!(formatter, "a key for the second time at byte {}", self.at),
        }
    }
}

impl std::error::Error for ScanError {}

/// The first byte from `at` that is not whitespace in JSON.
#[inline(always)]
pub(crate) fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    // Mostly there is no whitespace, or one byte.
    match bytes.get(at) {
        Some(byte) if *byte > b' ' => at,
        _ => skip_some_blanks(bytes, at),
    }
}

#[inline(always)]
fn skip_some_blanks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests;
