//! Commit logs in a listing.

use common::store::{ListOptions, Store, StoreError};

/// Partitions that have anything of a commit log.
pub(crate) async fn commit_logs(store: &dyn Store, topic: &str) -> Result<Vec<i32>, StoreError> {
    let prefix = format!("_commits/{topic}/");
    let (mut partitions, mut start_after) = (Vec::new(), None);
    loop {
        let options = ListOptions { prefix: prefix.clone(), start_after, delimiter: true, limit: None };
        let page = store.list(&options).await?;
        let folders = page.prefixes.iter().filter_map(|folder| folder.strip_prefix(&prefix));
        partitions.extend(folders.filter_map(|folder| number(folder.trim_end_matches('/'))));
        let last = page.prefixes.iter().max().max(page.objects.iter().map(|object| &object.key).max()).cloned();
        if !page.more || last.is_none() {
            break;
        }
        start_after = last;
    }
    partitions.sort_unstable();
    Ok(partitions)
}

/// The number of a partition, in the one spelling that it has.
fn number(name: &str) -> Option<i32> {
    name.parse().ok().filter(|number: &i32| *number >= 0 && number.to_string() == name)
}
