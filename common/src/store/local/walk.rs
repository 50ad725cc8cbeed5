//! The walk through the directory tree for one page of a listing.
//!
//! Only branches that can contain a requested key are read, and only as many names of each directory are kept as the
//! page needs. The walk is a loop over a stack of directories, at most as deep as a key is long. A few of them are
//! open. The others are opened again from the root, step by step, when the walk returns to them: a tree may have more
//! levels than the process has descriptors.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::entries::{Entry, Kind, Selection, Wanted, smallest};
use super::failure::{Failure, Outcome};
use super::tree::{Root, meta_of, stat_object};
use crate::store::key::MAX_KEY_BYTES;
use crate::store::{ObjectMeta, PassedOver, PassedOverKind, StoreErrorKind, SurveyPage};

/// The most directories on the path that are open.
const MAX_OPEN: usize = 16;
/// The most bytes of names that the directories on the path keep together.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

pub(super) struct Walk<'a> {
    root: &'a Root,
    wanted: Wanted<'a>,
    limit: usize,
    /// Continues past entries that cannot be listed, and reports other files.
    is_survey: bool,
    pub page: SurveyPage,
    /// Folded directories.
    pub prefixes: Vec<String>,
    /// The last entry of the page.
    last: Option<String>,
    is_cut: bool,
    /// The path of the directory on top of the stack: empty, or ending in `/`.
    path: String,
    stack: Vec<Frame>,
    kept_bytes: usize,
    max_kept_bytes: usize,
}

/// A directory of the walk.
struct Frame {
    /// The length of its path.
    path_bytes: usize,
    folder: Option<Rc<OwnedFd>>,
    /// Names read and not yet processed, in order.
    entries: VecDeque<Entry>,
    last_read: Option<String>,
    is_exhausted: bool,
}

impl Frame {
    /// Drops the second half of the waiting names, which are read again in their turn. Returns the bytes freed.
    fn shed(&mut self) -> usize {
        let later = self.entries.split_off(self.entries.len().div_ceil(2));
        if let (Some(last), false) = (self.entries.back(), later.is_empty()) {
            self.last_read = Some(last.name.clone());
            self.is_exhausted = false;
        }
        later.iter().map(Entry::size_bytes).sum()
    }
}

impl<'a> Walk<'a> {
    /// A walk that fails at the first entry that cannot be listed.
    pub fn strict(root: &'a Root, wanted: Wanted<'a>, limit: usize) -> Self {
        Self {
            root,
            wanted,
            limit: limit.max(1),
            is_survey: false,
            page: SurveyPage::default(),
            prefixes: Vec::new(),
            last: None,
            is_cut: false,
            path: String::new(),
            stack: Vec::new(),
            kept_bytes: 0,
            max_kept_bytes: MAX_KEPT_BYTES,
        }
    }

    pub fn survey(root: &'a Root, wanted: Wanted<'a>, limit: usize) -> Self {
        Self { is_survey: true, ..Self::strict(root, wanted, limit) }
    }

    /// Whether entries follow that do not fit into the page.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Fills the page.
    pub fn run(&mut self) -> Outcome<()> {
        if let Some(folder) = self.find_base()? {
            self.walk_from(folder)?;
        }
        self.page.next = self.last.take().filter(|_| self.is_cut);
        Ok(())
    }

    /// Opens the directory that the prefix names, and sets the walk's path to it. Nothing else on the way needs to be
    /// read.
    fn find_base(&mut self) -> Outcome<Option<OwnedFd>> {
        let Some(mut folder) = self.root.open()? else { return Ok(None) };
        let mut depth = 0;
        while let Some((segment, _)) = self.wanted.prefix[self.path.len()..].split_once('/') {
            let entry = format!("{segment}/");
            let is_name = !segment.is_empty() && !segment.starts_with('.') && !segment.contains('\0');
            if !is_name || !self.wanted.can_hold(&self.path, &entry) {
                return Ok(None);
            }
            match self.root.step(&folder, depth, segment)? {
                Some(inner) => folder = inner,
                None => return Ok(None),
            }
            self.path.push_str(&entry);
            depth += 1;
        }
        Ok(Some(folder))
    }

    fn walk_from(&mut self, base: OwnedFd) -> Outcome<()> {
        self.enter(base);
        while !self.is_cut
            && let Some(frame) = self.stack.last_mut()
        {
            match frame.entries.pop_front() {
                Some(entry) => {
                    self.kept_bytes -= entry.size_bytes();
                    self.take(&entry)?;
                }
                None if frame.is_exhausted => self.leave(),
                None => self.read_on()?,
            }
        }
        Ok(())
    }

    /// Enters the directory that the walk's path names.
    fn enter(&mut self, folder: OwnedFd) {
        self.stack.push(Frame {
            path_bytes: self.path.len(),
            folder: Some(Rc::new(folder)),
            entries: VecDeque::new(),
            last_read: None,
            is_exhausted: false,
        });
        if let Some(far) = self.stack.len().checked_sub(MAX_OPEN + 1) {
            self.stack[far].folder = None;
        }
    }

