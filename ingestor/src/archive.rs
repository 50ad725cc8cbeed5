//! Archives a file once it is committed; affects only the content that was read.
//!
//! Every step can be repeated after a crash at any point. Steps are batched: on S3 a thousand deletes are one request,
//! in a folder a thousand moves are two syncs.

mod names;

use common::store::{
    DeleteOutcome, Metadata, Move, ObjectMeta, RenameOutcome, Result, Store, StoreError, StoreErrorKind, TagOutcome,
    Version,
};

use crate::identity::PENDING;

pub(crate) use names::Names;
#[cfg(feature = "fuzz")]
pub(crate) use names::fuzz::archive_names;

/// The tag of an object whose events are all on the log, for the filter of a lifecycle rule.
pub const TAG: (&str, &str) = ("event-distributor", "ingested");

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Archived {
    /// The file is at the target.
    Moved { target: String },
    /// Tagged or deleted.
    Done,
    /// The file is missing or was replaced; another version must not be touched.
    SourceChanged,
}

/// The archive step of a file version.
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

/// Performs every step; the outcomes are independent and in the order of the tasks.
pub(crate) async fn archive(store: &dyn Store, names: Names, tasks: &[Task]) -> Vec<Result<Archived>> {
    let mut outcomes: Vec<Option<Result<Archived>>> = tasks.iter().map(|_| None).collect();
    move_all(store, names, tasks, &mut outcomes).await;
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

async fn move_all(store: &dyn Store, names: Names, tasks: &[Task], outcomes: &mut [Option<Result<Archived>>]) {
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
    for ((place, moved), outcome) in places.into_iter().zip(moves.clone()).zip(store.rename_many(&moves).await) {
        let task = &tasks[place];
        outcomes[place] = Some(match outcome {
            Ok(RenameOutcome::Moved) => Ok(Archived::Moved { target: moved.to }),
            Ok(RenameOutcome::SourceChanged) => Ok(Archived::SourceChanged),
            Ok(RenameOutcome::TargetExists) => resolve_taken(store, names, task, moved.to).await,
            Err(error) if may_be_the_name(error.kind) => resolve_refused(store, names, task, &moved.to, error).await,
            Err(error) => Err(error),
        });
    }
}

/// Whether another name may succeed: S3 servers that keep objects as files have their own codes for names that they
/// cannot hold.
fn may_be_the_name(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::InvalidKey | StoreErrorKind::Other)
}

/// The target exists: from an earlier, interrupted move of this version, or from another file.
async fn resolve_taken(store: &dyn Store, names: Names, task: &Task, target: String) -> Result<Archived> {
    if finish_interrupted(store, task, &target).await? {
        return Ok(Archived::Moved { target });
    }
    let other = names.when_taken(&target, &task.identity);
    move_or_finish(store, task, other, |other| format!("both {target} and {other} are taken; move one away")).await
}

/// The target cannot be created. If one of its folders is a file, uses another name.
async fn resolve_refused(
    store: &dyn Store,
    names: Names,
    task: &Task,
    target: &str,
    refused: StoreError,
) -> Result<Archived> {
    let other = names.when_folder_is_file(target, &task.identity);
    let taken = |other: &str| format!("{target} cannot be made, and {other} is taken; move it away");
    // The error of the first name is more informative than that of the second.
    move_or_finish(store, task, other, taken)
        .await
        .map_err(|error| if may_be_the_name(error.kind) { refused } else { error })
}

async fn move_or_finish(
    store: &dyn Store,
    task: &Task,
    target: String,
    when_taken: impl Fn(&str) -> String,
) -> Result<Archived> {
    let from = task.key();
    match store.rename(&from, &task.version, &target).await? {
        RenameOutcome::Moved => Ok(Archived::Moved { target }),
        RenameOutcome::SourceChanged => Ok(Archived::SourceChanged),
        RenameOutcome::TargetExists if finish_interrupted(store, task, &target).await? => {
            Ok(Archived::Moved { target })
        }
        RenameOutcome::TargetExists => {
            Err(StoreError::new(StoreErrorKind::Other, "archive", &from, when_taken(&target)))
        }
    }
}

/// Whether `target` has this version, as after a move that was interrupted between its two halves. If so, performs the
/// second half.
async fn finish_interrupted(store: &dyn Store, task: &Task, target: &str) -> Result<bool> {
    let holds = |meta: ObjectMeta| meta.version == task.version;
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
