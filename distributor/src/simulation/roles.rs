//! The role under test, and events for it.

use std::sync::Arc;
use std::time::Duration;

use common::config::{Compression, MissingFiles, TypeAges};
use common::telemetry::{Health, Registry};

use super::chance::WallClock;
use super::log::LogOf;
use super::store::StoreOf;
use crate::batch::Encoding;
use crate::batch::testing::layout;
use crate::{Distributor, Metrics, Scratch, Settings};

pub(super) const TOPIC: &str = "events";
pub(super) const GROUP: &str = "g";
/// The cheapest: bytes do not matter here.
pub(super) const ENCODING: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: false };

/// So little that rows go to disk, and batches are written for want of memory.
const MEMORY: u64 = 60_000;
/// So little that most keys are on disk.
pub(super) const WINDOW_MEMORY: u64 = 40_000;

pub(super) fn scratch() -> Scratch {
    Scratch::new(std::env::temp_dir())
}

/// Batches of eight records, none older than a second.
pub(super) fn settings(once: bool) -> Settings {
    Settings {
        topic: TOPIC.into(),
        partitions: 1,
        group: GROUP.into(),
        instance_id: None,
        layout: layout(),
        encoding: ENCODING,
        max_age: Duration::from_secs(1),
        ages: TypeAges::default(),
        max_bytes: u64::MAX,
        max_files: usize::MAX,
        max_rows: 8,
        max_memory: MEMORY,
        window_memory: WINDOW_MEMORY,
        scratch: scratch(),
        missing: MissingFiles::Restore,
        retention: Duration::from_secs(3_600),
        once,
        patience: Duration::from_secs(60),
    }
}

pub(super) fn distributor(store: StoreOf, log: LogOf, settings: Settings) -> Distributor {
    Distributor {
        companions: Vec::new(),
        clock: Arc::new(WallClock(store.memory.chance.clone())),
        host: store.memory.chance.host(),
        store: Arc::new(store),
        log: Arc::new(log),
        metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
        health: Health::default(),
        settings,
    }
}
