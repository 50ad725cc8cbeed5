//! Appending an entry, and following those of others.

use bytes::Bytes;
use commitlog::{ENTRY_VERSION, Entry, MAX_ENTRY_BYTES, Op, Sealed};
use common::store::{LockKind, Metadata, ObjectMeta, PutCondition, PutOutcome, StoreErrorKind, StoreLock, read_all};

use crate::error::{CommitLogError, Result};
use crate::{CommitLog, Damage, Tail};

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Append {
    /// It is entry number `tail.next - 1`.
    Appended { tail: Tail },
    /// Others were faster. Their entries, in order, at least one.
    Lost { entries: Vec<Sealed>, tail: Tail },
    /// The number is below what collection has left: who appends slept for long, and has to load again.
    Behind,
}

impl Tail {
    /// After one more entry.
    #[must_use]
    pub fn after(self, entry: &Sealed) -> Self {
        Self { next: self.next + 1, last: Some(entry.hash) }
    }
}

impl CommitLog {
    /// Puts an entry after those up to `tail`, if it is absent. `writer` has to be random and new for each entry: by it an
    /// appender knows its own entry when the answer to the first put was lost.
    ///
    /// The caller has to have folded every entry up to `tail`, and found `ops` valid. Before it rests anything on the
    /// answer, whatever it is, it has to read the floor.
    ///
    /// # Errors
    /// Of the store, and [`CommitLogError::Unwritable`] if the entry would be too large to be read again.
    pub async fn append(&self, tail: Tail, writer: &str, ops: &[Op]) -> Result<Append> {
        let key = self.entry_key(tail.next);
        let entry = Entry {
            version: ENTRY_VERSION,
            n: tail.next,
            previous: tail.last,
            writer: writer.to_owned(),
            ops: ops.to_vec(),
        };
        let unwritable = |error| CommitLogError::Unwritable { key: key.clone(), damage: Damage::Entry(error) };
        let (bytes, sealed) = entry.seal().map_err(unwritable)?;
        let put = self.store.put(&key, Bytes::from(bytes), PutCondition::IfAbsent, &Metadata::new()).await?;
        if matches!(put, PutOutcome::Written(_)) {
            return Ok(Append::Appended { tail: tail.after(&sealed) });
        }
        // Ours, if the answer to an earlier try was lost.
        match self.entry(tail).await? {
            Some(theirs) if theirs == sealed => Ok(Append::Appended { tail: tail.after(&sealed) }),
            Some(theirs) => {
                let after = tail.after(&theirs);
                let (rest, tail) = self.follow(after).await?;
                Ok(Append::Lost { entries: [vec![theirs], rest].concat(), tail })
            }
            // It was deleted between the two requests.
            None => Ok(Append::Behind),
        }
    }

    /// The entries after `tail`, up to where one is absent. That proves the tail, unless the absent one lies below the
    /// floor, which the caller has to read.
    ///
    /// # Errors
    /// Of the store, and an entry that does not follow the one before it.
    pub async fn follow(&self, mut tail: Tail) -> Result<(Vec<Sealed>, Tail)> {
        let mut entries = Vec::new();
        while let Some(entry) = self.entry(tail).await? {
            tail = tail.after(&entry);
            entries.push(entry);
        }
        Ok((entries, tail))
    }

    /// Whether these are all entries.
    pub(crate) async fn is_tail(&self, tail: Tail) -> Result<bool> {
        // Below the floor an absent entry is a hole.
        Ok(self.store.head(&self.entry_key(tail.next)).await?.is_none() && self.floor().await? <= tail.next)
    }

    /// The lock between puts that make rows visible, which share it, and deletes of replacers. None: this store has none,
    /// and a replacer has to wait.
    ///
    /// # Errors
    /// Of the store.
    pub async fn fence(&self, kind: LockKind) -> Result<Option<StoreLock>> {
        match self.store.lock(&self.fence_key(), kind).await {
            Err(error) if error.kind == StoreErrorKind::Unsupported => Ok(None),
            lock => Ok(lock?),
        }
    }

    /// When entry `n` was put, by the store's clock. None: it was collected.
    ///
    /// # Errors
    /// Of the store; it is missing, though the floor is not above it.
    pub async fn entry_put_ms(&self, n: u64) -> Result<Option<i64>> {
        let key = self.entry_key(n);
        match self.store.head(&key).await? {
            Some(meta) => Ok(Some(meta.modified_ms)),
            None if n < self.floor().await? => Ok(None),
            None => Err(CommitLogError::damaged(key, Damage::Missing)),
        }
    }

    /// The entry after `tail`.
    async fn entry(&self, tail: Tail) -> Result<Option<Sealed>> {
        let key = self.entry_key(tail.next);
        let Some(bytes) = self.read(&key, MAX_ENTRY_BYTES as u64).await? else { return Ok(None) };
        let entry = Entry::open(&bytes, tail.next, tail.last);
        entry.map(Some).map_err(|error| CommitLogError::damaged(key, error))
    }

    /// An object as a whole, if it is there.
    pub(crate) async fn read(&self, key: &str, limit_bytes: u64) -> Result<Option<Bytes>> {
        Ok(self.read_with_meta(key, limit_bytes).await?.map(|(_, body)| body))
    }

    pub(crate) async fn read_with_meta(&self, key: &str, limit_bytes: u64) -> Result<Option<(ObjectMeta, Bytes)>> {
        match read_all(&*self.store, key, limit_bytes).await {
            Ok(found) => Ok(found),
            Err(error) if error.kind == StoreErrorKind::TooLarge => {
                let bytes = self.store.head(key).await?.map_or(limit_bytes, |meta| meta.size_bytes);
                Err(CommitLogError::damaged(key, Damage::TooLarge { bytes, limit: limit_bytes }))
            }
            Err(error) => Err(error.into()),
        }
    }
}
