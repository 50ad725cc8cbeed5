//! Files that wait to be read. Tens of thousands do when a landing zone is filled faster than it is read, so each is kept
//! as what the listing said of it; what reading needs besides is made when its turn comes.

use tokio::sync::OwnedSemaphorePermit;

use crate::file::Job;
use crate::identity::Identities;
use crate::ledger::{Entry, Twin};
use crate::routes::Listed;

pub(super) struct Queued {
    listed: Listed,
    resume: Option<Box<Entry>>,
    twin: Option<Box<Twin>>,
    /// One of the places for files that wait.
    _place: OwnedSemaphorePermit,
}

impl Queued {
    pub(super) fn new(listed: Listed, resume: Option<Entry>, twin: Option<Twin>, place: OwnedSemaphorePermit) -> Self {
        Self { listed, resume: resume.map(Box::new), twin: twin.map(Box::new), _place: place }
    }

    /// Gives the place back.
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

    /// The documentation says 300 bytes with all that is held of it elsewhere: beside this the texts of its key and
    /// version, which is some 100 bytes, and 16 + 16 bytes in the table of what is on its way.
    #[test]
    fn a_file_that_waits_takes_little_memory() {
        assert!(size_of::<Queued>() <= 80, "{} bytes", size_of::<Queued>());
    }
}
