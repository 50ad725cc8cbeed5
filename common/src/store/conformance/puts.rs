//! Puts, and reads of the objects put.

use std::sync::Arc;

use bytes::Bytes;

use super::{LARGE_BYTES, content, is_written, list_keys, pattern, put, put_if_absent, read_range};
use crate::store::{
    DeleteOutcome, GetOptions, Metadata, PutCondition, PutOutcome, Store, StoreErrorKind, Version, read_all,
};

pub(super) async fn bodies_come_back_as_they_were_put(store: &dyn Store, prefix: &str) {
    let metadata = Metadata::from([("layout".to_owned(), "1".to_owned())]);
    for size in [0, 1, LARGE_BYTES] {
        let (key, body) = (format!("{prefix}/{size}"), pattern(size));
        let outcome = store.put(&key, body.clone(), PutCondition::None, &metadata).await.unwrap();
        let (meta, read) =
            read_all(store, &key, u64::MAX).await.unwrap().expect("get: an object just put is not there");
        assert_eq!(read, body, "get: {size} bytes came back changed");
        assert_eq!(meta.size_bytes, size as u64, "get: wrong size");
        assert_eq!(outcome, PutOutcome::Written(meta.version.clone()), "put: its version is not the one that get sees");
        assert_eq!(store.head(&key).await.unwrap(), Some(meta), "head and get describe the same object differently");
    }
    let key = format!("{prefix}/1");
    store.put(&key, Bytes::from_static(b"other"), PutCondition::None, &Metadata::new()).await.unwrap();
    assert_eq!(content(store, &key).await, "other", "put: an unconditional put did not replace the object");
    let error = read_all(store, &key, 4).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::TooLarge, "read_all: its limit is not kept");
}

pub(super) async fn ranges_are_cut_out_and_clipped(store: &dyn Store, prefix: &str) {
    let (key, empty) = (format!("{prefix}/ten"), format!("{prefix}/empty"));
    put(store, &key, "0123456789").await;
    put(store, &empty, "").await;
    let cases =
        [(0..4, "0123"), (3..4, "3"), (7..99, "789"), (0..10, "0123456789"), (10..20, ""), (99..100, ""), (4..4, "")];
    for (range, expected) in cases {
        let (meta, body) = read_range(store, &key, range.clone()).await;
        assert_eq!(body, expected, "get: range {range:?} of ten bytes");
        assert_eq!(meta.size_bytes, 10, "get: with a range the size must still be the whole object's ({range:?})");
    }
    let (meta, body) = read_range(store, &empty, 0..10).await;
    assert_eq!((meta.size_bytes, body.as_str()), (0, ""), "get: a range of an empty object must be empty");
}

pub(super) async fn missing_objects_are_none(store: &dyn Store, prefix: &str) {
    put(store, &format!("{prefix}/folder/there"), "x").await;
    for key in ["nothing", "no/folder/here", "folder", "folder/ther"] {
        let key = format!("{prefix}/{key}");
        assert_eq!(store.head(&key).await.unwrap(), None, "head: '{key}' is no object");
        assert!(store.open(&key, GetOptions::default()).await.unwrap().is_none(), "get: '{key}' is no object");
        let pinned = GetOptions { if_version: Some(Version("\"0\"".into())), range: None };
        assert!(store.open(&key, pinned).await.unwrap().is_none(), "get with a version: '{key}' is no object");
    }
}

pub(super) async fn put_if_absent_keeps_the_first(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/new/folders/key");
    assert!(is_written(&put_if_absent(store, &key, "first").await), "put if absent: a new key was refused");
    let second = put_if_absent(store, &key, "second").await;
    assert_eq!(second, PutOutcome::AlreadyExists, "put if absent: the second must get AlreadyExists");
    assert_eq!(content(store, &key).await, "first", "put if absent: the loser changed the winner's object");
    assert_eq!(store.delete(&key, None).await.unwrap(), DeleteOutcome::Deleted);
    assert!(is_written(&put_if_absent(store, &key, "third").await), "put if absent: a deleted key must be free again");
}

