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
    // Of segments that fit everywhere.
    let room = capabilities.max_key_bytes - prefix.len();
    let segments = room.div_ceil(200);
    let (length, longer) = ((room - segments) / segments, (room - segments) % segments);
    let mut longest = prefix.to_owned();
    for segment in 0..segments {
        longest = format!("{longest}/{}", "s".repeat(length + usize::from(segment < longer)));
    }
    assert_eq!(longest.len(), capabilities.max_key_bytes);
    put(store, &longest, "content").await;
    assert_eq!(content(store, &longest).await, "content", "capabilities: the longest key");
    if let Some(folder) = capabilities.folder {
        assert!(folder.join(&longest).is_file(), "capabilities: the folder");
    }
}
