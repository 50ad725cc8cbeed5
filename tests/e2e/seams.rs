//! Both seams' conformance suites against the real services.

use std::sync::Arc;
use std::time::Duration;

use common::clock::{BootClock, SystemClock};
use common::log::{KafkaLog, KafkaSettings, Log, ReadEvent, conformance};
use common::store::{Metadata, PutCondition, PutOutcome, S3Settings, S3Store, Store, TagOutcome, Version};

use crate::harness::{prompt_kafka, run_in_its_own_process, services, unique};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn apache_kafka_keeps_the_guarantees_of_the_log_seam() {
    let brokers = services().kafka;
    runtime().block_on(async {
        let log = KafkaLog::new(KafkaSettings { brokers, ..KafkaSettings::default() }).unwrap();
        common::log::conformance::run_all(Arc::new(log), &unique("conf")).await;
    });
}

#[test]
fn a_partition_that_a_member_of_the_group_had_paused_changes_hands() {
    let brokers = services().kafka;
    runtime().block_on(async {
        let log = prompt_kafka(&brokers, &[]);
        let name = unique("paused");
        conformance::a_partition_that_was_revoked_while_paused_comes_back_without_the_pause(&log, &name).await;
    });
}

/// Bytes of each of two partitions, in records of 1,000.
const BACKLOG: usize = 100_000_000;

#[test]
fn of_a_paused_partition_little_is_read_ahead() {
    let (brokers, name) = (services().kafka, unique("ahead"));
    runtime().block_on(async {
        let log = KafkaLog::new(KafkaSettings { brokers, ..KafkaSettings::default() }).unwrap();
        conformance::topic(&log, &name, 2).await;
        // Fetches are measured compressed, so the text is hardly compressible.
        let mut state = 1_u64;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + u8::try_from((state >> 33) % 94).unwrap())
        };
        let values: Vec<String> = (0..4_000).map(|_| (0..1_000).map(|_| letter()).collect()).collect();
        let records = conformance::batch(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let mut writer = log.writer(&name).await.unwrap();
        for _ in 0..BACKLOG / 4_000_000 {
            writer.begin().await.unwrap();
            writer.append(&name, 0, &records).await.unwrap();
            writer.append(&name, 1, &records).await.unwrap();
            writer.commit().await.unwrap();
        }
    });
    // A process whose memory is not shared with other tests.
    run_in_its_own_process("seams::reading_beside_a_pause_in_its_own_process", |command| {
        command.env("ED_TEST_TOPIC", &name);
    });
}

#[test]
#[ignore = "run by the test above, which writes the topic"]
fn reading_beside_a_pause_in_its_own_process() {
    let (brokers, topic) = (services().kafka, std::env::var("ED_TEST_TOPIC").unwrap());
    runtime().block_on(async {
        let log = KafkaLog::new(KafkaSettings { brokers, ..KafkaSettings::default() }).unwrap();
        let mut reader = log.reader(&topic, &conformance::group(&topic)).await.unwrap();
        let mut bytes = [0, 0];
        loop {
            match reader.poll(Duration::from_secs(30)).await.unwrap() {
                ReadEvent::Assigned(partitions) => {
                    for partition in partitions {
                        reader.start(partition, 0).await.unwrap();
                    }
                }
                ReadEvent::Chunk(chunk) => {
                    bytes[usize::try_from(chunk.partition).unwrap()] += chunk.records.size_bytes();
                    reader.pause(0);
                }
                ReadEvent::EndReached(partition) => break assert_eq!(partition, 1),
                other => panic!("unexpected {other:?}"),
            }
        }
        assert!(bytes[0] < BACKLOG / 50 && bytes[1] > BACKLOG, "{bytes:?}");
        // The peak memory of this process: its own, librdkafka's queues, and records in transit.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let most_kb: usize = most.trim().trim_end_matches(" kB").parse().unwrap();
        eprintln!("at most {most_kb} kB in memory");
        assert!(most_kb * 1_024 < BACKLOG * 9 / 10, "{most_kb} kB in memory");
        reader.close().await;
    });
}

#[test]
fn reading_to_the_end_waits_for_an_open_transaction_of_another_writer() {
    let (brokers, name) = (services().kafka, unique("hidden"));
    runtime().block_on(async {
        let log = Arc::new(prompt_kafka(&brokers, &[]));
        conformance::topic(&*log, &name, 1).await;
        let mut slow = log.writer(&format!("{name}-slow")).await.unwrap();
        slow.begin().await.unwrap();
        slow.append(&name, 0, &conformance::batch(&["slow"])).await.unwrap();
        while log.bounds(&name).await.unwrap()[&0].latest == 0 {
            tokio::task::yield_now().await;
        }
        let mut quick = log.writer(&format!("{name}-quick")).await.unwrap();
        quick.begin().await.unwrap();
        quick.append(&name, 0, &conformance::batch(&["quick"])).await.unwrap();
        quick.commit().await.unwrap();
        assert_eq!(log.settled_end(&name, 0).await.unwrap(), 0, "no reader gets past the open transaction");
        let mut reading = tokio::spawn({
            let (log, name) = (log.clone(), name.clone());
            async move { conformance::values(&*log, &name, 0).await }
        });
        // Long enough for a reader that mistakes the open transaction for the end.
        let early = tokio::time::timeout(Duration::from_secs(2), &mut reading).await;
        assert!(early.is_err(), "it waits: {early:?}");
        slow.abort().await.unwrap();
        assert_eq!(reading.await.unwrap(), ["quick"]);
    });
}

