//! The files that completions list, against what stands in the store.

use common::store::{Store, StoreErrorKind};
use futures_util::{StreamExt, stream};

use super::{AT_ONCE, AuditError, FindingKind, Work};
use crate::batch::{Place, series_of};
use crate::chain::{ChainStore, Completion, Cut, FileEntry, Standing};
use crate::footer::{Footer, FooterError};

impl Work<'_> {
    pub(super) async fn files(&mut self, chain: &ChainStore, standing: &Standing) -> Result<(), AuditError> {
        let Standing { cut, completion, .. } = standing;
        let store = &self.auditor.store;
        let mut listed = Vec::new();
        for (file, place) in completion.files.iter().zip(places(cut, completion)) {
            if !self.present.count_hidden(&file.path) {
                listed.push((file, self.present.account_for(&file.path), place));
            }
        }
        let mut checks = stream::iter(listed)
            .map(async |(file, size, place)| (file, check_file(&**store, place, file, size).await))
            .buffered(AT_ONCE);
        let mut findings = Vec::new();
        let mut refused = Vec::new();
        while let Some((file, outcome)) = checks.next().await {
            match outcome {
                Ok(None) => {}
                Ok(Some((kind, message))) => findings.push((kind, file.path.clone(), message)),
                Err(AuditError::Store(error)) if error.kind == StoreErrorKind::Denied => {
                    refused.push((file.path.clone(), error));
                }
                Err(error) => return Err(error),
            }
        }
        drop(checks);
        for (path, error) in refused {
            self.refused(&path, error)?;
        }
        self.leave_out_what_is_on_its_way(chain, standing, &mut findings).await?;
        for (kind, path, message) in findings {
            self.find(kind, path, message);
        }
        Ok(())
    }
}

/// What the footer of each file has to say, in the order in which the completion lists them.
fn places<'a>(cut: &'a Cut, completion: &Completion) -> Vec<(Place<'a>, u32)> {
    let place = Place::of(cut);
    match (&cut.folders, completion.damage) {
        (Some(folders), Some(damage)) => {
            let series = series_of(folders, damage.rounds);
            series.map(|(series, sequence, _)| (Place { series, ..place }, sequence)).collect()
        }
        _ => completion.files.iter().zip(0..).map(|(_, sequence)| (place, sequence)).collect(),
    }
}

/// What is wrong with a file that a completion lists, if anything.
async fn check_file(
    store: &dyn Store,
    (place, sequence): (Place<'_>, u32),
    file: &FileEntry,
    listed_size: Option<u64>,
) -> Result<Option<(FindingKind, String)>, AuditError> {
    let missing = || {
        Some((
            FindingKind::FileMissing,
            format!("rows: {}; `replay` sets offsets back, so that it is restored", file.rows),
        ))
    };
    let size = match listed_size {
        Some(size) => size,
        // It may have come after the listing.
        None => match store.head(&file.path).await? {
            Some(meta) => meta.size_bytes,
            None => return Ok(missing()),
        },
    };
    let altered = |message: String| Ok(Some((FindingKind::FileAltered, message)));
    if size != file.bytes {
        return altered(format!("it has {size} bytes, the chain says {}", file.bytes));
    }
    let footer = match Footer::read(store, &file.path, size).await {
        Ok(footer) => footer,
        Err(FooterError::Store(error)) => return Err(error.into()),
        Err(FooterError::Gone) => return Ok(missing()),
        Err(FooterError::Unreadable(message)) => return altered(format!("its footer cannot be read: {message}")),
    };
    if footer.rows() != file.rows {
        return altered(format!("it has {} rows, the chain says {}", footer.rows(), file.rows));
    }
    if !footer.says(&place.footer_facts(sequence)?) {
        return altered("its footer names another batch".to_owned());
    }
    Ok(None)
}
