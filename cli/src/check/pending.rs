//! The content of `pending/`, as far as a short listing shows.

use common::config::Landing;
use common::store::{Store, StoreError, SurveyOptions, SurveyPage};
use ingestor::{IgnoredNames, PassedOverCounts, Reason};

use super::report::Findings;

const ABOUT: &str = "landing zone";
const PENDING: &str = "pending/";
/// A landing zone may hold millions of objects, and each page is a request.
const MAX_PAGES: usize = 20;
/// The number of folders and objects that are named if they cannot be listed.
const MAX_NAMED: usize = 5;

#[derive(Debug, Default)]
pub struct Pending {
    has_files: bool,
    /// Of the files that were listed: there may be more.
    bytes: u64,
    passed_over: PassedOverCounts,
    unlisted: Vec<StoreError>,
    unlisted_total: usize,
}

impl Pending {
    /// # Errors
    /// `pending/` itself cannot be listed.
    pub async fn list(store: &dyn Store, landing: &Landing) -> Result<Self, StoreError> {
        let ignored =
            IgnoredNames { prefixes: landing.ignore_prefixes.clone(), suffixes: landing.ignore_suffixes.clone() };
        let mut options = SurveyOptions { prefix: PENDING.to_owned(), ..SurveyOptions::default() };
        let mut pending = Self::default();
        for _ in 0..MAX_PAGES {
            let page = store.survey(&options).await?;
            options.start_after.clone_from(&page.next);
            pending.add(page, &ignored);
            if options.start_after.is_none() {
                break;
            }
        }
        Ok(pending)
    }

    fn add(&mut self, page: SurveyPage, ignored: &IgnoredNames) {
        let is_ignored = |key: &str| key.strip_prefix(PENDING).is_some_and(|path| ignored.holds(path));
        for object in page.objects.iter().filter(|object| !object.key.ends_with('/')) {
            if is_ignored(&object.key) {
                self.passed_over.count(Reason::IgnoredName);
            } else {
                self.has_files = true;
                self.bytes = self.bytes.saturating_add(object.size_bytes);
            }
        }
        for entry in page.passed_over {
            self.passed_over.count(if is_ignored(&entry.name) { Reason::IgnoredName } else { entry.kind.into() });
        }
        for error in page.unlisted.into_iter().filter(|error| !is_ignored(&error.key)) {
            self.unlisted_total += 1;
            if self.unlisted.len() < MAX_NAMED {
                self.unlisted.push(error);
            }
        }
    }

    /// Whether files wait there.
    pub fn has_files(&self) -> bool {
        self.has_files
    }

    /// The least size of all files there.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn report(&self, findings: &mut Findings) {
        for error in &self.unlisted {
            findings.warn(
                ABOUT,
                format!("{} cannot be listed, and no file there is ingested: {}", error.key, error.message),
            );
        }
        let more = self.unlisted_total - self.unlisted.len();
        if more > 0 {
            findings.warn(ABOUT, format!("{more} more folders or objects cannot be listed"));
        }
        let PassedOverCounts { symbolic_link, special_file, name_not_utf8, .. } = self.passed_over;
        if symbolic_link + special_file + name_not_utf8 > 0 {
            findings.warn(ABOUT, format!("in pending/ these entries are skipped: {}", self.passed_over.words()));
        } else if self.passed_over.ignored_name > 0 {
            findings.note(ABOUT, format!("in pending/ these entries are skipped: {}", self.passed_over.words()));
        }
    }
}
