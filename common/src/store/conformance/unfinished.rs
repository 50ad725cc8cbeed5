//! Uploads that a crash leaves unfinished: listed, distinguished from complete objects, and removed.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{content, is_written};
use crate::store::{ListUploads, Metadata, MultipartUpload, PutCondition, Store, StoreErrorKind, UnfinishedUpload};

pub(super) async fn run_all(store: &dyn Store, prefix: &str) {
    unfinished_uploads_are_found_until_they_end(store, &format!("{prefix}/found")).await;
    pages_give_each_key_with_uploads(store, &format!("{prefix}/pages")).await;
    aborting_frees_an_upload_and_touches_no_object(store, &format!("{prefix}/abort")).await;
}

async fn begin(store: &dyn Store, key: &str) -> Box<dyn MultipartUpload> {
    let mut upload = store.multipart(key, &Metadata::new()).await.unwrap();
    upload.part(Bytes::from_static(b"a part")).await.unwrap();
    upload
}

/// All uploads under a prefix, in pages of `limit`.
async fn unfinished(store: &dyn Store, prefix: &str, limit: Option<usize>) -> Vec<UnfinishedUpload> {
    let mut options = ListUploads { prefix: format!("{prefix}/"), after: None, limit };
    let mut found = Vec::new();
    loop {
        let page = store.unfinished_uploads(&options).await.unwrap();
        assert!(limit.is_none_or(|limit| page.uploads.len() <= limit), "list uploads: a page is larger than asked for");
        found.extend(page.uploads);
        match page.next {
            Some(next) => options.after = Some(next),
            None => return found,
        }
    }
}

async fn unfinished_uploads_are_found_until_they_end(store: &dyn Store, prefix: &str) {
    assert!(unfinished(store, prefix, None).await.is_empty(), "list uploads: there is none");
    let (completed, aborted) =
        (begin(store, &format!("{prefix}/a/x +%ü")).await, begin(store, &format!("{prefix}/b")).await);
    let found = unfinished(store, prefix, None).await;
    assert_eq!(found.len(), 2, "list uploads: {found:?}");
    let inner = unfinished(store, &format!("{prefix}/a"), None).await;
    assert_eq!(inner.len(), 1, "list uploads: its prefix is not kept: {inner:?}");
    assert!(found.contains(&inner[0]), "list uploads: {:?} is another one in {found:?}", inner[0]);
    let year_2000_ms = 946_684_800_000;
    assert!(found.iter().all(|upload| upload.begun_ms > year_2000_ms), "list uploads: without a time: {found:?}");
    assert!(is_written(&completed.complete(PutCondition::IfAbsent).await.unwrap()));
    aborted.abort().await.unwrap();
    assert!(unfinished(store, prefix, None).await.is_empty(), "list uploads: what ended is listed");
}

async fn pages_give_each_key_with_uploads(store: &dyn Store, prefix: &str) {
    let mut uploads = Vec::new();
    // Several of one key, too.
    for key in ["a", "b/c", "b/c", "b/c", "d"] {
        uploads.push(begin(store, &format!("{prefix}/{key}")).await);
    }
    let whole = unfinished(store, prefix, None).await;
    assert_eq!(whole.len(), uploads.len(), "list uploads: {whole:?}");
    let keys = |uploads: &[UnfinishedUpload]| uploads.iter().map(|upload| upload.key.clone()).collect::<BTreeSet<_>>();
    for limit in 1..=uploads.len() {
        let paged = unfinished(store, prefix, Some(limit)).await;
        assert_eq!(keys(&paged), keys(&whole), "list uploads: pages of {limit} leave keys out");
        let ids: BTreeSet<_> = paged.iter().map(|upload| (&upload.key, &upload.id)).collect();
        assert_eq!(ids.len(), paged.len(), "list uploads: pages of {limit} give one twice: {paged:?}");
    }
    for upload in uploads {
        upload.abort().await.unwrap();
    }
}

async fn aborting_frees_an_upload_and_touches_no_object(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let completed = begin(store, &key).await;
    let late = unfinished(store, prefix, None).await;
    assert!(is_written(&completed.complete(PutCondition::IfAbsent).await.unwrap()));
    let mut left_behind = store.multipart(&key, &Metadata::new()).await.unwrap();
    left_behind.part(Bytes::from_static(b"another part")).await.unwrap();
    let other = format!("{prefix}/other");
    let alone = begin(store, &other).await;
    let found = unfinished(store, prefix, None).await;
    assert_eq!(found.len(), 2, "list uploads: {found:?}");
    // The first names an upload that was completed since it was listed.
    for upload in late.iter().chain(&found).chain(&found) {
        store.abort_upload(upload).await.expect("abort upload: of a missing upload must succeed");
    }
    assert!(unfinished(store, prefix, None).await.is_empty(), "abort upload: it is still listed");
    assert_eq!(content(store, &key).await, "a part", "abort upload: the object of that key was touched");
    for (left_behind, taken) in [(left_behind, true), (alone, false)] {
        let outcome = left_behind.complete(PutCondition::IfAbsent).await;
        assert!(
            outcome.as_ref().map_or(true, |outcome| taken && !is_written(outcome)),
            "abort upload: it could be completed after all: {outcome:?}"
        );
    }
    assert_eq!(store.head(&other).await.unwrap(), None, "abort upload: it became an object after all");
    let foreign = UnfinishedUpload { key: "../x".to_owned(), id: found[0].id.clone(), begun_ms: 0 };
    let refused = store.abort_upload(&foreign).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::InvalidKey, "abort upload: a key that leaves the root was taken");
}
