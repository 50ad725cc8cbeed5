//! The number and size of Parquet files a day under a configuration: pure arithmetic.
//!
//! A batch writes a file for each event type and day among its rows, and each partition has batches of its own. Files a
//! day = partitions x batches a day x files a batch. The limit that closes batches decides their number.

use std::time::Duration;

use distributor::{CloseFacts, CloseLimits, CloseReason, close_reason};
use serde::Serialize;

use super::report::whole;

/// After so many an interval of a day is shorter than a nanosecond.
const HALVINGS: usize = 64;
const SECONDS_A_DAY: f64 = 86_400.0;
/// The size of a file without rows (schema, footer), measured with sample events: docs/small-files.md.
const FILE_BASE_BYTES: f64 = 3_300.0;
/// Encoded bytes for each byte of JSON, also measured with zstd.
const ENCODED_RATIO: f64 = 0.13;
/// Memory of a row in an open batch whose rows are on local disk: its key. Also measured.
const KEY_BYTES: f64 = 27.0;
/// The share of a batch's memory at which it is written: docs/small-files.md.
const KEYS_SHARE: f64 = 0.5;

/// The assumed input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Input {
    pub types: u64,
    /// Days covered by the timestamps of one batch.
    pub days: u64,
    pub partitions: u64,
    /// Processes that share the partitions.
    pub distributors: u64,
    /// Over all partitions; `None`: enough for every batch to contain every type, and not enough to fill one.
    pub events_per_second: Option<f64>,
    /// The size of an event as JSON.
    pub event_bytes: u64,
}

/// The limits that close a batch.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_age: Duration,
    pub max_rows: u64,
    pub max_files: u64,
    pub max_bytes: u64,
    pub max_memory: u64,
    pub max_rows_per_file: u64,
    /// `compact.target_size`.
    pub target_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    pub partitions: u64,
    pub types: u64,
    pub days: u64,
    /// The time from one batch of a partition to the next.
    pub batch_seconds: f64,
    pub closed_by: CloseReason,
    /// Of all partitions together.
    pub batches_a_day: f64,
    pub files_a_day: f64,
    /// What is left of them once they are merged.
    pub files_a_day_merged: f64,
    /// Known if the rate of events is.
    pub rows_a_file: Option<f64>,
    pub file_bytes: Option<f64>,
}

pub fn forecast(input: &Input, limits: &Limits) -> Forecast {
    let (partitions, buckets) = (float(input.partitions), buckets(input));
    let age = limits.max_age.as_secs_f64();
    let estimate = |batch_seconds: f64, closed_by, files_a_batch: f64, rows_a_batch: Option<f64>| {
        let batches_a_day = partitions * SECONDS_A_DAY / batch_seconds;
        let rows_a_file = rows_a_batch.map(|rows| rows / files_a_batch);
        let files_a_day = batches_a_day * files_a_batch;
        let file_bytes = rows_a_file.map(|rows| FILE_BASE_BYTES + rows * float(input.event_bytes) * ENCODED_RATIO);
        Forecast {
            partitions: input.partitions,
            types: input.types,
            days: input.days,
            batch_seconds,
            closed_by,
            batches_a_day,
            files_a_day,
            files_a_day_merged: merged(files_a_day, file_bytes, partitions * buckets, limits),
            rows_a_file,
            file_bytes,
        }
    };
    let Some(rate) = input.events_per_second else { return estimate(age, CloseReason::Age, buckets, None) };
    let rate = rate / partitions;
    let (batch_seconds, closed_by) = closed_after(input, limits, rate);
    let rows = (rate * batch_seconds).max(1.0);
    let files = distinct(buckets, rows).max(rows / float(limits.max_rows_per_file));
    estimate(batch_seconds, closed_by, files, Some(rows))
}

/// Files of a day once they are merged: one of each folder and partition, or as many as its bytes make large ones.
fn merged(files: f64, file_bytes: Option<f64>, folders: f64, limits: &Limits) -> f64 {
    let folder_bytes = file_bytes.map_or(0.0, |bytes| files * bytes / folders);
    // A file of three quarters of the target is large enough.
    let large = folder_bytes / (float(limits.target_bytes) * 0.75);
    files.min(folders * large.max(1.0))
}

/// The first of some common ages that causes at most `files_a_day` files.
pub fn age_for(input: &Input, limits: &Limits, files_a_day: u64) -> Option<&'static str> {
    const AGES: [(u64, &str); 11] = [
        (60, "1m"),
        (120, "2m"),
        (300, "5m"),
        (600, "10m"),
        (900, "15m"),
        (1_800, "30m"),
        (3_600, "1h"),
        (7_200, "2h"),
        (21_600, "6h"),
        (43_200, "12h"),
        (86_400, "24h"),
    ];
    let suffices = |seconds| {
        let estimate = forecast(input, &Limits { max_age: Duration::from_secs(seconds), ..*limits });
        estimate.files_a_day <= float(files_a_day)
    };
    AGES.into_iter().find(|(seconds, _)| suffices(*seconds)).map(|(_, name)| name)
}

