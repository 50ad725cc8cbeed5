//! Names in `processed/` that fit every store: a segment has at most 255 bytes (common file systems, and S3 servers
//! that keep objects as files), a key with the store's prefix at most 1,024 (S3), a path with its root at most 4,095
//! (Linux).
//!
//! - A path that fits keeps its name: `processed/date=2021-01-14/a/x.json`.
//! - A longer one is shortened, and carries the hash of its identity: `…/a/xxxxxxx.0123456789abcdef.json`.
//! - If another file has the name, the hash comes before the extension: `…/a/x.0123456789abcdef.json`.
//! - If one of the folders is a file there (`x` came before `x/y`), the first folder carries it too:
//!   `…/x.0123456789abcdef/y.0123456789abcdef`.
//!
//! A name is a pure function of path, identity, day and store, so a repeated step finds the earlier result. Two
//! identities never share a name with a hash.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

use common::event::civil_from_micros;
use common::store::Store;

use crate::identity::PENDING;

const PROCESSED: &str = "processed/";
const MAX_SEGMENT_BYTES: usize = 255;
const MAX_KEY_BYTES: usize = 1024;
/// The longest extension that is kept; a longer one is part of the name.
const MAX_EXTENSION_BYTES: usize = 32;

/// The limits that the names of one store have to respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    key_bytes: usize,
}

impl Names {
    pub(crate) fn of(store: &dyn Store) -> Self {
        Self { key_bytes: store.capabilities().max_key_bytes.min(MAX_KEY_BYTES) }
    }

    /// The preferred name of a file that is committed at `now_ms`; the day is that of the commit, in UTC.
    pub(crate) fn target(self, path: &str, identity: &str, now_ms: i64) -> String {
        let day = civil_from_micros(now_ms.saturating_mul(1000));
        let folder = format!("{PROCESSED}date={:04}-{:02}-{:02}/", day.year, day.month, day.day);
        let is_short = path.split('/').all(|segment| segment.len() <= MAX_SEGMENT_BYTES);
        if is_short && folder.len() + path.len() <= self.key_bytes {
            return folder + path;
        }
        self.hashed(&folder, path, identity)
    }

    /// The name if another file has `target`.
    pub(crate) fn when_taken(self, target: &str, identity: &str) -> String {
        let (folder, path) = split_day(target);
        self.hashed(folder, path, identity)
    }

    /// The name for when a folder of `target` is a file.
    pub(crate) fn when_folder_is_file(self, target: &str, identity: &str) -> String {
        let (folder, path) = split_day(target);
        match path.split_once('/') {
            Some((first, rest)) => {
                let first = cut(first, MAX_SEGMENT_BYTES - 17);
                self.hashed(folder, &format!("{first}.{}/{rest}", hash_of(identity)), identity)
            }
            None => self.hashed(folder, path, identity),
        }
    }

    /// A free name for a file that is put back to `pending/` while another file has its own.
    pub(crate) fn in_pending(self, path: &str, identity: &str) -> String {
        self.hashed(PENDING, path, identity)
    }

    /// `path` with the hash in its name, and as many of its folders as fit.
    fn hashed(self, day: &str, path: &str, identity: &str) -> String {
        let room = self.key_bytes.saturating_sub(day.len());
        let (folders, name) = path.rsplit_once('/').map_or((None, path), |(folders, name)| (Some(folders), name));
        let (stem, extension) = split_extension(name);
        let hash = hash_of(identity);
        let tail = format!("{hash}{extension}");
        let mut key = String::from(day);
        // A name that is only the tail has to fit in any case. Folders take precedence over the rest of the stem,
        // because they show the file's origin.
        let mut left = room.saturating_sub(tail.len());
        for segment in folders.into_iter().flat_map(|folders| folders.split('/')) {
            let segment = short_folder(segment);
            if segment.len() + 1 > left {
                break;
            }
            left -= segment.len() + 1;
            key.push_str(&segment);
            key.push('/');
        }
        let stem = cut(stem, left.min(MAX_SEGMENT_BYTES - tail.len()).saturating_sub(1));
        if !stem.is_empty() {
            key.push_str(stem);
            key.push('.');
        }
        key + &tail
    }
}

/// Splits into `processed/date=…/` and the rest.
fn split_day(target: &str) -> (&str, &str) {
    let end = target.match_indices('/').nth(1).map_or(0, |(slash, _)| slash + 1);
    target.split_at(end)
}

/// The extension begins with its dot, and is empty if there is none.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(point) if point > 0 && name.len() - point <= MAX_EXTENSION_BYTES => name.split_at(point),
        _ => (name, ""),
    }
}

fn hash_of(identity: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(identity.as_bytes()))
}

