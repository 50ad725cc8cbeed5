//! What a crash left of uploads: parts that no listing of objects shows and that cost money all the same.

use commitlog_storage::TABLES;
use common::event::rfc3339_from_micros;
use common::store::{ListUploads, StoreError, StoreErrorKind, UnfinishedUpload};

use super::{AuditError, FindingKind, Repair, Work};
use crate::batch::Name;

/// Where a distributor puts anything else.
const COMMIT_LOGS: &str = "_commits";

impl Work<'_> {
    /// Uploads that were begun so long ago that nobody can be at work on them.
    pub(super) async fn abandoned_uploads(&mut self, repair: Repair) -> Result<(), AuditError> {
        let begun_before_ms = self
            .auditor
            .now_ms
            .saturating_sub(i64::try_from(self.auditor.uploads_older_than.as_millis()).unwrap_or(i64::MAX));
        for folder in TABLES.into_iter().chain([COMMIT_LOGS]) {
            let mut options = ListUploads { prefix: format!("{folder}/"), ..ListUploads::default() };
            loop {
                let page = match self.auditor.store.unfinished_uploads(&options).await {
                    Ok(page) => page,
                    Err(error) => return self.not_told(error),
                };
                for upload in page.uploads {
                    if upload.begun_ms < begun_before_ms {
                        self.abandoned(upload, repair).await?;
                    }
                }
                match page.next {
                    Some(next) => options.after = Some(next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Not every store tells of its uploads, nor everyone who asks: whether the tables are sound does not hang on it.
    fn not_told(&mut self, error: StoreError) -> Result<(), AuditError> {
        match error.kind {
            StoreErrorKind::Transient | StoreErrorKind::NoSuchStore => Err(error.into()),
            _ => {
                let note =
                    format!("abandoned uploads were not looked for (it takes s3:ListBucketMultipartUploads): {error}");
                self.audit.notes.push(note);
                Ok(())
            }
        }
    }

    async fn abandoned(&mut self, upload: UnfinishedUpload, repair: Repair) -> Result<(), AuditError> {
        let UnfinishedUpload { key, id, .. } = &upload;
        // In a directory it is the hidden file beside the target, and only ours are listed.
        let name = key.rsplit('/').next().unwrap_or_default();
        let is_hidden = name.starts_with('.');
        match Name::parse(key) {
            Some(name) if name.topic != self.auditor.topic => return Ok(()),
            None if !is_hidden && !key.contains("/_staged/") => {
                let message =
                    format!("upload {id} was begun by no distributor and never completed; abort it if it is nobody's");
                self.find(FindingKind::UploadAbandoned, key.clone(), message);
                return Ok(());
            }
            Some(_) | None => {}
        }
        let begun = format!("begun at {}", rfc3339_from_micros(upload.begun_ms.saturating_mul(1_000)));
        let message = if repair == Repair::Orphans {
            match self.auditor.store.abort_upload(&upload).await {
                Ok(()) => {
                    self.audit.aborted.push(key.clone());
                    return Ok(());
                }
                Err(error) if error.kind == StoreErrorKind::Transient => return Err(error.into()),
                Err(error) => format!(
                    "{begun} and never completed; it cannot be aborted (it takes s3:AbortMultipartUpload): {error}"
                ),
            }
        } else {
            format!("{begun} and never completed: its parts take space that no listing shows; 'repair' aborts it")
        };
        self.find(FindingKind::UploadAbandoned, key.clone(), message);
        Ok(())
    }
}
