//! The entries of one directory, in the order of keys.
//!
//! Keys sort by bytes, so a directory `a` has the position of `a/`: after `a-b` and `a.txt`, before `a0`. Within one
//! directory it is therefore enough to sort file names and directory names with `/` appended.

use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};

use super::failure::{Outcome, while_trying};
use super::tree::{Root, is_regular, stat};
use crate::store::PassedOverKind;

/// The requested keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub prefix: &'a str,
    pub after: Option<&'a str>,
    /// `after` may name a directory, which is then complete.
    pub after_may_be_folder: bool,
    /// Directories below the prefix count as one entry each.
    pub fold: bool,
}

impl Wanted<'_> {
    pub fn folds(&self, path: &str) -> bool {
        self.fold && path.len() > self.prefix.len()
    }

    /// Whether an entry (`name`, or `name/` for a directory) of `path` can be or contain a requested key.
    pub fn can_hold(&self, path: &str, entry: &str) -> bool {
        let is_folder = entry.ends_with('/');
        let fits_prefix = self
            .prefix
            .strip_prefix(path)
            .is_none_or(|rest| entry.starts_with(rest) || (is_folder && rest.starts_with(entry)));
        let folded = is_folder && self.fold && path.len() + entry.len() > self.prefix.len();
        let goes_on_inside = |rest: &str| {
            is_folder && !folded && rest.starts_with(entry) && !(self.after_may_be_folder && rest == entry)
        };
        let comes_after = self
            .after
            .and_then(|after| after.strip_prefix(path))
            .is_none_or(|rest| entry > rest || goes_on_inside(rest));
        fits_prefix && comes_after
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    File,
    Folder,
    PassedOver(PassedOverKind),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The name used for sorting: a directory's ends in `/`; one that is not UTF-8 ends in a NUL, which no other name
    /// contains.
    pub name: String,
    pub kind: Kind,
}

impl Entry {
    /// Approximate memory of the entry.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + 16
    }
}

/// What to read of a directory.
pub(super) struct Selection<'a> {
    pub wanted: Wanted<'a>,
    /// The path of the directory relative to the root: empty, or ending in `/`.
    pub path: &'a str,
    /// Only entries that sort after this name.
    pub after: Option<&'a str>,
    pub most: usize,
    /// Also entries that are not objects.
    pub with_passed_over: bool,
}

/// The smallest entries that can contain a requested key, in order.
pub(super) fn smallest(root: &Root, folder: &OwnedFd, selection: &Selection) -> Outcome<Vec<Entry>> {
    let mut smallest: BinaryHeap<Entry> = BinaryHeap::new();
    for entry in Dir::read_from(folder).map_err(while_trying("read the directory"))? {
        let entry = entry.map_err(while_trying("read the directory"))?;
        let bytes = entry.file_name().to_bytes();
        if bytes.starts_with(b".") {
            continue;
        }
        let Some(entry) = read_entry(root, folder, selection, bytes, entry.file_type()) else { continue };
        let is_too_late = smallest.len() >= selection.most && smallest.peek().is_some_and(|largest| *largest <= entry);
        let is_read = selection.after.is_some_and(|after| entry.name.as_str() <= after);
        if is_too_late || is_read || !selection.wanted.can_hold(selection.path, &entry.name) {
            continue;
        }
        smallest.push(entry);
        if smallest.len() > selection.most {
            smallest.pop();
        }
    }
    Ok(smallest.into_sorted_vec())
}

/// `None` if the entry is not requested, or no longer exists.
fn read_entry(root: &Root, folder: &OwnedFd, selection: &Selection, name: &[u8], kind: FileType) -> Option<Entry> {
    let Ok(text) = std::str::from_utf8(name) else {
        let printable = printable(name);
        if !selection.with_passed_over {
            let path = format!("{}{printable}", selection.path);
            root.warn_skipped(&path, "the file name is not UTF-8, so no key can name it");
            return None;
        }
        return Some(Entry { name: format!("{printable}\0"), kind: Kind::PassedOver(PassedOverKind::NoText) });
    };
    match kind_of(folder, text, kind)? {
        FileType::RegularFile => Some(Entry { name: text.to_owned(), kind: Kind::File }),
        FileType::Directory => Some(Entry { name: format!("{text}/"), kind: Kind::Folder }),
        FileType::Symlink if selection.path.is_empty() && root.follows(text) => {
            Some(Entry { name: format!("{text}/"), kind: Kind::Folder })
        }
        other => selection.with_passed_over.then(|| {
            let is_link = other == FileType::Symlink;
            let kind = if is_link { PassedOverKind::SymbolicLink } else { PassedOverKind::SpecialFile };
            Entry { name: text.to_owned(), kind: Kind::PassedOver(kind) }
        }),
    }
}

/// Some file systems do not return the type in the directory. `None` if the name no longer exists.
fn kind_of(folder: &OwnedFd, name: &str, kind: FileType) -> Option<FileType> {
    if kind != FileType::Unknown {
        return Some(kind);
    }
    match stat(folder, name) {
        Ok(stat) => stat
            .map(|stat| if is_regular(&stat) { FileType::RegularFile } else { FileType::from_raw_mode(stat.st_mode) }),
        // The error is reported when the entry is read.
        Err(_) => Some(FileType::RegularFile),
    }
}

/// A name that is not UTF-8, in a form that no other such name has.
fn printable(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, r"\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_utf8_are_shown_unambiguously() {
        assert_eq!(printable(b"a\xff.json"), r"a\xff.json");
        assert_eq!(printable("ü".as_bytes()), "ü");
        let names: [&[u8]; 4] = [b"\xff", br"\xff", b"\xfe", b"\xff\xff"];
        for (index, name) in names.iter().enumerate() {
            assert!(names[..index].iter().all(|other| printable(other) != printable(name)), "{name:?}");
        }
    }

    #[test]
    fn a_directory_that_a_survey_is_done_with_is_not_entered_again() {
        let wanted = |after_may_be_folder| Wanted { prefix: "", after: Some("a/b/"), after_may_be_folder, fold: false };
        assert!(wanted(true).can_hold("", "a/"), "the one around it is");
        assert!(!wanted(true).can_hold("a/", "b/"));
        assert!(wanted(false).can_hold("a/", "b/"), "in a list it is only a string before all keys in it");
        assert!(wanted(true).can_hold("a/", "b0"));
    }
}