    fn leave(&mut self) {
        self.stack.pop();
        if let Some(frame) = self.stack.last() {
            self.path.truncate(frame.path_bytes);
        }
    }

    /// Skips the rest of the directory on top.
    fn abandon(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            self.kept_bytes -= frame.entries.drain(..).map(|entry| entry.size_bytes()).sum::<usize>();
            frame.is_exhausted = true;
        }
    }

    /// The directory on top; `None` if it needs no further reading.
    fn current(&mut self) -> Outcome<Option<Rc<OwnedFd>>> {
        if let Some(folder) = self.stack.last().and_then(|frame| frame.folder.clone()) {
            return Ok(Some(folder));
        }
        match self.reopen() {
            Ok(Some(folder)) => Ok(Some(folder)),
            // Removed since it was read: the same as if the listing had begun later.
            Ok(None) => {
                self.abandon();
                Ok(None)
            }
            Err(failure) => self.give_up(failure).map(|()| None),
        }
    }

    /// Opens the directory on top again, and as many of those around it as may be open.
    fn reopen(&mut self) -> Outcome<Option<Rc<OwnedFd>>> {
        let first = self.stack.len().saturating_sub(MAX_OPEN);
        let mut found: Option<Rc<OwnedFd>> = None;
        for index in first..self.stack.len() {
            let path_bytes = self.stack[index].path_bytes;
            let opened = match &found {
                None => self.root.open_path(self.path[..path_bytes].split_terminator('/'))?,
                Some(parent) => {
                    let name = self.path[self.stack[index - 1].path_bytes..path_bytes].trim_end_matches('/');
                    self.root.step(parent, self.depth_of(index - 1), name)?
                }
            };
            let Some(folder) = opened else { return Ok(None) };
            found = Some(Rc::new(folder));
            self.stack[index].folder.clone_from(&found);
        }
        Ok(found)
    }

    /// The number of steps between the root and a directory of the stack.
    fn depth_of(&self, index: usize) -> usize {
        self.path[..self.stack[index].path_bytes].matches('/').count()
    }

    /// Reads the next names of the directory on top.
    fn read_on(&mut self) -> Outcome<()> {
        let Some(folder) = self.current()? else { return Ok(()) };
        // One name more than the page takes shows whether the listing continues.
        let most = self.limit - self.len() + 1;
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        let selection = Selection {
            wanted: self.wanted,
            path: &self.path,
            after: frame.last_read.as_deref(),
            most,
            with_passed_over: self.is_survey,
        };
        match smallest(self.root, &folder, &selection) {
            Ok(entries) => {
                frame.is_exhausted = entries.len() < most;
                frame.last_read = entries.last().map(|last| last.name.clone());
                self.kept_bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
                frame.entries = entries.into();
                self.shed();
                Ok(())
            }
            Err(failure) => self.give_up(failure),
        }
    }

    /// Each directory on the path may keep as many names as fit into the page, which is too much for many of them.
    fn shed(&mut self) {
        let top = self.stack.len() - 1;
        for frame in &mut self.stack[..top] {
            if self.kept_bytes <= self.max_kept_bytes {
                return;
            }
            self.kept_bytes -= frame.shed();
        }
    }

    fn take(&mut self, entry: &Entry) -> Outcome<()> {
        match entry.kind {
            Kind::File => self.take_file(&entry.name),
            Kind::Folder => self.take_folder(&entry.name),
            Kind::PassedOver(kind) => {
                self.pass_over(&entry.name, kind);
                Ok(())
            }
        }
    }

    fn take_file(&mut self, name: &str) -> Outcome<()> {
        let Some(folder) = self.current()? else { return Ok(()) };
        let key = format!("{}{name}", self.path);
        match stat_object(&folder, name) {
            // Removed since the directory was read: the same as if the listing had begun later.
            Ok(None) => Ok(()),
            Ok(Some(_)) if key.len() > MAX_KEY_BYTES => self.cannot_list(key, too_long()),
            Ok(Some(stat)) => {
                self.add_object(meta_of(&key, &stat));
                Ok(())
            }
            // Names can be read, but nothing else: the same applies to all of them.
            Err(failure) if failure.is_denied() => self.give_up(failure),
            Err(failure) => self.cannot_list(key, failure),
        }
    }

    fn take_folder(&mut self, entry: &str) -> Outcome<()> {
        let Some(folder) = self.current()? else { return Ok(()) };
        let path = format!("{}{entry}", self.path);
        // Every key below is longer than its path.
        if path.len() >= MAX_KEY_BYTES {
            return self.cannot_list(path, too_deep());
        }
        let depth = self.depth_of(self.stack.len() - 1);
        let inner = match self.root.step(&folder, depth, entry.trim_end_matches('/')) {
            Ok(Some(inner)) => inner,
            Ok(None) => return Ok(()),
            Err(failure) => return self.cannot_list(path, failure),
        };
        if !self.wanted.folds(&path) {
            self.path = path;
            self.enter(inner);
            return Ok(());
        }
        if holds_objects(self.root, inner, &path)? && self.has_room() {
            self.prefixes.push(path);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        let SurveyPage { objects, unlisted, passed_over, .. } = &self.page;
        objects.len() + unlisted.len() + passed_over.len() + self.prefixes.len()
    }

    /// False, and the page is marked as cut, if another entry would exceed it.
    fn has_room(&mut self) -> bool {
        self.is_cut = self.len() >= self.limit;
        !self.is_cut
    }

    fn add_object(&mut self, object: ObjectMeta) {
        if self.has_room() {
            self.last = Some(object.key.clone());
            self.page.objects.push(object);
        }
    }

    fn pass_over(&mut self, name: &str, kind: PassedOverKind) {
        if self.has_room() {
            let key = format!("{}{name}", self.path);
            self.page.passed_over.push(PassedOver { name: key.trim_end_matches('\0').to_owned(), kind });
            self.last = Some(key);
        }
    }

    /// The directory on top cannot be read. If it is the requested one, the walk fails.
    fn give_up(&mut self, failure: Failure) -> Outcome<()> {
        self.abandon();
        if self.stack.len() == 1 {
            return Err(failure.at(&self.path));
        }
        self.cannot_list(self.path.clone(), failure)
    }

    /// `key` names a file, or a directory, which ends in `/`.
    fn cannot_list(&mut self, key: String, failure: Failure) -> Outcome<()> {
        if !self.is_survey || failure.is_of_process() {
            return Err(failure.at(&key));
        }
        if self.has_room() {
            self.page.unlisted.push(failure.into_error("list", &key));
            self.last = Some(key);
        }
        Ok(())
    }
}

