//! Listing a directory tree as if it were one sorted list of keys.
//!
//! Keys sort by bytes, so a directory `a` stands where `a/` stands: after `a-b` and `a.txt`, before `a0`. Within one
//! directory it is therefore enough to sort file names and directory names with `/` appended. Only the branches
//! that can hold a wanted key are read, and of each directory only as many names are kept as the page needs.

use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};

use super::failure::{Outcome, while_trying};
use super::tree::{Root, is_regular, meta_of, open_folder, stat, stat_object};
use crate::store::{ListOptions, ListPage};

const DEFAULT_PAGE: usize = 1000;

pub(super) fn list(root: &Root, options: &ListOptions) -> Outcome<ListPage> {
    let mut walk = Walk {
        root,
        prefix: &options.prefix,
        after: options.start_after.as_deref(),
        fold: options.delimiter,
        limit: options.limit.unwrap_or(DEFAULT_PAGE).max(1),
        page: ListPage::default(),
    };
    if let Some(folder) = root.open()? {
        walk.visit(&folder, "")?;
    }
    Ok(walk.page)
}

struct Walk<'a> {
    root: &'a Root,
    prefix: &'a str,
    after: Option<&'a str>,
    fold: bool,
    limit: usize,
    page: ListPage,
}

impl Walk<'_> {
    /// Lists what stands under `path` (empty, or ending in `/`). Returns early once the page is full.
    fn visit(&mut self, folder: &OwnedFd, path: &str) -> Outcome<()> {
        if let Some((segment, _)) = self.prefix.strip_prefix(path).and_then(|rest| rest.split_once('/')) {
            return self.visit_only(folder, path, segment);
        }
        let mut last_seen: Option<String> = None;
        loop {
            // One more than the page still takes tells whether the listing goes on.
            let wanted = self.limit - self.len() + 1;
            let entries = self.smallest_entries(folder, path, last_seen.as_deref(), wanted)?;
            let exhausted = entries.len() < wanted;
            for entry in &entries {
                if entry.ends_with('/') {
                    self.take_folder(folder, path, entry)?;
                } else {
                    self.take_file(folder, path, entry)?;
                }
                if self.page.more {
                    return Ok(());
                }
            }
            // Empty directories and vanished files yield nothing: then the page has room for the next names.
            match entries.into_iter().next_back() {
                Some(last) if !exhausted => last_seen = Some(last),
                _ => return Ok(()),
            }
        }
    }

    /// The prefix names the next directory: nothing else there needs reading.
    fn visit_only(&mut self, folder: &OwnedFd, path: &str, segment: &str) -> Outcome<()> {
        let entry = format!("{segment}/");
        if segment.is_empty() || segment.starts_with('.') || segment.contains('\0') || !self.can_hold(path, &entry) {
            return Ok(());
        }
        match open_folder(folder, segment)? {
            Some(inner) => self.visit(&inner, &format!("{path}{entry}")),
            None => Ok(()),
        }
    }

    fn take_file(&mut self, folder: &OwnedFd, path: &str, name: &str) -> Outcome<()> {
        // Gone since the directory was read: as if the listing had come a moment later.
        let Some(stat) = stat_object(folder, name)? else { return Ok(()) };
        if self.has_room() {
            self.page.objects.push(meta_of(&format!("{path}{name}"), &stat));
        }
        Ok(())
    }

    fn take_folder(&mut self, folder: &OwnedFd, path: &str, entry: &str) -> Outcome<()> {
        let Some(inner) = open_folder(folder, entry.trim_end_matches('/'))? else { return Ok(()) };
        let inner_path = format!("{path}{entry}");
        if !self.folds(&inner_path) {
            return self.visit(&inner, &inner_path);
        }
        if holds_objects(self.root, &inner, &inner_path)? && self.has_room() {
            self.page.prefixes.push(inner_path);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.page.objects.len() + self.page.prefixes.len()
    }

    /// False, and the page is marked as cut, when another entry would be one too many.
    fn has_room(&mut self) -> bool {
        self.page.more = self.len() >= self.limit;
        !self.page.more
    }

    fn folds(&self, path: &str) -> bool {
        self.fold && path.len() > self.prefix.len()
    }

    /// Can an entry (`name`, or `name/` for a directory) of `path` be or hold a key that was asked for?
    fn can_hold(&self, path: &str, entry: &str) -> bool {
        let is_folder = entry.ends_with('/');
        let fits_prefix = self
            .prefix
            .strip_prefix(path)
            .is_none_or(|rest| entry.starts_with(rest) || (is_folder && rest.starts_with(entry)));
        let folded = is_folder && self.fold && path.len() + entry.len() > self.prefix.len();
        let comes_after = self
            .after
            .and_then(|after| after.strip_prefix(path))
            .is_none_or(|rest| entry > rest || (is_folder && !folded && rest.starts_with(entry)));
        fits_prefix && comes_after
    }

    /// The `wanted` smallest entries after `last_seen` that can hold a key, in order.
    fn smallest_entries(
        &self,
        folder: &OwnedFd,
        path: &str,
        last_seen: Option<&str>,
        wanted: usize,
    ) -> Outcome<Vec<String>> {
        let mut smallest: BinaryHeap<String> = BinaryHeap::new();
        for entry in Dir::read_from(folder).map_err(while_trying("read the directory"))? {
            let entry = entry.map_err(while_trying("read the directory"))?;
            let bytes = entry.file_name().to_bytes();
            if bytes.starts_with(b".") {
                continue;
            }
            let Ok(name) = std::str::from_utf8(bytes) else {
                let lossy = format!("{path}{}", String::from_utf8_lossy(bytes));
                self.root.warn_skipped(&lossy, "the file name is not UTF-8, so no key can name it");
                continue;
            };
            let Some(name) = sort_name(folder, name, entry.file_type())? else { continue };
            let too_late = smallest.len() >= wanted && smallest.peek().is_some_and(|largest| *largest <= name);
            if too_late || last_seen.is_some_and(|last| name.as_str() <= last) || !self.can_hold(path, &name) {
                continue;
            }
            smallest.push(name);
            if smallest.len() > wanted {
                smallest.pop();
            }
        }
        Ok(smallest.into_sorted_vec())
    }
}

/// The name by which an entry sorts; `None` for what is neither file nor directory, symbolic links included.
fn sort_name(folder: &OwnedFd, name: &str, kind: FileType) -> Outcome<Option<String>> {
    let kind = match kind {
        // Some file systems do not say it in the directory.
        FileType::Unknown => match stat(folder, name)? {
            Some(stat) if is_regular(&stat) => FileType::RegularFile,
            Some(stat) => FileType::from_raw_mode(stat.st_mode),
            None => return Ok(None),
        },
        kind => kind,
    };
    Ok(match kind {
        FileType::RegularFile => Some(name.to_owned()),
        FileType::Directory => Some(format!("{name}/")),
        _ => None,
    })
}

/// An empty directory is no prefix of any key.
fn holds_objects(root: &Root, folder: &OwnedFd, path: &str) -> Outcome<bool> {
    let mut walk = Walk { root, prefix: path, after: None, fold: false, limit: 1, page: ListPage::default() };
    walk.visit(folder, path)?;
    Ok(walk.len() > 0)
}
