//! The ingestor's section of the status page.

use common::telemetry::status::{Section, Table, counts, mean_seconds, time};
use serde_json::{Value, json};

use super::Metrics;
use super::board::MOST_ROWS;
use super::minute::mean;

impl Metrics {
    /// The current state of the role.
    pub fn status(&self) -> Section {
        Section::new()
            .facts("backlog", self.backlog_facts())
            .facts("last_minute", self.last_minute())
            .facts("since_start", self.since_start())
            .facts("files", self.file_facts())
            .facts(
                "dead_letters",
                vec![
                    ("written", self.report().events.rejected.into()),
                    ("by_reason", json!(counts(&self.events_rejected))),
                ],
            )
            .facts("ledger", self.ledger_facts())
            .facts("transactions", self.transaction_facts())
            .facts("discovery", self.discovery_facts())
            .table("quarantined_files", self.quarantined_table())
            .table("files_with_problems", self.problem_table())
    }

    fn backlog_facts(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("pending_files", self.pending_files.get().into()),
            ("pending_bytes", self.pending_bytes.get().into()),
            ("oldest_pending_seconds", self.oldest_pending_seconds.get().into()),
        ]
    }

    fn last_minute(&self) -> Vec<(&'static str, Value)> {
        let rates = self.board.rates();
        vec![
            ("events_per_second", rates.events_per_second.into()),
            ("read_bytes_per_second", rates.bytes_per_second.into()),
        ]
    }

    fn since_start(&self) -> Vec<(&'static str, Value)> {
        let (events, bytes) = (self.events_published.get(), self.bytes_read.get());
        let seconds = self.board.seconds() + 1;
        vec![
            ("events_published", events.into()),
            ("read_bytes", bytes.into()),
            ("mean_events_per_second", mean(events, seconds).into()),
            ("mean_read_bytes_per_second", mean(bytes, seconds).into()),
        ]
    }

    fn file_facts(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("ingested", self.files_ingested.get().into()),
            ("already_known", self.files_skipped.get().into()),
            ("replaced_while_read", self.files_replaced.get().into()),
            ("in_quarantine", self.quarantined_files().into()),
            ("kept_as_only_copy", self.files_kept.get().into()),
            ("written_to_after_they_were_read", self.late_writes.get().into()),
            ("with_problems", self.board.problems().count().into()),
            ("archive_failures", self.archive_failures.get().into()),
        ]
    }

    fn ledger_facts(&self) -> Vec<(&'static str, Value)> {
        let mut owned: Vec<i32> = counts(&self.owned).keys().filter_map(|label| label.parse().ok()).collect();
        owned.sort_unstable();
        vec![
            ("owned_partitions", owned.len().into()),
            ("of_partitions", self.board.ledger_partitions().into()),
            ("owned_numbers", owned.into()),
            ("files_remembered", counts(&self.ledger_entries).values().sum::<u64>().into()),
            ("takeovers", self.ownerships.get().into()),
        ]
    }

    fn transaction_facts(&self) -> Vec<(&'static str, Value)> {
        let outcomes = counts(&self.transactions);
        let of = |outcome| outcomes.get(outcome).copied().unwrap_or_default();
        vec![
            ("committed", of("committed").into()),
            ("failed", of("failed").into()),
            ("mean_seconds", mean_seconds(&self.transaction_seconds)),
        ]
    }

    fn discovery_facts(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("listing_requests", self.list_requests.get().into()),
            ("listings", json!(counts(&self.sweeps))),
            ("mean_of_whole_ones_seconds", mean_seconds(&self.sweep_seconds)),
            ("hints", json!(counts(&self.hints))),
            ("passed_over", json!(counts(&self.passed_over))),
            ("not_listed", self.unlisted.get().into()),
        ]
    }

    fn quarantined_files(&self) -> u64 {
        counts(&self.quarantined).values().sum()
    }

    fn quarantined_table(&self) -> Table {
        let files = self.board.quarantined();
        Table {
            columns: &["file", "from_byte", "reason", "since"],
            left_out: self.quarantined_files().saturating_sub(files.len() as u64),
            rows: files
                .into_iter()
                .map(|file| vec![file.path.into(), file.from_byte.into(), file.reason.into(), time(file.since_ms)])
                .collect(),
        }
    }

    fn problem_table(&self) -> Table {
        let problems = self.board.problems();
        let (total, listed) = problems.all(MOST_ROWS).map_or((0, Vec::new()), |all| (all.total, all.listed));
        Table {
            columns: &["file", "problem", "error"],
            left_out: total.saturating_sub(listed.len() as u64),
            rows: listed
                .into_iter()
                .map(|problem| vec![problem.file.into(), problem.problem.into(), problem.error.into()])
                .collect(),
        }
    }
}
