//! What becomes of a file once it is committed, only ever of the very content that was read.
//!
//! Every step may be repeated after a crash at any point, and is done for many files at once: on S3 a thousand deletes
//! are one request, in a folder a thousand moves are two syncs.

use common::event::civil_from_micros;
use common::store::{
    DeleteOutcome, Metadata, Move, RenameOutcome, Result, Store, StoreError, StoreErrorKind, TagOutcome, Version,
};

use crate::identity::PENDING;

const PROCESSED: &str = "processed/";
/// The tag that says that an object's events are all on the log: for the filter of a lifecycle rule.
pub const TAG: (&str, &str) = ("event-distributor", "ingested");

/// `processed/date=YYYY-MM-DD/<path>`; the date is that of the commit, in UTC.
pub(crate) fn target(path: &str, now_ms: i64) -> String {
    let date = civil_from_micros(now_ms.saturating_mul(1000));
    format!("{PROCESSED}date={:04}-{:02}-{:02}/{path}", date.year, date.month, date.day)
}

/// The name for when `target` is taken by another file: the identity's hash before the extension.
fn other_target(target: &str, identity: &str) -> String {
    let hash = xxhash_rust::xxh3::xxh3_64(identity.as_bytes());
    let (folder, name) = target.rsplit_once('/').unwrap_or(("", target));
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{folder}/{stem}.{hash:016x}.{extension}"),
        _ => format!("{folder}/{name}.{hash:016x}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archived {
    Done,
    /// The file is gone or has been replaced; whatever stands there now is not ours to touch.
    SourceChanged,
}

/// What is to be done with a file version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Move { target: String },
    Tag,
    Delete,
}

/// A committed file version and its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub path: String,
    pub version: Version,
    pub identity: String,
    pub step: Step,
}

impl Task {
    fn key(&self) -> String {
        format!("{PENDING}{}", self.path)
    }
}

/// Does every step; the outcomes are independent and in the order of the tasks.
pub(crate) async fn archive(store: &dyn Store, tasks: &[Task]) -> Vec<Result<Archived>> {
    let mut outcomes: Vec<Option<Result<Archived>>> = tasks.iter().map(|_| None).collect();
    move_all(store, tasks, &mut outcomes).await;
    delete_all(store, tasks, &mut outcomes).await;
    for (task, outcome) in tasks.iter().zip(&mut outcomes) {
        if task.step == Step::Tag {
            *outcome = Some(tag(store, task).await);
        }
    }
    let missing = |task: &Task| {
        Err(StoreError::new(
            StoreErrorKind::Other,
            "archive",
            &task.key(),
            "the store answered for fewer files than asked",
        ))
    };
    tasks.iter().zip(outcomes).map(|(task, outcome)| outcome.unwrap_or_else(|| missing(task))).collect()
}

async fn move_all(store: &dyn Store, tasks: &[Task], outcomes: &mut [Option<Result<Archived>>]) {
    let mut moves = Vec::new();
    let mut places = Vec::new();
    for (place, task) in tasks.iter().enumerate() {
        if let Step::Move { target } = &task.step {
            moves.push(Move { from: task.key(), version: task.version.clone(), to: target.clone() });
            places.push(place);
        }
    }
    if moves.is_empty() {
        return;
    }
    for (place, outcome) in places.into_iter().zip(store.rename_many(&moves).await) {
        let task = &tasks[place];
        outcomes[place] = Some(match (outcome, &task.step) {
            (Ok(RenameOutcome::TargetExists), Step::Move { target }) => resolve_taken(store, task, target).await,
            (Ok(RenameOutcome::SourceChanged), _) => Ok(Archived::SourceChanged),
            (Ok(_), _) => Ok(Archived::Done),
            (Err(error), _) => Err(error),
        });
    }
}

/// The target is taken: by an earlier, interrupted move of this very version, or by another file.
async fn resolve_taken(store: &dyn Store, task: &Task, target: &str) -> Result<Archived> {
    let from = task.key();
    let other = other_target(target, &task.identity);
    if finish_interrupted(store, task, target).await? {
        return Ok(Archived::Done);
    }
    match store.rename(&from, &task.version, &other).await? {
        RenameOutcome::Moved => Ok(Archived::Done),
        RenameOutcome::SourceChanged => Ok(Archived::SourceChanged),
        RenameOutcome::TargetExists if finish_interrupted(store, task, &other).await? => Ok(Archived::Done),
        RenameOutcome::TargetExists => Err(StoreError::new(
            StoreErrorKind::Other,
            "archive",
            &from,
            format!("both {target} and {other} are taken; move one away"),
        )),
    }
}

/// Whether `target` holds this very version, as after a move that ended between its two halves; if so the second half is
/// done.
async fn finish_interrupted(store: &dyn Store, task: &Task, target: &str) -> Result<bool> {
    let holds = |meta: common::store::ObjectMeta| meta.version == task.version;
    if !store.head(target).await?.is_some_and(holds) || !store.head(&task.key()).await?.is_some_and(holds) {
        return Ok(false);
    }
    store.delete(&task.key(), Some(&task.version)).await?;
    Ok(true)
}

async fn delete_all(store: &dyn Store, tasks: &[Task], outcomes: &mut [Option<Result<Archived>>]) {
    let (places, objects): (Vec<_>, Vec<_>) = tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| task.step == Step::Delete)
        .map(|(place, task)| (place, (task.key(), task.version.clone())))
        .unzip();
    if objects.is_empty() {
        return;
    }
    for (place, outcome) in places.into_iter().zip(store.delete_many(&objects).await) {
        outcomes[place] = Some(outcome.map(|outcome| match outcome {
            DeleteOutcome::Deleted => Archived::Done,
            DeleteOutcome::VersionMismatch => Archived::SourceChanged,
        }));
    }
}

async fn tag(store: &dyn Store, task: &Task) -> Result<Archived> {
    let tags = Metadata::from([(TAG.0.to_owned(), TAG.1.to_owned())]);
    Ok(match store.tag_version(&task.key(), &task.version, &tags).await? {
        TagOutcome::Tagged => Archived::Done,
        TagOutcome::VersionMismatch => Archived::SourceChanged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_carry_the_date_and_the_whole_path() {
        let target = target("a/x.json", 1_610_619_330_000);
        assert_eq!(target, "processed/date=2021-01-14/a/x.json");
        let other = other_target(&target, "id");
        assert!(
            other.starts_with("processed/date=2021-01-14/a/x.")
                && other.ends_with(".json")
                && other.len() == target.len() + 17,
            "{other}"
        );
        assert_ne!(other, other_target(&target, "id2"));
        assert!(other_target("processed/date=2021-01-14/noext", "id").starts_with("processed/date=2021-01-14/noext."));
    }
}
