//! The checksum of stored rows: XXH3-64 over parts, each preceded by its length, so that no byte can move from one part
//! to the next. It detects accidents; it does not protect from an attacker who can write the file.

use xxhash_rust::xxh3::Xxh3;

pub(super) fn checksum(parts: &[&[u8]]) -> u64 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(checksum(&[b"ab", b"c"]), checksum(&[b"a", b"bc"]));
        assert_ne!(checksum(&[b"", b"a"]), checksum(&[b"a", b""]));
        assert_eq!(checksum(&[b"a", b"b"]), checksum(&[b"a", b"b"]));
    }
}
