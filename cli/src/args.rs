//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::config::parse_duration;
use serde::Serialize;

const ABOUT: &str = "Turns files of JSON events into partitioned Parquet, exactly once.";

const LONG_ABOUT: &str = "\
Turns files of JSON events into partitioned Parquet, exactly once.

Files land in <landing>/pending. The ingestor publishes each event to a log (Apache Kafka, or an embedded one), the \
distributor drops duplicates and writes Parquet to <trusted>/events/domain_event_type=…/year=…/month=…/day=…, and \
finished files move to <landing>/processed/date=….

Every command may be killed and started again at any moment: nothing is lost and nothing is written twice.";

const EXAMPLES: &str = "\
Examples:
  Try it, with nothing but a folder:
    event-distributor generate --events 100000 --out demo/pending
    event-distributor run --once --landing demo --trusted trusted

  The same over Kafka and S3, as two services that may run anywhere:
    event-distributor ingest     --brokers kafka:9092 --landing s3://my-landing
    event-distributor distribute --brokers kafka:9092 --trusted s3://my-trusted

  Every setting, where it comes from, and what it is now:
    event-distributor config print

Exit codes:
  0  done; the report counts what is in quarantine, dead letters and rejected rows
  1  something failed while running, or a file could not be read or moved; everything else is done,
     and the error names what is not: correct the cause and start it again
  2  wrong usage or configuration; nothing was done";

#[derive(Debug, Parser)]
#[command(name = "event-distributor", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Both roles in one process, over an embedded log: no Kafka needed
    Run(RunArgs),
    /// Publish landing files to Kafka, exactly once
    Ingest(IngestArgs),
    /// Write events from Kafka as Parquet, exactly once
    Distribute(DistributeArgs),
    /// Check configuration, log and stores for problems before the roles run, such as a flood of small files
    Check(CheckArgs),
    /// Audit the tables: no missing, repeated or unexpected rows or files. Changes nothing
    Verify(VerifyArgs),
    /// Remove files whose rows are in other files too, and abort abandoned uploads
    Repair(RepairArgs),
    /// Set the distributor's offsets back, so that missing files are restored
    Replay(ReplayArgs),
    /// Write batches again under the current settings
    Rewrite(RewriteArgs),
    /// Merge small files into few large ones, while distributors run
    Compact(CompactArgs),
    /// Delta tables over the files
    Table {
        #[command(subcommand)]
        command: TableCommand,
    },
    /// Print statements that make the tables known to an engine
    Ddl(DdlArgs),
    /// Close a batch that can never be completed, because the log dropped its first records
    Abandon(AbandonArgs),
    /// Generate sample events, the same ones for the same seed
    Generate(GenerateArgs),
    /// List invalid records, and publish them once their cause is corrected
    Dlq {
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

impl Command {
    /// The form of log lines, and of the line that reports why the command failed.
    pub fn log_format(&self) -> LogFormat {
        let common = match self {
            Self::Run(args) => &args.common,
            Self::Ingest(args) => &args.common,
            Self::Distribute(args) => &args.common,
            Self::Check(args) => &args.common,
            Self::Verify(args) => &args.common,
            Self::Repair(args) => &args.common,
            Self::Replay(args) => &args.common,
            Self::Rewrite(args) => &args.common,
            Self::Compact(args) => &args.common,
            Self::Ddl(args) => &args.common,
            Self::Abandon(args) => &args.common,
            Self::Dlq { command: DlqCommand::List(args) } => &args.common,
            Self::Dlq { command: DlqCommand::Replay(args) } => &args.common,
            Self::Table { command: TableCommand::Rebuild(args) } => &args.common,
            Self::Config { command: ConfigCommand::Print(args) } => args,
            Self::Generate(_) => return LogFormat::Text,
        };
        common.log_format
    }
}

/// Whether an invalid command line asks for JSON.
pub fn wants_json_logs(words: impl Iterator<Item = OsString>) -> bool {
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        if word == "--log-format=json" || (word == "--log-format" && words.peek().is_some_and(|next| next == "json")) {
            return true;
        }
    }
    false
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List the dead letters: where each was, why it is not an event, and how it begins
    List(DlqListArgs),
    /// Publish dead letters, exactly once, read under the current configuration
    Replay(DlqReplayArgs),
}

#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Make the Delta tables what the commit logs say, if they were lost, damaged, or changed by another program
    Rebuild(TableRebuildArgs),
}

