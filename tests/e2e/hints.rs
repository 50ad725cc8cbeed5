//! Hints from a queue, against a server with the SQS protocol.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use common::shutdown::Shutdown;
use ingestor::hints::{Hint, HintAnswer, sqs};
use tokio::sync::mpsc;

use crate::harness::{run_in_its_own_process, services, unique};

#[test]
fn messages_of_a_queue_are_settled_by_the_answers_to_their_hints() {
    run_in_its_own_process("hints::queue_in_its_own_process", |command| {
        command.env("AWS_ENDPOINT_URL_SQS", services().sqs).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    });
}

#[test]
#[ignore = "run by the test above, in a process with the server in its environment"]
fn queue_in_its_own_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let whole = tokio::time::timeout(Duration::from_secs(120), drive());
        whole.await.expect("the queue was not settled in time");
    });
}

async fn drive() {
    let client = Client::new(&common::store::aws_config("test", "SQS").await.unwrap());
    // A message whose hint is not answered is visible again after this many seconds.
    let created =
        client.create_queue().queue_name(unique("hints")).attributes(QueueAttributeName::VisibilityTimeout, "5");
    let url = created.send().await.unwrap().queue_url.unwrap();
    let created = |key: &str| {
        format!(
            r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"landing"}},"object":{{"key":"{key}"}}}}}}]}}"#
        )
    };
    let bodies = [
        r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#.to_owned(),
        "rubbish".to_owned(),
        created("zone/pending/taken+%C3%A4.json"),
        created("zone/pending/not-ours.json"),
        created("zone/pending/dropped.json"),
        created("zone/processed/of-no-interest.json"),
    ];
    for body in bodies {
        client.send_message().queue_url(&url).message_body(body).send().await.unwrap();
    }

    let (sender, hints) = mpsc::channel(4);
    let shutdown = Shutdown::new();
    let (bucket, prefix) = ("landing".to_owned(), "zone".to_owned());
    let polling = tokio::spawn(sqs::poll(url.clone(), bucket, prefix, sender, shutdown.clone()));
    let expected = [("pending/dropped.json", 2), ("pending/not-ours.json", 10), ("pending/taken ä.json", 1)];
    let came = Arc::new(AtomicU32::new(0));
    let answering = tokio::spawn(answer(hints, came.clone()));
    // The queue's own numbers are approximate: a message that is becoming visible again may be in none of them.
    let all: u32 = expected.iter().map(|(_, count)| count).sum();
    while came.load(Ordering::SeqCst) < all || !is_empty(&client, &url).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shutdown.trigger();
    polling.await.unwrap();
    let counts = answering.await.unwrap();
    assert_eq!(counts, expected.map(|(key, count)| (key.to_owned(), count)).into());
}

/// The number of times each key arrived.
async fn answer(mut hints: mpsc::Receiver<Hint>, came: Arc<AtomicU32>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    while let Some(Hint { key, answer }) = hints.recv().await {
        let count: &mut u32 = counts.entry(key.clone()).or_default();
        *count += 1;
        came.fetch_add(1, Ordering::SeqCst);
        let answer_with = match (key.as_str(), *count) {
            ("pending/not-ours.json", _) => Some(HintAnswer::NotOurs),
            ("pending/dropped.json", 1) => None,
            _ => Some(HintAnswer::Taken),
        };
        if let (Some(answer), Some(answer_with)) = (answer, answer_with) {
            answer.send(answer_with).unwrap();
        }
    }
    counts
}

async fn is_empty(client: &Client, url: &str) -> bool {
    use QueueAttributeName::{ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible};
    let names = [ApproximateNumberOfMessages, ApproximateNumberOfMessagesNotVisible];
    let request = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
    let found = request.send().await.unwrap().attributes.unwrap();
    names.iter().all(|name| found.get(name).is_some_and(|count| count == "0"))
}