#[test]
fn an_s3_server_keeps_the_guarantees_of_the_store_seam() {
    let services = services();
    let bucket = unique("conformance");
    services.bucket(&bucket);
    run_in_its_own_process("seams::s3_conformance_in_its_own_process", |command| {
        command.envs(services.s3_environment()).env("ED_TEST_BUCKET", &bucket);
    });
}

#[test]
#[ignore = "run by the test above, in a process with the credentials in its environment"]
fn s3_conformance_in_its_own_process() {
    let bucket = std::env::var("ED_TEST_BUCKET").unwrap();
    runtime().block_on(async {
        let settings = S3Settings { bucket, prefix: "some/prefix".to_owned() };
        let store = Arc::new(S3Store::connect(settings).await.unwrap());
        common::store::conformance::run_all(store.clone(), "suite").await;
        common::store::conformance::interrupted_moves_are_finished(&*store, "interrupted").await;
        tags_are_added_to_one_version_only(&store).await;
        tags_never_end_on_a_newer_object(&store).await;
        requests_that_rest_on_what_is_long_past_are_refused(&store).await;
    });
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn put(store: &S3Store, key: &str, body: String) -> Version {
    match store.put(key, body.into(), PutCondition::None, &Metadata::new()).await.unwrap() {
        PutOutcome::Written(version) => version,
        other => panic!("{other:?}"),
    }
}

/// Whatever became of their sender: what counts is when the server gets them.
async fn requests_that_rest_on_what_is_long_past_are_refused(store: &S3Store) {
    assert!(store.refuses_old_requests().await.unwrap());
    let minutes_ago = |minutes: i64| store.as_of(SystemClock.since_boot_ms() - minutes * 60_000).unwrap();
    let body = || bytes::Bytes::from_static(b"x");
    let put =
        async |store: &dyn Store, key: &str| store.put(key, body(), PutCondition::IfAbsent, &Metadata::new()).await;
    for (minutes, key) in [(0, "old/now"), (5, "old/some")] {
        assert!(matches!(put(&*minutes_ago(minutes), key).await, Ok(PutOutcome::Written(_))), "{key}");
    }
    for minutes in [20, 24 * 60] {
        let old = minutes_ago(minutes);
        put(&*old, "old/late").await.unwrap_err();
        old.put_in_parts("old/late", &body(), PutCondition::IfAbsent, &Metadata::new()).await.unwrap_err();
        let version = store.head("old/now").await.unwrap().unwrap().version;
        old.copy("old/now", &version, "old/late").await.unwrap_err();
    }
    assert_eq!(store.head("old/late").await.unwrap(), None);
}

async fn tags_are_added_to_one_version_only(store: &S3Store) {
    let (ours, theirs) = (metadata(&[("ingested", "yes")]), metadata(&[("owner", "x")]));
    let first = put(store, "tags/key", "first".to_owned()).await;
    store.tag("tags/key", &theirs).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.tag_version("tags/key", &first, &ours).await.unwrap(), TagOutcome::Tagged);
    }
    assert_eq!(store.tags("tags/key").await.unwrap(), Some(metadata(&[("ingested", "yes"), ("owner", "x")])));
    put(store, "tags/key", "second".to_owned()).await;
    for key in ["tags/key", "tags/nothing"] {
        assert_eq!(store.tag_version(key, &first, &ours).await.unwrap(), TagOutcome::VersionMismatch, "{key}");
    }
    assert_eq!(store.tags("tags/key").await.unwrap(), Some(Metadata::new()), "the newer object carries the tag");
    assert_eq!(store.tags("tags/nothing").await.unwrap(), None);
}

async fn tags_never_end_on_a_newer_object(store: &Arc<S3Store>) {
    let ours = metadata(&[("ingested", "yes")]);
    for round in 0..40 {
        let key = format!("race/{round}");
        let first = put(store, &key, "first".to_owned()).await;
        let replacing = {
            let (store, key) = (Arc::clone(store), key.clone());
            tokio::spawn(async move {
                // At another moment of the tagging in each round.
                for turn in 0..round % 8 {
                    put(&store, &format!("race/other-{turn}"), String::new()).await;
                }
                put(&store, &key, "second".to_owned()).await
            })
        };
        store.tag_version(&key, &first, &ours).await.unwrap();
        replacing.await.unwrap();
        assert_eq!(store.tags(&key).await.unwrap(), Some(Metadata::new()), "round {round}: the newer one is tagged");
    }
}
