//! Creates the SDK's clients: endpoint, region, credentials and time-outs.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use super::stale::ServerClock;
use crate::redact::without_credentials;
use crate::store::{Result, StoreError, StoreErrorKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The connection is closed if no answer, or no further byte of a body, arrives for this long.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// Copies and completions of large objects keep the server busy for minutes before it answers.
const SERVER_SIDE_TIMEOUT: Duration = Duration::from_secs(600);
const MAX_ATTEMPTS: u32 = 3;
/// Stores with a custom endpoint rarely have regions, but every signature names one.
const REGION_OF_CUSTOM_ENDPOINTS: &str = "us-east-1";

pub(super) struct Connection {
    pub client: Client,
    /// The endpoint is not AWS itself.
    pub has_custom_endpoint: bool,
    pub clock: ServerClock,
}

/// The connection to S3. A custom endpoint also implies path-style addresses.
pub(super) async fn connect(location: &str) -> Result<Connection> {
    let config = aws_config(location, "S3").await?;
    let has_custom_endpoint = has_custom_endpoint(&config, "S3");
    let clock = ServerClock::default();
    let builder = aws_sdk_s3::config::Builder::from(&config).force_path_style(has_custom_endpoint);
    let client = Client::from_conf(builder.interceptor(clock.clone()).build());
    Ok(Connection { client, has_custom_endpoint, clock })
}

/// The configuration for a client of an AWS service. All of it comes from the environment, as for every AWS tool:
/// `AWS_ENDPOINT_URL_<service>` (such as `SQS`), `AWS_ENDPOINT_URL`, `AWS_REGION`, the usual credentials (variables,
/// profiles, web identity, container, instance), and `SSL_CERT_FILE` / `SSL_CERT_DIR` for further certificate
/// authorities. `location` is for errors only. Sends no request to the service.
///
/// # Errors
/// No region and no endpoint that would make one unnecessary, or an endpoint that is not a URL.
pub async fn aws_config(location: &str, service: &str) -> Result<SdkConfig> {
    check_endpoint_variables(location, service)?;
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(usual_timeouts())
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        // The reader has its own limit for a body that stalls. This one also counts the time in which a slow consumer
        // does not ask for more.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await;
    if config.region().is_some() {
        return Ok(config);
    }
    if !has_custom_endpoint(&config, service) {
        let message = "no AWS region is configured: set AWS_REGION (or region in the profile)";
        return Err(StoreError::new(StoreErrorKind::Other, "connect", location, message));
    }
    Ok(config.into_builder().region(Region::from_static(REGION_OF_CUSTOM_ENDPOINTS)).build())
}

/// The SDK ignores an endpoint that it cannot parse, and would send requests to AWS instead.
fn check_endpoint_variables(location: &str, service: &str) -> Result<()> {
    for variable in [&*format!("AWS_ENDPOINT_URL_{service}"), "AWS_ENDPOINT_URL"] {
        let value = std::env::var(variable).unwrap_or_default();
        if !value.is_empty() && !value.starts_with("http://") && !value.starts_with("https://") {
            let value = without_credentials(&value);
            let message = format!("{variable} is '{value}'; it must start with http:// or https://");
            return Err(StoreError::new(StoreErrorKind::Other, "connect", location, message));
        }
    }
    Ok(())
}

/// The SDK resolves `AWS_ENDPOINT_URL_<service>` internally without returning it.
fn has_custom_endpoint(config: &SdkConfig, service: &str) -> bool {
    let of_service = std::env::var_os(format!("AWS_ENDPOINT_URL_{service}")).is_some_and(|value| !value.is_empty());
    of_service || config.endpoint_url().is_some()
}

fn usual_timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build()
}

/// For requests whose work grows with the object and precedes the answer.
pub(super) fn patient() -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SERVER_SIDE_TIMEOUT)
        .operation_attempt_timeout(SERVER_SIDE_TIMEOUT)
        .build();
    aws_sdk_s3::config::Config::builder().timeout_config(timeouts)
}
