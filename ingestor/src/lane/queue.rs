//! Files that wait to be read. There may be tens of thousands of them, so each is kept as the listing described it; the
//! rest of its state is created when it is read.

use tokio::sync::OwnedSemaphorePermit;

use crate::file::Job;
use crate::identity::Identities;
use crate::ledger::{Entry, Twin};
use crate::routes::Listed;

pub(super) struct Queued {
    listed: Listed,
    resume: Option<Box<Entry>>,
    twin: Option<Box<Twin>>,
    /// A permit of the limit on waiting files.
    _place: OwnedSemaphorePermit,
}

impl Queued {
    pub(super) fn new(listed: Listed, resume: Option<Entry>, twin: Option<Twin>, place: OwnedSemaphorePermit) -> Self {
        Self { listed, resume: resume.map(Box::new), twin: twin.map(Box::new), _place: place }
    }

    /// Releases the permit.
    pub(super) fn into_job(self, identities: &Identities) -> Job {
        let Self { listed, resume, twin, .. } = self;
        let (path, object) = (listed.path().to_owned(), listed.object());
        let identity = identities.identity(&path, &object.version);
        Job { path, object, identity, resume: resume.map(|entry| *entry), twin: twin.map(|twin| *twin) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation states 300 bytes for everything about a waiting file: this value, the texts of its key and
    /// version (some 100 bytes), and 16 + 16 bytes in the table of waiting files.
    #[test]
    fn a_file_that_waits_takes_little_memory() {
        assert!(size_of::<Queued>() <= 80, "{} bytes", size_of::<Queued>());
    }
}
