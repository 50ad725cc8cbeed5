//! JSON documents that carry the hash of their own bytes. The chain of hashes shows an altered entry only when a later one
//! is read; the newest one, and the root, nothing else vouches for.

use crate::hash::Hash;

const BEGIN: &[u8] = b"{\"sha256\":\"";
const AFTER: &[u8] = b"\",";
const DIGITS: usize = 64;

/// Why a document is not one that was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SumError {
    #[error("it does not begin with its hash")]
    Missing,
    #[error("its hash is {found}, and it says {said}: it was altered")]
    Other { said: Hash, found: Hash },
}

/// The document with its hash as the first member. `json` is an object with at least one member.
pub fn with_sum(json: &[u8]) -> Vec<u8> {
    let sum = Hash::of(json).to_string();
    let members = json.get(1..).unwrap_or_default();
    [BEGIN, sum.as_bytes(), AFTER, members].concat()
}

/// The document without its hash.
///
/// # Errors
/// It has none, or another one.
pub fn without_sum(bytes: &[u8]) -> Result<Vec<u8>, SumError> {
    let rest = bytes.strip_prefix(BEGIN).and_then(|rest| rest.split_at_checked(DIGITS)).ok_or(SumError::Missing)?;
    let (digits, rest) = rest;
    let said = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<Hash>().ok());
    let (said, members) = said.zip(rest.strip_prefix(AFTER)).ok_or(SumError::Missing)?;
    let json = [b"{", members].concat();
    let found = Hash::of(&json);
    if found == said { Ok(json) } else { Err(SumError::Other { said, found }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_changed_byte_is_noticed(text in "[a-z]{1,40}", at in any::<prop::sample::Index>(), by in 1u8..) {
            let json = serde_json::to_vec(&serde_json::json!({ "text": text })).unwrap();
            let mut bytes = with_sum(&json);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
            prop_assert_eq!(without_sum(&bytes), Ok(json));
            let at = at.index(bytes.len());
            bytes[at] = bytes[at].wrapping_add(by);
            prop_assert!(without_sum(&bytes).is_err());
            bytes.truncate(at);
            prop_assert!(without_sum(&bytes).is_err());
        }
    }
}
