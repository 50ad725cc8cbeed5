//! Copies, moves and removes pinned versions of objects, one or many, and looks many up.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;

use super::failure::{Failure, Outcome, while_trying};
use super::folders::{Folder, Folders, within_limit};
use super::read::{open_object, require_unchanged, require_version};
use super::tree::{Place, Root, lock_replacing, meta_of, stat_object, version_of};
use super::write::{Placed, Temporary, hidden_name, link_or_move, move_to_free_name, unlink};
use crate::store::batch::independent;
use crate::store::{
    DeleteOutcome, ObjectMeta, PutCondition, PutOutcome, RenameOutcome, Result, StoreErrorKind, Version,
};

pub(super) fn copy(root: &Root, from: &Place, version: &Version, to: &Place) -> Outcome<()> {
    copy_to(root, from, version, to, &PutCondition::None).map(|_| ())
}

fn copy_to(root: &Root, from: &Place, version: &Version, to: &Place, condition: &PutCondition) -> Outcome<PutOutcome> {
    let Some((mut source, meta)) = open_object(root, from)? else {
        return Err(Failure::new(StoreErrorKind::VersionMismatch, "the file to copy is not there"));
    };
    require_version(version, &meta.version)?;
    let temporary = Temporary::create(root.make_folder(to)?)?;
    let copied = std::io::copy(&mut source, &mut temporary.file()).map_err(while_trying("copy the file"))?;
    require_unchanged(&source, version)?;
    if copied != meta.size_bytes {
        let message = format!("{copied} bytes were copied, {} were expected", meta.size_bytes);
        return Err(Failure::new(StoreErrorKind::Other, message));
    }
    temporary.publish(&to.name, condition)
}

#[derive(Debug)]
pub(super) struct Relocation {
    pub from: Place,
    pub version: Version,
    pub to: Place,
}

#[derive(Debug)]
pub(super) struct Removal {
    pub place: Place,
    pub version: Version,
}

/// The state of a move.
enum Step {
    /// The move is complete.
    Answered(RenameOutcome),
    /// The target exists, but its name is not synced yet; the source may still exist.
    Placed(Half),
}

struct Half {
    source: Rc<Folder>,
    target: Rc<Folder>,
    source_remains: bool,
}

impl Half {
    fn take_source(&self, relocation: &Relocation) -> Outcome<()> {
        if self.source_remains {
            take_away(&self.source.descriptor, &relocation.from.name, &relocation.version)?;
        }
        Ok(())
    }
}

/// Links the source under the target, checks that the linked file has the requested version, and only then removes the
/// source. A crash in between leaves both names on one file; the next call finishes the move.
pub(super) fn rename(root: &Root, relocation: &Relocation) -> Outcome<RenameOutcome> {
    let half = match place(root, relocation, &mut Folders::default(), &mut Folders::default())? {
        Step::Answered(outcome) => return Ok(outcome),
        Step::Placed(half) => half,
    };
    half.target.sync_once()?;
    half.take_source(relocation)?;
    half.source.sync_once()?;
    Ok(RenameOutcome::Moved)
}

/// Syncs each directory once for all moves that touch it: a sync takes a hundred times longer than the rest of a move.
pub(super) fn rename_many(root: &Root, relocations: &[Relocation]) -> Vec<Result<RenameOutcome>> {
    let mut outcomes = Vec::with_capacity(relocations.len());
    while let rest @ [_, ..] = &relocations[outcomes.len()..] {
        outcomes.extend(rename_group(root, &rest[..group_length(rest)]));
    }
    outcomes
}

fn group_length(relocations: &[Relocation]) -> usize {
    let keys = relocations.iter().map(|relocation| [&*relocation.from.key, &*relocation.to.key]);
    let places = relocations.iter().map(|relocation| [&relocation.from, &relocation.to]);
    independent(keys).min(within_limit(places))
}

