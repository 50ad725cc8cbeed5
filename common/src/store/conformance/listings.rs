//! Listings: their order, pages and prefixes.

use super::{content, list_keys, put};
use crate::store::{ListOptions, ListPage, Store, SurveyOptions};

/// In ascending byte order. `a` is a directory among names that sort before and after `a/`.
const AWKWARD: [&str; 16] = [
    "B",
    "a b",
    "a+b",
    "a-b",
    "a.txt",
    "a/b",
    "a/b c/d+e%2Ff",
    "a/c",
    "a0",
    "b%2Fc",
    "b&c=d;e?f#g",
    "b'c\"d",
    "c~",
    "z",
    "ä",
    "日本",
];

fn awkward_keys(prefix: &str) -> Vec<String> {
    AWKWARD.iter().map(|key| format!("{prefix}/{key}")).collect()
}

pub(super) async fn keys_are_listed_in_byte_order(store: &dyn Store, prefix: &str) {
    let keys = awkward_keys(prefix);
    assert!(keys.is_sorted(), "the suite's own list must be sorted");
    // Written neither in order nor in reverse.
    for key in keys.iter().step_by(2).chain(keys.iter().skip(1).step_by(2)) {
        put(store, key, key).await;
    }
    assert_eq!(list_keys(store, &format!("{prefix}/")).await, keys, "list: not in byte order or not complete");
    for key in &keys {
        assert_eq!(content(store, key).await, *key, "get: the key '{key}' was mixed up with another");
    }
}

pub(super) async fn listings_start_after_any_string(store: &dyn Store, prefix: &str) {
    let keys = awkward_keys(prefix);
    for key in &keys {
        put(store, key, "x").await;
    }
    let strangers = ["a", "a/", "a/b c", "a/b ", "a.", "a/bb", "a1", "aa/b", "", "zz/y", "日本/"];
    let starts = keys.iter().cloned().chain(strangers.iter().map(|start| format!("{prefix}/{start}")));
    for start in starts {
        let options =
            ListOptions { prefix: format!("{prefix}/"), start_after: Some(start.clone()), ..ListOptions::default() };
        let expected: Vec<&String> = keys.iter().filter(|key| **key > start).collect();
        let page = store.list(&options).await.unwrap();
        let listed: Vec<&String> = page.objects.iter().map(|object| &object.key).collect();
        assert_eq!(listed, expected, "list: wrong keys after '{start}'");
        assert!(!page.more, "list: more was promised after the last key (start after '{start}')");
    }
}

pub(super) async fn listings_take_prefixes_that_end_inside_a_segment(store: &dyn Store, prefix: &str) {
    let keys = awkward_keys(prefix);
    for key in &keys {
        put(store, key, "x").await;
    }
    for part in ["a", "a/", "a/b", "a/b c/d", "a-", "b%2", "nothing", "no/thing", "ä", "a/b c/d+e%2Ff"] {
        let wanted = format!("{prefix}/{part}");
        let expected: Vec<&String> = keys.iter().filter(|key| key.starts_with(&wanted)).collect();
        let listed = list_keys(store, &wanted).await;
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "list: wrong keys with the prefix '{part}'");
    }
    let outside = list_keys(store, "../").await;
    assert!(outside.is_empty(), "list: a prefix that leaves the root must match nothing");
}

pub(super) async fn delimiters_fold_and_page(store: &dyn Store, prefix: &str) {
    for key in ["a-b", "a.txt", "a/b", "a/c/d", "a0", "b/x", "c", "d/e/f"] {
        put(store, &format!("{prefix}/{key}"), "x").await;
    }
    let inside = format!("{prefix}/");
    let expected = ["a-b", "a.txt", "a/", "a0", "b/", "c", "d/"].map(|entry| format!("{inside}{entry}"));
    let options = ListOptions { prefix: inside.clone(), delimiter: true, ..ListOptions::default() };
    let page = store.list(&options).await.unwrap();
    assert_eq!(entries(&page), expected, "list with a delimiter: wrong objects or prefixes");
    assert_eq!(page.prefixes.len(), 3, "list with a delimiter: folded prefixes are listed among the objects");
    for limit in [1, 2, 3] {
        let paged = page_through(store, ListOptions { limit: Some(limit), ..options.clone() }).await;
        assert_eq!(paged, expected, "list with a delimiter in pages of {limit}");
    }
    let part = ListOptions { prefix: format!("{inside}a"), ..options.clone() };
    assert_eq!(entries(&store.list(&part).await.unwrap()), expected[..4], "list: delimiter with a prefix in a segment");
    let inner = ListOptions { prefix: format!("{inside}a/"), ..options };
    let expected = [format!("{inside}a/b"), format!("{inside}a/c/")];
    assert_eq!(entries(&store.list(&inner).await.unwrap()), expected, "list: delimiter inside a folder");
}

