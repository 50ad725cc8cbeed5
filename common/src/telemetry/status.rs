//! The status of a role for people: as JSON at `/status`, as a page at `/`.
//!
//! Roles register sections as closures, which are called at each request. Everything in a section may be foreign (file
//! names, messages of stores), so the page escapes all of it.
//!
//! The unit in a fact's name determines how the page shows it: `_bytes`, `_seconds`, `_per_second`,
//! `_bytes_per_second`.

mod page;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::Histogram;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use serde_json::{Map, Value};

use super::Health;

/// The status of one role, in reading order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    parts: Vec<(&'static str, Part)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Facts(Vec<(&'static str, Value)>),
    Table(Table),
}

/// Rows of cells under columns. It may leave rows out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Value>>,
    /// The number of rows left out.
    pub left_out: u64,
}

impl Section {
    pub fn new() -> Self {
        Self::default()
    }

    /// Related facts. A value may be an object of counts, such as by reason.
    #[must_use]
    pub fn facts(mut self, title: &'static str, facts: Vec<(&'static str, Value)>) -> Self {
        self.parts.push((title, Part::Facts(facts)));
        self
    }

    #[must_use]
    pub fn table(mut self, title: &'static str, table: Table) -> Self {
        self.parts.push((title, Part::Table(table)));
        self
    }

    fn json(&self) -> Value {
        let parts = self.parts.iter().map(|(title, part)| {
            let value = match part {
                Part::Facts(facts) => facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
                Part::Table(table) => table.json(),
            };
            ((*title).to_owned(), value)
        });
        Value::Object(parts.collect())
    }
}

impl Table {
    fn json(&self) -> Value {
        let row = |cells: &Vec<Value>| -> Value {
            self.columns.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect()
        };
        self.rows.iter().map(row).collect()
    }
}

/// A time in RFC 3339, UTC, to the second; null if no calendar has it.
pub fn time(unix_ms: i64) -> Value {
    match jiff::Timestamp::from_second(unix_ms.div_euclid(1_000)) {
        Ok(timestamp) => timestamp.to_string().into(),
        Err(_) => Value::Null,
    }
}

/// Values of counters or gauges with one label, by its value.
pub fn counts(metric: &impl Collector) -> BTreeMap<String, u64> {
    let first = |metric: &Metric| metric.get_label().first().map(|label| label.value().to_owned()).unwrap_or_default();
    metrics(metric).iter().map(|metric| (first(metric), value(metric))).collect()
}

/// Values of counters or gauges, by the values of these labels; a missing label is empty.
pub fn counts_by(metric: &impl Collector, labels: &[&str]) -> BTreeMap<Vec<String>, u64> {
    let value_of = |metric: &Metric, name: &str| {
        let label = metric.get_label().iter().find(|label| label.name() == name);
        label.map(|label| label.value().to_owned()).unwrap_or_default()
    };
    let all = |metric: &Metric| labels.iter().map(|name| value_of(metric, name)).collect();
    metrics(metric).iter().map(|metric| (all(metric), value(metric))).collect()
}

/// The mean of the observations, in seconds; null if there are none.
pub fn mean_seconds(histogram: &Histogram) -> Value {
    match histogram.get_sample_count() {
        0 => Value::Null,
        #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
        count => (histogram.get_sample_sum() / count as f64).into(),
    }
}

fn metrics(metric: &impl Collector) -> Vec<Metric> {
    metric.collect().into_iter().flat_map(|family| family.get_metric().to_vec()).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts; saturates")]
fn value(metric: &Metric) -> u64 {
    (metric.get_counter().get_value() + metric.get_gauge().get_value()) as u64
}

type Source = Arc<dyn Fn() -> Section + Send + Sync>;

/// The status of a process and the sections of its roles. Clones share them.
#[derive(Clone)]
pub struct Status {
    version: &'static str,
    begun: Instant,
    health: Health,
    sections: Arc<Mutex<Vec<(&'static str, Source)>>>,
}

impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.lock().iter().map(|(name, _)| *name).collect();
        formatter.debug_struct("Status").field("version", &self.version).field("sections", &names).finish()
    }
}

impl Status {
    /// The status of a process of this version that has just started.
    pub fn new(version: &'static str, health: Health) -> Self {
        Self { version, begun: Instant::now(), health, sections: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, Source)>> {
        self.sections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a role. Its closure is called at each request and must not wait for anything.
    pub fn register(&self, name: &'static str, section: impl Fn() -> Section + Send + Sync + 'static) {
        self.lock().push((name, Arc::new(section)));
    }

    /// The whole status as one object: `process`, and one member for each role.
    pub fn json(&self) -> Value {
        let now = self.ask();
        let process = serde_json::json!({
            "version": now.version,
            "uptime_seconds": now.uptime_seconds,
            "ready": now.problems.is_empty(),
            "problems": now.problems,
        });
        let mut all = Map::from_iter([("process".to_owned(), process)]);
        all.extend(now.sections.iter().map(|(name, section)| ((*name).to_owned(), section.json())));
        Value::Object(all)
    }

    /// The whole status as one HTML page, which loads nothing and reloads itself every few seconds.
    pub fn page(&self) -> String {
        page::render(&self.ask())
    }

    fn ask(&self) -> Snapshot {
        // Not under the lock: a closure belongs to the role.
        let sections = self.lock().clone();
        Snapshot {
            version: self.version,
            uptime_seconds: self.begun.elapsed().as_secs(),
            problems: self.health.problems(),
            sections: sections.into_iter().map(|(name, section)| (name, section())).collect(),
        }
    }
}

/// The status at one moment.
#[derive(Debug)]
struct Snapshot {
    version: &'static str,
    uptime_seconds: u64,
    problems: BTreeMap<String, String>,
    sections: Vec<(&'static str, Section)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_process_and_a_member_for_each_role() {
        let health = Health::default();
        let status = Status::new("1.2.3", health.clone());
        status.register("ingestor", || {
            Section::new().facts("files", vec![("ingested", 7.into())]).table(
                "quarantined_files",
                Table {
                    columns: &["path", "from_byte"],
                    rows: vec![vec!["a".into(), 5.into()], vec!["b".into(), Value::Null]],
                    left_out: 3,
                },
            )
        });
        health.not_ready("ingestor", "waiting");
        let json = status.json();
        assert_eq!(json["process"]["ready"], false);
        assert_eq!(json["process"]["problems"]["ingestor"], "waiting");
        assert_eq!(json["process"]["version"], "1.2.3");
        let expected = serde_json::json!({
            "files": {"ingested": 7},
            "quarantined_files": [{"path": "a", "from_byte": 5}, {"path": "b", "from_byte": null}],
        });
        assert_eq!(json["ingestor"], expected);
    }

    #[test]
    fn sections_are_asked_at_each_request() {
        let status = Status::new("1", Health::default());
        let asked = std::sync::atomic::AtomicU64::new(0);
        status.register("role", move || {
            let times = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Section::new().facts("now", vec![("times", times.into())])
        });
        assert_eq!(
            (status.json()["role"]["now"]["times"].as_u64(), status.json()["role"]["now"]["times"].as_u64()),
            (Some(0), Some(1))
        );
    }

    #[test]
    fn times_are_shown_in_utc_and_impossible_ones_are_null() {
        assert_eq!(time(1_610_619_330_999), "2021-01-14T10:15:30Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time(i64::MAX), Value::Null);
    }
}