#[derive(Debug, Args)]
pub struct TableRebuildArgs {
    #[command(flatten)]
    pub log: LogArgs,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct DlqListArgs {
    #[command(flatten)]
    pub log: LogArgs,

    /// Only letters with this reason, such as bad_timestamp
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,

    /// Most letters shown for each reason, 0 for all; JSON output always has all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,

    /// Include letters that a replay has tried again
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct DlqReplayArgs {
    #[command(flatten)]
    pub log: LogArgs,

    /// Only letters with this reason, such as bad_timestamp; the others stay unchanged
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,

    /// Write nothing, only report what would happen
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its value and origin; secrets are masked
    Print(CommonArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    /// The last line of stdout is one JSON object.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct CommonArgs {
    /// TOML file with settings; ED__SECTION__KEY variables and flags take precedence
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set any setting of the file, for example --set flush.max_age=10s; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// How the result is printed on stdout
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,

    /// What is logged on stderr: error, warn, info, debug or trace [default: info; warn on a terminal]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<tracing_subscriber::filter::LevelFilter>,

    /// Form of log lines
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder or s3://bucket/prefix that holds pending/ and processed/
    #[arg(long, value_name = "LOCATION")]
    pub landing: Option<String>,

    /// Folder or s3://bucket/prefix of the tables
    #[arg(long, value_name = "LOCATION")]
    pub trusted: Option<String>,

    /// Folder of the embedded log [default: <trusted>/_log, or .event-distributor/<bucket> for s3]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,

    /// End when everything pending at the start is in the trusted zone
    #[arg(long)]
    pub once: bool,

    /// Retry files that were quarantined before
    #[arg(long)]
    pub retry_quarantined: bool,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct IngestArgs {
    /// Kafka brokers, host:port[,host:port]
    #[arg(long, value_name = "BROKERS")]
    pub brokers: Option<String>,

    /// Folder or s3://bucket/prefix that holds pending/ and processed/
    #[arg(long, value_name = "LOCATION")]
    pub landing: Option<String>,

    /// End when everything pending at the start is published
    #[arg(long)]
    pub once: bool,

    /// Retry files that were quarantined before
    #[arg(long)]
    pub retry_quarantined: bool,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct DistributeArgs {
    /// Kafka brokers, host:port[,host:port]
    #[arg(long, value_name = "BROKERS")]
    pub brokers: Option<String>,

    /// Folder or s3://bucket/prefix of the tables
    #[arg(long, value_name = "LOCATION")]
    pub trusted: Option<String>,

    /// End when caught up with the end of the topic at the start
    #[arg(long)]
    pub once: bool,

    #[command(flatten)]
    pub common: CommonArgs,
}

/// The log, and the trusted zone written from it.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Kafka brokers, host:port[,host:port]; without them the embedded log is used, if there is one. While `run` has it
    /// open, `verify` and `check` do without it, and other commands that need it refuse
    #[arg(long, value_name = "BROKERS")]
    pub brokers: Option<String>,

    /// Folder or s3://bucket/prefix of the tables; `run` keeps its embedded log there
    #[arg(long, value_name = "LOCATION")]
    pub trusted: Option<String>,

    /// Folder of the embedded log, if `run` was given one
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
}

/// An engine that reads the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Athena,
    Bigquery,
    Clickhouse,
    Duckdb,
    Glue,
    Snowflake,
    Spark,
    Trino,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Athena => "Athena",
            Self::Bigquery => "BigQuery",
            Self::Clickhouse => "ClickHouse",
            Self::Duckdb => "DuckDB",
            Self::Glue => "Glue",
            Self::Snowflake => "Snowflake",
            Self::Spark => "Spark",
            Self::Trino => "Trino",
        }
    }

    /// Reads folders of this machine, not only buckets.
    pub fn reads_folders(self) -> bool {
        matches!(self, Self::Clickhouse | Self::Duckdb | Self::Spark)
    }

    /// Computes which folders there may be, instead of listing them.
    pub fn projects(self) -> bool {
        matches!(self, Self::Athena | Self::Glue | Self::Trino)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// The files that it lists, or computes the folders of
    Files,
    /// The Delta table, in which a batch appears as a whole
    Delta,
}

#[derive(Debug, Args)]
pub struct DdlArgs {
    /// The engine
    #[arg(long, value_name = "ENGINE")]
    pub engine: Engine,

    /// Folder or s3://bucket/prefix of the tables
    #[arg(long, value_name = "LOCATION")]
    pub trusted: Option<String>,

    /// What the engine reads
    #[arg(long, value_name = "FORMAT", default_value = "files")]
    pub format: TableFormat,

    /// Name of the table, and the beginning of its views' names
    #[arg(long, value_name = "NAME", default_value = "events")]
    pub name: String,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// earliest, an offset, batch:OFFSET where one begins, a time such as 2026-11-24T08:00:00Z (when the log received
    /// it), or end: where the tables end, for a group whose offset lies beyond
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: String,

    /// Only these partitions of the topic, such as 0,3
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub partitions: Vec<i32>,

    /// Change nothing, only report what would happen
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub log: LogArgs,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct RewriteArgs {
    /// Begin at this batch: earliest, an offset, batch:OFFSET where one begins, or a time such as 2026-11-24T08:00:00Z
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true, default_value = "earliest")]
    pub from: String,

    /// Rewrite even batches that already match the settings
    #[arg(long)]
    pub force: bool,

    /// Refuse to rewrite if the log no longer holds the records of an affected batch
    #[arg(long)]
    pub require_all: bool,

    /// Every distributor is stopped: files are replaced at once. Without it distributors may go on; on S3 each step then
    /// waits for 35 minutes
    #[arg(long)]
    pub offline: bool,

    /// End an interrupted run although a file that it made is lost for good: the file stays missing, old files of it that are
    /// left are deleted, and `rewrite` makes it again if the log has its records
    #[arg(long)]
    pub accept_lost: bool,

    /// Only these partitions of the topic, such as 0,3
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub partitions: Vec<i32>,

    /// Change nothing, only report what would happen
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub log: LogArgs,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Every distributor is stopped: files are replaced at once. Without it distributors may go on; on S3 each step then
    /// waits for 35 minutes
    #[arg(long)]
    pub offline: bool,

    /// End an interrupted run although a file that it made is lost for good: the file stays missing, old files of it that are
    /// left are deleted, and `rewrite` makes it again if the log has its records
    #[arg(long)]
    pub accept_lost: bool,

    /// Only these partitions of the topic, such as 0,3
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub partitions: Vec<i32>,

    /// Change nothing, only report what would happen
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub log: LogArgs,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct AbandonArgs {
    /// Only these partitions of the topic, such as 0,3
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub partitions: Vec<i32>,

    /// Change nothing, only report what would be lost
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub log: LogArgs,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub log: LogArgs,

    /// Folder or s3://bucket/prefix that holds pending/ and processed/
    #[arg(long, value_name = "LOCATION")]
    pub landing: Option<String>,

    /// Different event types [default: as many as the tables have, else 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub types: Option<u64>,

    /// Days covered by the timestamps of one batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub days: u64,

    /// Partitions of the events topic [default: those it has, else those it would be created with]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub partitions: Option<u64>,

    /// Number of distributors that share the partitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub distributors: u64,

    /// Events a second, of all partitions together; without it sizes are unknown, and batches are assumed to reach
    /// their full age
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub events_per_second: Option<u64>,

    /// Size of an event as JSON
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub event_bytes: u64,

    /// Check only the configuration, neither the log nor stores
    #[arg(long)]
    pub offline: bool,

    /// Exit with 1 when there are warnings
    #[arg(long)]
    pub strict: bool,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub log: LogArgs,

    /// Read every row too: no key twice within the window, and exactly the rows of the log's records
    #[arg(long)]
    pub deep: bool,

    /// Unfinished uploads older than this are abandoned; a running distributor may have younger ones
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = parse_duration)]
    pub uploads_older_than: Duration,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(flatten)]
    pub log: LogArgs,

    /// Change nothing, only report what would be removed
    #[arg(long)]
    pub dry_run: bool,

    /// Unfinished uploads older than this are abandoned; a running distributor may have younger ones
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = parse_duration)]
    pub uploads_older_than: Duration,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One object a line
    Ndjson,
    /// Objects in sequence without separators
    Concatenated,
    /// One array a file
    Array,
    /// Objects spread over several lines
    Pretty,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Number of events, duplicates included
    #[arg(long, default_value_t = 1_000)]
    pub events: u64,

    #[arg(long, value_enum, default_value = "ndjson")]
    pub format: Format,

    /// Share of events that repeat an earlier one exactly, from 0 to 0.99
    #[arg(long, default_value_t = 0.02)]
    pub duplicates: f64,

    /// Different event types
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub types: u64,

    /// Days covered by the timestamps, from 2021-01-14 on
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub days: u64,

    /// The same seed and options give the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Folder to write files to, such as demo/pending; without it everything goes to stdout
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Most events in one file
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events_per_file: u64,

    /// How the result is printed (on stderr when the events go to stdout)
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
}
