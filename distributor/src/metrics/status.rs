//! The distributor's section of the status page.

use common::telemetry::status::{Section, Table, counts, counts_by, mean_seconds, time};
use serde_json::{Value, json};

use super::Metrics;

impl Metrics {
    /// The current state of the role.
    pub fn status(&self) -> Section {
        Section::new()
            .facts("written", self.written())
            .facts("open_batches", self.open_batches())
            .facts("batches", self.batches())
            .facts("small_files", self.small_files())
            .facts("delta_tables", self.delta_tables())
            .facts(
                "dedup_window",
                vec![
                    ("keys", self.window_entries.get().into()),
                    ("memory_bytes", self.window_bytes.get().into()),
                    ("disk_bytes", self.scratch_bytes.get().into()),
                ],
            )
            .facts("trouble", self.trouble())
            .table("partitions", self.partitions())
    }

    fn written(&self) -> Vec<(&'static str, Value)> {
        let report = self.report();
        vec![
            ("rows", report.rows.into()),
            ("duplicates_dropped", report.duplicates.into()),
            ("rows_rejected", report.rejected.into()),
            ("files", report.files.into()),
            ("bytes", report.bytes.into()),
        ]
    }

    fn open_batches(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("partitions", self.assigned.get().into()),
            ("partitions_paused", self.paused.get().into()),
            ("partitions_parked", self.parked.get().into()),
            ("oldest_unflushed_seconds", self.oldest_unflushed.get().into()),
            ("files", self.open_files.get().into()),
            ("memory_bytes", self.batch_memory_bytes.get().into()),
        ]
    }

    fn batches(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("written", self.batch_seconds.get_sample_count().into()),
            ("mean_seconds", mean_seconds(&self.batch_seconds)),
            ("mean_encoding_seconds", mean_seconds(&self.phase_seconds.with_label_values(&["encode"]))),
            ("made_again", self.restored.get().into()),
        ]
    }

    fn small_files(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("merged", self.merged_files.get().into()),
            ("became", self.merge_files.get().into()),
            ("merged_bytes", self.merged_bytes.get().into()),
            ("failed_rounds", self.merge_failures.get().into()),
        ]
    }

    fn delta_tables(&self) -> Vec<(&'static str, Value)> {
        let version = |table: &str| Value::from(self.table_version.with_label_values(&[table]).get());
        #[allow(clippy::cast_possible_truncation, reason = "a time in milliseconds")]
        let published_ms = (self.tables_published.get() * 1_000.0) as i64;
        vec![
            ("version_of_events", version("events")),
            ("version_of_rejected", version("rejected")),
            ("commits", self.table_commits.get().into()),
            ("failed_rounds", self.table_failures.get().into()),
            ("complete_up_to", if published_ms > 0 { time(published_ms) } else { Value::Null }),
        ]
    }

    fn trouble(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("store_errors", json!(counts(&self.store_errors))),
            ("log_errors", json!(counts(&self.log_errors))),
            ("failed_offset_commits", self.commit_failures.get().into()),
            ("rebalances", json!(counts(&self.rebalances))),
        ]
    }

    /// The partitions of which a batch was completed.
    fn partitions(&self) -> Table {
        let last_append = counts_by(&self.last_append, &["topic", "partition"]);
        let mut rows: Vec<(String, i32, u64, Option<u64>)> = counts_by(&self.position, &["topic", "partition"])
            .into_iter()
            .map(|(labels, offset)| {
                let last = last_append.get(&labels).copied();
                let mut labels = labels.into_iter();
                let topic = labels.next().unwrap_or_default();
                (topic, labels.next().and_then(|partition| partition.parse().ok()).unwrap_or_default(), offset, last)
            })
            .collect();
        rows.sort_unstable();
        let row = |(topic, partition, offset, last): (String, i32, u64, Option<u64>)| {
            let last = last.and_then(|last| i64::try_from(last).ok()?.checked_mul(1_000)).map_or(Value::Null, time);
            vec![topic.into(), partition.into(), offset.into(), last]
        };
        Table {
            columns: &["topic", "partition", "completed_offset", "last_record_appended"],
            rows: rows.into_iter().map(row).collect(),
            left_out: 0,
        }
    }
}
