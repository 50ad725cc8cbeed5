//! Requests that are signed as of an earlier time, so that the server refuses them soon after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_async::time::StaticTimeSource;

use super::bucket::Bucket;
use super::errors::S3Failure;
use crate::clock::{BootClock, Clock, SystemClock};
use crate::store::{Result, SIGNATURE_LASTS};

/// Beyond the limit whatever the server allows.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// How far the server's clock is ahead of this machine's, milliseconds: at least what the last answer showed, which is never too
/// much, for it was dated before it arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock(Arc<AtomicI64>);

impl ServerClock {
    /// The server's time at which the machine had been up for `boot_ms`, or somewhat earlier.
    fn at(&self, boot_ms: i64) -> i64 {
        // In this order: a pause between the two makes the answer earlier.
        let now_ms = SystemClock.now_ms();
        let age_ms = SystemClock.since_boot_ms().saturating_sub(boot_ms);
        now_ms.saturating_sub(age_ms).saturating_add(self.0.load(Ordering::Relaxed))
    }
}

impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        if let Some(server_ms) = date.and_then(|date| date.to_millis().ok()) {
            self.0.store(server_ms.saturating_sub(SystemClock.now_ms()), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The client with requests that are signed as of this time since boot. The connections are shared.
pub(super) fn client_as_of(client: &Client, clock: &ServerClock, boot_ms: i64) -> Client {
    let signed_at = UNIX_EPOCH + Duration::from_millis(clock.at(boot_ms).max(0).unsigned_abs());
    let config = client.config().to_builder().time_source(StaticTimeSource::new(signed_at));
    // A correction would sign by the server's present time.
    Client::from_conf(config.disable_clock_skew_correction(true).build())
}

/// Lists one key, as if that had been asked for long ago.
pub(super) async fn is_refused(bucket: &Bucket, clock: &ServerClock) -> Result<bool> {
    let long_ago = SIGNATURE_LASTS + MARGIN;
    let boot_ms = SystemClock.since_boot_ms().saturating_sub(i64::try_from(long_ago.as_millis()).unwrap_or(i64::MAX));
    let client = client_as_of(&bucket.client, clock, boot_ms);
    let listed = client.list_objects_v2().bucket(&bucket.name).prefix(bucket.full_key("")).max_keys(1).customize();
    let once = aws_sdk_s3::config::Config::builder().retry_config(RetryConfig::disabled());
    match listed.config_override(once).send().await.map_err(S3Failure::from) {
        Ok(_) => Ok(false),
        Err(failure) if failure.is_too_old() => Ok(true),
        Err(failure) => Err(failure.into_error("try an old request", "")),
    }
}
