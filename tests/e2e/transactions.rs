//! Faults of a transaction on real Kafka, and the errors that its writer gets: it exceeds its time-out, its id expires,
//! the broker dies, or another writer takes the id.
//!
//! After every fault owning the id again works, and then the log has all or nothing of a transaction, as was reported.

use std::sync::Arc;
use std::time::Duration;

use common::log::{KafkaLog, Log, LogErrorKind, LogWriter, conformance};

use crate::harness::{Services, prompt_kafka, services, unique};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn kafka(brokers: &str, client: &[(&str, &str)]) -> Arc<KafkaLog> {
    Arc::new(prompt_kafka(brokers, client))
}

async fn write(writer: &mut Box<dyn LogWriter>, topic: &str, value: &str) -> common::log::Result<()> {
    writer.begin().await?;
    writer.append(topic, 0, &conformance::batch(&[value])).await?;
    writer.commit().await
}

/// Begins, appends, and waits until the record is on the log.
async fn write_half(log: &KafkaLog, writer: &mut Box<dyn LogWriter>, topic: &str, value: &str) {
    let before = end(log, topic).await;
    writer.begin().await.unwrap();
    writer.append(topic, 0, &conformance::batch(&[value])).await.unwrap();
    wait_for_end(log, topic, before + 1).await;
}

async fn end(log: &KafkaLog, topic: &str) -> i64 {
    log.bounds(topic).await.unwrap()[&0].latest
}

