//! The floor: entries below it may have been deleted.

use bytes::Bytes;
use common::store::{Metadata, PutCondition, PutOutcome, Version, read_all};
use serde::{Deserialize, Serialize};

use crate::error::{CommitLogError, Result};
use crate::{CommitLog, Damage};

const FLOOR_VERSION: u32 = 1;
const MAX_FLOOR_BYTES: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    version: u32,
    floor: u64,
}

impl CommitLog {
    /// Entries below this number may have been deleted.
    ///
    /// # Errors
    /// Of the store, and an object that is no floor.
    pub async fn floor(&self) -> Result<u64> {
        Ok(self.read_floor().await?.map_or(0, |(floor, _)| floor))
    }

    async fn read_floor(&self) -> Result<Option<(u64, Version)>> {
        let key = self.floor_key();
        let Some((meta, body)) = read_all(&*self.store, &key, MAX_FLOOR_BYTES).await? else { return Ok(None) };
        let damaged = |message: String| CommitLogError::damaged(key.clone(), Damage::Floor { message });
        let floor: Floor = serde_json::from_slice(&body).map_err(|error| damaged(error.to_string()))?;
        if floor.version != FLOOR_VERSION {
            return Err(damaged(format!("version {}, this build reads {FLOOR_VERSION}", floor.version)));
        }
        Ok(Some((floor.floor, meta.version)))
    }

    /// Raises the floor, which never sinks. Returns what it is then.
    ///
    /// # Errors
    /// As [`CommitLog::floor`].
    pub async fn raise_floor(&self, to: u64) -> Result<u64> {
        let key = self.floor_key();
        loop {
            let found = self.read_floor().await?;
            let condition = match found {
                Some((floor, _)) if floor >= to => return Ok(floor),
                Some((_, version)) => PutCondition::IfVersion(version),
                None => PutCondition::IfAbsent,
            };
            let body = serde_json::to_vec(&Floor { version: FLOOR_VERSION, floor: to });
            let body =
                body.map_err(|error| CommitLogError::damaged(&key, Damage::Floor { message: error.to_string() }))?;
            if let PutOutcome::Written(_) = self.store.put(&key, Bytes::from(body), condition, &Metadata::new()).await?
            {
                return Ok(to);
            }
            // Another one raised it: each round somebody got further.
        }
    }
}
