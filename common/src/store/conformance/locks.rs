//! Locks, where a store has them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::store::{LockKind, Store};

/// Whether a lock is to be had at once. A store asks its medium first, so it is asked some times.
async fn is_free(store: &dyn Store, key: &str, kind: LockKind) -> bool {
    let mut lock = pin!(store.lock(key, kind));
    for _ in 0..20 {
        if let Poll::Ready(lock) = lock.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return lock.unwrap().is_some();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    false
}

pub(super) async fn an_exclusive_lock_excludes_all_others(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/fence");
    let Some(one) = store.lock(&key, LockKind::Shared).await.unwrap() else {
        let exclusive = store.lock(&key, LockKind::Exclusive).await.unwrap();
        assert!(exclusive.is_none(), "lock: a store has locks of both kinds, or none");
        return;
    };
    let other = store.lock(&key, LockKind::Shared).await.unwrap();
    assert!(other.is_some(), "lock: two may hold it shared");
    assert!(!is_free(store, &key, LockKind::Exclusive).await, "lock: exclusive while it is shared");
    drop(one);
    assert!(!is_free(store, &key, LockKind::Exclusive).await, "lock: exclusive while another shares it");
    drop(other);
    let exclusive = store.lock(&key, LockKind::Exclusive).await.unwrap();
    assert!(exclusive.is_some(), "lock: free when all are dropped");
    assert!(!is_free(store, &key, LockKind::Shared).await, "lock: shared while it is exclusive");
    assert!(!is_free(store, &key, LockKind::Exclusive).await, "lock: exclusive twice");
    assert!(is_free(store, &format!("{prefix}/other"), LockKind::Exclusive).await, "lock: one name locks another");
    drop(exclusive);
    assert!(store.lock(&key, LockKind::Shared).await.unwrap().is_some(), "lock: shared again");
}
