//! Hints from an SQS queue that receives the S3 event notifications of the landing bucket, directly from S3, through
//! SNS, or from EventBridge.
//!
//! A message is deleted when all its keys were taken. A key of another ingestor makes the message visible again at
//! once, so that the other can receive it, but only a limited number of times: then the listing finds the file.

mod message;
mod queue;

use std::time::Duration;

use common::backoff::Backoff;
use common::shutdown::Shutdown;
use tokio::sync::{mpsc, oneshot};

#[cfg(feature = "fuzz")]
pub(crate) use self::message::fuzz::queue_message;
use self::message::{Place, Said};
use self::queue::{Queue, Received};
use super::{Hint, HintAnswer};
use crate::identity::PENDING;

/// How often a message is received before other ingestors' keys in it are given up.
const MAX_RECEIVES: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Gives hints for keys of `bucket` below `<prefix>/pending/` until shutdown, or until the receiver is dropped.
///
/// Region, endpoint (`AWS_ENDPOINT_URL_SQS` or `AWS_ENDPOINT_URL`) and credentials come from the usual AWS environment.
/// An outage of the queue is reported once, and the connection retried. Only an invalid configuration ends this, with a
/// warning.
pub async fn poll(queue_url: String, bucket: String, prefix: String, hints: mpsc::Sender<Hint>, shutdown: Shutdown) {
    let queue = match Queue::connect(queue_url.clone()).await {
        Ok(queue) => queue,
        Err(error) => {
            tracing::warn!(queue = queue_url, %error, "no hints from the queue; sweeps find new files");
            return;
        }
    };
    let place = Place { bucket, prefix };
    let mut outage = Outage::default();
    loop {
        let round = tokio::select! {
            round = take_some(&queue, &place, &hints) => round,
            () = shutdown.wait() => return,
            () = hints.closed() => return,
        };
        let Err(error) = round else {
            outage.is_over(&queue_url);
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep(outage.next_wait(&queue_url, &error)) => {}
            () = shutdown.wait() => return,
            () = hints.closed() => return,
        }
    }
}

/// Reports the beginning and the end of an outage once.
#[derive(Default)]
struct Outage {
    backoff: Option<Backoff>,
}

impl Outage {
    fn next_wait(&mut self, queue: &str, error: &str) -> Duration {
        let backoff = self.backoff.get_or_insert_with(|| {
            tracing::warn!(queue, error, "the queue of hints does not answer; sweeps find new files meanwhile");
            Backoff::new(FIRST_WAIT, LAST_WAIT, xxhash_rust::xxh3::xxh3_64(queue.as_bytes()))
        });
        backoff.next_wait()
    }

    fn is_over(&mut self, queue: &str) {
        if self.backoff.take().is_some() {
            tracing::info!(queue, "the queue of hints answers again");
        }
    }
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Delete,
    /// Visible to other ingestors at once.
    Release,
    /// It becomes visible again after its time-out.
    Leave,
}

/// Receives up to ten messages (waiting for the first), sends their hints, and settles the messages by the answers.
async fn take_some(queue: &Queue, place: &Place, hints: &mpsc::Sender<Hint>) -> Result<(), String> {
    let received = queue.receive().await?;
    let mut waiting = Vec::with_capacity(received.len());
    for message in received {
        let answers = give_hints(&message, place, hints).await;
        waiting.push((message, answers));
    }
    let (mut done, mut released) = (Vec::new(), Vec::new());
    for (message, answers) in waiting {
        match decide(message.receive_count, &collect(answers).await) {
            Verdict::Delete => done.push(message.receipt),
            Verdict::Release => released.push(message.receipt),
            Verdict::Leave => {}
        }
    }
    queue.delete(done).await?;
    queue.release(released).await
}

async fn give_hints(
    message: &Received,
    place: &Place,
    hints: &mpsc::Sender<Hint>,
) -> Vec<oneshot::Receiver<HintAnswer>> {
    let keys = match message::read(&message.body, place, PENDING) {
        Said::Created(keys) => keys,
        Said::NotUnderstood => {
            let id = &message.id;
            tracing::warn!(message = id, "no S3 notification of the landing bucket: dropped from the queue");
            Vec::new()
        }
    };
    let mut answers = Vec::with_capacity(keys.len());
    for key in keys {
        let (sender, answer) = oneshot::channel();
        // Fails only if the receiver is dropped: then the answer fails too, and the message stays.
        let _ = hints.send(Hint { key, answer: Some(sender) }).await;
        answers.push(answer);
    }
    answers
}

async fn collect(answers: Vec<oneshot::Receiver<HintAnswer>>) -> Vec<Option<HintAnswer>> {
    let mut collected = Vec::with_capacity(answers.len());
    for answer in answers {
        collected.push(answer.await.ok());
    }
    collected
}

/// `None` among the answers: the hint was dropped.
fn decide(receive_count: u32, answers: &[Option<HintAnswer>]) -> Verdict {
    if answers.contains(&None) {
        Verdict::Leave
    } else if answers.contains(&Some(HintAnswer::NotOurs)) && receive_count < MAX_RECEIVES {
        Verdict::Release
    } else {
        Verdict::Delete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_deleted_only_when_all_its_keys_are_settled() {
        use HintAnswer::{NotOurs, Taken};
        assert_eq!(decide(1, &[]), Verdict::Delete, "nothing of interest in it");
        assert_eq!(decide(1, &[Some(Taken), Some(Taken)]), Verdict::Delete);
        assert_eq!(decide(1, &[Some(Taken), Some(NotOurs)]), Verdict::Release);
        assert_eq!(decide(MAX_RECEIVES - 1, &[Some(NotOurs)]), Verdict::Release);
        assert_eq!(decide(MAX_RECEIVES, &[Some(NotOurs)]), Verdict::Delete, "the listing finds the file");
        assert_eq!(decide(MAX_RECEIVES, &[None, Some(NotOurs)]), Verdict::Leave);
        assert_eq!(decide(1, &[Some(Taken), None]), Verdict::Leave);
    }

    #[test]
    fn waits_during_an_outage_grow_and_are_reset_after_it() {
        let mut outage = Outage::default();
        let first = outage.next_wait("queue", "down");
        assert!(first <= FIRST_WAIT);
        let later = (0..10).map(|_| outage.next_wait("queue", "down")).max().unwrap();
        assert!(later > 10 * FIRST_WAIT && later <= LAST_WAIT, "{later:?}");
        outage.is_over("queue");
        assert!(outage.next_wait("queue", "down again") <= FIRST_WAIT);
    }
}
