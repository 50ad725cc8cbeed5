//! The folders of a place in a store.

use super::{ListOptions, Result, Store};

/// Folders directly below a prefix, in order, over all pages of the listing: at least `most` if there are so many.
///
/// # Errors
/// The store's.
pub async fn folders(store: &dyn Store, prefix: &str, most: usize) -> Result<Vec<String>> {
    let (mut all, mut start_after) = (Vec::new(), None);
    loop {
        let options = ListOptions { prefix: prefix.to_owned(), delimiter: true, start_after, limit: Some(1_000) };
        let page = store.list(&options).await?;
        start_after = page.prefixes.last().max(page.objects.last().map(|object| &object.key)).cloned();
        all.extend(page.prefixes);
        if !page.more || start_after.is_none() || all.len() >= most {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, Metadata, PutCondition};

    #[tokio::test]
    async fn folders_beyond_the_first_page_are_found() {
        let store = MemoryStore::default();
        for n in 0..2_500 {
            store
                .put(&format!("a/{n}/0"), b"x".as_slice().into(), PutCondition::IfAbsent, &Metadata::new())
                .await
                .unwrap();
        }
        let found = folders(&store, "a/", usize::MAX).await.unwrap();
        assert_eq!(found.len(), 2_500);
        assert!(found.contains(&"a/999/".to_owned()));
    }
}
