//! Objects put in parts.

use bytes::Bytes;

use super::{LARGE_BYTES, content, is_written, list_keys, pattern};
use crate::store::{MIN_PART_BYTES, Metadata, PutCondition, PutOutcome, Store, read_all};

pub(super) async fn parts_become_one_object(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let (first, second) = (pattern(MIN_PART_BYTES), Bytes::from_static(b"the last part may be short"));
    let metadata = Metadata::from([("sequence".to_owned(), "7".to_owned())]);
    let mut upload = store.multipart(&key, &metadata).await.unwrap();
    upload.part(first.clone()).await.unwrap();
    upload.part(second.clone()).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), None, "multipart: visible before it was completed");
    let outcome = upload.complete(PutCondition::IfAbsent).await.unwrap();
    let (meta, body) = read_all(store, &key, u64::MAX).await.unwrap().expect("multipart: completed and not there");
    assert_eq!(outcome, PutOutcome::Written(meta.version), "multipart: its version is not the one that get sees");
    assert!(body == [first, second].concat(), "multipart: the parts came back changed or in another order");

    let empty = format!("{prefix}/empty");
    let upload = store.multipart(&empty, &metadata).await.unwrap();
    assert!(is_written(&upload.complete(PutCondition::None).await.unwrap()), "multipart: without parts was refused");
    assert_eq!(content(store, &empty).await, "", "multipart: without parts must be an empty object");
}

pub(super) async fn an_object_put_in_parts_is_one_object(store: &dyn Store, prefix: &str) {
    let (key, body, metadata) = (format!("{prefix}/one"), pattern(LARGE_BYTES), Metadata::new());
    let put = async |body: Bytes| store.put_in_parts(&key, &body, PutCondition::IfAbsent, &metadata).await;
    let outcome = put(body.clone()).await.unwrap();
    assert!(matches!(outcome, PutOutcome::Written(_)), "put in parts: {outcome:?} for a key that is free");
    let outcome = put(Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(outcome, PutOutcome::AlreadyExists, "put in parts: it replaced an object");
    let (_, read) = read_all(store, &key, u64::MAX).await.unwrap().expect("put in parts: there is no object");
    assert_eq!(read, body, "put in parts: another body came back");
}

pub(super) async fn a_late_completion_loses(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let mut uploads = Vec::new();
    for body in ["first", "second"] {
        let mut upload = store.multipart(&key, &Metadata::new()).await.unwrap();
        upload.part(Bytes::from(body)).await.unwrap();
        uploads.push(upload);
    }
    let mut outcomes = Vec::new();
    for upload in uploads {
        outcomes.push(upload.complete(PutCondition::IfAbsent).await.unwrap());
    }
    assert!(is_written(&outcomes[0]), "complete if absent: the first was refused");
    assert_eq!(outcomes[1], PutOutcome::AlreadyExists, "complete if absent: the second must get AlreadyExists");
    assert_eq!(content(store, &key).await, "first", "complete if absent: the loser changed the winner's object");
    assert_eq!(list_keys(store, prefix).await, [key], "complete if absent: the loser left something behind");
}

pub(super) async fn an_aborted_upload_leaves_nothing(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let mut upload = store.multipart(&key, &Metadata::new()).await.unwrap();
    upload.part(Bytes::from_static(b"never seen")).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), None, "abort: the object exists");
    assert!(list_keys(store, prefix).await.is_empty(), "abort: something is listed");
}
