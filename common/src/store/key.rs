//! The keys that every store can hold: relative paths with the same meaning in a bucket and in a directory.

use super::{Result, StoreError, StoreErrorKind};

/// S3's limit for the whole key, the store's prefix included.
pub(super) const MAX_KEY_BYTES: usize = 1024;

/// Refuses keys that would leave the root of a directory, or that name nothing in one. The same key has to work in
/// every store, or moving a zone from one to the other would lose objects.
pub(super) fn check_key(operation: &'static str, key: &str) -> Result<()> {
    let invalid = |why: &str| Err(StoreError::new(StoreErrorKind::InvalidKey, operation, key, why));
    if key.is_empty() {
        return invalid("the key is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return invalid("the key is longer than 1024 bytes");
    }
    if key.starts_with('/') {
        return invalid("the key starts with '/'");
    }
    if key.contains('\0') {
        return invalid("the key holds a NUL byte");
    }
    if key.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return invalid("the key has an empty, '.' or '..' segment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_keys() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for wrong in ["", "/x", "x/", "a//b", ".", "a/./b", "..", "a/../b", "../x", "a\0b", &long] {
            assert!(check_key("put", wrong).is_err(), "{wrong:?} was accepted");
        }
        for right in ["x", "a/b", "a/.hidden", "a b/ü+%2F", "..a/b..", "..."] {
            assert!(check_key("put", right).is_ok(), "{right:?} was refused");
        }
    }
}
