//! The directory tree under the root. Every step from the root is one `openat` that refuses symbolic links, so no key
//! leaves the root, even if the tree changes concurrently. The only exceptions are the names directly below the root
//! that [`Root::following`] lists: an operator may put them on another disk.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::failure::{Failure, Outcome, while_trying};
use crate::store::key::check_key;
use crate::store::{ObjectMeta, Result, StoreError, StoreErrorKind, Version};

/// The longest file name that the usual file systems hold.
const MAX_SEGMENT_BYTES: usize = 255;
/// Enough to name the problem; a directory full of such names must not fill the memory.
const MAX_WARNED: usize = 1000;

/// Makes the check of a version and the replacing rename one step within this process. Other processes are not
/// excluded: that is the documented limit of `IfVersion` on a directory.
static REPLACING: Mutex<()> = Mutex::new(());

pub(super) fn lock_replacing() -> MutexGuard<'static, ()> {
    REPLACING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key as a path through the tree.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub key: String,
    folders: Vec<String>,
    pub name: String,
}

impl Place {
    pub fn parse(operation: &'static str, key: &str) -> Result<Self> {
        check_key(operation, key)?;
        let invalid = |why: &str| Err(StoreError::new(StoreErrorKind::InvalidKey, operation, key, why));
        if key.split('/').any(|segment| segment.len() > MAX_SEGMENT_BYTES) {
            return invalid("a segment is longer than 255 bytes");
        }
        // Such names are temporaries and never listed. An object that no listing shows must not be created.
        if key.split('/').any(|segment| segment.starts_with('.')) {
            return invalid("a segment starts with '.', which marks temporary and hidden files in a directory");
        }
        let mut folders: Vec<String> = key.split('/').map(str::to_owned).collect();
        let name = folders.pop().unwrap_or_default();
        Ok(Self { key: key.to_owned(), folders, name })
    }

    /// The path of the directory; empty for the root.
    pub fn folder(&self) -> &str {
        self.key.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

#[derive(Debug)]
pub(super) struct Root {
    pub path: PathBuf,
    /// A missing root is an empty store, created by the first put.
    make_root: bool,
    /// Names directly below the root that may be symbolic links to directories.
    followed: &'static [&'static str],
    /// Held for writing while directories are created: no file is written into a directory whose entry in its parent is
    /// not synced yet.
    making: RwLock<()>,
    warned: Mutex<HashSet<PathBuf>>,
}

impl Root {
    pub fn new(path: PathBuf, make_root: bool) -> Self {
        Self { path, make_root, followed: &[], making: RwLock::new(()), warned: Mutex::new(HashSet::new()) }
    }

    /// Follows symbolic links under these names, directly below the root and nowhere else.
    pub fn following(self, followed: &'static [&'static str]) -> Self {
        Self { followed, ..self }
    }

    /// Whether a symbolic link of this name, directly below the root, is followed.
    pub fn follows(&self, name: &str) -> bool {
        self.followed.contains(&name)
    }

