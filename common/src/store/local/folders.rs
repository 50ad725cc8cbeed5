//! The directories that a batch works in: each is opened once and put on disk once.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::failure::Outcome;
use super::tree::{Place, Root, sync_folder};

/// A batch over more directories is done in several groups: a process may have but a thousand files open.
const MAX_OPEN_FOLDERS: usize = 128;

/// How many entries from the first one on (at least that one) need no more directories than may be open.
pub(super) fn within_limit<'b, const N: usize>(entries: impl IntoIterator<Item = [&'b Place; N]>) -> usize {
    let mut folders = HashSet::new();
    let fits = |places: &[&'b Place; N]| {
        let is_first = folders.is_empty();
        folders.extend(places.iter().map(|place| place.folder()));
        is_first || folders.len() <= MAX_OPEN_FOLDERS
    };
    entries.into_iter().take_while(fits).count()
}

pub(super) struct Folder {
    pub descriptor: OwnedFd,
    synced: OnceCell<Outcome<()>>,
}

impl Folder {
    /// Puts the directory's entries on disk at the first call; further ones give the same answer. So all changes have
    /// to come before.
    pub fn sync_once(&self) -> Outcome<()> {
        self.synced.get_or_init(|| sync_folder(&self.descriptor)).clone()
    }
}

/// By the directory's path. Two sets for sources and targets: a directory that is both has to be put on disk twice.
#[derive(Default)]
pub(super) struct Folders<'b> {
    opened: HashMap<&'b str, Rc<Folder>>,
}

impl<'b> Folders<'b> {
    /// `None` if the directory is certainly not there.
    pub fn find(&mut self, root: &Root, place: &'b Place) -> Outcome<Option<Rc<Folder>>> {
        if let Some(folder) = self.opened.get(place.folder()) {
            return Ok(Some(Rc::clone(folder)));
        }
        Ok(root.find_folder(place)?.map(|descriptor| self.keep(place, descriptor)))
    }

    /// Makes the directory, durably, where it is missing.
    pub fn make(&mut self, root: &Root, place: &'b Place) -> Outcome<Rc<Folder>> {
        if let Some(folder) = self.opened.get(place.folder()) {
            return Ok(Rc::clone(folder));
        }
        Ok(self.keep(place, root.make_folder(place)?))
    }

    fn keep(&mut self, place: &'b Place, descriptor: OwnedFd) -> Rc<Folder> {
        let folder = Rc::new(Folder { descriptor, synced: OnceCell::new() });
        self.opened.insert(place.folder(), Rc::clone(&folder));
        folder
    }
}