pub(super) async fn pages_give_each_key_once(store: &dyn Store, prefix: &str) {
    let mut keys: Vec<String> = (0..25).map(|number| format!("{prefix}/{}/key-{number:02}", number / 4)).collect();
    keys.sort();
    for key in &keys {
        put(store, key, "x").await;
    }
    for limit in [1, 4, 5, 7, 24, 25, 26] {
        let options = ListOptions { prefix: format!("{prefix}/"), limit: Some(limit), ..ListOptions::default() };
        assert_eq!(page_through(store, options).await, keys, "list: 25 keys in pages of {limit}");
    }
}

pub(super) async fn listings_describe_objects_as_head_does(store: &dyn Store, prefix: &str) {
    for key in ["one", "folder/two"] {
        put(store, &format!("{prefix}/{key}"), key).await;
    }
    let options = ListOptions { prefix: format!("{prefix}/"), ..ListOptions::default() };
    for object in store.list(&options).await.unwrap().objects {
        let head = store.head(&object.key).await.unwrap().expect("head: a listed object is not there");
        assert_eq!((&object.version, object.size_bytes), (&head.version, head.size_bytes), "list and head differ");
        // One of them may have the time of the last write at a finer resolution.
        assert_eq!(object.modified_ms / 1000, head.modified_ms / 1000, "list and head differ in the time");
        assert!(object.modified_ms > 1_600_000_000_000, "list: the time of the last write is missing");
    }
}

pub(super) async fn surveys_find_what_listings_find(store: &dyn Store, prefix: &str) {
    let keys = awkward_keys(prefix);
    for key in &keys {
        put(store, key, "x").await;
    }
    let options = ListOptions { prefix: format!("{prefix}/"), ..ListOptions::default() };
    let listed = store.list(&options).await.unwrap().objects;
    for limit in [1, 2, 5, keys.len(), keys.len() + 1] {
        let mut options =
            SurveyOptions { prefix: format!("{prefix}/"), limit: Some(limit), ..SurveyOptions::default() };
        let mut surveyed = Vec::new();
        loop {
            let page = store.survey(&options).await.unwrap();
            assert!(page.objects.len() <= limit, "survey: {} objects, the limit was {limit}", page.objects.len());
            assert!(page.unlisted.is_empty(), "survey: {:?} can be listed", page.unlisted);
            assert!(page.passed_over.is_empty(), "survey: {:?} are objects", page.passed_over);
            surveyed.extend(page.objects);
            match page.next {
                Some(next) => options.start_after = Some(next),
                None => break,
            }
            assert!(surveyed.len() < 1000, "survey: paging does not come to an end");
        }
        assert_eq!(surveyed, listed, "survey: pages of {limit} find something else than a listing");
    }
    let after = SurveyOptions { start_after: Some(keys[4].clone()), ..SurveyOptions::default() };
    let rest = store.survey(&SurveyOptions { prefix: format!("{prefix}/"), ..after }).await.unwrap().objects;
    assert_eq!(rest, listed[5..], "survey: it must begin after a key that it is given");
}

/// Objects and folded prefixes in one order.
fn entries(page: &ListPage) -> Vec<String> {
    let mut entries: Vec<String> = page.objects.iter().map(|object| object.key.clone()).collect();
    entries.extend(page.prefixes.iter().cloned());
    entries.sort();
    entries
}

/// Continues from the last entry of each page to the end.
async fn page_through(store: &dyn Store, mut options: ListOptions) -> Vec<String> {
    let limit = options.limit.expect("the suite pages with a limit");
    let mut all = Vec::new();
    loop {
        let page = store.list(&options).await.unwrap();
        let entries = entries(&page);
        assert!(entries.len() <= limit, "list: a page of {} entries, the limit was {limit}", entries.len());
        assert!(!page.more || !entries.is_empty(), "list: an empty page that promises more leads nowhere");
        options.start_after = entries.last().cloned();
        all.extend(entries);
        assert!(all.len() < 1000, "list: paging does not come to an end");
        if !page.more {
            return all;
        }
    }
}
