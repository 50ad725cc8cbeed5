//! Both seams' conformance suites against the real services.

use std::sync::Arc;

use common::log::{KafkaLog, KafkaSettings};
use common::store::{S3Settings, S3Store};

use crate::harness::{services, unique};

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
        let store = S3Store::connect(S3Settings { bucket, prefix: "some/prefix".to_owned() }).await.unwrap();
        common::store::conformance::run_all(Arc::new(store), "suite").await;
    });
}
