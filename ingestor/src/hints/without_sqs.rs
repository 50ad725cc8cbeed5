//! Takes the place of `sqs` in a build without the feature `s3`. The queue's objects are in S3, which is refused before.

use common::shutdown::Shutdown;
use tokio::sync::mpsc;

use super::Hint;

/// Says that there are no hints, and ends.
pub async fn poll(queue_url: String, _bucket: String, _prefix: String, _hints: mpsc::Sender<Hint>, _: Shutdown) {
    tracing::warn!(queue = queue_url, "no hints from the queue: this build has no SQS client; sweeps find new files");
}
