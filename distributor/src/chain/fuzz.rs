//! The input is a document of the chain.

#![allow(clippy::expect_used, reason = "an oracle reports a failure by a panic")]

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::documents::{Completion, Cut, Origin, Salvage};
use super::json::{self, LIMIT_BYTES};
use super::revisions::{Revision, Rewrite};
use super::summary::Summary;

/// A document that was read is the same after it is written and read again, and is then written with the same bytes.
pub fn document(input: &[u8]) {
    check::<Origin>(input);
    check::<Cut>(input);
    check::<Completion>(input);
    check::<Salvage>(input);
    check::<Revision>(input);
    check::<Rewrite>(input);
    if let Some(summary) = check::<Summary>(input)
        && summary.flaw("events", "0").is_none()
    {
        let held = summary.held.iter().map(|held| held.cut.from);
        for from in held {
            assert_eq!(summary.beginning(from).map(|held| held.cut.from), Some(from));
            assert_eq!(summary.at_or_before(from).map(|cut| cut.from), Some(from));
        }
    }
}

/// The seam for documents of another protocol: how they are read and written.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) -> Option<T> {
    let document: T = json::decode("key", input).ok()?;
    let written = json::encode("key", &document).expect("a document that was read can be written");
    assert!(written.len() as u64 <= LIMIT_BYTES);
    let read: T = json::decode("key", &written).expect("a document of ours");
    assert_eq!(read, document);
    assert_eq!(json::encode("key", &read).expect("a document of ours"), written);
    assert!(json::len_bytes(&document) >= written.len() - 1, "its length is foreseen");
    Some(document)
}
