//! Waiting until no put of an input can come late any more.
//!
//! A put that makes rows visible rests on a proof of the commit log's tail. One that rests on a proof from before a replace
//! began may put an input of it again, after that was deleted, beside the output with the same rows. So nothing is deleted
//! while such a put can still take effect.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::log::Log;
use common::store::{LockKind, Metadata, PutCondition, Store, StoreError, StoreErrorKind};

use crate::error::PartitionError;

/// Locked to find out whether that works.
const PROBE: &str = "_commits/fence";
/// The store's clock is read at least so often.
const POLL: Duration = Duration::from_secs(30);

/// What a replacer rests on before it deletes files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// The group has no members, when a replace is chosen and again before files are deleted. A distributor that its group
    /// gave up and that stopped between two instructions is not seen by it.
    Offline,
    /// The store has locks, of which distributors hold one while they make files visible. They go on meanwhile.
    Locks,
    /// The store's clock is so far past the entry that began the replace. Distributors go on meanwhile.
    Wait(Duration),
}

impl Fence {
    /// What lets distributors go on while files of a store are replaced: locks, or waiting. None: neither works there.
    ///
    /// # Errors
    /// The store's.
    pub async fn beside(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        match store.lock(PROBE, LockKind::Shared).await {
            Ok(Some(_)) => return Ok(Some(Self::Locks)),
            Err(error) if error.kind != StoreErrorKind::Unsupported => return Err(error),
            Ok(None) | Err(_) => {}
        }
        Ok(store.refuses_old_requests().await?.then_some(Self::SIGNED))
    }

    /// For stores that refuse requests signed more than 15 minutes ago: 15 minutes for the signature, as many for what was
    /// accepted to become visible or fail, and 5 for the age of a proof.
    pub const SIGNED: Self = Self::Wait(Duration::from_secs(35 * 60));
}

/// Sets the group's offset of a partition to what it is, which a log refuses while the group has members. Without an offset
/// the group goes on at `end`.
///
/// # Errors
/// The group has members; the log's.
pub(super) async fn refuse_members(
    log: &dyn Log,
    (topic, group): (&str, &str),
    partition: i32,
    end: i64,
) -> Result<(), PartitionError> {
    let committed = log.committed(group, topic).await?.get(&partition).copied();
    let offsets = BTreeMap::from([(partition, committed.unwrap_or(end))]);
    Ok(log.set_committed(group, topic, &offsets).await?)
}

/// Waits until the store's clock shows `until_ms`. `key` is put to learn its time, and deleted.
pub(super) async fn wait(store: &dyn Store, key: &str, until_ms: i64) -> Result<(), PartitionError> {
    loop {
        store.put(key, Bytes::from_static(b"{}"), PutCondition::None, &Metadata::new()).await?;
        // Another replacer may have deleted it.
        let now_ms = store.head(key).await?.map(|meta| meta.modified_ms);
        match now_ms.map(|now_ms| until_ms.saturating_sub(now_ms)) {
            Some(left_ms) if left_ms <= 0 => break,
            Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms.unsigned_abs()).min(POLL)).await,
            None => {}
        }
    }
    store.delete(key, None).await?;
    Ok(())
}