/// The `flush.max_memory` that lets batches reach their full age; `None` if the rate is unknown.
pub fn memory_for_age(input: &Input, limits: &Limits) -> Option<f64> {
    let rows = input.events_per_second? / float(input.partitions) * limits.max_age.as_secs_f64();
    Some(rows * KEY_BYTES / KEYS_SHARE * share_of_the_largest(input))
}

/// How long a batch is open with so many events a second, and why it is closed then.
fn closed_after(input: &Input, limits: &Limits, rate: f64) -> (f64, CloseReason) {
    // A batch begins with its first event.
    let age = limits.max_age.as_secs_f64() + 1.0 / rate;
    let by_memory = float(limits.max_memory) / share_of_the_largest(input) * KEYS_SHARE / KEY_BYTES;
    let reason = |seconds: f64| {
        let rows = rate * seconds;
        let facts = CloseFacts {
            rows: whole(rows.max(1.0)),
            bytes: whole(rows * float(input.event_bytes) * ENCODED_RATIO),
            is_file_too_many: distinct(buckets(input), rows) > float(limits.max_files),
            is_old: seconds >= age,
            is_short_of_memory: rows >= by_memory,
            ..CloseFacts::default()
        };
        close_reason(&CloseLimits { rows: limits.max_rows, bytes: limits.max_bytes }, &facts)
    };
    // Bisected: once it has to be closed, it stays so.
    let (mut open, mut closed) = (0.0, age);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(open, closed);
        if reason(middle).is_some() { closed = middle } else { open = middle }
    }
    (closed, reason(closed).unwrap_or(CloseReason::Age))
}

/// All open batches of a process in units of the largest, which is written first: the others have all sizes up to it,
/// and half of it on average.
fn share_of_the_largest(input: &Input) -> f64 {
    f64::midpoint((float(input.partitions) / float(input.distributors)).max(1.0), 1.0)
}

/// Files of a batch that contains every type on every day.
fn buckets(input: &Input) -> f64 {
    float(input.types) * float(input.days)
}

/// The expected number of `buckets` that contain at least one of `rows` evenly distributed rows.
fn distinct(buckets: f64, rows: f64) -> f64 {
    // 1 - (1 - 1/b)^n, in a form that keeps its digits for many buckets.
    buckets * -(rows * (-1.0 / buckets).ln_1p()).exp_m1()
}

