//! Checks, before anything depends on it, that a store keeps the two guarantees that many S3-compatible stores break.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{ListOptions, Metadata, PutCondition, PutOutcome, Result, Store, StoreError, StoreErrorKind, read_all};

const MAX_PROBE_BYTES: u64 = 4096;

/// Writes three small objects under `<prefix>/probe-…` (without a prefix: `probe-…`) and removes them again.
///
/// # Errors
/// [`StoreErrorKind::Unsupported`] if a second conditional put to one key takes effect or a listing is not ordered;
/// otherwise whatever the store answered.
pub async fn probe(store: &dyn Store, prefix: &str) -> Result<()> {
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let folder = if prefix.is_empty() { String::new() } else { format!("{}/", prefix.trim_end_matches('/')) };
    let stem = format!("{folder}probe-{}-{unique:x}", std::process::id());
    let outcome = check(store, &stem).await;
    let mut removed = Ok(());
    for name in NAMES {
        removed = removed.and(store.delete(&format!("{stem}{name}"), None).await.map(|_| ()));
    }
    outcome.and(removed)
}

/// In the order of writing, which differs from the order of a listing. No `/`: in a directory each probe would leave an
/// empty folder behind.
const NAMES: [&str; 3] = ["b", ".c", "-d"];
const SORTED: [&str; 3] = ["-d", ".c", "b"];

async fn check(store: &dyn Store, stem: &str) -> Result<()> {
    for name in NAMES {
        put_first(store, &format!("{stem}{name}")).await?;
    }
    check_second_put(store, &format!("{stem}{}", NAMES[0])).await?;
    check_order(store, stem).await
}

async fn put_first(store: &dyn Store, key: &str) -> Result<()> {
    // The key is in the body, which distinguishes an answer that was lost from another writer's object.
    let body = Bytes::from(key.to_owned());
    match store.put(key, body.clone(), PutCondition::IfAbsent, &Metadata::new()).await? {
        PutOutcome::Written(_) => Ok(()),
        _ if content(store, key).await?.as_ref() == Some(&body) => Ok(()),
        _ => Err(weak(key, "a conditional put of a new key was refused")),
    }
}

async fn check_second_put(store: &dyn Store, key: &str) -> Result<()> {
    let second = store.put(key, Bytes::from_static(b"second"), PutCondition::IfAbsent, &Metadata::new()).await?;
    let holds = content(store, key).await?;
    if second != PutOutcome::AlreadyExists || holds.as_deref() != Some(key.as_bytes()) {
        return Err(weak(
            key,
            "a second put with If-None-Match overwrote the first: two workers could not be distinguished on this store",
        ));
    }
    Ok(())
}

async fn check_order(store: &dyn Store, stem: &str) -> Result<()> {
    let expected: Vec<String> = SORTED.iter().map(|name| format!("{stem}{name}")).collect();
    let all = list(store, stem, None).await?;
    if all != expected {
        return Err(weak(stem, &format!("a listing must answer {expected:?} in this order, it answered {all:?}")));
    }
    let rest = list(store, stem, expected.first().cloned()).await?;
    if rest != expected[1..] {
        return Err(weak(stem, &format!("a listing that starts after {:?} answered {rest:?}", expected[0])));
    }
    Ok(())
}

async fn list(store: &dyn Store, prefix: &str, start_after: Option<String>) -> Result<Vec<String>> {
    let options = ListOptions { prefix: prefix.to_owned(), start_after, ..ListOptions::default() };
    Ok(store.list(&options).await?.objects.into_iter().map(|object| object.key).collect())
}

async fn content(store: &dyn Store, key: &str) -> Result<Option<Bytes>> {
    Ok(read_all(store, key, MAX_PROBE_BYTES).await?.map(|(_, body)| body))
}

fn weak(key: &str, what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, "probe", key, what)
}
