//! Which partitions have a commit log.

use common::store::{Store, StoreError, folders};

use crate::names::ROOT;

/// Partitions of a topic that have anything of a commit log, in order.
///
/// # Errors
/// Of the store.
pub async fn partitions(store: &dyn Store, topic: &str) -> Result<Vec<i32>, StoreError> {
    let prefix = format!("{ROOT}{topic}/");
    let folders = folders(store, &prefix, usize::MAX).await?;
    let names = folders.iter().filter_map(|folder| folder.strip_prefix(&prefix));
    let mut partitions: Vec<i32> = names.filter_map(|name| number(name.trim_end_matches('/'))).collect();
    partitions.sort_unstable();
    Ok(partitions)
}

/// The number of a partition, in the one spelling that it has.
fn number(name: &str) -> Option<i32> {
    name.parse().ok().filter(|number: &i32| *number >= 0 && number.to_string() == name)
}
