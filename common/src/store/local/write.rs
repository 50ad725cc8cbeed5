//! Writing: a temporary file in the directory of the target, synced before it gets the target's name.
//!
//! A bare create-new would leave an empty object for ever if the process died between creating and writing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::failure::{Failure, Outcome, while_trying};
use super::tree::{Place, Root, is_regular, lock_replacing, stat, stat_object, sync_folder, version_of};
use crate::store::{DeleteOutcome, PutCondition, PutOutcome, StoreErrorKind, Version};

/// How often a name that exists and then vanishes is tried.
const MAX_TRIES: usize = 8;

pub(super) fn put(root: &Root, place: &Place, body: &[u8], condition: &PutCondition) -> Outcome<PutOutcome> {
    let folder = root.make_folder(place)?;
    // Spares the common repeated put a write. The link below decides.
    if *condition == PutCondition::IfAbsent && stat_object(&folder, &place.name)?.is_some() {
        return Ok(PutOutcome::AlreadyExists);
    }
    let temporary = Temporary::create(folder)?;
    temporary.write_at(body, 0)?;
    temporary.publish(&place.name, condition)
}

pub(super) fn delete(root: &Root, place: &Place) -> Outcome<DeleteOutcome> {
    let Some(folder) = root.find_folder(place)? else { return Ok(DeleteOutcome::Deleted) };
    let removed = {
        let _no_replacing = lock_replacing();
        // A directory or symbolic link of that name is not an object.
        match stat_object(&folder, &place.name)? {
            Some(_) => unlink(&folder, &place.name)?,
            None => false,
        }
    };
    // Empty parents stay: removing them would race with a put that is about to use them.
    if removed {
        sync_folder(&folder)?;
    }
    Ok(DeleteOutcome::Deleted)
}

/// Whether a file was removed.
pub(super) fn unlink(folder: &OwnedFd, name: &str) -> Outcome<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(Failure::io("cannot remove the file", error)),
    }
}

/// A name that no listing shows and that no other process uses: processes differ by id or, in containers where every
/// process has the same id, by their start time.
pub(super) fn hidden_name(suffix: &str) -> String {
    static STARTED_NS: LazyLock<u128> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".{}-{:x}-{number}{suffix}", std::process::id(), *STARTED_NS)
}

const TEMPORARY: &str = ".tmp";

/// Whether the name is that of a [`Temporary`], of this process or of another.
pub(super) fn is_temporary_name(name: &str) -> bool {
    let Some(stem) = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(TEMPORARY)) else { return false };
    let parts: Vec<&str> = stem.split('-').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 3 && parts.into_iter().all(is_number)
}

/// A file that is removed again unless it is published. A crash leaves it behind, hidden from every listing.
#[derive(Debug)]
pub(super) struct Temporary {
    folder: OwnedFd,
    name: String,
    file: File,
    is_there: bool,
}

