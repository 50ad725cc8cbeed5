//! Both seams' conformance suites against the real services.

use std::sync::Arc;
use std::time::Duration;

use common::log::{KafkaLog, KafkaSettings, Log, conformance};
use common::store::{Metadata, PutCondition, PutOutcome, S3Settings, S3Store, Store, TagOutcome, Version};

use crate::harness::{prompt_kafka, services, unique};

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

#[test]
fn reading_to_the_end_misses_nothing_behind_an_open_transaction_of_another_writer() {
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
        // Long enough for a reader that takes the open transaction for the end.
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
    // The client reads its settings from the process's environment, which tests share: the services are the same for all.
    let command = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "seams::s3_conformance_in_its_own_process", "--ignored", "--nocapture"])
        .envs(services.s3_environment())
        .env("ED_TEST_BUCKET", &bucket)
        .output()
        .unwrap();
    assert!(
        command.status.success(),
        "{}{}",
        String::from_utf8_lossy(&command.stdout),
        String::from_utf8_lossy(&command.stderr)
    );
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
