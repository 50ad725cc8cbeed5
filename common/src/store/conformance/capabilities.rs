//! What a store says of itself.

use super::*;
use crate::store::StoreErrorKind;

pub(super) async fn capabilities_are_true(store: &dyn Store, prefix: &str) {
    let capabilities = store.capabilities();
    let key = format!("{prefix}/tagged");
    let version = put(store, &key, "content").await;
    let tags = Metadata::from([("processed".to_owned(), "true".to_owned())]);
    let refusals = [store.tag(&key, &tags).await.err(), store.tag_version(&key, &version, &tags).await.err()];
    for refusal in refusals {
        let kind = refusal.map(|error| error.kind);
        let expected = (!capabilities.has_tags).then_some(StoreErrorKind::Unsupported);
        assert_eq!(kind, expected, "capabilities: tags");
    }
    // Segments fit everywhere.
    let segment = "s".repeat(200);
    let mut longest = prefix.to_owned();
    while longest.len() + segment.len() < capabilities.max_key_bytes {
        longest = format!("{longest}/{segment}");
    }
    longest = longest[..longest.len() - 1].to_owned() + &"e".repeat(capabilities.max_key_bytes - longest.len() + 1);
    assert_eq!(longest.len(), capabilities.max_key_bytes);
    put(store, &longest, "content").await;
    assert_eq!(content(store, &longest).await, "content", "capabilities: the longest key");
    if let Some(folder) = capabilities.folder {
        assert!(folder.join(&longest).is_file(), "capabilities: the folder");
    }
}
