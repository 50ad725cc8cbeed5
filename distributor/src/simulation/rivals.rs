//! Another owner that gets ahead, or an operator who removes a file, at one certain moment: what was read before and
//! after it does not fit together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::shutdown::Shutdown;
use common::store::{PutCondition, PutOutcome};

use super::chance::{Chance, Life};
use super::log::{LogOf, MemoryLog};
use super::model::Event;
use super::store::{MemoryStore, StoreOf};
use super::{on_virtual_time, reckoning, roles};
use crate::EndOfInput;

const EVENTS: u64 = 30;
/// Of them there when we begin: a batch, so that whatever we cut is what the rival cut.
const AT_FIRST: u64 = 8;
/// More store calls than taking over and the first batch need.
const CALLS: u64 = 40;

struct Zone {
    store: Arc<MemoryStore>,
    log: Arc<MemoryLog>,
}

impl Zone {
    fn new(chance: &Arc<Chance>) -> Self {
        let store = Arc::new(MemoryStore::new(chance.clone(), None));
        Self { store, log: Arc::new(MemoryLog::new(chance.clone(), 1, true, None)) }
    }

    fn append(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let event = Event {
                event_id: format!("e{}", number % 20),
                timestamp: "2021-01-14T10:15:30".into(),
                domain: "d".into(),
                event_type: "t".into(),
                data: number,
            };
            let append_ms = super::chance::MONTH_MS + i64::try_from(number).unwrap();
            self.log.append(0, 0, append_ms, &serde_json::to_string(&event).unwrap());
        }
    }

    /// To the end of the log, with `before` each store call, by operation and key.
    async fn distribute(&self, before: impl Fn(&str, &str) + Send + Sync + 'static) -> Result<(), String> {
        let life = Arc::new(Life::new("a".to_owned()));
        let script: super::store::Script = Arc::new(move |operation, key| {
            before(operation, key);
            None
        });
        let store = StoreOf { memory: self.store.clone(), life: life.clone(), script: Some(script), is_resting: false };
        let log = LogOf { memory: self.log.clone(), life, member: 0 };
        let distributor = roles::distributor(store, log, roles::settings(true));
        let ended = distributor.run(&EndOfInput::now(), &Shutdown::new()).await;
        ended.map(drop).map_err(|error| error.to_string())
    }

    /// What the rival has done by now, in one moment.
    fn is_overtaken_by(&self, rival: &Self) {
        self.append(AT_FIRST..EVENTS);
        for key in rival.store.keys("") {
            // Its entries follow what is there, and its checkpoints are of other ones then.
            let is_of_entries = ["log/", "checkpoints/", "segments/", "root.json"]
                .iter()
                .any(|name| key.starts_with(&format!("_commits/events/0/{name}")));
            if !is_of_entries {
                let put = self.store.put(&key, &rival.store.get(&key).unwrap(), &PutCondition::IfAbsent).unwrap();
                assert!(matches!(put, PutOutcome::Written(_) | PutOutcome::AlreadyExists));
            }
        }
        super::commits::follow(&self.store, &rival.store, 0);
        self.log.commit(0, i64::try_from(EVENTS).unwrap());
    }
}

#[test]
fn a_rival_that_gets_ahead_at_any_moment_is_no_reason_to_give_up() {
    on_virtual_time(a_rival_gets_ahead());
}

async fn a_rival_gets_ahead() {
    let chance = Arc::new(Chance::new(0));
    chance.calm();
    let rival = Arc::new(Zone::new(&chance));
    rival.append(0..EVENTS);
    rival.distribute(|_, _| ()).await.unwrap();
    for moment in 0..CALLS {
        let ours = Arc::new(Zone::new(&chance));
        ours.append(0..AT_FIRST);
        let calls = AtomicU64::new(0);
        let (zone, ahead) = (ours.clone(), rival.clone());
        let before = move |_: &str, _: &str| {
            if calls.fetch_add(1, Ordering::SeqCst) == moment {
                zone.is_overtaken_by(&ahead);
            }
        };
        let ended = ours.distribute(before).await;
        ended.unwrap_or_else(|error| panic!("overtaken before call {moment}: {error}"));
        if ours.log.bounds(0).latest == i64::try_from(AT_FIRST).unwrap() {
            assert!(moment >= 7, "{moment} calls: lists, what fixes the batch, file, key run and what completes it");
            return;
        }
        ours.distribute(|_, _| ()).await.unwrap();
        reckoning::compare(&ours.store, &ours.log, &[]).unwrap();
        reckoning::audit(&ours.store, &ours.log).await.unwrap();
    }
}

#[test]
fn a_file_that_is_removed_while_it_is_looked_at_is_put_again() {
    for looks_with in ["head", "get"] {
        on_virtual_time(a_file_is_removed(looks_with));
    }
}

async fn a_file_is_removed(looks_with: &'static str) {
    let chance = Arc::new(Chance::new(0));
    chance.calm();
    let zone = Zone::new(&chance);
    zone.append(0..AT_FIRST);
    zone.distribute(|_, _| ()).await.unwrap();
    let files = reckoning::files(&zone.store);
    // The batch is open again, and its files are there.
    zone.store.remove(&zone.store.keys("_commits/events/0/log/")[0]);
    for prefix in ["_commits/events/0/checkpoints/", "_commits/events/0/root.json"] {
        zone.store.keys(prefix).iter().for_each(|key| zone.store.remove(key));
    }
    let (store, removed) = (zone.store.clone(), AtomicU64::new(0));
    let before = move |operation: &str, key: &str| {
        let is_file = files.iter().any(|file| file == key);
        if is_file && operation == looks_with && removed.fetch_add(1, Ordering::SeqCst) == 0 {
            store.remove(key);
        }
    };
    zone.distribute(before).await.unwrap();
    reckoning::compare(&zone.store, &zone.log, &[]).unwrap();
    reckoning::audit(&zone.store, &zone.log).await.unwrap();
}
