//! The live files, against what stands in the store.

use commitlog::{Fate, FileId, State};
use common::store::Store;
use futures_util::{StreamExt, stream};

use super::super::{AT_ONCE, AuditError, FindingKind, PartitionAudit};
use super::{Live, Work};
use crate::batch::{Place, Series};
use crate::footer::{Footer, FooterError};
use crate::layout::Layout;

/// Key of a live file.
pub(super) fn path(topic: &str, partition: i32, (id, file): Live<'_>) -> String {
    format!("{}/{topic}-{partition}-{id}.parquet", file.folder)
}

impl Work<'_> {
    pub(super) async fn live_files(
        &mut self,
        partition: i32,
        state: &State,
        summary: &mut PartitionAudit,
    ) -> Result<(), AuditError> {
        summary.files = state.live.len() as u64;
        summary.bytes = state.live.values().map(|file| file.stored.bytes).sum();
        let (auditor, present) = (self.auditor, &mut self.present);
        let listed: Vec<(Live<'_>, String, Option<u64>)> = state
            .live
            .iter()
            .filter_map(|live| {
                let path = path(&auditor.topic, partition, live);
                if present.count_hidden(&path) {
                    return None;
                }
                let size = present.account_for(&path);
                Some((live, path, size))
            })
            .collect();
        let mut checks = stream::iter(listed)
            .map(async |(live, path, size)| {
                let facts = facts(&auditor.topic, partition, state, *live.0);
                let outcome = check(&*auditor.store, live, &path, size, facts.as_deref()).await;
                (path, outcome)
            })
            .buffered(AT_ONCE);
        let mut findings = Vec::new();
        while let Some((path, outcome)) = checks.next().await {
            findings.extend(outcome?.map(|(kind, message)| (kind, path, message)));
        }
        drop(checks);
        // Replaces that began while the files were looked at take some of them away.
        for (kind, path, message) in findings {
            self.find(kind, path, message);
        }
        Ok(())
    }
}

/// What the footer of a batch's file has to say.
fn facts(topic: &str, partition: i32, state: &State, id: FileId) -> Option<Vec<(&'static str, String)>> {
    let FileId::Batch { from, k } = id else { return None };
    let span = state.spans.get(&from)?;
    let Fate::Batch(batch) = &span.fate else { return None };
    let layout: Layout = serde_json::from_value(batch.recipe.layout.clone()).ok()?;
    let place = Place { topic, partition, from, to: span.to, series: Series::Cut, layout: &layout };
    place.footer_facts(k).ok()
}

/// What is wrong with a live file, if anything.
async fn check(
    store: &dyn Store,
    (_, file): Live<'_>,
    path: &str,
    listed_size: Option<u64>,
    facts: Option<&[(&'static str, String)]>,
) -> Result<Option<(FindingKind, String)>, AuditError> {
    let rows = file.stored.rows;
    let missing = || {
        Some((FindingKind::FileMissing, format!("rows: {rows}; `replay` sets offsets back, so that it is restored")))
    };
    let size = match listed_size {
        Some(size) => size,
        // It may have come after the listing.
        None => match store.head(path).await? {
            Some(meta) => meta.size_bytes,
            None => return Ok(missing()),
        },
    };
    let altered = |message: String| Ok(Some((FindingKind::FileAltered, message)));
    if size != file.stored.bytes {
        return altered(format!("it has {size} bytes, its entry says {}", file.stored.bytes));
    }
    let footer = match Footer::read(store, path, size).await {
        Ok(footer) => footer,
        Err(FooterError::Store(error)) => return Err(error.into()),
        Err(FooterError::Gone) => return Ok(missing()),
        Err(FooterError::Unreadable(message)) => return altered(format!("its footer cannot be read: {message}")),
    };
    if footer.rows() != rows {
        return altered(format!("it has {} rows, its entry says {rows}", footer.rows()));
    }
    if facts.is_some_and(|facts| !footer.says(facts)) {
        return altered("its footer names another batch".to_owned());
    }
    Ok(None)
}