#[allow(clippy::cast_precision_loss, reason = "an estimate")]
pub fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Input =
        Input { types: 12, days: 1, partitions: 4, distributors: 1, events_per_second: None, event_bytes: 300 };
    const LIMITS: Limits = Limits {
        max_age: Duration::from_secs(30),
        max_rows: 1_000_000,
        max_files: 10_000,
        max_bytes: 128_000_000,
        max_memory: 32_000_000,
        max_rows_per_file: 1_000_000,
        target_bytes: 128_000_000,
    };

    fn at(rate: f64) -> Input {
        Input { events_per_second: Some(rate), ..INPUT }
    }

    fn is_about(left: f64, right: f64) -> bool {
        (left / right - 1.0).abs() < 0.01
    }

    #[test]
    fn a_batch_of_many_types_and_days_is_closed_by_its_files() {
        let backfill = Input { types: 1_000, days: 90, ..at(100_000.0) };
        let estimate = forecast(&backfill, &LIMITS);
        assert_eq!(estimate.closed_by, CloseReason::Files);
        // Nearly every row is the first of its file.
        assert!(estimate.rows_a_file.is_some_and(|rows| (1.0..1.1).contains(&rows)), "{estimate:?}");
        let wider = forecast(&backfill, &Limits { max_files: 90_000, ..LIMITS });
        assert!(wider.closed_by != CloseReason::Files && wider.files_a_day < estimate.files_a_day, "{wider:?}");
    }

    #[test]
    fn without_a_rate_every_batch_is_of_full_age_and_holds_every_type_and_day() {
        let estimate = forecast(&Input { days: 2, ..INPUT }, &LIMITS);
        assert!(is_about(estimate.files_a_day, 4.0 * 12.0 * 2.0 * 2_880.0), "{estimate:?}");
        assert_eq!((estimate.closed_by, estimate.rows_a_file), (CloseReason::Age, None));
    }

    #[test]
    fn merged_files_are_one_of_each_folder_or_as_large_as_wanted() {
        let estimate = forecast(&INPUT, &LIMITS);
        assert!(is_about(estimate.files_a_day_merged, 48.0), "{estimate:?}");
        let estimate = forecast(&at(10_000.0), &LIMITS);
        let bytes = estimate.files_a_day * estimate.file_bytes.unwrap();
        assert!(is_about(estimate.files_a_day_merged, bytes / 96_000_000.0), "{estimate:?}");
        let rare = forecast(&at(0.0001), &LIMITS);
        assert!(is_about(rare.files_a_day_merged, rare.files_a_day), "there are not even so many: {rare:?}");
    }

    #[test]
    fn files_a_day_fall_as_the_age_rises() {
        let files =
            |seconds| forecast(&at(500.0), &Limits { max_age: Duration::from_secs(seconds), ..LIMITS }).files_a_day;
        assert!(is_about(files(30), 138_240.0) && is_about(files(300), 13_824.0), "{} {}", files(30), files(300));
    }

    #[test]
    fn few_events_make_fewer_batches_and_not_every_type_is_in_each() {
        // One event in each partition every 100 s: each is a batch of its own, 130 s after the previous one.
        let estimate = forecast(&at(0.04), &LIMITS);
        assert!(is_about(estimate.batch_seconds, 130.0), "{estimate:?}");
        assert!(
            estimate.files_a_day > estimate.batches_a_day && estimate.files_a_day < 0.04 * SECONDS_A_DAY,
            "{estimate:?}"
        );
        // 7,500 events over 100,000 types.
        let estimate = forecast(&Input { types: 100_000, ..at(1_000.0) }, &LIMITS);
        assert!(is_about(estimate.files_a_day / estimate.batches_a_day, 7_226.0), "{estimate:?}");
    }

    #[test]
    fn many_events_fill_a_batch_before_it_is_old() {
        let estimate = forecast(&at(100_000.0), &LIMITS);
        assert_eq!(estimate.closed_by, CloseReason::Memory);
        let rows = estimate.batch_seconds * 25_000.0;
        assert!(is_about(rows, 32_000_000.0 / 2.5 / 2.0 / 27.0), "{estimate:?}");
        let roomy = Limits { max_memory: 64_000_000_000, ..LIMITS };
        assert_eq!(forecast(&at(1_000_000.0), &roomy).closed_by, CloseReason::Rows);
        assert_eq!(forecast(&at(1_000_000.0), &Limits { max_rows: 10_000_000, ..roomy }).closed_by, CloseReason::Bytes);
        // Each has memory of its own.
        let shared = forecast(&Input { distributors: 4, ..at(100_000.0) }, &LIMITS);
        assert!(is_about(shared.batch_seconds, 2.5 * estimate.batch_seconds), "{shared:?}");
    }

    #[test]
    fn the_suggested_settings_suffice() {
        assert_eq!(age_for(&INPUT, &LIMITS, 50_000), Some("2m"));
        // A batch contains more types the older it gets.
        assert_eq!(age_for(&Input { types: 10_000, ..at(1.0) }, &LIMITS, 50_000), Some("24h"));
        assert_eq!(age_for(&Input { types: 100_000, ..INPUT }, &LIMITS, 50_000), None);
        let memory = memory_for_age(&at(100_000.0), &LIMITS).unwrap_or_default();
        let larger = |share: f64| Limits { max_memory: whole(memory * share), max_rows: 10_000_000, ..LIMITS };
        assert_eq!(forecast(&at(100_000.0), &larger(0.99)).closed_by, CloseReason::Memory);
        assert_eq!(forecast(&at(100_000.0), &larger(1.01)).closed_by, CloseReason::Age);
    }

    /// 97,951 rows of sample events (291 bytes) in one file took 3,699,939 bytes; 98 took 6,796.
    #[test]
    fn sizes_are_those_that_were_measured() {
        for (rows, bytes) in [(97_951, 3_699_939.0), (98, 6_796.0)] {
            let one_batch = Limits { max_rows: rows, ..LIMITS };
            let input = Input { types: 1, partitions: 1, event_bytes: 291, ..at(1e9) };
            let estimate = forecast(&input, &one_batch);
            let size = estimate.file_bytes.unwrap_or_default();
            assert!((size / bytes - 1.0).abs() < 0.05, "{size} for {bytes}: {estimate:?}");
        }
    }

    /// Batches of sample events in one partition, as `flush.max_memory` closed them.
    #[test]
    fn memory_closes_batches_about_where_it_was_measured() {
        for (types, max_memory, rows) in [
            (12, 8_000_000, 166_000.0),
            (12, 32_000_000, 607_817.0),
            (1_000, 8_000_000, 140_000.0),
            (1_000, 32_000_000, 608_105.0),
        ] {
            let input = Input { types, partitions: 1, event_bytes: 291, ..at(1e6) };
            let estimate = forecast(&input, &Limits { max_memory, ..LIMITS });
            assert_eq!(estimate.closed_by, CloseReason::Memory);
            let predicted = estimate.batch_seconds * 1e6;
            assert!((predicted / rows - 1.0).abs() < 0.2, "{predicted} instead of {rows}");
        }
    }

    #[test]
    fn a_file_holds_no_more_rows_than_it_may() {
        let estimate = forecast(&Input { types: 1, ..at(100_000.0) }, &Limits { max_rows_per_file: 10_000, ..LIMITS });
        assert!(is_about(estimate.rows_a_file.unwrap_or_default(), 10_000.0), "{estimate:?}");
    }
}
