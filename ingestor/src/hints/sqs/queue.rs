//! The four requests to SQS.

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{BuildError, DisplayErrorContext};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName,
};

/// The longest that SQS waits for a first message.
const LONG_POLL_SECONDS: i32 = 20;
const MAX_MESSAGES: i32 = 10;

pub(super) struct Queue {
    client: Client,
    url: String,
}

#[derive(Debug)]
pub(super) struct Received {
    pub id: String,
    pub receipt: String,
    pub body: String,
    /// Includes this time; approximate, according to SQS.
    pub receive_count: u32,
}

impl Queue {
    /// Sends no request yet.
    pub async fn connect(url: String) -> Result<Self, String> {
        let config = common::store::aws_config(&url, "SQS").await.map_err(|error| error.message)?;
        Ok(Self { client: Client::new(&config), url })
    }

    pub async fn receive(&self) -> Result<Vec<Received>, String> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(MAX_MESSAGES)
            .wait_time_seconds(LONG_POLL_SECONDS)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount);
        let output = request.send().await.map_err(|error| DisplayErrorContext(error).to_string())?;
        Ok(output.messages.unwrap_or_default().into_iter().filter_map(received).collect())
    }

    /// A message whose deletion fails is received again.
    pub async fn delete(&self, receipts: Vec<String>) -> Result<(), String> {
        if receipts.is_empty() {
            return Ok(());
        }
        let entry = |id, receipt| DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(receipt).build();
        let entries = numbered(receipts, entry)?;
        let request = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        request.send().await.map(|_| ()).map_err(|error| DisplayErrorContext(error).to_string())
    }

    /// Makes messages visible at once.
    pub async fn release(&self, receipts: Vec<String>) -> Result<(), String> {
        if receipts.is_empty() {
            return Ok(());
        }
        let entry = |id, receipt| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id);
            entry.receipt_handle(receipt).visibility_timeout(0).build()
        };
        let entries = numbered(receipts, entry)?;
        let request = self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries));
        request.send().await.map(|_| ()).map_err(|error| DisplayErrorContext(error).to_string())
    }
}

/// The entries of a batch request, each with an id that is unique within it.
fn numbered<E>(
    receipts: Vec<String>,
    entry: impl Fn(String, String) -> Result<E, BuildError>,
) -> Result<Vec<E>, String> {
    let entries = receipts.into_iter().enumerate().map(|(number, receipt)| entry(number.to_string(), receipt));
    entries.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// `None` for a message that could not be deleted either.
fn received(message: Message) -> Option<Received> {
    let count =
        message.attributes.as_ref().and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount));
    Some(Received {
        receive_count: count.and_then(|count| count.parse().ok()).unwrap_or(1),
        id: message.message_id.unwrap_or_default(),
        receipt: message.receipt_handle?,
        body: message.body.unwrap_or_default(),
    })
}