/// Folders that differ stay different.
fn short_folder(segment: &str) -> std::borrow::Cow<'_, str> {
    if segment.len() <= MAX_SEGMENT_BYTES {
        return segment.into();
    }
    format!("{}.{}", cut(segment, MAX_SEGMENT_BYTES - 17), hash_of(segment)).into()
}

/// The longest prefix of whole characters within `bytes`.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const NOON: i64 = 1_610_619_330_000;
    const S3: Names = Names { key_bytes: MAX_KEY_BYTES };

    #[test]
    fn a_path_that_fits_is_kept_below_the_day_of_the_commit() {
        assert_eq!(S3.target("a/x.json", "id", NOON), "processed/date=2021-01-14/a/x.json");
        let longest = format!("{}/{}", "d".repeat(255), "x".repeat(255));
        assert_eq!(S3.target(&longest, "id", NOON), format!("processed/date=2021-01-14/{longest}"));
    }

    #[test]
    fn a_taken_name_gets_the_hash_before_the_extension() {
        let other = |target: &str| S3.when_taken(target, "id");
        let hash = hash_of("id");
        assert_eq!(other("processed/date=2021-01-14/a/x.json"), format!("processed/date=2021-01-14/a/x.{hash}.json"));
        assert_eq!(other("processed/date=2021-01-14/noext"), format!("processed/date=2021-01-14/noext.{hash}"));
        assert_eq!(other("processed/date=2021-01-14/.json"), format!("processed/date=2021-01-14/.json.{hash}"));
    }

    #[test]
    fn a_folder_that_is_a_file_gets_the_hash() {
        let hash = hash_of("id");
        let other = S3.when_folder_is_file("processed/date=2021-01-14/x/y/z.json", "id");
        assert_eq!(other, format!("processed/date=2021-01-14/x.{hash}/y/z.{hash}.json"));
    }

    fn path() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            "[a-z]{1,20}",
            "[a-z]{200,300}",
            "[äüñ日本]{50,120}",
            "[a-z]{1,260}\\.[a-z]{1,40}",
            "\\.?[a-z.]{1,10}x",
        ];
        prop::collection::vec(segment, 1..8).prop_map(|segments| segments.join("/"))
    }

    fn fits(names: Names, key: &str) -> bool {
        key.len() <= names.key_bytes
            && key.split('/').all(|segment| !matches!(segment, "" | "." | "..") && segment.len() <= MAX_SEGMENT_BYTES)
    }

    proptest! {
        #[test]
        fn every_name_fits_and_is_the_same_every_time(path in path(), identity in "[a-z0-9|]{1,30}", room in 80..=1024_usize) {
            let names = Names { key_bytes: room };
            let target = names.target(&path, &identity, NOON);
            let all = [
                target.clone(),
                names.when_taken(&target, &identity),
                names.when_folder_is_file(&target, &identity),
            ];
            for key in &all {
                prop_assert!(fits(names, key), "{} bytes of {room}: {key}", key.len());
                prop_assert!(key.starts_with("processed/date=2021-01-14/"));
            }
            prop_assert_eq!(&target, &names.target(&path, &identity, NOON));
            prop_assert_eq!(&all[1], &names.when_taken(&target, &identity));
            // Hidden names cannot be keys in a folder.
            if !path.split('/').any(|segment| segment.starts_with('.')) {
                prop_assert!(all.iter().all(|key| !key.split('/').any(|segment| segment.starts_with('.'))));
            }
        }

        #[test]
        fn two_identities_share_no_name_that_was_changed(
            paths in prop::collection::vec(path(), 2..20),
            stem in "[a-z]{255}",
            room in 80..=1024_usize,
        ) {
            let names = Names { key_bytes: room };
            let mut owners: HashMap<String, String> = HashMap::new();
            for (number, path) in paths.iter().flat_map(|path| [path.clone(), format!("{stem}{path}")]).enumerate() {
                let identity = format!("{path}|{number}");
                let target = names.target(&path, &identity, NOON);
                for key in [target.clone(), names.when_taken(&target, &identity)] {
                    if !key.ends_with(&path) {
                        let owner = owners.entry(key.clone()).or_insert_with(|| identity.clone());
                        prop_assert_eq!(&*owner, &identity, "{}", key);
                    }
                }
            }
        }

        #[test]
        fn a_real_extension_is_kept(stem in "[a-z]{250,300}", extension in "(json|ndjson\\.gz|csv)") {
            let target = S3.target(&format!("{stem}.{extension}"), "id", NOON);
            let last = extension.rsplit('.').next().unwrap_or_default();
            prop_assert!(target.ends_with(&format!(".{last}")), "{target}");
        }
    }
}
