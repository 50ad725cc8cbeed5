//! The files of a table at a version.

use std::collections::HashSet;

use crate::action::{Action, Add, Remove};
use crate::checkpoint::Part;
use crate::{DeltaLog, Result, Snapshot};

/// What the log says of a file at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    Live(Add),
    /// It is not part of the table any more.
    Removed(Remove),
}

impl DeltaLog {
    /// Visits every file of a table at a version, in no order: each path once. Memory grows with the changes since the
    /// checkpoint that the snapshot was read from.
    ///
    /// # Errors
    /// The store's; an object of the log that is missing or damaged; and the visitor's.
    pub async fn visit(
        &self,
        snapshot: &Snapshot,
        visit: &mut (dyn FnMut(File) -> std::result::Result<(), String> + Send),
    ) -> Result<()> {
        let (mut seen, from) = (HashSet::new(), snapshot.checkpoint.map_or(0, |version| version + 1));
        // The newest one decides.
        for version in (from..=snapshot.version).rev() {
            let actions = self.read_commit(version).await?.ok_or_else(|| self.missing(version))?;
            for action in actions.into_iter().rev() {
                let file = match action {
                    Action::Add(add) => File::Live(add),
                    Action::Remove(remove) => File::Removed(remove),
                    _ => continue,
                };
                let path = match &file {
                    File::Live(add) => &add.path,
                    File::Removed(remove) => &remove.path,
                };
                if seen.insert(path.clone()) {
                    visit(file).map_err(|error| self.commit_damaged(version, error))?;
                }
            }
        }
        let Some(checkpoint) = snapshot.checkpoint else { return Ok(()) };
        self.read_checkpoint(checkpoint, Part::Files, &mut |action| match action {
            Action::Add(add) if !seen.contains(&add.path) => visit(File::Live(add)),
            Action::Remove(remove) if !seen.contains(&remove.path) => visit(File::Removed(remove)),
            _ => Ok(()),
        })
        .await
    }
}