pub(super) async fn one_of_many_racers_wins(store: &Arc<dyn Store>, prefix: &str) {
    const RACERS: usize = 16;
    for round in 0..3 {
        let key = format!("{prefix}/{round}/key");
        let start = Arc::new(tokio::sync::Barrier::new(RACERS));
        let racers: Vec<_> = (0..RACERS)
            .map(|racer| {
                let (store, key, start) = (Arc::clone(store), key.clone(), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    put_if_absent(store.as_ref(), &key, &format!("racer {racer}")).await
                })
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, task) in racers.into_iter().enumerate() {
            match task.await.expect("put if absent: a racer failed") {
                PutOutcome::Written(_) => winners.push(format!("racer {racer}")),
                other => assert_eq!(other, PutOutcome::AlreadyExists, "put if absent: a racer got another outcome"),
            }
        }
        assert_eq!(winners.len(), 1, "put if absent: {RACERS} racers had the winners {winners:?} in round {round}");
        let stands = content(store.as_ref(), &key).await;
        assert_eq!(stands, winners[0], "put if absent: the object is not the winner's");
    }
}

pub(super) async fn put_if_version_replaces_only_that_version(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let put_if = async |body: &'static str, version: &Version| {
        let condition = PutCondition::IfVersion(version.clone());
        store.put(&key, Bytes::from_static(body.as_bytes()), condition, &Metadata::new()).await.unwrap()
    };
    let nowhere = put_if("nothing to replace", &Version("\"0\"".into())).await;
    assert_eq!(nowhere, PutOutcome::VersionMismatch, "put if version: there is no object to replace");
    assert_eq!(store.head(&key).await.unwrap(), None, "put if version: a refused put made an object");
    let first = put(store, &key, "first").await;
    let PutOutcome::Written(second) = put_if("second", &first).await else {
        panic!("put if version: the current version was refused");
    };
    assert_ne!(first, second, "put: another content must be another version");
    let stale = put_if("stale", &first).await;
    assert_eq!(stale, PutOutcome::VersionMismatch, "put if version: an old version must not be accepted");
    assert_eq!(content(store, &key).await, "second", "put if version: a refused put changed the object");
}

pub(super) async fn reads_are_pinned_to_a_version(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let first = put(store, &key, "first").await;
    let pinned = GetOptions { if_version: Some(first), range: Some(1..3) };
    let (_, mut reader) = store.open(&key, pinned.clone()).await.unwrap().expect("get: the object is not there");
    assert_eq!(reader.next().await.unwrap().as_deref(), Some(b"ir".as_slice()), "get with a version and a range");
    assert_eq!(reader.next().await.unwrap(), None, "get: there is more than was asked for");
    put(store, &key, "second").await;
    let error = store.open(&key, pinned).await.err().expect("get: another version was opened");
    assert_eq!(error.kind, StoreErrorKind::VersionMismatch, "get with a version: {error}");
}

pub(super) async fn keys_that_leave_the_root_are_refused(store: &dyn Store, prefix: &str) {
    let version = put(store, &format!("{prefix}/source"), "x").await;
    for tail in ["../x", "a//b", "a/./b", "a/../../b", "a/", ".."] {
        refuse(store, prefix, &version, &format!("{prefix}/{tail}")).await;
    }
    for key in ["", "/x", "../x", ".", "..", "//", "a\0b"] {
        refuse(store, prefix, &version, key).await;
    }
    let left = list_keys(store, prefix).await;
    assert_eq!(left, [format!("{prefix}/source")], "invalid keys: a refused call wrote something or took the source");
}

async fn refuse(store: &dyn Store, prefix: &str, version: &Version, key: &str) {
    let source = format!("{prefix}/source");
    let body = || Bytes::from_static(b"must not be written");
    let answers = [
        ("put", store.put(key, body(), PutCondition::None, &Metadata::new()).await.err()),
        ("put if absent", store.put(key, body(), PutCondition::IfAbsent, &Metadata::new()).await.err()),
        ("multipart", store.multipart(key, &Metadata::new()).await.err()),
        ("head", store.head(key).await.err()),
        ("open", store.open(key, GetOptions::default()).await.err()),
        ("delete", store.delete(key, None).await.err()),
        ("delete of a version", store.delete(key, Some(version)).await.err()),
        ("tag of a version", store.tag_version(key, version, &Metadata::new()).await.err()),
        ("copy", store.copy(&source, version, key).await.err()),
        ("rename", store.rename(&source, version, key).await.err()),
    ];
    for (operation, error) in answers {
        let kind = error.map(|error| error.kind);
        assert_eq!(kind, Some(StoreErrorKind::InvalidKey), "{operation}: the key {key:?} must be refused as invalid");
    }
}