/// The order of [`rename`] for a whole group: all targets are synced before the first source is removed.
fn rename_group(root: &Root, group: &[Relocation]) -> Vec<Result<RenameOutcome>> {
    let (mut sources, mut targets) = (Folders::default(), Folders::default());
    let mut steps: Vec<_> =
        group.iter().map(|relocation| place(root, relocation, &mut sources, &mut targets)).collect();
    each_placed(&mut steps, group, |half, _| half.target.sync_once());
    each_placed(&mut steps, group, Half::take_source);
    each_placed(&mut steps, group, |half, _| half.source.sync_once());
    let answer = |(step, relocation): (Outcome<Step>, &Relocation)| match step {
        Ok(Step::Answered(outcome)) => Ok(outcome),
        Ok(Step::Placed(_)) => Ok(RenameOutcome::Moved),
        Err(failure) => Err(failure.into_error("rename", &relocation.from.key)),
    };
    steps.into_iter().zip(group).map(answer).collect()
}

fn each_placed(steps: &mut [Outcome<Step>], group: &[Relocation], work: impl Fn(&Half, &Relocation) -> Outcome<()>) {
    for (step, relocation) in steps.iter_mut().zip(group) {
        if let Ok(Step::Placed(half)) = step
            && let Err(failure) = work(half, relocation)
        {
            *step = Err(failure);
        }
    }
}

/// The first half of a move: creates the target.
fn place<'b>(
    root: &Root,
    relocation: &'b Relocation,
    sources: &mut Folders<'b>,
    targets: &mut Folders<'b>,
) -> Outcome<Step> {
    let Relocation { from, version, to } = relocation;
    let Some(source) = sources.find(root, from)? else { return Ok(Step::Answered(RenameOutcome::SourceChanged)) };
    if version_under(&source.descriptor, &from.name)?.as_ref() != Some(version) {
        return Ok(Step::Answered(RenameOutcome::SourceChanged));
    }
    let target = targets.make(root, to)?;
    let placed = |source_remains| Step::Placed(Half { source: source.clone(), target: target.clone(), source_remains });
    match link_or_move(&source.descriptor, &from.name, &target.descriptor, &to.name)? {
        Placed::Linked if is_under(&target, to, version)? => Ok(placed(true)),
        Placed::Moved if is_under(&target, to, version)? => Ok(placed(false)),
        Placed::Linked => {
            // The source was replaced or written to between the check and the link, so this link is removed.
            unlink(&target.descriptor, &to.name)?;
            Ok(Step::Answered(RenameOutcome::SourceChanged))
        }
        Placed::Moved => {
            put_back(&target.descriptor, &to.name, &source.descriptor, &from.name)?;
            Ok(Step::Answered(RenameOutcome::SourceChanged))
        }
        Placed::NameTaken if from.key != to.key && is_second_name(&target, to, version)? => Ok(placed(true)),
        Placed::NameTaken => Ok(Step::Answered(RenameOutcome::TargetExists)),
        Placed::OtherMount => match copy_to(root, from, version, to, &PutCondition::IfAbsent) {
            Ok(PutOutcome::Written(_)) => Ok(placed(true)),
            Ok(_) => Ok(Step::Answered(RenameOutcome::TargetExists)),
            Err(failure) if failure.kind == StoreErrorKind::VersionMismatch => {
                Ok(Step::Answered(RenameOutcome::SourceChanged))
            }
            Err(failure) => Err(failure),
        },
        Placed::Gone if version_under(&source.descriptor, &from.name)?.is_none() => {
            Ok(Step::Answered(RenameOutcome::SourceChanged))
        }
        Placed::Gone => {
            Err(Failure::new(StoreErrorKind::Transient, "the directory of the target vanished while it was used"))
        }
    }
}

/// Whether an earlier call did the first half of this move: version and inode are equal and the file has two names.
/// With a single name, source and target are the same entry on a file system that does not distinguish the names;
/// removing the source would lose the file.
fn is_second_name(folder: &Folder, place: &Place, version: &Version) -> Outcome<bool> {
    let found = stat_object(&folder.descriptor, &place.name)?;
    Ok(found.is_some_and(|stat| version_of(&stat) == *version && stat.st_nlink > 1))
}

/// Opens each directory once.
pub(super) fn head_many(root: &Root, places: &[Place]) -> Vec<Result<Option<ObjectMeta>>> {
    let mut answers = Vec::with_capacity(places.len());
    while let rest @ [_, ..] = &places[answers.len()..] {
        let length = within_limit(rest.iter().map(|place| [place]));
        let mut folders = Folders::default();
        answers.extend(
            rest[..length]
                .iter()
                .map(|place| head(root, place, &mut folders).map_err(|failure| failure.into_error("head", &place.key))),
        );
    }
    answers
}

