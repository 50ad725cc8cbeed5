//! Files without rows under the names of a batch that is abandoned.

use std::sync::Arc;

use super::file::Table;
use super::promoted::Promoted;
use super::rows::{Kind, Rows};
use super::{Batch, BatchError, FinishedFile, OpenFile, Place, STANDS_IN};
use crate::route::type_of;

impl Batch {
    pub(crate) fn stand_ins(&self) -> StandIns {
        let (events, rejected, promoted) = (self.events.clone(), self.rejected.clone(), self.promoted.clone());
        StandIns { events, rejected, promoted, partition: self.partition }
    }
}

/// Makes files without rows that reserve the names of a batch's files: the store then refuses a later file under such a
/// name.
pub(crate) struct StandIns {
    events: Arc<Table>,
    rejected: Arc<Table>,
    promoted: Arc<Promoted>,
    partition: i32,
}

impl StandIns {
    /// # Errors
    /// The encoder's error.
    pub(crate) fn of(&self, place: Place<'_>, folder: &str, sequence: u32) -> Result<FinishedFile, BatchError> {
        let table = if type_of(folder).is_some() { &self.events } else { &self.rejected };
        let promoted = self.promoted.of_type(type_of(folder).unwrap_or_default());
        let rows = Rows::new(kind_of(folder), self.partition, promoted);
        let mut facts = place.footer_facts(sequence)?;
        facts.push((STANDS_IN, "true".to_owned()));
        let mut file = OpenFile::new(table, folder.to_owned(), sequence, rows);
        file.seal(None)?;
        file.finish(&facts)
    }
}

/// The kind of a file without rows.
fn kind_of(folder: &str) -> Kind {
    match type_of(folder) {
        Some(_) => Kind::Events { domain: String::new(), event_type: String::new() },
        None => Kind::Rejected,
    }
}
