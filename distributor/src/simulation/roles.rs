//! The role under test, and events for it.

use std::sync::Arc;
use std::time::Duration;

use common::config::{Compression, MissingFiles};
use common::telemetry::{Health, Registry};

use super::log::LogOf;
use super::store::StoreOf;
use crate::batch::Encoding;
use crate::batch::testing::layout;
use crate::{Distributor, Metrics, Settings};

pub(super) const TOPIC: &str = "events";
pub(super) const GROUP: &str = "g";
/// The cheapest: bytes do not matter here.
pub(super) const ENCODING: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: false };

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
        max_bytes: u64::MAX,
        max_rows: 8,
        max_memory: u64::MAX,
        missing: MissingFiles::Restore,
        retention: Duration::from_secs(3_600),
        once,
        patience: Duration::from_secs(60),
    }
}

pub(super) fn distributor(store: StoreOf, log: LogOf, settings: Settings) -> Distributor {
    Distributor {
        clock: store.memory.chance.clone(),
        store: Arc::new(store),
        log: Arc::new(log),
        metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
        health: Health::default(),
        settings,
    }
}
