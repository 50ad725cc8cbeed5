//! The input is the path of a landing file, relative to `pending/`.

use super::{MAX_KEY_BYTES, MAX_SEGMENT_BYTES, Names, hash_of};
use crate::identity::PENDING;

const NOON_MS: i64 = 1_610_619_330_000;
const DAY: &str = "processed/date=2021-01-14/";
/// The least room for a key that the prefix of a store leaves.
const MIN_KEY_BYTES: usize = 80;
const IDENTITIES: [&str; 2] = ["a|1", "a|2"];

/// Every name in `processed/` fits the store and is below the day of its commit. A changed name has the hash of its
/// identity, so two identities never share it.
pub fn archive_names(input: &[u8]) {
    let Ok(path) = std::str::from_utf8(input) else { return };
    // No store has a file of another name.
    if path.len() > MAX_KEY_BYTES - PENDING.len() || !is_key(path) {
        return;
    }
    let has_hidden = |key: &str| key.split('/').any(|segment| segment.starts_with('.'));
    let number = xxhash_rust::xxh3::xxh3_64(input);
    let room = usize::try_from(number).unwrap_or(usize::MAX) % (MAX_KEY_BYTES - MIN_KEY_BYTES) + MIN_KEY_BYTES;
    for key_bytes in [MAX_KEY_BYTES, room] {
        let [one, other] = IDENTITIES.map(|identity| all(Names { key_bytes }, path, identity));
        for ((name, other), is_changed) in one.iter().zip(&other).zip([one[0] != format!("{DAY}{path}"), true, true]) {
            assert_eq!(name != other, is_changed, "{name}");
            assert!(!is_changed || name.contains(&hash_of(IDENTITIES[0])), "{name}");
        }
        for name in one.iter().chain(&other) {
            assert!(name.len() <= key_bytes, "{} bytes of {key_bytes}: {name}", name.len());
            assert!(is_key(name) && fits_file_systems(name) && name.starts_with(DAY), "{name}");
            assert!(has_hidden(path) || !has_hidden(name), "a local folder refuses hidden names: {name}");
        }
        let back = Names { key_bytes }.in_pending(path, IDENTITIES[0]);
        assert!(
            back.len() <= key_bytes && is_key(&back) && fits_file_systems(&back) && back.starts_with(PENDING),
            "{back}"
        );
    }
}

/// The first choice, the name if it is taken, and the name if one of its folders is a file.
fn all(names: Names, path: &str, identity: &str) -> [String; 3] {
    let target = names.target(path, identity, NOON_MS);
    let (taken, folder) = (names.when_taken(&target, identity), names.when_folder_is_file(&target, identity));
    [target, taken, folder]
}

fn is_key(key: &str) -> bool {
    !key.contains('\0') && key.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

fn fits_file_systems(key: &str) -> bool {
    key.split('/').all(|segment| segment.len() <= MAX_SEGMENT_BYTES)
}
