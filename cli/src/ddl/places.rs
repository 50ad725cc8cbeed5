//! The folders of a table, for engines that do not list them.

use std::collections::BTreeSet;

use common::store::{Store, StoreError, folders};

/// Types beyond these are not written into a statement: engines limit its length.
pub const MOST_TYPES: usize = 1_000;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Names of folders of event types, as they are in the store.
    pub types: BTreeSet<String>,
    /// There are more.
    pub is_cut: bool,
    pub years: BTreeSet<i64>,
}

/// Lists event types, and the years of each.
///
/// # Errors
/// The store's.
pub async fn find(store: &dyn Store) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for folder in folders(store, "events/", MOST_TYPES + 1).await? {
        let Some(name) = folder.strip_prefix("events/domain_event_type=") else { continue };
        if found.types.len() == MOST_TYPES {
            found.is_cut = true;
            break;
        }
        found.types.insert(name.trim_end_matches('/').to_owned());
        for year in folders(store, &folder, usize::MAX).await? {
            let year: Option<i64> =
                year.trim_end_matches('/').rsplit_once("year=").and_then(|(_, year)| year.parse().ok());
            found.years.extend(year);
        }
    }
    Ok(found)
}
