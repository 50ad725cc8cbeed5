//! The directories of a batch: each is opened once and synced once.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::failure::Outcome;
use super::tree::{Place, Root, sync_folder};

/// A batch over more directories is processed in several groups: a process may be limited to a thousand open files.
const MAX_OPEN_FOLDERS: usize = 128;

/// The number of entries from the first one on (at least one) that need no more open directories than permitted.
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
    /// Syncs the directory at the first call; later calls return the same result. All changes must therefore precede
    /// it.
    pub fn sync_once(&self) -> Outcome<()> {
        self.synced.get_or_init(|| sync_folder(&self.descriptor)).clone()
    }
}

/// Keyed by the directory's path. Sources and targets have a set each: a directory that is both has to be synced twice.
#[derive(Default)]
pub(super) struct Folders<'b> {
    opened: HashMap<&'b str, Rc<Folder>>,
}

impl<'b> Folders<'b> {
    /// `None` if the directory certainly does not exist.
    pub fn find(&mut self, root: &Root, place: &'b Place) -> Outcome<Option<Rc<Folder>>> {
        if let Some(folder) = self.opened.get(place.folder()) {
            return Ok(Some(Rc::clone(folder)));
        }
        Ok(root.find_folder(place)?.map(|descriptor| self.keep(place, descriptor)))
    }

    /// Creates the directory durably if it is missing.
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
