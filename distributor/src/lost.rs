//! Tables whose commit logs are gone.
//!
//! A log that begins anew with a folder of tables that did not would write its rows beside theirs. A group with committed
//! offsets is refused without a commit log; where these are gone as well, the files themselves tell.

use commitlog_storage::TABLES;
use common::store::{ListOptions, Store, StoreError};

use crate::batch::Name;
use crate::error::PartitionError;

/// A data file of the topic, if it has any although there is no commit log of any of its partitions. With one, this takes
/// one request; without any, a listing of the tables.
///
/// # Errors
/// The store's.
pub async fn file_without_commit_logs(store: &dyn Store, topic: &str) -> Result<Option<String>, StoreError> {
    if has_commit_log(store, topic).await? {
        return Ok(None);
    }
    for table in TABLES {
        let mut options = ListOptions { prefix: format!("{table}/"), ..ListOptions::default() };
        loop {
            let page = store.list(&options).await?;
            let is_its = |key: &str| Name::parse(key).is_some_and(|name| name.topic == topic);
            if let Some(object) = page.objects.iter().find(|object| is_its(&object.key)) {
                // Another distributor may have begun meanwhile: its commit log is there before its files.
                let has_begun = has_commit_log(store, topic).await?;
                return Ok(Some(object.key.clone()).filter(|_| !has_begun));
            }
            match page.objects.last() {
                Some(last) if page.more => options.start_after = Some(last.key.clone()),
                _ => break,
            }
        }
    }
    Ok(None)
}

/// Whether any partition of a topic has a commit log.
///
/// # Errors
/// The store's.
pub(crate) async fn has_commit_log(store: &dyn Store, topic: &str) -> Result<bool, StoreError> {
    let options = ListOptions { prefix: format!("_commits/{topic}/"), limit: Some(1), ..ListOptions::default() };
    Ok(!store.list(&options).await?.objects.is_empty())
}

/// # Errors
/// The tables have files of the topic, and there is no commit log; and the store's.
pub(crate) async fn refuse_lost(store: &dyn Store, topic: &str) -> Result<(), PartitionError> {
    match file_without_commit_logs(store, topic).await? {
        None => Ok(()),
        Some(file) => Err(PartitionError::Refused(lost(topic, &file))),
    }
}

/// What to do about tables whose commit log is gone.
pub fn lost(topic: &str, file: &str) -> String {
    format!(
        "the tables have files of topic '{topic}', such as {file}, and there is no _commits/{topic}/. Bring _commits back from a \
         backup; or start afresh in another, empty trusted zone"
    )
}
