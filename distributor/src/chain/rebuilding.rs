//! A chain that is being made again (see [`crate::audit`]), or whose making was broken off.
//!
//! `_batches/<topic>/<partition>/rebuild.json` says so from before the first object is put until after the last one.
//! While it stands, no distributor takes the partition and nothing is rewritten: what is missing can be objects without
//! which a chain looks whole, such as revisions.

use bytes::Bytes;
use common::store::{Metadata, PutCondition, StoreError};

use super::ChainStore;

impl ChainStore {
    pub(crate) fn rebuilding_key(&self) -> String {
        format!("{}rebuild.json", self.prefix)
    }

    pub(crate) async fn is_being_rebuilt(&self) -> Result<bool, StoreError> {
        Ok(self.store.head(&self.rebuilding_key()).await?.is_some())
    }

    /// Says so. What counts is that it is there, whoever put it.
    pub(crate) async fn begin_rebuilding(&self) -> Result<(), StoreError> {
        let body = Bytes::from_static(b"{\n  \"version\": 1\n}\n");
        self.store.put(&self.rebuilding_key(), body, PutCondition::IfAbsent, &Metadata::new()).await.map(drop)
    }

    pub(crate) async fn end_rebuilding(&self) -> Result<(), StoreError> {
        self.store.delete(&self.rebuilding_key(), None).await.map(drop)
    }
}
