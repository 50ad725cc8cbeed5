//! Reads the ingestor's records on Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use common::log::{Chunk, KafkaLog, KafkaSettings, Log, read_to_end};

use crate::harness::Services;

pub struct Topics {
    kafka: KafkaLog,
    runtime: tokio::runtime::Runtime,
    name: String,
}

impl Topics {
    pub fn new(services: &Services, name: &str) -> Self {
        let settings = KafkaSettings { brokers: services.kafka.clone(), ..KafkaSettings::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { kafka: KafkaLog::new(settings).unwrap(), runtime, name: name.to_owned() }
    }

    /// Offsets of all partitions together, including markers; 0 while the topic does not exist.
    pub fn end(&self) -> i64 {
        let bounds = self.runtime.block_on(self.kafka.bounds(&self.name));
        bounds.map_or(0, |bounds| bounds.values().map(|bounds| bounds.latest).sum())
    }

    fn read(&self, topic: &str, mut visit: impl FnMut(&Chunk) + Send) {
        self.runtime.block_on(async {
            for partition in self.kafka.bounds(topic).await.unwrap().into_keys() {
                read_to_end(&self.kafka, topic, partition, Duration::from_secs(60), |chunk| {
                    visit(chunk);
                    Ok(())
                })
                .await
                .unwrap();
            }
        });
    }

    /// Partition and key of each record.
    pub fn keys(&self) -> Vec<(i32, Vec<u8>)> {
        let mut keys = Vec::new();
        self.read(&self.name, |chunk| {
            keys.extend(chunk.records.iter().map(|record| (chunk.partition, record.key.to_vec())));
        });
        keys
    }

    /// How often each event is on the topic, by source and byte.
    pub fn events(&self) -> BTreeMap<(String, u64), u32> {
        let mut events = BTreeMap::new();
        self.read(&self.name, |chunk| {
            for record in chunk.records.iter() {
                let offset = record.headers.text("byte_offset").unwrap().parse().unwrap();
                let source = record.headers.text("source").unwrap().to_owned();
                *events.entry((source, offset)).or_default() += 1;
            }
        });
        events
    }

    /// Panics unless there are `expected` events, each once.
    pub fn assert_each_event_once(&self, expected: u64) {
        let events = self.events();
        let twice: Vec<_> = events.iter().filter(|(_, times)| **times > 1).take(3).collect();
        assert!(twice.is_empty(), "published more than once: {twice:?}");
        assert_eq!(events.len() as u64, expected, "each event of each file is on the topic");
    }

    /// As [`Topics::assert_each_event_once`], where a file was replaced by another of the same name: a place may then
    /// occur once for each version.
    pub fn assert_each_event_once_by_version(&self, expected: u64) {
        let events = self.events();
        let (ledger, _) = self.ledger();
        let versions = |source: &str| ledger.values().filter(|entry| entry["path"] == source).count();
        let too_often: Vec<_> =
            events.iter().filter(|((source, _), times)| **times as usize > versions(source)).take(3).collect();
        assert!(too_often.is_empty(), "published too often: {too_often:?}");
        assert_eq!(events.values().map(|times| u64::from(*times)).sum::<u64>(), expected);
    }

    /// The ledger as compaction would leave it, by identity, and the number of records read for it.
    pub fn ledger(&self) -> (BTreeMap<String, serde_json::Value>, usize) {
        let (mut entries, mut records) = (BTreeMap::new(), 0);
        self.read(&format!("{}.ledger", self.name), |chunk| {
            records += chunk.records.len();
            for record in chunk.records.iter() {
                let identity = String::from_utf8(record.key.to_vec()).unwrap();
                match record.value {
                    Some(value) if identity.contains('|') => {
                        entries.insert(identity, serde_json::from_slice(value).unwrap());
                    }
                    Some(_) => {}
                    None => {
                        entries.remove(&identity);
                    }
                }
            }
        });
        (entries, records)
    }
}