fn too_long() -> Failure {
    let message = format!("the path is longer than {MAX_KEY_BYTES} bytes: shorten it, or move the file elsewhere");
    Failure::new(StoreErrorKind::InvalidKey, message)
}

fn too_deep() -> Failure {
    let message = format!("paths of files in this folder are longer than {MAX_KEY_BYTES} bytes: move it elsewhere");
    Failure::new(StoreErrorKind::InvalidKey, message)
}

/// Whether the directory contains objects: an empty one is no prefix of any key.
fn holds_objects(root: &Root, folder: OwnedFd, path: &str) -> Outcome<bool> {
    let wanted = Wanted { prefix: path, after: None, after_may_be_folder: false, fold: false };
    let mut walk = Walk::strict(root, wanted, 1);
    walk.path.push_str(path);
    walk.walk_from(folder)?;
    Ok(walk.len() > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{SurveyOptions, local::list};

    /// All keys, page by page, with a limit on the names kept.
    fn pages(root: &Root, limit: usize, max_kept_bytes: usize) -> Vec<String> {
        let mut options = SurveyOptions { limit: Some(limit), ..SurveyOptions::default() };
        let mut keys = Vec::new();
        loop {
            let after = options.start_after.as_deref();
            let wanted = Wanted { prefix: "", after, after_may_be_folder: true, fold: false };
            let mut walk = Walk { max_kept_bytes, ..Walk::survey(root, wanted, limit) };
            walk.run().unwrap();
            let open = walk.stack.iter().filter(|frame| frame.folder.is_some()).count();
            assert!(open <= MAX_OPEN, "{open} directories are open");
            assert!(walk.page.unlisted.is_empty() && walk.page.passed_over.is_empty());
            keys.extend(walk.page.objects.into_iter().map(|object| object.key));
            match walk.page.next {
                Some(next) => options.start_after = Some(next),
                None => return keys,
            }
        }
    }

    fn tree() -> impl Strategy<Value = BTreeSet<String>> {
        // Directories end in `d` and files in `f`, so their names never collide. Some are deeper than directories may
        // be open.
        let segment = prop::sample::select(vec!["", "a", "a-", "a.", "a0", "b", "\u{e4}"]);
        let path = prop::collection::vec(segment.clone(), 0..5);
        let file = (path, prop::bool::weighted(0.2), segment).prop_map(|(path, is_deep, name)| {
            let repeat = if is_deep { 2 * MAX_OPEN } else { 1 };
            let folders: String = path.repeat(repeat).iter().map(|segment| format!("{segment}d/")).collect();
            format!("{folders}{name}f")
        });
        prop::collection::btree_set(file, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_tree_is_listed_in_byte_order_whatever_the_page_and_however_little_is_kept(
            keys in tree(), limit in 1_usize..12, max_kept_bytes in prop::sample::select(vec![0, 300, MAX_KEPT_BYTES]),
        ) {
            let folder = tempfile::tempdir().unwrap();
            for key in &keys {
                let path = folder.path().join(key);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "x").unwrap();
            }
            let root = Root::new(folder.path().to_owned(), false);
            let expected: Vec<String> = keys.into_iter().collect();
            prop_assert_eq!(&pages(&root, limit, max_kept_bytes), &expected);
            let whole = list::survey(&root, &SurveyOptions { limit: Some(1_000), ..SurveyOptions::default() }).unwrap();
            let listed: Vec<String> = whole.objects.into_iter().map(|object| object.key).collect();
            prop_assert_eq!((listed, whole.next), (expected, None));
        }
    }
}