impl Temporary {
    pub fn create(folder: OwnedFd) -> Outcome<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..MAX_TRIES {
            let name = hidden_name(TEMPORARY);
            match rustix::fs::openat(&folder, name.as_str(), flags, Mode::from_raw_mode(0o666)) {
                Ok(descriptor) => return Ok(Self { folder, name, file: File::from(descriptor), is_there: true }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(Failure::io("cannot create a temporary file", error)),
            }
        }
        Err(Failure::new(StoreErrorKind::Other, "cannot create a temporary file: every name is taken"))
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Outcome<()> {
        self.file.write_all_at(bytes, offset).map_err(while_trying("write the temporary file"))
    }

    /// Removes the bytes that a part left when it failed half-way.
    pub fn cut_to(&self, length_bytes: u64) -> Outcome<()> {
        self.file.set_len(length_bytes).map_err(while_trying("cut the temporary file"))
    }

    /// Makes the content durable, then visible under `name` if the condition holds, then the name durable.
    pub fn publish(mut self, name: &str, condition: &PutCondition) -> Outcome<PutOutcome> {
        self.file.sync_all().map_err(while_trying("sync the temporary file"))?;
        let stat = rustix::fs::fstat(&self.file).map_err(while_trying("look the temporary file up"))?;
        let outcome = match condition {
            PutCondition::None => self.replace(name, None)?,
            PutCondition::IfVersion(expected) => self.replace(name, Some(expected))?,
            PutCondition::IfAbsent => self.take_free_name(name)?,
        };
        match outcome {
            Published::Yes => {
                sync_folder(&self.folder)?;
                Ok(PutOutcome::Written(version_of(&stat)))
            }
            Published::NameTaken => Ok(PutOutcome::AlreadyExists),
            Published::OtherVersion => Ok(PutOutcome::VersionMismatch),
        }
    }

    fn replace(&mut self, name: &str, expected: Option<&Version>) -> Outcome<Published> {
        let _no_other_replacing = lock_replacing();
        let found = stat(&self.folder, name)?;
        if found.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return Err(in_the_way());
        }
        if expected.is_some() && expected != found.as_ref().map(version_of).as_ref() {
            return Ok(Published::OtherVersion);
        }
        rustix::fs::renameat(&self.folder, self.name.as_str(), &self.folder, name)
            .map_err(while_trying("give the file its name"))?;
        self.is_there = false;
        Ok(Published::Yes)
    }

    fn take_free_name(&mut self, name: &str) -> Outcome<Published> {
        for _ in 0..MAX_TRIES {
            match link_or_move(&self.folder, &self.name, &self.folder, name)? {
                Placed::Linked => return Ok(Published::Yes),
                Placed::Moved => {
                    self.is_there = false;
                    return Ok(Published::Yes);
                }
                Placed::NameTaken => {}
                Placed::Gone | Placed::OtherMount => {
                    return Err(Failure::new(
                        StoreErrorKind::Transient,
                        "the temporary file or its directory vanished",
                    ));
                }
            }
            match stat(&self.folder, name)? {
                Some(stat) if is_regular(&stat) => return Ok(Published::NameTaken),
                Some(_) => return Err(in_the_way()),
                // Deleted between the two calls: the name is now free.
                None => {}
            }
        }
        Err(Failure::new(StoreErrorKind::Transient, "the name was taken and freed again and again"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_there {
            let _ = rustix::fs::unlinkat(&self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}

enum Published {
    Yes,
    NameTaken,
    OtherVersion,
}

pub(super) fn in_the_way() -> Failure {
    let message = "a directory, a link or a special file has this name; move it away";
    Failure::new(StoreErrorKind::InvalidKey, message)
}

pub(super) enum Placed {
    /// Both names exist.
    Linked,
    /// The file system has no hard links: the old name no longer exists.
    Moved,
    NameTaken,
    /// The file (or one of the directories) does not exist.
    Gone,
    /// A mount point below the root is between the names: neither links nor renames cross it.
    OtherMount,
}

/// Gives a file a second name if that name is free, in one step.
pub(super) fn link_or_move(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> Outcome<Placed> {
    match rustix::fs::linkat(from, old, to, new, AtFlags::empty()) {
        Ok(()) => Ok(Placed::Linked),
        // PERM is also Linux's protected_hardlinks: another user's file that this process may move but not link.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => move_to_free_name(from, old, to, new),
        Err(error) => placed_or_failed(error),
    }
}

pub(super) fn move_to_free_name(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> Outcome<Placed> {
    match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(Placed::Moved),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(Failure::new(
            StoreErrorKind::Unsupported,
            "this file system has neither hard links nor a rename that refuses to replace: \
             two writers could not be distinguished here",
        )),
        Err(error) => placed_or_failed(error),
    }
}

fn placed_or_failed(error: Errno) -> Outcome<Placed> {
    match error {
        Errno::EXIST => Ok(Placed::NameTaken),
        Errno::NOENT => Ok(Placed::Gone),
        Errno::XDEV => Ok(Placed::OtherMount),
        error => Err(Failure::io("cannot give the file its name", error)),
    }
}
