//! The live files, against what stands in the store.

use commitlog::{Fate, FileId, State};
use commitlog_storage::CommitLog;
use common::store::Store;
use futures_util::{StreamExt, stream};

use super::{AT_ONCE, AuditError, Auditor, FindingKind, Live, PartitionAudit, Work};
use crate::batch::{Place, Series, path};
use crate::footer::{Footer, FooterError};
use crate::layout::Layout;
use crate::replace::command;

impl Work<'_> {
    pub(super) async fn live_files(
        &mut self,
        partition: i32,
        state: &State,
        summary: &mut PartitionAudit,
        log_from: Option<i64>,
    ) -> Result<(), AuditError> {
        summary.files = state.live.len() as u64;
        summary.bytes = state.live.values().map(|file| file.stored.bytes).sum();
        let (auditor, present) = (self.auditor, &mut self.present);
        let commits = CommitLog::new(auditor.store.clone(), &auditor.topic, partition);
        let mut hides = false;
        let listed: Vec<(Live<'_>, String, Option<u64>)> = state
            .live
            .iter()
            .filter_map(|live| {
                let path = path(&auditor.topic, partition, &live.1.folder, *live.0);
                if present.count_hidden(&path) {
                    hides = true;
                    return None;
                }
                let size = present.account_for(&path);
                Some((live, path, size))
            })
            .collect();
        let mut checks = stream::iter(listed)
            .map(async |(live, path, size)| {
                let outcome = check_live(auditor, &commits, (partition, log_from), state, live, &path, size).await;
                (*live.0, path, outcome)
            })
            .buffered(AT_ONCE);
        if hides {
            self.impaired.insert(partition);
        }
        let (mut findings, mut refused) = (Vec::new(), Vec::new());
        while let Some((id, path, outcome)) = checks.next().await {
            match outcome {
                Ok(found) => findings.extend(found.map(|(kind, message)| (id, kind, path, message))),
                Err(AuditError::Store(error)) => refused.push((path, error)),
                Err(error) => return Err(error),
            }
        }
        drop(checks);
        if !refused.is_empty() {
            self.impaired.insert(partition);
        }
        for (path, error) in refused {
            self.refused(&path, error)?;
        }
        if findings.is_empty() {
            return Ok(());
        }
        // Replaces that went on while the files were looked at have taken some of them away, and published others.
        let now = commits.load_state().await;
        let now = self.understood(now)?.map(|(now, _, _)| now);
        for (id, mut kind, path, mut message) in findings {
            if let Some(now) = now.as_ref().filter(|_| kind == FindingKind::FileMissing) {
                let Some(file) = now.live.get(&id) else { continue };
                match check_live(auditor, &commits, (partition, log_from), now, (&id, file), &path, None).await? {
                    Some(found) => (kind, message) = found,
                    None => continue,
                }
            }
            self.impaired.insert(partition);
            self.find(kind, path, message);
        }
        Ok(())
    }
}

/// Checks a live file, where it is staged if its replace has not published it yet.
async fn check_live(
    auditor: &Auditor,
    commits: &CommitLog,
    (partition, log_from): (i32, Option<i64>),
    state: &State,
    live: Live<'_>,
    path: &str,
    listed_size: Option<u64>,
) -> Result<Option<(FindingKind, String)>, AuditError> {
    let facts = facts(&auditor.topic, partition, state, *live.0);
    let store = &*auditor.store;
    let remedy = remedy(live, state, log_from);
    let outcome = check(store, live, path, listed_size, facts.as_deref(), remedy).await?;
    match (&outcome, unpublished(commits, state, live)) {
        (Some((FindingKind::FileMissing, _)), Some(staged)) => check(store, live, &staged, None, None, remedy).await,
        _ => Ok(outcome),
    }
}

/// Where an output stands that is decided and may not be published yet.
pub(super) fn unpublished(commits: &CommitLog, state: &State, (id, file): Live<'_>) -> Option<String> {
    let FileId::Replace { replace, k } = *id else { return None };
    let is_open = state.head.replaces().any(|open| open.intent.replace == replace);
    is_open.then(|| commits.staged_key(&file.folder, replace, k))
}

/// What the footer of a batch's file has to say.
fn facts(topic: &str, partition: i32, state: &State, id: FileId) -> Option<Vec<(&'static str, String)>> {
    let FileId::Batch { from, k } = id else { return None };
    let span = state.spans.get(&from)?;
    let Fate::Batch(batch) = &span.fate else { return None };
    let layout: Layout = serde_json::from_value(batch.recipe.layout.clone()).ok()?;
    let place = Place { topic, partition, from, to: span.to, series: Series::Batch, layout: &layout };
    place.footer_facts(k).ok()
}

/// What brings a live file back.
fn remedy((id, file): Live<'_>, state: &State, log_from: Option<i64>) -> &'static str {
    let of_open = |number: u64| state.head.replaces().find(|open| open.intent.replace == number);
    let open = if let FileId::Replace { replace, .. } = id { of_open(*replace) } else { None };
    match id {
        _ if open.is_some_and(|open| command(open.intent.reason) == "compact") => "'compact' goes on with it",
        _ if open.is_some() => "'rewrite' goes on with it",
        _ if log_from.is_some_and(|from| from > file.from) => {
            "the log no longer has all of its records, so only a backup has it"
        }
        FileId::Batch { .. } => "'replay' sets offsets back, so that a distributor makes it again",
        FileId::Replace { .. } => "'rewrite' makes it again",
    }
}

/// What is wrong with a live file, if anything.
async fn check(
    store: &dyn Store,
    (_, file): Live<'_>,
    path: &str,
    listed_size: Option<u64>,
    facts: Option<&[(&'static str, String)]>,
    again: &str,
) -> Result<Option<(FindingKind, String)>, AuditError> {
    let rows = file.stored.rows;
    let missing = || Some((FindingKind::FileMissing, format!("rows: {rows}; {again}")));
    let size = match listed_size {
        Some(size) => size,
        // It may have come after the listing.
        None => match store.head(path).await? {
            Some(meta) => meta.size_bytes,
            None => return Ok(missing()),
        },
    };
    let altered = |message: String| Ok(Some((FindingKind::FileAltered, format!("{message}; move it away; {again}"))));
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
