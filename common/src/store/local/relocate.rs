//! Copying and moving one pinned version of an object.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::failure::{Failure, Outcome, while_trying};
use super::read::{open_object, require_unchanged, require_version};
use super::tree::{Place, Root, lock_replacing, stat_object, sync_folder, version_of};
use super::write::{Placed, Temporary, hidden_name, link_or_move, move_to_free_name, unlink};
use crate::store::{PutCondition, PutOutcome, RenameOutcome, StoreErrorKind, Version};

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

/// Links the source under the target, makes sure that what was linked is the version that was asked for, and only then
/// removes the source. A crash in between leaves both names on one file; the next call finishes the move.
pub(super) fn rename(root: &Root, from: &Place, version: &Version, to: &Place) -> Outcome<RenameOutcome> {
    let Some(source) = root.find_folder(from)? else { return Ok(RenameOutcome::SourceChanged) };
    if version_under(&source, &from.name)?.as_ref() != Some(version) {
        return Ok(RenameOutcome::SourceChanged);
    }
    let target = root.make_folder(to)?;
    match link_or_move(&source, &from.name, &target, &to.name)? {
        Placed::Linked => finish_linked(&source, from, version, &target, to),
        Placed::Moved => finish_moved(&source, from, version, &target, to),
        // Version and inode are the same: this very move got half-way before.
        Placed::NameTaken if version_under(&target, &to.name)?.as_ref() == Some(version) => {
            sync_folder(&target)?;
            take_away(&source, &from.name, version)?;
            Ok(RenameOutcome::Moved)
        }
        Placed::NameTaken => Ok(RenameOutcome::TargetExists),
        Placed::OtherMount => copy_then_remove(root, &source, from, version, to),
        Placed::Gone if version_under(&source, &from.name)?.is_none() => Ok(RenameOutcome::SourceChanged),
        Placed::Gone => {
            Err(Failure::new(StoreErrorKind::Transient, "the directory of the target vanished while it was used"))
        }
    }
}

fn finish_linked(
    source: &OwnedFd,
    from: &Place,
    version: &Version,
    target: &OwnedFd,
    to: &Place,
) -> Outcome<RenameOutcome> {
    if version_under(target, &to.name)?.as_ref() != Some(version) {
        // The source was replaced or written to between the look and the link: the link is ours to undo.
        unlink(target, &to.name)?;
        return Ok(RenameOutcome::SourceChanged);
    }
    sync_folder(target)?;
    take_away(source, &from.name, version)?;
    Ok(RenameOutcome::Moved)
}

fn finish_moved(
    source: &OwnedFd,
    from: &Place,
    version: &Version,
    target: &OwnedFd,
    to: &Place,
) -> Outcome<RenameOutcome> {
    if version_under(target, &to.name)?.as_ref() != Some(version) {
        put_back(target, &to.name, source, &from.name)?;
        return Ok(RenameOutcome::SourceChanged);
    }
    sync_folder(target)?;
    sync_folder(source)?;
    Ok(RenameOutcome::Moved)
}

fn copy_then_remove(
    root: &Root,
    source: &OwnedFd,
    from: &Place,
    version: &Version,
    to: &Place,
) -> Outcome<RenameOutcome> {
    match copy_to(root, from, version, to, &PutCondition::IfAbsent) {
        Ok(PutOutcome::Written(_)) => {
            take_away(source, &from.name, version)?;
            Ok(RenameOutcome::Moved)
        }
        Ok(_) => Ok(RenameOutcome::TargetExists),
        Err(failure) if failure.kind == StoreErrorKind::VersionMismatch => Ok(RenameOutcome::SourceChanged),
        Err(failure) => Err(failure),
    }
}

/// Removes the source unless another version stands there by now. It is moved aside first and looked at there: between
/// a look and an unlink under its own name somebody could put the file that would then be lost.
fn take_away(folder: &OwnedFd, name: &str, version: &Version) -> Outcome<()> {
    {
        let _no_replacing = lock_replacing();
        if version_under(folder, name)?.as_ref() != Some(version) {
            return Ok(());
        }
        let aside = hidden_name();
        match rustix::fs::renameat(folder, name, folder, aside.as_str()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Failure::io("cannot move the source aside", error)),
        }
        if version_under(folder, &aside)?.as_ref() == Some(version) {
            unlink(folder, &aside)?;
        } else {
            put_back(folder, &aside, folder, name)?;
        }
    }
    sync_folder(folder)
}

fn put_back(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> Outcome<()> {
    match move_to_free_name(from, old, to, new)? {
        // Yet another version came meanwhile. It replaces this one, as it would have without us.
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
