//! An entry as it is put, and the chain of hashes through all of them.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::op::Op;
use crate::sum::{SumError, with_sum, without_sum};

pub const ENTRY_VERSION: u32 = 1;
/// Entries have mostly 1 to 3 kB. One with 10,000 files or a replace of 20,000 inputs stays below it.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024 * 1024;
pub const MAX_OPS: usize = 3;

/// Entry `n` of a commit log. Put if absent, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub version: u32,
    pub n: u64,
    /// Hash of the bytes of entry `n - 1`; none for the first.
    pub previous: Option<Hash>,
    /// Random for each append: by it an appender knows its own entry again.
    pub writer: String,
    pub ops: Vec<Op>,
}

/// An entry and the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub entry: Entry,
    pub hash: Hash,
}

/// Why bytes are not the entry that belongs there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("it has {bytes} bytes, more than {MAX_ENTRY_BYTES}")]
    TooLarge { bytes: usize },
    #[error(transparent)]
    Sum(#[from] SumError),
    #[error("it is not an entry: {message}")]
    Malformed { message: String },
    #[error("it is of version {found}; this build reads version {ENTRY_VERSION}")]
    Version { found: u32 },
    #[error("it says that it is entry {found}, not {expected}")]
    OtherNumber { expected: u64, found: u64 },
    #[error("it follows an entry with another hash than entry {before} has: one of the two was altered or exchanged")]
    OtherPrevious { before: u64 },
    #[error("it has {count} operations, not 1 to {MAX_OPS}")]
    Ops { count: usize },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Entry {
    /// The bytes to put, and their hash.
    ///
    /// # Errors
    /// It could not be read again: it is too large, or has no or too many operations, or values that JSON does not keep.
    pub fn seal(self) -> Result<(Vec<u8>, Sealed), EntryError> {
        let json = serde_json::to_vec(&self).map_err(|error| EntryError::Malformed { message: error.to_string() })?;
        let bytes = with_sum(&json);
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        let sealed = Self::open(&bytes, self.n, self.previous)?;
        if sealed.entry != self {
            return Err(EntryError::Malformed { message: "a value is read otherwise than it was written".to_owned() });
        }
        Ok((bytes, sealed))
    }

    /// The hash that an entry names, whichever it is.
    ///
    /// # Errors
    /// It is no entry.
    pub fn previous_in(bytes: &[u8]) -> Result<Option<Hash>, EntryError> {
        let malformed = |error: serde_json::Error| EntryError::Malformed { message: error.to_string() };
        Ok(serde_json::from_slice::<Self>(&without_sum(bytes)?).map_err(malformed)?.previous)
    }

    /// What was read as entry `n`, after the entry with hash `previous`. Of the first entry after a checkpoint the hash
    /// stands in the checkpoint.
    ///
    /// # Errors
    /// It is another entry, of another build, or none.
    pub fn open(bytes: &[u8], n: u64, previous: Option<Hash>) -> Result<Sealed, EntryError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge { bytes: bytes.len() });
        }
        let malformed = |error: serde_json::Error| EntryError::Malformed { message: error.to_string() };
        let json = without_sum(bytes)?;
        let Versioned { version } = serde_json::from_slice(&json).map_err(malformed)?;
        if version != ENTRY_VERSION {
            return Err(EntryError::Version { found: version });
        }
        let entry: Self = serde_json::from_slice(&json).map_err(malformed)?;
        if entry.n != n {
            return Err(EntryError::OtherNumber { expected: n, found: entry.n });
        }
        if entry.previous != previous {
            return Err(EntryError::OtherPrevious { before: n.saturating_sub(1) });
        }
        if entry.ops.is_empty() || entry.ops.len() > MAX_OPS {
            return Err(EntryError::Ops { count: entry.ops.len() });
        }
        Ok(Sealed { hash: Hash::of(bytes), entry })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::History;

    fn entry(n: u64, previous: Option<Hash>, ops: Vec<Op>) -> Entry {
        Entry { version: ENTRY_VERSION, n, previous, writer: "w".to_owned(), ops }
    }

    proptest! {
        #[test]
        fn an_entry_is_opened_as_it_was_sealed_and_only_in_its_place(choices in prop::collection::vec(any::<u8>(), 1..40)) {
            let mut previous = None;
            for (n, ops) in (0u64..).zip(History::of(&choices).entries) {
                let (bytes, sealed) = entry(n, previous, ops).seal().unwrap();
                prop_assert_eq!(Entry::open(&bytes, n, previous), Ok(sealed.clone()));
                prop_assert_eq!(Entry::open(&bytes, n + 1, previous), Err(EntryError::OtherNumber { expected: n + 1, found: n }));
                let other = Some(Hash::of(b"another"));
                prop_assert_eq!(Entry::open(&bytes, n, other), Err(EntryError::OtherPrevious { before: n.saturating_sub(1) }));
                previous = Some(sealed.hash);
            }
        }

        #[test]
        fn no_bytes_are_an_entry_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Entry::open(&bytes, 0, None).is_err());
        }
    }

    /// The format on disk. Whoever changes it raises the version.
    #[test]
    fn an_entry_looks_as_it_always_did() {
        let history = History::of(&[9, 9]);
        let (bytes, _) = entry(0, None, history.entries[0].clone()).seal().unwrap();
        let expected = concat!(
            r#"{"sha256":"f008e849958921b304a61e420ec0fe96dac2dbdf0c4693f5e452661dc603deee","#,
            r#""version":1,"n":0,"previous":null,"writer":"w","ops":[{"op":"header","topic":"t","partition":0,"#,
            r#""log_id":"log","start":1,"first":{"append_ms":1,"key_hash":1}},{"op":"intent","from":1,"to":2,"#,
            r#""recipe":{"layout":{"version":1},"encoding":"zstd"},"window_from":1,"clock_ms":2,"#,
            r#""first":{"append_ms":1,"key_hash":1},"last":{"append_ms":1,"key_hash":1},"folders":["f0","f1"]}]}"#,
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn what_a_newer_build_writes_is_refused_by_name() {
        let (bytes, _) = entry(0, None, History::of(&[9]).entries[0].clone()).seal().unwrap();
        let text = String::from_utf8(without_sum(&bytes).unwrap()).unwrap();
        let opened = |from: &str, to: &str| Entry::open(&with_sum(text.replacen(from, to, 1).as_bytes()), 0, None);
        assert_eq!(opened("\"version\":1", "\"version\":2"), Err(EntryError::Version { found: 2 }));
        for (from, to) in [
            ("\"header\"", "\"lend\""),
            ("\"writer\":\"w\"", "\"writer\":\"w\",\"more\":1"),
            ("\"start\"", "\"begin\""),
        ] {
            assert!(matches!(opened(from, to), Err(EntryError::Malformed { .. })), "{to}");
        }
        assert_eq!(
            Entry::open(&with_sum(br#"{"version":1,"n":0,"previous":null,"writer":"w","ops":[]}"#), 0, None),
            Err(EntryError::Ops { count: 0 })
        );
    }

    #[test]
    fn nothing_is_sealed_that_could_not_be_read_again() {
        let ops = History::of(&[9]).entries[0].clone();
        assert_eq!(entry(0, None, Vec::new()).seal().err(), Some(EntryError::Ops { count: 0 }));
        let many = [ops.clone(), ops.clone()].concat();
        assert_eq!(entry(0, None, many).seal().err(), Some(EntryError::Ops { count: 4 }));
        let with = |encoding: serde_json::Value| {
            let mut ops = ops.clone();
            let Op::Intent(intent) = &mut ops[1] else { panic!("header and intent") };
            intent.recipe.encoding = encoding;
            entry(0, None, ops).seal()
        };
        assert!(with(serde_json::json!("zstd")).is_ok());
        let deep = (0..200).fold(serde_json::Value::Null, |within, _| serde_json::Value::Array(vec![within]));
        assert!(matches!(with(deep), Err(EntryError::Malformed { .. })));
        let large = serde_json::Value::String("x".repeat(MAX_ENTRY_BYTES));
        assert!(matches!(with(large), Err(EntryError::TooLarge { .. })));
    }
}
