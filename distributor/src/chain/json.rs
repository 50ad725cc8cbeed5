//! The chain's documents as bytes. What is put can be read again: both go by the same limits.
//!
//! Others may put objects under the names of ours, so that reading takes no more memory than the limits say, whatever stands
//! there: an object that is too long is refused by its size, and what it says goes straight to its place in a document.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::ChainError;
use super::documents::DOCUMENT_VERSION;

/// Of a document. One of the largest batch that may be configured, with the longest names, takes less than a quarter of it,
/// and less than half once the batch is rewritten.
pub(crate) const LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// Files, folders or keys that a document lists. They take memory however short they are.
pub(super) const LISTED: usize = 250_000;
/// Cuts that a summary holds.
pub(super) const SUMMARISED: usize = 10_000;

#[derive(Deserialize)]
struct Versioned {
    version: Option<u64>,
}

/// # Errors
/// It would be too large to be read again.
pub(super) fn encode<T: Serialize + DeserializeOwned>(key: &str, document: &T) -> Result<Vec<u8>, ChainError> {
    let unwritable = |message: String| ChainError::Unwritable { key: key.to_owned(), message };
    let mut body = serde_json::to_vec_pretty(document).map_err(|error| unwritable(error.to_string()))?;
    body.push(b'\n');
    if body.len() as u64 > LIMIT_BYTES {
        let bytes = body.len();
        return Err(unwritable(format!("it has {bytes} bytes, more than the {LIMIT_BYTES} that a document may have")));
    }
    match decode::<T>(key, &body) {
        Ok(_) => Ok(body),
        Err(ChainError::Damaged { message, .. }) => Err(unwritable(message)),
        Err(error) => Err(error),
    }
}

/// # Errors
/// It is no such document, or one of another version.
pub(super) fn decode<T: DeserializeOwned>(key: &str, body: &[u8]) -> Result<T, ChainError> {
    let damaged = |message: String| ChainError::Damaged { key: key.to_owned(), message };
    let versioned: Versioned = serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    match versioned.version {
        Some(version) if version == u64::from(DOCUMENT_VERSION) => {}
        Some(version) => return Err(damaged(format!("it has version {version}, this build knows {DOCUMENT_VERSION}"))),
        None => return Err(damaged(format!("it has no version, this build knows {DOCUMENT_VERSION}"))),
    }
    serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))
}

/// About how long a document is as part of a larger one.
pub(super) fn len_bytes(part: &impl Serialize) -> usize {
    let mut count = Count::default();
    // Nothing can fail: nothing is written anywhere.
    let _ = serde_json::to_writer_pretty(&mut count, part);
    count.bytes + count.lines * INDENT_BYTES
}

/// Of a line of a part of a summary.
const INDENT_BYTES: usize = 4;

#[derive(Default)]
struct Count {
    bytes: usize,
    lines: usize,
}

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len();
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A list of at most `MOST` entries.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

/// The same where there may be none.
pub(super) fn some_list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    list::<D, T, MOST>(deserializer).map(Some)
}

struct List<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list of at most {MOST} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::custom(format!("it lists more than {MOST} entries")));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests;
