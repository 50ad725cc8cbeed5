//! Rewrites of a small trusted zone with a commit log.

mod altered;
mod beside;
mod interrupted;
mod mend;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::config::Compression;
use common::event::ColumnRule;
use common::log::{Log, RecordBatch};
use common::shutdown::Shutdown;
use common::store::Store;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::batch::testing::{ENCODING, event, layout};
use crate::target::{ReplayError, ReplayTarget};
use crate::testing::Zone;
use crate::testing::tables::{copy, rows, rows_in};
use crate::{EndOfInput, FindingKind};

const SNAPPY: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: true };

fn small(max_rows_per_file: u64) -> Layout {
    Layout { max_rows_per_file, ..layout() }
}

/// Three batches of two files.
async fn zone() -> Zone {
    let zone = Zone::filled(1).await;
    zone.distribute().await;
    assert_eq!(zone.files("events", ".parquet").len(), 6);
    zone
}

fn rewriter(zone: &Zone, layout: Layout, encoding: Encoding) -> Rewriter {
    Rewriter { encoding, fence: Fence::Offline, ..zone.rewriter(layout) }
}

async fn rewrite(rewriter: &Rewriter) -> Result<PartitionRewrite, ReplayError> {
    let plans = rewriter.plan(ReplayTarget::Earliest, None).await?;
    Ok(rewriter.apply(&plans).await?.remove(0))
}

async fn assert_sound(zone: &Zone) {
    let audit = zone.audit().await;
    assert!(audit.is_sound(), "{:?}", audit.findings);
    assert!(staged(zone).is_empty(), "{:?}", staged(zone));
}

fn staged(zone: &Zone) -> Vec<std::path::PathBuf> {
    [zone.files("events/_staged", ""), zone.files("rejected/_staged", "")].concat()
}

/// All that a rewrite changes. A checkpoint may be put meanwhile.
fn everything(zone: &Zone) -> Vec<std::path::PathBuf> {
    [zone.files("events", ""), zone.files("rejected", ""), zone.entries(), staged(zone)].concat()
}

async fn append(zone: &Zone, records: &RecordBatch) {
    let mut writer = zone.log.writer("w").await.unwrap();
    writer.begin().await.unwrap();
    writer.append("events", 0, records).await.unwrap();
    writer.commit().await.unwrap();
}

/// Events of one type that are nowhere else.
async fn append_unique(zone: &Zone, count: usize) {
    let mut records = RecordBatch::new();
    for number in 0..count {
        let value = event(&format!("u{number}"), "2021-01-14T10:15:30", "d", "t0", "1");
        records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
    }
    append(zone, &records).await;
}

