//! Reading an object whole.

use bytes::{Bytes, BytesMut};

use super::{GetOptions, ObjectMeta, ObjectReader, Result, Store, StoreError, StoreErrorKind};

/// How often an object that changes while it is read is begun anew.
const MAX_CHANGES: usize = 10;

/// Reads a whole object, refusing one larger than `limit_bytes`; `None` if there is certainly none, also if it is removed
/// while it is read.
///
/// # Errors
/// The store's, and [`StoreErrorKind::TooLarge`].
pub async fn read_all(store: &dyn Store, key: &str, limit_bytes: u64) -> Result<Option<(ObjectMeta, Bytes)>> {
    read(key, limit_bytes, || store.open(key, GetOptions::default())).await
}

type Opened = Option<(ObjectMeta, Box<dyn ObjectReader>)>;

async fn read<F: Future<Output = Result<Opened>>>(
    key: &str,
    limit_bytes: u64,
    open: impl Fn() -> F,
) -> Result<Option<(ObjectMeta, Bytes)>> {
    let mut changes = 0;
    loop {
        let Some((meta, reader)) = open().await? else { return Ok(None) };
        if meta.size_bytes > limit_bytes {
            let message = format!("{} bytes, more than the limit of {limit_bytes}", meta.size_bytes);
            return Err(StoreError::new(StoreErrorKind::TooLarge, "get", key, message));
        }
        match body(&meta, reader).await {
            Ok(body) => return Ok(Some((meta, body))),
            Err(error) if error.kind == StoreErrorKind::VersionMismatch && changes < MAX_CHANGES => changes += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn body(meta: &ObjectMeta, mut reader: Box<dyn ObjectReader>) -> Result<Bytes> {
    let mut body = BytesMut::with_capacity(usize::try_from(meta.size_bytes).unwrap_or(0));
    while let Some(piece) = reader.next().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::store::Version;

    /// A body, or what happens in the middle of it.
    struct Body(std::vec::IntoIter<Result<Bytes>>);

    #[async_trait]
    impl ObjectReader for Body {
        async fn next(&mut self) -> Result<Option<Bytes>> {
            self.0.next().transpose()
        }
    }

    fn opened(pieces: Vec<Result<Bytes>>) -> Opened {
        let meta = ObjectMeta { key: "x".into(), size_bytes: 2, version: Version("1".into()), modified_ms: 0 };
        Some((meta, Box::new(Body(pieces.into_iter()))))
    }

    fn changes() -> Opened {
        let error = StoreError::new(StoreErrorKind::VersionMismatch, "get", "x", "it was removed while it was read");
        opened(vec![Ok(Bytes::from_static(b"a")), Err(error)])
    }

    /// Reads what the calls open, one after another.
    async fn read_of(mut calls: Vec<Opened>) -> Result<Option<Bytes>> {
        calls.reverse();
        let calls = Mutex::new(calls);
        let read = read("x", 2, || std::future::ready(Ok(calls.lock().unwrap().pop().unwrap()))).await?;
        Ok(read.map(|(_, body)| body))
    }

    #[tokio::test]
    async fn what_changes_while_it_is_read_is_begun_anew() {
        let whole = || opened(vec![Ok(Bytes::from_static(b"bc"))]);
        assert_eq!(read_of(vec![changes(), changes(), whole()]).await.unwrap().as_deref(), Some(b"bc".as_slice()));
        assert_eq!(read_of(vec![changes(), None]).await.unwrap(), None, "it was removed");
        let always = (0..=MAX_CHANGES).map(|_| changes()).collect();
        assert_eq!(read_of(always).await.unwrap_err().kind, StoreErrorKind::VersionMismatch);
    }
}
