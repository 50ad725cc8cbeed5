//! The tables as an engine sees them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Zone;
use crate::{Audit, FindingKind};

/// Offsets and ids of all rows that an engine sees; panics if an offset is in two files.
pub(crate) fn rows(zone: &Zone) -> BTreeSet<(i64, String)> {
    let mut rows = BTreeSet::new();
    for path in [zone.files("events", ".parquet"), zone.files("rejected", ".parquet")].concat() {
        for (offset, id) in rows_in(fs::File::open(&path).unwrap()) {
            let is_new = rows.insert((offset, id));
            assert!(is_new, "offset {offset} is visible twice, also in {}", path.display());
        }
    }
    rows
}

pub(crate) fn rows_in(file: fs::File) -> Vec<(i64, String)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut rows = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let ids = batch.column_by_name("event_id").unwrap().as_string::<i32>().clone();
        let offsets = batch.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().clone();
        rows.extend((0..batch.num_rows()).map(|row| (offsets.value(row), ids.value(row).to_owned())));
    }
    rows
}

/// Copies a folder, but for files that are deleted meanwhile.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// Rows that readers do not see until an interrupted command is run again are a finding, and there is no other.
pub(crate) fn assert_only_hidden(audit: &Audit, missing: usize) {
    let kinds: BTreeSet<FindingKind> = audit.findings.iter().map(|finding| finding.kind).collect();
    let expected = if missing > 0 { BTreeSet::from([FindingKind::RowsHidden]) } else { BTreeSet::new() };
    assert_eq!(kinds, expected, "{missing}: {:?}", audit.findings);
}