#[tokio::test]
async fn batches_that_are_as_wanted_are_left_alone_unless_all_are_asked_for() {
    let zone = zone().await;
    let before = everything(&zone);
    let mut rewriter = rewriter(&zone, layout(), ENCODING);
    let outcome = rewrite(&rewriter).await.unwrap();
    assert_eq!((outcome.batches, outcome.rewritten, outcome.not_in_log), (3, 0, 0));
    assert!(outcome.differences.is_empty());
    assert_eq!(everything(&zone), before, "not even an entry is put");
    let rows_before = rows(&zone);
    rewriter.all = true;
    let outcome = rewrite(&rewriter).await.unwrap();
    assert_eq!((outcome.rewritten, outcome.files_removed, outcome.files_made), (3, 6, 6));
    assert_eq!(rows(&zone), rows_before);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn every_row_is_visible_once_before_and_after_whichever_the_settings() {
    let zone = zone().await;
    let expected = rows(&zone);
    assert_eq!(expected.len(), 50);
    let rejecting = Layout { max_year: 2000, ..layout() };
    for (number, layout, encoding, files) in [
        (0, small(5), ENCODING, 12),
        (1, layout(), ENCODING, 6),
        (2, layout(), SNAPPY, 6),
        (3, rejecting, SNAPPY, 3),
        (4, small(8), ENCODING, 10),
    ] {
        let files_now = || [zone.files("events", ".parquet"), zone.files("rejected", ".parquet")].concat();
        let before = files_now();
        let rewriter = rewriter(&zone, layout, encoding);
        let planned = rewriter.plan(ReplayTarget::Earliest, None).await.unwrap().remove(0);
        assert_eq!(files_now(), before, "a plan changes nothing");
        assert!(!planned.differences.is_empty());
        let bytes: u64 = before.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!((planned.rewritten, planned.bytes_removed), (3, bytes));
        let outcome = rewrite(&rewriter).await.unwrap();
        let counts = (outcome.rewritten, outcome.files_removed, outcome.files_made, outcome.rows_made);
        assert_eq!(counts, (3, before.len() as u64, files, 50), "rewrite {number}");
        let bytes_made = outcome.bytes_made;
        let made = PartitionRewrite { files_made: 0, bytes_made: 0, rows_made: 0, ..outcome };
        assert_eq!(planned, made, "it came as planned");
        assert_eq!(rows(&zone), expected);
        let after = files_now();
        assert_eq!(bytes_made, after.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>());
        assert_eq!(after.len() as u64, files);
        assert!(after.iter().all(|path| path.to_str().unwrap().contains(&format!("-c{number}-"))), "{after:?}");
        assert_sound(&zone).await;
        assert!(!rewriter.plan(ReplayTarget::Earliest, None).await.unwrap()[0].is_due(), "nothing is left to do");
    }
}

#[tokio::test]
async fn later_batches_know_the_keys_of_rewritten_ones() {
    let zone = zone().await;
    rewrite(&rewriter(&zone, small(5), SNAPPY)).await.unwrap();
    let expected = rows(&zone);
    zone.append(1).await;
    zone.distribute().await;
    assert_eq!(rows(&zone), expected, "all of them are duplicates");
    assert_sound(&zone).await;
}

#[tokio::test]
async fn settings_that_make_other_duplicates_are_refused_by_name() {
    let zone = zone().await;
    let before = everything(&zone);
    for (wanted, named) in [
        (Layout { timezone: "Pacific/Kiritimati".into(), ..layout() }, "timezone: \"UTC\" -> \"Pacific/Kiritimati\""),
        (Layout { window_ms: 1, ..layout() }, "window_ms: 86400000 -> 1"),
    ] {
        let refused = rewrite(&rewriter(&zone, wanted, ENCODING)).await.unwrap_err().to_string();
        assert!(
            refused.contains("batch 0..20") && refused.contains(named) && refused.contains("--from 20"),
            "{refused}"
        );
    }
    assert_eq!(everything(&zone), before);
}

#[tokio::test]
async fn a_rewrite_may_begin_in_the_middle() {
    let zone = zone().await;
    let expected = rows(&zone);
    let rewriter = rewriter(&zone, small(5), ENCODING);
    let plans = rewriter.plan(ReplayTarget::Offset(25), None).await.unwrap();
    assert_eq!((plans[0].from, plans[0].batches, plans[0].rewritten), (20, 2, 2));
    rewriter.apply(&plans).await.unwrap();
    let files = zone.files("events", ".parquet");
    let rewritten = files.iter().filter(|path| path.to_str().unwrap().contains("-c0-")).count();
    assert_eq!((files.len(), rewritten), (10, 8), "{files:?}");
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
    for (target, message) in [
        (ReplayTarget::Batch(25), "no batch begins at 25; the one that holds it is 20..40"),
        (ReplayTarget::Offset(5_000), "offset 5000 is not written yet"),
    ] {
        let refused = rewriter.plan(target, None).await.unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
    let unknown = rewriter.plan(ReplayTarget::Earliest, Some(&[0, 7])).await.unwrap_err().to_string();
    assert!(unknown.contains("has no partition 7"), "{unknown}");
}

#[tokio::test]
async fn what_the_log_no_longer_holds_stays_as_it_is() {
    let zone = zone().await;
    append_unique(&zone, 40).await;
    zone.distribute().await;
    let expected = rows(&zone);
    zone.log.trim("events", 0, 55, i64::MAX).await.unwrap();
    assert_eq!(zone.log_begins_at().await, 55);
    let strict = Rewriter { require_all: true, ..rewriter(&zone, small(5), ENCODING) };
    let refused = rewrite(&strict).await.unwrap_err().to_string();
    assert!(refused.contains("no longer holds the records of 3 batches"), "{refused}");
    let outcome = rewrite(&rewriter(&zone, small(5), ENCODING)).await.unwrap();
    assert_eq!((outcome.batches, outcome.not_in_log, outcome.rewritten), (5, 3, 2));
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn missing_files_of_a_rewrite_are_reported_after_an_offset_reset_and_made_by_the_next_rewrite() {
    let zone = zone().await;
    let expected = rows(&zone);
    let rewriter = rewriter(&zone, small(5), SNAPPY);
    let plans = rewriter.plan(ReplayTarget::Offset(20), None).await.unwrap();
    rewriter.apply(&plans).await.unwrap();
    let files = zone.files("events", ".parquet");
    let of_batch = files.iter().find(|path| path.to_str().unwrap().contains("events-0-0-")).unwrap();
    let before = fs::read(of_batch).unwrap();
    let of_replace: Vec<_> = files.iter().filter(|path| path.to_str().unwrap().contains("-c0-")).collect();
    for path in [of_batch, of_replace[1], of_replace[6]] {
        fs::remove_file(path).unwrap();
    }
    let found = zone.audit().await.findings;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|finding| finding.kind == FindingKind::FileMissing), "{found:?}");
    zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
    zone.distribute().await;
    assert_eq!(zone.log.committed("g", "events").await.unwrap()[&0], 55, "what is missing holds no offset up");
    assert_eq!(fs::read(of_batch).unwrap(), before, "the file of a batch has its name and bytes again");
    let found = zone.audit().await.findings;
    assert_eq!(found.len(), 2, "those of the rewrite are reported: {found:?}");
    let plans = rewriter.plan(ReplayTarget::Offset(20), None).await.unwrap();
    assert!(plans[0].differences.iter().all(|named| named.contains("missing or damaged")), "{plans:?}");
    assert_eq!((plans[0].restored_files, plans[0].rewritten), (2, 0));
    rewriter.apply(&plans).await.unwrap();
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

#[tokio::test]
async fn a_deleted_input_that_is_there_again_is_an_orphan() {
    let zone = zone().await;
    let old = zone.files("events", ".parquet").remove(1);
    let body = fs::read(&old).unwrap();
    rewrite(&rewriter(&zone, small(5), ENCODING)).await.unwrap();
    fs::write(&old, body).unwrap();
    let found = zone.audit().await.findings;
    assert!(found.iter().any(|finding| finding.kind == FindingKind::FileOrphaned), "{found:?}");
}

#[tokio::test]
async fn columns_are_added_to_what_was_written_before() {
    let zone = zone().await;
    let expected = rows(&zone);
    let columns = vec![ColumnRule {
        name: "value".into(),
        pointer: String::new(),
        column_type: "int".into(),
        events: "*".into(),
    }];
    rewrite(&rewriter(&zone, Layout { columns, ..layout() }, ENCODING)).await.unwrap();
    assert_eq!(rows(&zone), expected);
    for file in zone.files("events", ".parquet") {
        let file = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(file).unwrap()).unwrap();
        assert!(file.schema().column_with_name("value").is_some());
    }
    assert_sound(&zone).await;
}

/// Their folder is the same, and their rows come in turn: a range of offsets does not tell their files apart.
#[tokio::test]
async fn batches_of_two_types_with_one_folder_stay_as_they_are() {
    let zone = zone().await;
    let mut records = RecordBatch::new();
    for number in 0..4 {
        let (domain, event_type) = if number % 2 == 0 { ("a-b", "c") } else { ("a", "b-c") };
        let value = event(&format!("m{number}"), "2021-01-14T10:15:30", domain, event_type, "1");
        records.push(b"key", Some(value.as_bytes()), |_| {}).unwrap();
    }
    append(&zone, &records).await;
    zone.distribute().await;
    let expected = rows(&zone);
    let outcome = rewrite(&rewriter(&zone, small(5), ENCODING)).await.unwrap();
    assert_eq!((outcome.batches, outcome.rewritten, outcome.mixed), (4, 3, 1));
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}

/// As many replaces as it takes, one after another.
#[tokio::test]
async fn many_batches_are_rewritten_by_several_replaces() {
    let zone = zone().await;
    for _ in 0..14 {
        zone.append(1).await;
    }
    append_unique(&zone, 700).await;
    zone.distribute().await;
    let expected = rows(&zone);
    let outcome = rewrite(&rewriter(&zone, small(1), ENCODING)).await.unwrap();
    assert_eq!(outcome.files_made, expected.len() as u64);
    let replaces: BTreeSet<_> = zone
        .files("events", ".parquet")
        .iter()
        .filter_map(|path| path.to_str()?.rsplit('-').nth(1).map(ToOwned::to_owned))
        .collect();
    assert_eq!(replaces, ["c0".to_owned(), "c1".to_owned()].into());
    assert_eq!(rows(&zone), expected);
    assert_sound(&zone).await;
}