fn head<'b>(root: &Root, place: &'b Place, folders: &mut Folders<'b>) -> Outcome<Option<ObjectMeta>> {
    let Some(folder) = folders.find(root, place)? else { return Ok(None) };
    Ok(stat_object(&folder.descriptor, &place.name)?.map(|stat| meta_of(&place.key, &stat)))
}

pub(super) fn delete(root: &Root, removal: &Removal) -> Outcome<DeleteOutcome> {
    let (folder, outcome) = remove(root, removal, &mut Folders::default())?;
    folder.map_or(Ok(()), |folder| folder.sync_once())?;
    Ok(outcome)
}

/// Removes each object that still has its version, and syncs each directory once.
pub(super) fn delete_many(root: &Root, removals: &[Removal]) -> Vec<Result<DeleteOutcome>> {
    let mut outcomes = Vec::with_capacity(removals.len());
    while let rest @ [_, ..] = &removals[outcomes.len()..] {
        let length = within_limit(rest.iter().map(|removal| [&removal.place]));
        outcomes.extend(delete_group(root, &rest[..length]));
    }
    outcomes
}

fn delete_group(root: &Root, group: &[Removal]) -> Vec<Result<DeleteOutcome>> {
    let mut folders = Folders::default();
    let removed: Vec<_> = group.iter().map(|removal| remove(root, removal, &mut folders)).collect();
    // All files are removed before the first directory is synced.
    let finish = |(folder, outcome): (Option<Rc<Folder>>, DeleteOutcome)| {
        folder.map_or(Ok(()), |folder| folder.sync_once()).map(|()| outcome)
    };
    let answer = |(removed, removal): (Outcome<_>, &Removal)| {
        removed.and_then(finish).map_err(|failure: Failure| failure.into_error("delete", &removal.place.key))
    };
    removed.into_iter().zip(group).map(answer).collect()
}

/// Also returns the directory that has to be synced.
fn remove<'b>(
    root: &Root,
    removal: &'b Removal,
    folders: &mut Folders<'b>,
) -> Outcome<(Option<Rc<Folder>>, DeleteOutcome)> {
    let Some(folder) = folders.find(root, &removal.place)? else { return Ok((None, DeleteOutcome::Deleted)) };
    let outcome = take_away(&folder.descriptor, &removal.place.name, &removal.version)?;
    Ok((Some(folder), outcome))
}

/// Removes the file unless it has another version. It is moved aside first and checked there: between a check and an
/// unlink under its own name another process could create a file that would then be lost.
fn take_away(folder: &OwnedFd, name: &str, version: &Version) -> Outcome<DeleteOutcome> {
    let _no_replacing = lock_replacing();
    match version_under(folder, name)? {
        None => return Ok(DeleteOutcome::Deleted),
        Some(found) if found != *version => return Ok(DeleteOutcome::VersionMismatch),
        Some(_) => {}
    }
    // A name that is not a temporary's: after a crash nothing may remove it as one.
    let aside = hidden_name(".aside");
    match rustix::fs::renameat(folder, name, folder, aside.as_str()) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(DeleteOutcome::Deleted),
        Err(error) => return Err(Failure::io("cannot move the file aside", error)),
    }
    if version_under(folder, &aside)?.as_ref() == Some(version) {
        unlink(folder, &aside)?;
        return Ok(DeleteOutcome::Deleted);
    }
    put_back(folder, &aside, folder, name)?;
    Ok(DeleteOutcome::VersionMismatch)
}

fn put_back(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> Outcome<()> {
    match move_to_free_name(from, old, to, new)? {
        // Another version was created meanwhile. It replaces this one, as it would have without the delete.
        Placed::NameTaken => unlink(from, old).map(|_| ()),
        Placed::OtherMount | Placed::Gone => Err(Failure::new(
            StoreErrorKind::Other,
            format!("a newer version could not be put back, it is '{old}' now"),
        )),
        Placed::Linked | Placed::Moved => Ok(()),
    }
}

fn version_under(folder: &OwnedFd, name: &str) -> Outcome<Option<Version>> {
    Ok(stat_object(folder, name)?.as_ref().map(version_of))
}

fn is_under(folder: &Folder, place: &Place, version: &Version) -> Outcome<bool> {
    Ok(version_under(&folder.descriptor, &place.name)?.as_ref() == Some(version))
}
