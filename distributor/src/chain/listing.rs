//! Which of the chain's objects stand in the store by themselves.

use std::collections::BTreeSet;

use common::store::ListOptions;

use super::ChainError;
use super::storage::{ChainStore, begin_of};

/// A folder of the chain, whose objects are named by where their batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Cuts,
    KeyRuns,
    Completions,
}

impl Part {
    fn folder_and_suffix(self) -> (&'static str, &'static str) {
        match self {
            Self::Cuts => ("cuts/", ".json"),
            Self::KeyRuns => ("keys/", ".run"),
            Self::Completions => ("done/", ".json"),
        }
    }
}

impl ChainStore {
    /// Where the newest batch begins that has such an object.
    ///
    /// # Errors
    /// The store's, or an object in the folder that is none.
    pub(crate) async fn newest(&self, part: Part) -> Result<Option<i64>, ChainError> {
        let (folder, suffix) = part.folder_and_suffix();
        let prefix = format!("{}{folder}", self.prefix);
        let options = ListOptions { prefix: prefix.clone(), start_after: None, limit: Some(1), delimiter: false };
        let page = self.store.list(&options).await?;
        page.objects.first().map(|object| begin_of(&object.key, &prefix, suffix)).transpose()
    }

    /// Where the batches begin that have such an object.
    ///
    /// # Errors
    /// The store's, or an object in the folder that is none.
    pub(crate) async fn begins(&self, part: Part) -> Result<BTreeSet<i64>, ChainError> {
        let (folder, suffix) = part.folder_and_suffix();
        let prefix = format!("{}{folder}", self.prefix);
        let mut begins = BTreeSet::new();
        let mut start_after = None;
        loop {
            let options = ListOptions { prefix: prefix.clone(), start_after, limit: None, delimiter: false };
            let page = self.store.list(&options).await?;
            start_after = page.objects.last().map(|object| object.key.clone());
            for object in page.objects {
                begins.insert(begin_of(&object.key, &prefix, suffix)?);
            }
            if !page.more || start_after.is_none() {
                return Ok(begins);
            }
        }
    }
}
