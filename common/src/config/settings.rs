//! The one list of settings. Defaults, refusal of unknown keys, `config print` and the table in docs/configuration.md
//! use it.

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub path: &'static str,
    /// The value as written in the file; empty: not set.
    pub default: &'static str,
    pub help: &'static str,
}

const fn setting(path: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { path, default, help }
}

/// `kafka.client.*` covers every setting of librdkafka.
pub const SETTINGS: &[Setting] = &[
    setting("patience", "60s", "with `--once`: how long to keep trying while Kafka or a store is down, then exit 1"),
    setting("landing.url", "", "folder or `s3://bucket/prefix` that holds `pending/` and `processed/`"),
    setting(
        "landing.archive",
        "",
        "what becomes of a file once it is committed: `move` it to `processed/`, `tag` it (S3), `leave` it or `delete` it; not set: as the landing zone's own `landing.toml` says, else `move`",
    ),
    setting("landing.poll_interval", "5s", "pause between two listings of `pending/`"),
    setting(
        "landing.full_sweep_interval",
        "60s",
        "S3, more than 1,000 pending objects: between whole listings only names near the end of the last one are listed",
    ),
    setting(
        "landing.min_age",
        "2s",
        "local folders: a file must be unchanged this long before it is read; with `--once` by its modification time, and a file that changes meanwhile is skipped",
    ),
    setting(
        "landing.ignore_prefixes",
        "_,.",
        "files whose names begin so are ignored, as is everything in folders whose names do: Spark and Hadoop keep uncommitted output in `_temporary/`. In a local folder names that begin with `.` are always ignored",
    ),
    setting(
        "landing.ignore_suffixes",
        ".tmp,.part,.partial,.filepart,.crdownload,.inprogress,_SUCCESS",
        "files whose names end so are ignored: other programs are still writing them",
    ),
    setting("landing.watch", "true", "local folders: inotify reports new files at once"),
    setting("landing.sqs_queue_url", "", "SQS queue of S3 event notifications: new objects are read at once"),
    setting("landing.parallel_files", "8", "files read at a time, for each ledger partition"),
    setting("landing.max_memory", "24MB", "events read and not yet committed, of the whole process"),
    setting("landing.max_rate", "", "most bytes of events published a second, such as `20MB`; not set: no limit"),
    setting(
        "landing.max_expansion_ratio",
        "1000",
        "a compressed file that grows to more times its size is quarantined, judged once 10 MB came out of it",
    ),
    setting("landing.max_expanded_bytes", "100GB", "a compressed file that grows to more is quarantined"),
    setting(
        "landing.max_published_bytes",
        "100GB",
        "a file whose events and dead letters take more, with their keys and headers, is quarantined from there on",
    ),
    setting("quarantine.max_error_ratio", "0.5", "a file with a larger share of bad events is quarantined"),
    setting("quarantine.min_events", "100", "… judged once this many events, good or bad, were read"),
    setting("quarantine.max_errors", "", "a file with more bad events is quarantined; not set: no limit"),
    setting(
        "format.preset",
        "seed",
        "where an event's fields are: `seed`, `cloudtrail`, `cloudevents`, `eventbridge`, `gharchive` or `segment`",
    ),
    setting(
        "format.event_id",
        "",
        "instead of the preset's: a JSON pointer such as `/meta/id`, or `template:{/source}#{/id}`",
    ),
    setting("format.timestamp", "", "instead of the preset's: a JSON pointer, or a template"),
    setting("format.domain", "", "instead of the preset's: a JSON pointer, a template, or `const:text`"),
    setting("format.event_type", "", "instead of the preset's: a JSON pointer, a template, or `const:text`"),
    setting("format.data", "", "instead of the preset's: a JSON pointer, or `whole` for the whole record"),
    setting(
        "format.records",
        "",
        "instead of the preset's: JSON pointer of the array that holds the events in wrapper objects, such as `/Records`; `none`: events are not wrapped",
    ),
    setting(
        "format.timestamp_format",
        "rfc3339",
        "`rfc3339` (and other unambiguous spellings), `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns`, or a pattern such as `%Y/%m/%d %H:%M:%S %z`",
    ),
    setting("format.timezone", "UTC", "IANA zone of timestamps that carry none"),
    setting(
        "format.lone_surrogates",
        "replace",
        "half of a surrogate pair in `data`, which makes queries fail: `replace` it by `\\ufffd`, `reject` the event, or `keep` it",
    ),
    setting("format.max_depth", "128", "arrays and objects within each other that an event may have, 1 to 1024"),
    setting("format.max_event_bytes", "1MB", "a larger event goes to the dead-letter topic"),
    setting("log.events_topic", "events", "topic of events; `<name>.dlq` and `<name>.ledger` go with it"),
    setting(
        "log.partitions",
        "",
        "partitions of the events topic when it is created; not set: 4 on Kafka, 1 in the embedded log",
    ),
    setting("log.retention", "7d", "embedded log: how long records stay after they are in the trusted zone"),
    setting(
        "log.data_dir",
        "",
        "folder of the embedded log (`--data-dir`); not set: `_log` in a local trusted zone, else `.event-distributor/<bucket>/<prefix>` in the working directory",
    ),
    setting(
        "ledger.partitions",
        "",
        "partitions of the ledger when it is created, the most ingestors that can share the work; not set: 8 on Kafka, 1 in the embedded log",
    ),
    setting("ledger.retain", "30d", "how long files no longer in `pending/` are remembered"),
    setting("dlq.max_bytes", "64KiB", "how much of a bad event the dead-letter topic keeps"),
    setting("kafka.brokers", "", "`host:port[,host:port]`; `run` has none and refuses it"),
    setting("kafka.group", "event-distributor", "consumer group of the distributor"),
    setting("kafka.instance_id", "", "static membership: a stable name of this member"),
    setting(
        "kafka.client.*",
        "",
        "any librdkafka setting, such as `security.protocol` or `sasl.username`; some are reserved",
    ),
    setting(
        "dedup.window",
        "24h",
        "how far back, in log time, an equal (event_id, timestamp) is a duplicate; at most 10y, 0s: nothing is one",
    ),
    setting(
        "dedup.max_memory",
        "64MB",
        "memory of the keys within the window, for all partitions of the process; further ones go to `scratch.dir`",
    ),
    setting("flush.max_age", "30s", "a batch is written when its first event is this old"),
    setting(
        "flush.ages",
        "",
        "shorter ages for certain types, such as `alerts-*=10s,*-failed=1m`: a batch is written when its first event of such a type is this old; the first pattern that fits `domain-event_type` decides",
    ),
    setting("flush.max_bytes", "128MB", "… or when its files are about this large together"),
    setting("flush.max_rows", "1000000", "… or at this many events"),
    setting(
        "flush.max_files",
        "10000",
        "… or when the next event would begin one more file: a batch has a file for each event type and day in it",
    ),
    setting(
        "flush.max_memory",
        "32MB",
        "memory of all open batches of the process; past it rows go to `scratch.dir`, and batches are written whose keys alone take too much",
    ),
    setting(
        "flush.warn_files_per_day",
        "50000",
        "`check` warns of a configuration that makes more Parquet files a day",
    ),
    setting(
        "replay.missing",
        "restore",
        "missing files when offsets are set back: `restore` writes them again, `report` only reports them",
    ),
    setting(
        "compact.target_size",
        "128MB",
        "small files are merged into ones of at most this many bytes; those of three quarters of it stay",
    ),
    setting(
        "compact.rest",
        "2h",
        "… all small ones of a folder whose newest batch is this old; before, only where the result is many times as large",
    ),
    setting(
        "compact.every",
        "0s",
        "a distributor merges small files of its partitions so often, such as `10m`; `0s`: only the command `compact` does",
    ),
    setting("compact.max_rate", "32MB", "most bytes of small files that a distributor reads a second to merge them"),
    setting("table.format", "delta", "`delta`: Delta tables are kept over the files; `none`: only the files"),
    setting("table.every", "5s", "distributors publish what was written to the tables so often"),
    setting(
        "table.retain",
        "10s",
        "files that were replaced are kept this long for readers of older versions of the tables",
    ),
    setting("trusted.url", "", "folder or `s3://bucket/prefix` of the tables"),
    setting("trusted.compression", "zstd", "`zstd` or `snappy`"),
    setting("trusted.bloom_filter", "false", "write a Bloom filter for event_id"),
    setting("trusted.max_types", "1000", "event types one batch may hold; rows of further ones are rejected"),
    setting("trusted.min_year", "1970", "rows of earlier years are rejected"),
    setting("trusted.max_year", "2100", "rows of later years are rejected"),
    setting("trusted.max_rows_per_file", "1000000", "a larger file is continued in a further one"),
    setting(
        "columns.*",
        "",
        "columns of their own for values inside `data`: `[[columns]]` with `name`, `pointer`, `type` and `events`",
    ),
    setting(
        "scratch.dir",
        "",
        "folder on local disk for what does not fit in memory; not set: the system's temporary folder",
    ),
    setting(
        "http.listen",
        "",
        "address such as `0.0.0.0:8080` for a status page at /, /status, /livez, /readyz and /metrics; not set: not served",
    ),
];

/// The setting that `path` names, with `kafka.client.<any>` under its wildcard.
pub(super) fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| match setting.path.strip_suffix(".*") {
        Some(section) => path.strip_prefix(section).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')),
        None => setting.path == path,
    })
}

/// The known path closest to a misspelt one, if any is close.
pub(super) fn nearest(path: &str) -> Option<&'static str> {
    let key = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    SETTINGS
        .iter()
        .map(|setting| (distance(path, setting.path).min(2 + distance(&key(path), &key(setting.path))), setting.path))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, path)| path)
}

/// Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
