//! Summaries: many old cuts with their completions in one object, so that a chain does not grow by three objects a batch
//! for ever.
//!
//! `summaries/<n>.json`, where n is 2⁶³-1 less the begin of the oldest cut held: "the summary that holds an offset" is one
//! listing request. Written once. Together summaries tile the offsets from the origin on, and where a single object
//! stands beside a summary that holds its batch, the summary counts: the single one waits for its deletion, or was put
//! by a worker that slept since before the summary.

use std::sync::Arc;

use common::store::ListOptions;
use serde::{Deserialize, Serialize};

use super::json;
use super::storage::{ChainStore, inverted};
use super::{ChainError, Completion, Cut};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Summary {
    pub version: u32,
    pub from: i64,
    pub to: i64,
    /// Oldest first, without a gap.
    #[serde(deserialize_with = "json::list::<_, _, { json::SUMMARISED }>")]
    pub held: Vec<Held>,
}

/// A complete batch, or offsets that were passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    pub cut: Cut,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
}

impl Summary {
    pub(super) fn holds(&self, offset: i64) -> bool {
        (self.from..self.to).contains(&offset)
    }

    pub(super) fn beginning(&self, from: i64) -> Option<&Held> {
        self.held.binary_search_by_key(&from, |held| held.cut.from).ok().and_then(|index| self.held.get(index))
    }

    pub(super) fn at_or_before(&self, offset: i64) -> Option<&Cut> {
        let after = self.held.partition_point(|held| held.cut.from <= offset);
        self.held.get(after.checked_sub(1)?).map(|held| &held.cut)
    }

    /// Cuts that begin before `from`, newest first.
    pub(super) fn before(&self, from: i64) -> impl Iterator<Item = &Cut> {
        self.held.iter().rev().map(|held| &held.cut).filter(move |cut| cut.from < from)
    }

    /// What a summary has to be to stand for the objects that are deleted once it is there.
    pub(super) fn flaw(&self, topic: &str, partition: &str) -> Option<String> {
        let mut at = self.from;
        for Held { cut, completion } in &self.held {
            if cut.from != at || cut.to <= cut.from {
                return Some(format!("no cut in it begins at {at}"));
            }
            if cut.topic != topic || cut.partition.to_string() != partition {
                return Some(format!("the cut {}..{} is of another partition", cut.from, cut.to));
            }
            let range = completion.as_ref().map(|completion| (completion.from, completion.to));
            if range != cut.is_batch().then_some((cut.from, cut.to)) {
                return Some(format!("the completion of {}..{} is not in it", cut.from, cut.to));
            }
            at = cut.to;
        }
        (at != self.to || self.held.is_empty()).then(|| format!("it ends at {at}, not at {}", self.to))
    }
}

impl ChainStore {
    pub(super) fn summaries_prefix(&self) -> String {
        format!("{}summaries/", self.prefix)
    }

    pub(crate) fn summary_key(&self, from: i64) -> String {
        format!("{}{}.json", self.summaries_prefix(), inverted(from))
    }

    /// The summary with the highest begin that is at most `offset`; it need not reach as far as `offset`.
    ///
    /// # Errors
    /// The store's, or a summary that cannot stand for what it holds.
    pub(crate) async fn summary_at_or_before(&self, offset: i64) -> Result<Option<Arc<Summary>>, ChainError> {
        if let Some(known) = self.known_summary().filter(|summary| summary.holds(offset)) {
            return Ok(Some(known));
        }
        let prefix = self.summaries_prefix();
        let start_after = Some(self.summary_key(offset.saturating_add(1)));
        let page = self.store.list(&ListOptions { prefix, start_after, limit: Some(1), delimiter: false }).await?;
        let Some(found) = page.objects.first() else { return Ok(None) };
        self.read_summary(&found.key).await
    }

    /// A summary; `None` if there is certainly none under the key.
    pub(super) async fn read_summary(&self, key: &str) -> Result<Option<Arc<Summary>>, ChainError> {
        let Some(summary) = self.read::<Summary>(key).await? else { return Ok(None) };
        let (topic, partition) = self.place();
        let flaw = if self.summary_key(summary.from) == key {
            summary.flaw(topic, partition)
        } else {
            Some("it has another one's name".to_owned())
        };
        if let Some(message) = flaw {
            return Err(ChainError::Damaged { key: key.to_owned(), message });
        }
        let summary = Arc::new(summary);
        self.remember(summary.clone());
        Ok(Some(summary))
    }

    /// What a summary says of the batch that begins at `from`; `None` if none holds it.
    pub(super) async fn summarised(&self, from: i64) -> Result<Option<Held>, ChainError> {
        Ok(self.summary_at_or_before(from).await?.and_then(|summary| summary.beginning(from).cloned()))
    }

    /// Whether a summary holds the offset: then its batch is complete, and older than anything its keys could matter to.
    ///
    /// # Errors
    /// As of [`Self::summary_at_or_before`].
    pub(crate) async fn is_summarised(&self, offset: i64) -> Result<bool, ChainError> {
        Ok(self.summary_at_or_before(offset).await?.is_some_and(|summary| summary.holds(offset)))
    }
}
