//! After a revision is decided: what it replaces goes, and what it lists comes. All of it may be repeated, by anyone,
//! and needs no log.

use common::store::{RenameOutcome, Store};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use super::ReplayError;
use crate::chain::{ChainStore, FileEntry, Revision};
use crate::in_turn::in_turn;

/// Removes the files that a revision replaces, then makes its own visible.
///
/// # Errors
/// The store's, or a foreign object where a file belongs. Nothing that was begun is under way any more then.
pub(super) async fn settle(store: &dyn Store, chain: &ChainStore, revision: &Revision) -> Result<(), ReplayError> {
    each(revision.removals.iter().map(|path| remove(store, path).boxed())).await?;
    let staged = chain.staged_prefix(revision.rewrite);
    each(revision.completion.files.iter().map(|file| publish(store, &staged, file).boxed())).await
}

/// Awaits all, also after one has failed: what is still under way then could be overtaken by the next run.
async fn each<'a>(
    steps: impl Iterator<Item = BoxFuture<'a, Result<(), ReplayError>>> + Send + 'a,
) -> Result<(), ReplayError> {
    let mut steps = in_turn(steps);
    let mut outcome = Ok(());
    while let Some(step) = steps.next().await {
        outcome = outcome.and(step);
    }
    outcome
}

async fn remove(store: &dyn Store, path: &str) -> Result<(), ReplayError> {
    store.delete(path, None).await?;
    Ok(())
}

async fn publish(store: &dyn Store, staged: &str, file: &FileEntry) -> Result<(), ReplayError> {
    let from = format!("{staged}{}", file.path);
    if let Some(meta) = store.head(&from).await? {
        match store.rename(&from, &meta.version, &file.path).await? {
            RenameOutcome::Moved => return Ok(()),
            RenameOutcome::SourceChanged => {}
            RenameOutcome::TargetExists => {
                let there = store.head(&file.path).await?.map(|meta| meta.size_bytes);
                if there.is_some_and(|bytes| bytes != file.bytes) {
                    return Err(ReplayError::Refused(format!(
                        "'{}' is not the file that belongs there; move it away",
                        file.path
                    )));
                }
                store.delete(&from, Some(&meta.version)).await?;
                return Ok(());
            }
        }
    }
    // Another run has moved it, or it was deleted since.
    if store.head(&file.path).await?.is_none() {
        tracing::warn!(path = file.path, "this file is missing; an offset reset restores it");
    }
    Ok(())
}

/// Removes whatever is staged: it belongs to revisions that were never decided.
///
/// # Errors
/// The store's.
pub(super) async fn clear(store: &dyn Store, chain: &ChainStore) -> Result<(), ReplayError> {
    loop {
        let staged = chain.staged().await?;
        if staged.is_empty() {
            return Ok(());
        }
        for object in staged {
            store.delete(&object.key, None).await?;
        }
    }
}
