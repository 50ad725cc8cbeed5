//! Each kind of store fault on each kind of call, for as long as an outage lasts: the role goes on trying, says that it
//! is not ready and why, and when the store works again is ready and has lost nothing, with nobody's help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::shutdown::Shutdown;
use common::store::StoreErrorKind;
use common::telemetry::Registry;
use prometheus::{Encoder, TextEncoder};
use tokio::time::Instant;

use super::chance::{Chance, Fate, Life};
use super::log::{LogOf, MemoryLog};
use super::model::Event;
use super::store::{MemoryStore, Script, StoreOf};
use super::{on_virtual_time, reckoning, roles};
use crate::{DistributeReport, Distributor, EndOfInput, Metrics};

const OUTAGE: Duration = Duration::from_secs(90);
/// For the back-off to come to its end, and the retry budget to serve all that wait.
const RECOVERY: Duration = Duration::from_secs(60);

/// Operation, what its key holds, and whether it changes anything.
const CALLS: [(&str, &str, bool); 13] = [
    ("list", "/log/", false),
    ("get", "/log/", false),
    ("get", "root.json", false),
    ("get", ".run", false),
    ("get (body)", "/log/", false),
    ("get (body)", ".run", false),
    ("head", ".parquet", false),
    ("put", "/log/", true),
    ("put", ".run", true),
    ("put", ".parquet", true),
    ("multipart put", ".parquet", false),
    ("put part", ".parquet", false),
    ("complete", ".parquet", true),
];

/// A trusted zone with something of everything left to do: a batch that is complete, one that lost a file, and records
/// that nothing was written of, in a partition with a chain and in one without.
struct Zone {
    store: Arc<MemoryStore>,
    log: Arc<MemoryLog>,
}

impl Zone {
    async fn new() -> Self {
        let chance = Arc::new(Chance::new(0));
        chance.calm();
        let store = Arc::new(MemoryStore::new(chance.clone(), None));
        let zone = Self { store, log: Arc::new(MemoryLog::new(chance, 2, true, None)) };
        zone.append(0, 20);
        let once = zone.distributor(None, true).0;
        once.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
        let lost = reckoning::files(&zone.store).into_iter().find(|path| path.contains("events-0-8-")).unwrap();
        zone.store.remove(&lost);
        zone.log.commit(0, 0);
        zone.append(0, 10);
        zone.append(1, 10);
        zone
    }

    fn append(&self, partition: i32, count: u64) {
        for number in 0..count {
            let event = Event {
                event_id: format!("e{}", number % 17),
                timestamp: "2021-01-14T10:15:30".into(),
                domain: "d".into(),
                event_type: if number % 2 == 0 { "s" } else { "t" }.into(),
                data: number,
            };
            let append_ms = super::chance::MONTH_MS + i64::try_from(number).unwrap();
            self.log.append(partition, 0, append_ms, &serde_json::to_string(&event).unwrap());
        }
        // Not an event, and too long for a file that goes up in one piece.
        self.log.append(partition, 0, super::chance::MONTH_MS, &noise(40_000));
    }

    fn distributor(&self, script: Option<Script>, once: bool) -> (Distributor, Registry) {
        let life = Arc::new(Life::new("a".to_owned()));
        let store = StoreOf { memory: self.store.clone(), life: life.clone(), script, is_resting: false };
        let log = LogOf { memory: self.log.clone(), life, member: 0 };
        let registry = Registry::new();
        let mut distributor = roles::distributor(store, log, roles::settings(once));
        distributor.metrics = Arc::new(Metrics::new(&registry).unwrap());
        (distributor, registry)
    }
}

/// Text that does not compress.
fn noise(length: u64) -> String {
    let mut random = super::random::Random::new(length);
    (0..length).map(|_| char::from(b' ' + u8::try_from(random.below(90)).unwrap())).collect()
}

/// A fault that lasts until it is mended.
struct Fault {
    operation: &'static str,
    key_holds: &'static str,
    fate: Fate,
    kind: StoreErrorKind,
    lasts: AtomicBool,
    hits: AtomicU64,
}

impl Fault {
    fn script(self: &Arc<Self>) -> Script {
        let fault = self.clone();
        Arc::new(move |operation, key| {
            let is_hit = operation == fault.operation && key.contains(fault.key_holds);
            (is_hit && fault.lasts.load(Ordering::SeqCst)).then(|| {
                fault.hits.fetch_add(1, Ordering::SeqCst);
                (fault.fate, fault.kind)
            })
        })
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + RECOVERY;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn failures(registry: &Registry, kind: &str) -> u64 {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
    let name = format!("ed_distribute_store_errors_total{{kind=\"{kind}\"}} ");
    let text = String::from_utf8(text).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

/// What the role reports in the end, and how often the fault was met.
async fn endure(fault: &Arc<Fault>, kind: &str) -> (DistributeReport, u64) {
    let zone = Zone::new().await;
    let (distributor, registry) = zone.distributor(Some(fault.script()), false);
    let (end, health) = (EndOfInput::later(), distributor.health.clone());
    let announced = end.clone();
    let role = tokio::task::spawn_local(async move { distributor.run(&announced, &Shutdown::new()).await });
    let begun = Instant::now();
    while begun.elapsed() < OUTAGE {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!role.is_finished(), "it gave up");
        let is_told = health.problems().values().any(|problem| problem.contains("says the simulation"));
        if begun.elapsed() > OUTAGE / 3 {
            assert!(is_told, "{:?} after {:?}", health.problems(), begun.elapsed());
        }
    }
    let hits = fault.hits.load(Ordering::SeqCst);
    assert!(hits > 0, "the fault is not met");
    fault.lasts.store(false, Ordering::SeqCst);
    wait_until("it is ready again", || health.problems().is_empty()).await;
    end.announce();
    let report = tokio::time::timeout(RECOVERY, role).await.expect("it ends").unwrap().unwrap();
    reckoning::compare(&zone.store, &zone.log, &[]).unwrap();
    reckoning::audit(&zone.store, &zone.log).await.unwrap();
    // A collection that gives up hears of the first of its requests that fail side by side.
    let unheard = 16;
    let counted = failures(&registry, kind);
    assert!((hits.saturating_sub(unheard)..=hits).contains(&counted), "each failure counts: {counted} of {hits}");
    (report, hits)
}

#[test]
fn whatever_fails_the_role_says_so_and_recovers_by_itself() {
    let kinds = [
        (StoreErrorKind::Transient, "transient"),
        (StoreErrorKind::Denied, "denied"),
        (StoreErrorKind::NoSuchStore, "no_such_store"),
    ];
    let late = Fate::Late(Duration::from_secs(20));
    for (operation, key_holds, changes) in CALLS {
        for fate in [Fate::Fails, Fate::AnswerLost, late] {
            for (kind, name) in kinds {
                if fate != Fate::Fails && (!changes || kind != StoreErrorKind::Transient) {
                    continue;
                }
                println!("{operation} of *{key_holds}*: {fate:?}, {kind:?}");
                let (lasts, hits) = (AtomicBool::new(true), AtomicU64::new(0));
                let fault = Arc::new(Fault { operation, key_holds, fate, kind, lasts, hits });
                let (report, hits) = on_virtual_time(endure(&fault, name));
                // Several entries are read side by side, each with tries of its own.
                assert!(hits < 200, "{hits} tries in {OUTAGE:?}");
                assert!(report.rows > 0 && report.rejected > 0, "{report:?}");
            }
        }
    }
}