/// Records and ends of transactions take an offset each.
async fn wait_for_end(log: &KafkaLog, topic: &str, at_least: i64) {
    let waiting = async {
        while end(log, topic).await < at_least {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("the log does not grow");
}

fn leads_to_owning_again(kind: LogErrorKind) -> bool {
    matches!(
        kind,
        LogErrorKind::Fenced | LogErrorKind::MustAbort | LogErrorKind::UnknownOutcome | LogErrorKind::Transient
    )
}

/// Owns the id again after `outcome` of writing `value`: the log must have what was reported, and accept more.
async fn check_and_continue(log: &KafkaLog, id: &str, topic: &str, value: &str, outcome: common::log::Result<()>) {
    let mut writer = log.writer(id).await.unwrap();
    let seen = conformance::values(log, topic, 0).await;
    let times = seen.iter().filter(|other| *other == value).count();
    match outcome.map_err(|error| error.kind) {
        Ok(()) => assert_eq!(times, 1, "a commit that succeeded: {seen:?}"),
        Err(LogErrorKind::UnknownOutcome) => assert!(times <= 1, "{seen:?}"),
        Err(kind) => {
            assert!(leads_to_owning_again(kind), "{kind:?}");
            assert_eq!(times, 0, "{kind:?}, but it was committed: {seen:?}");
        }
    }
    write(&mut writer, topic, "afterwards").await.unwrap();
    assert!(conformance::values(log, topic, 0).await.contains(&"afterwards".to_owned()));
}

#[test]
fn a_transaction_that_exceeds_its_time_is_aborted_and_its_writer_owns_the_id_again() {
    runtime().block_on(async {
        let log = kafka(&services().kafka, &[("transaction.timeout.ms", "1000")]);
        for more in [false, true] {
            let (topic, id) = (unique("late"), unique("late-writer"));
            conformance::topic(&*log, &topic, 1).await;
            let mut writer = log.writer(&id).await.unwrap();
            write_half(&log, &mut writer, &topic, "late").await;
            // The coordinator aborts it.
            wait_for_end(&log, &topic, 2).await;
            let mut outcome = Ok(());
            if more {
                outcome = writer.append(&topic, 0, &conformance::batch(&["later"])).await;
            }
            if outcome.is_ok() {
                outcome = writer.commit().await;
            }
            let kind = outcome.clone().unwrap_err().kind;
            // The coordinator's own fence looks like another owner's. In both cases the id is owned again.
            assert!(leads_to_owning_again(kind), "{kind:?}");
            // Whatever the result, the writer is dropped.
            let _given_up = writer.abort().await;
            check_and_continue(&log, &id, &topic, "late", outcome).await;
            assert_eq!(conformance::values(&*log, &topic, 0).await, ["afterwards"]);
        }
    });
}

#[test]
fn a_writer_whose_id_was_taken_cannot_append_or_commit() {
    runtime().block_on(async {
        let log = kafka(&services().kafka, &[]);
        let (topic, id) = (unique("zombie"), unique("zombie-writer"));
        conformance::topic(&*log, &topic, 1).await;
        let mut idle = log.writer(&id).await.unwrap();
        write(&mut idle, &topic, "first").await.unwrap();
        let mut busy = log.writer(&id).await.unwrap();
        let taken = write(&mut idle, &topic, "zombie").await;
        assert_eq!(taken.map_err(|error| error.kind), Err(LogErrorKind::Fenced));
        write_half(&log, &mut busy, &topic, "zombie").await;
        let mut owner = log.writer(&id).await.unwrap();
        let taken = match busy.append(&topic, 0, &conformance::batch(&["zombie"])).await {
            Ok(()) => busy.commit().await,
            refused => refused,
        };
        assert_eq!(taken.map_err(|error| error.kind), Err(LogErrorKind::Fenced));
        for zombie in [&mut idle, &mut busy] {
            let again = write(zombie, &topic, "zombie").await;
            assert_eq!(again.map_err(|error| error.kind), Err(LogErrorKind::Fenced), "and it stays so");
        }
        write(&mut owner, &topic, "second").await.unwrap();
        assert_eq!(conformance::values(&*log, &topic, 0).await, ["first", "second"]);
    });
}

#[test]
fn a_writer_whose_id_has_expired_while_it_was_idle_owns_it_again() {
    let run_dir = tempfile::tempdir().unwrap();
    let own = Services::own_with(
        run_dir.path(),
        &["transactional.id.expiration.ms=5000", "transaction.remove.expired.transaction.cleanup.interval.ms=200"],
    );
    runtime().block_on(async {
        let log = kafka(&own.services.kafka, &[]);
        conformance::topic(&*log, "idle", 1).await;
        let mut writer = log.writer("idle-writer").await.unwrap();
        write(&mut writer, "idle", "before").await.unwrap();
        let known = || own.services.kafka_tool("org.apache.kafka.tools.TransactionsCommand", &["list"]);
        tokio::task::block_in_place(|| {
            crate::harness::wait_until("the broker forgets the id", || !known().contains("idle-writer"));
        });
        let outcome = write(&mut writer, "idle", "expired").await;
        let kind = outcome.clone().unwrap_err().kind;
        assert!(
            matches!(kind, LogErrorKind::UnknownOutcome | LogErrorKind::MustAbort),
            "no other writer has it: {kind:?}"
        );
        check_and_continue(&log, "idle-writer", "idle", "expired", outcome).await;
        assert_eq!(conformance::values(&*log, "idle", 0).await, ["before", "afterwards"]);
    });
}

#[test]
fn after_a_broker_dies_the_log_agrees_with_the_writers_outcome() {
    let run_dir = tempfile::tempdir().unwrap();
    let own = Services::own(run_dir.path());
    let restart = || {
        tokio::task::block_in_place(|| {
            own.services.kill("kafka");
            own.services.start("kafka");
        });
    };
    runtime().block_on(async {
        let log = kafka(&own.services.kafka, &[]);
        conformance::topic(&*log, "between", 1).await;
        let mut writer = log.writer("between-writer").await.unwrap();
        write(&mut writer, "between", "before").await.unwrap();
        restart();
        let outcome = write(&mut writer, "between", "value").await;
        check_and_continue(&log, "between-writer", "between", "value", outcome).await;

        for lies_on_the_log in [true, false] {
            let (topic, id) = (unique("under"), unique("under-writer"));
            conformance::topic(&*log, &topic, 1).await;
            let mut writer = log.writer(&id).await.unwrap();
            if lies_on_the_log {
                write_half(&log, &mut writer, &topic, "value").await;
            } else {
                writer.begin().await.unwrap();
                writer.append(&topic, 0, &conformance::batch(&["value"])).await.unwrap();
            }
            restart();
            let outcome = writer.commit().await;
            check_and_continue(&log, &id, &topic, "value", outcome).await;
        }
    });
}
