//! A body that continues where it broke off.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Shared;
use crate::store::{GetOptions, ObjectMeta, ObjectReader, Result, StoreError, StoreErrorKind, Version};

pub(super) struct RetryingReader {
    shared: Arc<Shared>,
    key: String,
    version: Version,
    /// The range not yet read.
    range: Range<u64>,
    reader: Box<dyn ObjectReader>,
}

impl RetryingReader {
    pub fn new(shared: Arc<Shared>, meta: &ObjectMeta, options: &GetOptions, reader: Box<dyn ObjectReader>) -> Self {
        let range = options.range.clone().unwrap_or(0..meta.size_bytes);
        let range = range.start..range.end.min(meta.size_bytes).max(range.start);
        Self { shared, key: meta.key.clone(), version: meta.version.clone(), range, reader }
    }

    /// Opens the remaining range of the same version.
    async fn reopen(&mut self) -> Result<()> {
        let options = GetOptions { range: Some(self.range.clone()), if_version: Some(self.version.clone()) };
        let opened = self.shared.inner.open(&self.key, options).await?;
        let gone =
            || StoreError::new(StoreErrorKind::VersionMismatch, "get", &self.key, "it was removed while it was read");
        self.reader = opened.ok_or_else(gone)?.1;
        Ok(())
    }
}

#[async_trait]
impl ObjectReader for RetryingReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let shared = self.shared.clone();
        let mut tries = shared.tries(&self.key);
        let mut is_broken = false;
        loop {
            let outcome = if is_broken { self.reopen().await } else { Ok(()) };
            let piece = match outcome {
                Ok(()) => self.reader.next().await,
                Err(error) => Err(error),
            };
            match piece {
                Ok(piece) => {
                    tries.succeeded();
                    self.range.start += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                    return Ok(piece);
                }
                Err(error) => tries.failed(error).await?,
            }
            is_broken = true;
        }
    }
}
