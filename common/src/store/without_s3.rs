//! Takes the place of `s3` in a build without that feature: buckets are refused.

use std::sync::Arc;

use super::{Location, Result, Store, StoreError, StoreErrorKind};

/// # Errors
/// Always [`StoreErrorKind::Unsupported`].
pub async fn connect_s3(bucket: &str, prefix: &str) -> Result<Arc<dyn Store>> {
    let location = Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() }.to_string();
    let message = format!("this build has no S3 client; {}", crate::FULL_BUILD);
    Err(StoreError::new(StoreErrorKind::Unsupported, "connect", &location, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bucket_is_refused_with_the_build_that_reaches_it() {
        let error = connect_s3("lake", "trusted").await.err().unwrap();
        assert_eq!(error.kind, StoreErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "store connect of 's3://lake/trusted': this build has no S3 client; build without --no-default-features to get one"
        );
    }
}
