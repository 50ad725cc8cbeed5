//! Listings of stores that other programs fill, where one unreadable entry must not hide the others.

use super::{ListOptions, ListPage, ObjectMeta, StoreError};

/// The keys to survey.
#[derive(Debug, Clone, Default)]
pub struct SurveyOptions {
    /// Only keys that start with this string (not necessarily a whole segment).
    pub prefix: String,
    /// Where to continue: the `next` of the previous page, or a key after which to begin.
    pub start_after: Option<String>,
    /// At most this many entries of all kinds; `None` = the store's page size.
    pub limit: Option<usize>,
}

impl SurveyOptions {
    pub(super) fn strict(&self) -> ListOptions {
        let Self { prefix, start_after, limit } = self.clone();
        ListOptions { prefix, start_after, limit, delimiter: false }
    }
}

/// One page of a survey. Every entry of all pages is in exactly one of the three lists.
#[derive(Debug, Clone, Default)]
#[must_use = "what could not be listed has to be dealt with"]
pub struct SurveyPage {
    /// In ascending byte order of the keys.
    pub objects: Vec<ObjectMeta>,
    /// Entries that could not be listed. The error's key is that of an object, or of a folder, which ends in `/`:
    /// nothing below it is listed on any page. Objects there may or may not exist.
    pub unlisted: Vec<StoreError>,
    /// Entries that are not objects of the store.
    pub passed_over: Vec<PassedOver>,
    /// Where the next page begins; `None` at the end. A page may be empty and not be the last.
    pub next: Option<String>,
}

impl SurveyPage {
    /// The page of a listing in which everything could be listed.
    pub fn complete(page: ListPage) -> Self {
        let next = page.objects.last().filter(|_| page.more).map(|last| last.key.clone());
        Self { objects: page.objects, next, ..Self::default() }
    }
}

/// An entry that no key names, or that has no content of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// For people: relative to the store's root, with escapes if it is not UTF-8.
    pub name: String,
    pub kind: PassedOverKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PassedOverKind {
    SymbolicLink,
    /// A device, a FIFO or a socket.
    SpecialFile,
    /// The name is not UTF-8.
    NoText,
}
