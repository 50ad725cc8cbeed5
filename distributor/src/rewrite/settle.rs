//! After a revision is decided: what it replaces goes, and what it lists comes. All of it may be repeated, by anyone,
//! and needs no log.

use common::store::{RenameOutcome, Store};
use futures_util::{FutureExt, StreamExt, stream};

use super::ReplayError;
use crate::chain::{ChainStore, FileEntry, Revision};

const AT_ONCE: usize = 8;

/// Removes the files that a revision replaces, then makes its own visible.
///
/// # Errors
/// The store's, or a foreign object where a file belongs. Nothing that was begun is under way any more then.
pub(super) async fn settle(store: &dyn Store, chain: &ChainStore, revision: &Revision) -> Result<(), ReplayError> {
    let removals: Vec<_> = revision
        .removals
        .iter()
        .map(|path| async move { store.delete(path, None).await.map(|_| ()).map_err(ReplayError::from) }.boxed())
        .collect();
    each(removals).await?;
    let staged = chain.staged_prefix(revision.rewrite);
    let moves: Vec<_> = revision.completion.files.iter().map(|file| publish(store, &staged, file).boxed()).collect();
    each(moves).await
}

/// Awaits all, also after one has failed: what is still under way then could be overtaken by the next run.
async fn each(steps: Vec<impl Future<Output = Result<(), ReplayError>>>) -> Result<(), ReplayError> {
    let outcomes: Vec<Result<(), ReplayError>> = stream::iter(steps).buffered(AT_ONCE).collect().await;
    outcomes.into_iter().collect()
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
        tracing::warn!(path = file.path, "this file is missing; an offset reset has it made again");
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
