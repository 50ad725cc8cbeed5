//! Coordination with rewrites (see [`crate::rewrite`]): no partition is taken while one is in progress, or while its
//! chain is rebuilt. Files put for a batch that was revised meanwhile are removed.

use futures_util::{FutureExt, StreamExt};

use super::{Context, Partition, Result, refused};
use crate::chain::{ChainStore, Cut};
use crate::in_turn::in_turn;

/// # Errors
/// A refusal while the partition is rewritten, or its chain rebuilt: its window is changing.
pub(super) async fn refuse_while_rewritten(context: &Context, id: i32, chain: &ChainStore) -> Result<()> {
    if chain.is_being_rebuilt().await? {
        return Err(refused(
            context,
            id,
            "its chain is being rebuilt, or that was broken off. Run `event-distributor verify --rebuild-chain` to its end, then \
             start again",
        ));
    }
    match chain.rewrite().await? {
        None => Ok(()),
        Some(_) => Err(refused(
            context,
            id,
            "it is being rewritten, or a rewrite was interrupted. Run `event-distributor replay --rewrite` to its end, then start again",
        )),
    }
}

impl Partition {
    /// Whether a batch whose files were just put has got a newer revision meanwhile, whose rewrite may have removed
    /// them before they were put. If so, removes them.
    ///
    /// Only reached by a distributor whose group has revoked the partition without its knowledge.
    pub(super) async fn is_outdated(&mut self, context: &Context, cut: &Cut) -> Result<bool> {
        let newest = self.chain.revisions(cut.from, cut.from).await?.remove(&cut.from);
        if newest.unwrap_or_default() <= cut.revision {
            return Ok(false);
        }
        let earlier = Some(cut.revision).filter(|revision| *revision > 0);
        let Some(made) = self.chain.standing(cut, earlier).await? else { return Ok(true) };
        tracing::warn!(
            topic = context.topic,
            partition = self.id,
            from = cut.from,
            to = cut.to,
            "this batch was rewritten while its files were restored; they are removed"
        );
        let files = made.completion.files.into_iter();
        let mut removals =
            in_turn(files.map(|file| async move { context.store.delete(&file.path, None).await }.boxed()));
        while let Some(removed) = removals.next().await {
            removed?;
        }
        Ok(true)
    }
}
