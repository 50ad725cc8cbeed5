//! What a command prints at its end: one JSON object, or a table and what to do next.

use std::fmt::Write;
use std::time::Duration;

use anyhow::anyhow;
use common::printable::{Printable, push_line};
use common::store::Location;
use distributor::{DistributeError, DistributeReport, Published};
use indicatif::{HumanBytes, HumanCount};
use ingestor::{IngestError, IngestReport, Problem, Quarantined};
use serde::Serialize;

use crate::args::Output;
use crate::print;

/// The JSON contract: a role prints its part.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<IngestReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<DistributeReport>,
    /// Versions of the Delta tables that hold everything that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<Published>,
    /// The errors, one for each role that failed. Omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Files that could not be processed, the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The number of those files.
    #[serde(skip_serializing_if = "is_zero")]
    pub problems_total: u64,
    /// Files in quarantine, the newest hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
}

/// Files in quarantine that are shown as text.
const SHOWN: usize = 20;

/// The zones of the roles that ran.
#[derive(Debug, Clone, Copy)]
pub struct Zones<'a> {
    pub landing: Option<&'a Location>,
    pub trusted: Option<&'a Location>,
    /// The trusted zone has rows to query.
    pub has_tables: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    pub fn ingest_ended(&mut self, outcome: Result<IngestReport, IngestError>) {
        let Err(error) = outcome else { return };
        self.errors.push(error.to_string());
        if let IngestError::Incomplete(problems) = error {
            self.problems_total = problems.total;
            self.problems = problems.listed;
        }
    }

    pub fn distribute_ended(&mut self, outcome: Result<DistributeReport, DistributeError>) {
        self.errors.extend(outcome.err().map(|error| error.to_string()));
    }

    /// Whether the run added rows to `events`.
    pub fn has_written_rows(&self) -> bool {
        self.written.is_some_and(|written| written.rows > 0)
    }

    /// All errors as one, if there are any.
    pub fn failure(&self) -> Option<anyhow::Error> {
        (!self.errors.is_empty()).then(|| anyhow!("{}", self.errors.join("\n")))
    }

    pub fn print(&self, output: Output, took: Duration, zones: Zones) -> anyhow::Result<()> {
        match output {
            Output::Json => print::json(self),
            Output::Text => print::text(&self.text(took, zones)),
        }
    }

    fn text(&self, took: Duration, zones: Zones) -> String {
        let mut rows: Vec<(&str, String)> = Vec::new();
        let count = |number: u64| HumanCount(number).to_string();
        if let Some(report) = &self.ingest {
            rows.push(("files ingested", count(report.files.ingested)));
            rows.push(("files already known", count(report.files.skipped)));
            if report.files.quarantined > 0 {
                rows.push(("files in quarantine", count(report.files.quarantined)));
            }
            if report.files.kept > 0 {
                rows.push(("files kept in pending/", count(report.files.kept)));
            }
            if report.files.passed_over.total() > 0 {
                rows.push(("skipped in pending/", report.files.passed_over.words()));
            }
            rows.push(("events published", count(report.events.published)));
            rows.push(("events rejected (dead-letter topic)", count(report.events.rejected)));
        }
        if let Some(written) = &self.written {
            rows.push(("rows written", count(written.rows)));
            rows.push(("duplicates dropped", count(written.duplicates)));
            rows.push(("rows rejected", count(written.rejected)));
            if written.replaced_surrogates > 0 {
                rows.push(("rows with lone surrogates replaced", count(written.replaced_surrogates)));
            }
            if written.restored_batches > 0 {
                rows.push(("batches whose missing files were restored", count(written.restored_batches)));
            }
            rows.push(("Parquet files", format!("{} ({})", count(written.files), HumanBytes(written.bytes))));
        }
        rows.push(("took", format!("{:.1} s", took.as_secs_f64())));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in rows {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:width$}  {value}");
        }
        // After a failure the next step is to correct it.
        if self.errors.is_empty() {
            text.push_str(&self.next_steps(zones));
        }
        text
    }

    fn next_steps(&self, zones: Zones) -> String {
        let mut text = String::new();
        // A location comes from the configuration, but may contain any text.
        let (landing, trusted) = (zones.landing.map(Printable), zones.trusted.map(Printable));
        let nothing = self
            .ingest
            .is_some_and(|report| report.files.ingested + report.files.skipped + report.files.quarantined == 0);
        if let Some(landing) = landing.filter(|_| nothing) {
            let passed_over = self.ingest.map(|report| report.files.passed_over).unwrap_or_default();
            let nothing = if passed_over.total() == 0 {
                "Nothing is pending".to_owned()
            } else {
                format!(
                    "Nothing that can be ingested is pending, only skipped entries: {}. Only pending and processed \
                     themselves may be links; landing.ignore_prefixes and landing.ignore_suffixes say which names are \
                     ignored",
                    passed_over.words()
                )
            };
            let _ = writeln!(text, "\n{nothing}. Put files of JSON events into {landing}/pending and run this again.");
        }
        if self.ingest.is_some_and(|report| report.files.quarantined > 0) {
            text.push_str("\nFiles in quarantine stay in pending/. Another try, after a fix: --retry-quarantined\n");
            for Quarantined { file, reason, .. } in self.quarantine.iter().take(SHOWN) {
                push_line(&mut text, format_args!("  {file}: {reason}"));
            }
            if self.quarantine.len() > SHOWN {
                let more = self.quarantine.len() - SHOWN;
                push_line(&mut text, format_args!("  … and {more} more or older ones; --output json has a hundred"));
            }
        }
        if self.ingest.is_some_and(|report| report.files.kept > 0) {
            text.push_str(
                "\nFiles that are the only complete copy of some content stay in pending/, whatever landing.archive says; the log names them.\n",
            );
        }
        if self.ingest.is_some_and(|report| report.events.rejected > 0) {
            text.push_str("\nWhat was rejected, and why: event-distributor dlq list (with the same --brokers, --trusted or --data-dir)\n");
        }
        if let Some(trusted) = trusted.filter(|_| zones.has_tables) {
            let _ = writeln!(
                text,
                "\nThe tables are in {trusted}/events. Query them, for example with DuckDB:\n  \
                 duckdb -c \"SELECT domain_event_type, count(*) FROM read_parquet('{trusted}/events/domain_event_type=*/**/*.parquet', hive_partitioning = true) GROUP BY ALL\""
            );
        }
        if let Some(trusted) = trusted.filter(|_| self.written.is_some_and(|written| written.rejected > 0)) {
            let before = if zones.has_tables { "" } else { "\n" };
            let _ = writeln!(
                text,
                "{before}Rejected rows are in {trusted}/rejected, with the reason in the column of that name."
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_only_where_there_are_any() {
        let trusted = Location::Local("t".into());
        let text = |has_tables, rejected| {
            let written = Some(DistributeReport { rejected, ..DistributeReport::default() });
            let zones = Zones { landing: None, trusted: Some(&trusted), has_tables };
            Report { written, ..Report::default() }.text(Duration::ZERO, zones)
        };
        assert!(text(true, 0).contains("The tables are in t/events"));
        let none = text(false, 0);
        assert!(!none.contains("tables") && !none.contains("duckdb"), "{none}");
        let rejected = text(false, 1);
        assert!(rejected.contains("Rejected rows are in t/rejected") && !rejected.contains("t/events"), "{rejected}");
    }
}
