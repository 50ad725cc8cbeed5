//! Moving a finished file out of `pending/`, only ever the very content that was read.

use common::event::civil_from_micros;
use common::store::{RenameOutcome, Store, StoreError, Version};

pub(crate) const PENDING: &str = "pending/";
const PROCESSED: &str = "processed/";

/// `processed/date=YYYY-MM-DD/<path>`; the date is that of the commit, in UTC.
pub(crate) fn target(path: &str, now_ms: i64) -> String {
    let date = civil_from_micros(now_ms.saturating_mul(1000));
    format!("{PROCESSED}date={:04}-{:02}-{:02}/{path}", date.year, date.month, date.day)
}

/// The name for when `target` is taken by another file: the identity's hash before the extension.
fn other_target(target: &str, identity: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(identity.as_bytes());
    let (folder, name) = target.rsplit_once('/').unwrap_or(("", target));
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{folder}/{stem}.{hash:016x}.{extension}"),
        _ => format!("{folder}/{name}.{hash:016x}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archived {
    Moved,
    /// The file is gone or has been replaced; whatever stands there now is not ours to move.
    SourceChanged,
}

/// Moves `pending/<path>` to `target`. May be repeated after a crash at any point.
pub(crate) async fn archive(
    store: &dyn Store,
    path: &str,
    version: &Version,
    identity: &str,
    target: &str,
) -> Result<Archived, StoreError> {
    let from = format!("{PENDING}{path}");
    for to in [target.to_owned(), other_target(target, identity)] {
        match store.rename(&from, version, &to).await? {
            RenameOutcome::Moved => return Ok(Archived::Moved),
            RenameOutcome::SourceChanged => return Ok(Archived::SourceChanged),
            RenameOutcome::TargetExists => {
                let ours = store.head(&to).await?.is_some_and(|meta| meta.version == *version);
                let still = store.head(&from).await?.is_some_and(|meta| meta.version == *version);
                if ours && still {
                    // An earlier move ended between its two halves.
                    store.delete(&from, Some(version)).await?;
                    return Ok(Archived::Moved);
                }
            }
        }
    }
    Err(StoreError::new(
        common::store::StoreErrorKind::Other,
        "archive",
        &from,
        format!("both {target} and its name with the identity's hash are taken; move one away"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_carry_the_date_and_the_whole_path() {
        let target = target("a/x.json", 1_610_619_330_000);
        assert_eq!(target, "processed/date=2021-01-14/a/x.json");
        let other = other_target(&target, "id");
        assert!(
            other.starts_with("processed/date=2021-01-14/a/x.")
                && other.ends_with(".json")
                && other.len() == target.len() + 17,
            "{other}"
        );
        assert_ne!(other, other_target(&target, "id2"));
        assert!(other_target("processed/date=2021-01-14/noext", "id").starts_with("processed/date=2021-01-14/noext."));
    }
}