    /// `None` if the root is missing and a missing root means an empty store.
    pub fn open(&self) -> Outcome<Option<OwnedFd>> {
        // The root itself may be a symbolic link: it is the operator's choice, not a key's.
        match rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) if self.make_root => Ok(None),
            Err(error @ (Errno::NOENT | Errno::NOTDIR)) => Err(Failure::new(
                StoreErrorKind::NoSuchStore,
                format!("the directory {} is not there: {}", self.path.display(), std::io::Error::from(error)),
            )),
            Err(error) => Err(Failure::io(&format!("cannot open the directory {}", self.path.display()), error)),
        }
    }

    /// The directory that contains (or would contain) the object; `None` if it certainly does not exist.
    pub fn find_folder(&self, place: &Place) -> Outcome<Option<OwnedFd>> {
        self.open_path(place.folders.iter().map(String::as_str))
    }

    /// The directory at the end of this path from the root; `None` if it certainly does not exist.
    pub fn open_path<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Outcome<Option<OwnedFd>> {
        let Some(mut folder) = self.open()? else { return Ok(None) };
        for (depth, name) in names.into_iter().enumerate() {
            match self.step(&folder, depth, name)? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// Opens a directory in one that is `depth` steps below the root; `None` as [`open_folder`] returns it.
    ///
    /// # Errors
    /// Besides those of the system: a name that may be a link exists and is not a directory. Treating it as an empty
    /// store would hide every file behind a link to an unmounted disk.
    pub fn step(&self, parent: &OwnedFd, depth: usize, name: &str) -> Outcome<Option<OwnedFd>> {
        if depth > 0 || !self.follows(name) {
            return open_folder(parent, name);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT) if stat(parent, name)?.is_none() => Ok(None),
            Err(Errno::NOENT) => Err(self.no_folder(name, "is a symbolic link to something that is not there")),
            Err(Errno::NOTDIR) => {
                Err(self.no_folder(name, "is neither a folder nor a symbolic link to one; move it away"))
            }
            Err(Errno::LOOP) => Err(self.no_folder(name, "is a symbolic link that leads back to itself")),
            Err(error) => Err(cannot_open(name, error)),
        }
    }

    fn no_folder(&self, name: &str, why: &str) -> Failure {
        Failure::new(StoreErrorKind::NoSuchStore, format!("{} {why}", self.path.join(name).display()))
    }

    /// The directory for the object. Creates it and its parents durably if they are missing.
    pub fn make_folder(&self, place: &Place) -> Outcome<OwnedFd> {
        {
            let _nobody_makes = self.making.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(folder) = self.find_folder(place)? {
                return Ok(folder);
            }
        }
        let _only_we_make = self.making.write().unwrap_or_else(PoisonError::into_inner);
        let mut folder = match self.open()? {
            Some(folder) => folder,
            None => self.make_own_path()?,
        };
        for (depth, name) in place.folders.iter().enumerate() {
            folder =
                self.make_step(&folder, depth, name)?.ok_or_else(|| self.taken_by_other(&place.folders[..=depth]))?;
        }
        Ok(folder)
    }

    fn taken_by_other(&self, folders: &[String]) -> Failure {
        let path = self.path.join(folders.join("/"));
        let message = format!("{} is a file or a symbolic link, not a directory; move it away", path.display());
        Failure::new(StoreErrorKind::InvalidKey, message)
    }

    /// `None` if the name is taken by something else.
    fn make_step(&self, parent: &OwnedFd, depth: usize, name: &str) -> Outcome<Option<OwnedFd>> {
        if let Some(folder) = self.step(parent, depth, name)? {
            return Ok(Some(folder));
        }
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => {
                if let Err(failure) = sync_folder(parent) {
                    // Left in place, it would count as durable next time.
                    let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
                    return Err(failure);
                }
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(Failure::io(&format!("cannot make the directory '{name}'"), error)),
        }
        self.step(parent, depth, name)
    }

    fn make_own_path(&self) -> Outcome<OwnedFd> {
        let mut missing: Vec<&Path> =
            self.path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        while let Some(path) = missing.pop() {
            match std::fs::create_dir(path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::io(&format!("cannot make the directory {}", path.display()), error)),
            }
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync_folder(&std::fs::File::open(parent).map_err(while_trying("open the parent of a new directory"))?)?;
        }
        self.open()?.ok_or_else(|| {
            Failure::new(StoreErrorKind::Transient, format!("{} vanished as soon as it was made", self.path.display()))
        })
    }

    /// Warns once for each path that is not part of the store.
    pub fn warn_skipped(&self, relative: &str, why: &str) {
        let path = self.path.join(relative);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < MAX_WARNED && warned.insert(path.clone()) {
            tracing::warn!(path = %path.display(), "skipped: {why}");
        }
    }
}

/// `None` if there is no directory of that name: nothing, a file, or a symbolic link, which is never followed.
pub(super) fn open_folder(parent: &OwnedFd, name: &str) -> Outcome<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(cannot_open(name, error)),
    }
}

fn cannot_open(name: &str, error: Errno) -> Failure {
    Failure::io(&format!("cannot open the directory '{name}'"), error)
}

/// Syncs a directory's entries. Some file systems do not support it and report so; nothing more can be done there.
pub(super) fn sync_folder(folder: impl std::os::fd::AsFd) -> Outcome<()> {
    match rustix::fs::fsync(folder) {
        Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
        Err(error) => Err(Failure::io("cannot sync the directory", error)),
    }
}

/// The entry under a name, without following symbolic links; `None` if there is none.
pub(super) fn stat(folder: &OwnedFd, name: &str) -> Outcome<Option<Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Failure::io("cannot look the file up", error)),
    }
}

/// Like [`stat`], but only regular files are objects.
pub(super) fn stat_object(folder: &OwnedFd, name: &str) -> Outcome<Option<Stat>> {
    Ok(stat(folder, name)?.filter(is_regular))
}

pub(super) fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn modified_ns(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

pub(super) fn version_of(stat: &Stat) -> Version {
    Version(format!("{}-{}-{}", stat.st_size, modified_ns(stat), stat.st_ino))
}

pub(super) fn meta_of(key: &str, stat: &Stat) -> ObjectMeta {
    ObjectMeta {
        key: key.to_owned(),
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        version: version_of(stat),
        modified_ms: i64::try_from(modified_ns(stat).div_euclid(1_000_000)).unwrap_or(i64::MAX),
    }
}
