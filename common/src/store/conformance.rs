//! What every [`Store`] has to do, as one suite that runs over each implementation.
//!
//! Each function shows one guarantee under keys of its own below the given prefix. No test holds both `x` and `x/y`:
//! a directory cannot, and neither can gateways that keep objects in one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test suite: failing loudly is its job")]

mod unfinished;

use std::sync::Arc;

use bytes::Bytes;

use super::{
    DeleteOutcome, GetOptions, ListOptions, ListPage, MIN_PART_BYTES, Metadata, Move, ObjectMeta, PutCondition,
    PutOutcome, RenameOutcome, Store, StoreErrorKind, Version, read_all,
};

const LARGE_BYTES: usize = 6 * 1024 * 1024;

/// Runs every test. `prefix` must be new to the store: nothing may stand under it.
///
/// # Panics
/// With the broken guarantee in the message.
pub async fn run_all(store: Arc<dyn Store>, prefix: &str) {
    let under = |name: &str| format!("{prefix}/{name}");
    one_of_many_racers_wins(&store, &under("race")).await;
    let store = store.as_ref();
    bodies_come_back_as_they_were_put(store, &under("bodies")).await;
    ranges_are_cut_out_and_clipped(store, &under("ranges")).await;
    missing_objects_are_none(store, &under("missing")).await;
    put_if_absent_keeps_the_first(store, &under("absent")).await;
    put_if_version_replaces_only_that_version(store, &under("version")).await;
    keys_are_listed_in_byte_order(store, &under("order")).await;
    listings_start_after_any_string(store, &under("after")).await;
    listings_take_prefixes_that_end_inside_a_segment(store, &under("prefixes")).await;
    delimiters_fold_and_page(store, &under("fold")).await;
    pages_give_each_key_once(store, &under("pages")).await;
    listings_describe_objects_as_head_does(store, &under("describe")).await;
    reads_are_pinned_to_a_version(store, &under("pinned")).await;
    renames_move_exactly_one_version(store, &under("rename")).await;
    renames_never_overwrite(store, &under("taken")).await;
    copies_are_pinned_and_leave_the_source(store, &under("copy")).await;
    a_move_onto_itself_is_refused(store, &under("itself")).await;
    batches_of_moves_answer_each_for_itself(store, &under("moves")).await;
    batches_that_name_a_key_twice_are_done_in_order(store, &under("twice")).await;
    batches_may_be_large(store, &under("large")).await;
    deletes_are_idempotent(store, &under("delete")).await;
    deletes_take_only_the_version_they_name(store, &under("versions")).await;
    batches_of_deletes_answer_each_for_itself(store, &under("deletes")).await;
    parts_become_one_object(store, &under("parts")).await;
    what_is_put_in_parts_is_one_object(store, &under("large-parts")).await;
    a_late_completion_loses(store, &under("late")).await;
    an_aborted_upload_leaves_nothing(store, &under("abort")).await;
    unfinished::run_all(store, &under("unfinished")).await;
    keys_that_leave_the_root_are_refused(store, &under("keys")).await;
    super::probe(store, &under("probe")).await.expect("probe: a store that keeps its promises was refused");
}

async fn bodies_come_back_as_they_were_put(store: &dyn Store, prefix: &str) {
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

async fn ranges_are_cut_out_and_clipped(store: &dyn Store, prefix: &str) {
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

async fn missing_objects_are_none(store: &dyn Store, prefix: &str) {
    put(store, &format!("{prefix}/folder/there"), "x").await;
    for key in ["nothing", "no/folder/here", "folder", "folder/ther"] {
        let key = format!("{prefix}/{key}");
        assert_eq!(store.head(&key).await.unwrap(), None, "head: '{key}' is no object");
        assert!(store.open(&key, GetOptions::default()).await.unwrap().is_none(), "get: '{key}' is no object");
        let pinned = GetOptions { if_version: Some(Version("\"0\"".into())), range: None };
        assert!(store.open(&key, pinned).await.unwrap().is_none(), "get with a version: '{key}' is no object");
    }
}

async fn put_if_absent_keeps_the_first(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/new/folders/key");
    assert!(is_written(&put_if_absent(store, &key, "first").await), "put if absent: a new key was refused");
    let second = put_if_absent(store, &key, "second").await;
    assert_eq!(second, PutOutcome::AlreadyExists, "put if absent: the second must be told that it lost");
    assert_eq!(content(store, &key).await, "first", "put if absent: the loser changed the winner's object");
    assert_eq!(store.delete(&key, None).await.unwrap(), DeleteOutcome::Deleted);
    assert!(is_written(&put_if_absent(store, &key, "third").await), "put if absent: a deleted key must be free again");
}

async fn one_of_many_racers_wins(store: &Arc<dyn Store>, prefix: &str) {
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
                other => assert_eq!(other, PutOutcome::AlreadyExists, "put if absent: a racer was told nonsense"),
            }
        }
        assert_eq!(winners.len(), 1, "put if absent: {RACERS} racers had the winners {winners:?} in round {round}");
        let stands = content(store.as_ref(), &key).await;
        assert_eq!(stands, winners[0], "put if absent: the object is not the winner's");
    }
}

async fn put_if_version_replaces_only_that_version(store: &dyn Store, prefix: &str) {
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

async fn keys_are_listed_in_byte_order(store: &dyn Store, prefix: &str) {
    let keys = awkward_keys(prefix);
    assert!(keys.is_sorted(), "the suite's own list must be sorted");
    // Neither written in order nor in reverse.
    for key in keys.iter().step_by(2).chain(keys.iter().skip(1).step_by(2)) {
        put(store, key, key).await;
    }
    assert_eq!(list_keys(store, &format!("{prefix}/")).await, keys, "list: not in byte order or not complete");
    for key in &keys {
        assert_eq!(content(store, key).await, *key, "get: the key '{key}' was mixed up with another");
    }
}

async fn listings_start_after_any_string(store: &dyn Store, prefix: &str) {
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

async fn listings_take_prefixes_that_end_inside_a_segment(store: &dyn Store, prefix: &str) {
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

async fn delimiters_fold_and_page(store: &dyn Store, prefix: &str) {
    for key in ["a-b", "a.txt", "a/b", "a/c/d", "a0", "b/x", "c", "d/e/f"] {
        put(store, &format!("{prefix}/{key}"), "x").await;
    }
    let inside = format!("{prefix}/");
    let expected = ["a-b", "a.txt", "a/", "a0", "b/", "c", "d/"].map(|entry| format!("{inside}{entry}"));
    let options = ListOptions { prefix: inside.clone(), delimiter: true, ..ListOptions::default() };
    let page = store.list(&options).await.unwrap();
    assert_eq!(entries(&page), expected, "list with a delimiter: wrong objects or prefixes");
    assert_eq!(page.prefixes.len(), 3, "list with a delimiter: folded prefixes stand among the objects");
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

async fn pages_give_each_key_once(store: &dyn Store, prefix: &str) {
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

async fn listings_describe_objects_as_head_does(store: &dyn Store, prefix: &str) {
    for key in ["one", "folder/two"] {
        put(store, &format!("{prefix}/{key}"), key).await;
    }
    let options = ListOptions { prefix: format!("{prefix}/"), ..ListOptions::default() };
    for object in store.list(&options).await.unwrap().objects {
        let head = store.head(&object.key).await.unwrap().expect("head: a listed object is not there");
        assert_eq!((&object.version, object.size_bytes), (&head.version, head.size_bytes), "list and head differ");
        // One may know the time of the last write more exactly than the other.
        assert_eq!(object.modified_ms / 1000, head.modified_ms / 1000, "list and head differ in the time");
        assert!(object.modified_ms > 1_600_000_000_000, "list: the time of the last write is missing");
    }
}

async fn reads_are_pinned_to_a_version(store: &dyn Store, prefix: &str) {
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

async fn renames_move_exactly_one_version(store: &dyn Store, prefix: &str) {
    let (from, to) = (format!("{prefix}/pending/ä b+%2F.json"), format!("{prefix}/done/date=1/ä b+%2F.json"));
    let version = put(store, &from, "content").await;
    assert_eq!(store.rename(&from, &version, &to).await.unwrap(), RenameOutcome::Moved, "rename: refused");
    assert_eq!(content(store, &to).await, "content", "rename: the target's content differs");
    assert_eq!(store.head(&from).await.unwrap(), None, "rename: the source is still there");

    let again = format!("{prefix}/done/again");
    let gone = store.rename(&from, &version, &again).await.unwrap();
    assert_eq!(gone, RenameOutcome::SourceChanged, "rename: of a source that is gone");
    put(store, &from, "newer content").await;
    let changed = store.rename(&from, &version, &again).await.unwrap();
    assert_eq!(changed, RenameOutcome::SourceChanged, "rename: of a source that is another version by now");
    assert_eq!(store.head(&again).await.unwrap(), None, "rename: a refused one left a target");
    assert_eq!(content(store, &from).await, "newer content", "rename: a refused one touched the source");
}

async fn renames_never_overwrite(store: &dyn Store, prefix: &str) {
    let (from, to) = (format!("{prefix}/from"), format!("{prefix}/to"));
    let version = put(store, &from, "mine").await;
    put(store, &to, "theirs").await;
    let outcome = store.rename(&from, &version, &to).await.unwrap();
    assert_eq!(outcome, RenameOutcome::TargetExists, "rename: onto an object that is there");
    assert_eq!(content(store, &to).await, "theirs", "rename: overwrote the target");
    assert_eq!(content(store, &from).await, "mine", "rename: a refused one touched the source");
}

async fn a_move_onto_itself_is_refused(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let version = put(store, &key, "x").await;
    assert_eq!(store.rename(&key, &version, &key).await.unwrap(), RenameOutcome::TargetExists, "rename: onto itself");
    let batch = store.rename_many(&[Move { from: key.clone(), version, to: key.clone() }]).await;
    assert_eq!(outcomes(batch), ["TargetExists"], "rename_many: onto itself");
    assert_eq!(content(store, &key).await, "x", "rename: onto itself lost the object");
}

async fn batches_of_moves_answer_each_for_itself(store: &dyn Store, prefix: &str) {
    let from = |name: &str| format!("{prefix}/pending/{name}");
    let to = |name: &str| format!("{prefix}/done/date=1/{name}");
    let mut moves = Vec::new();
    for name in ["first", "gone", "replaced", "taken", "invalid", "folder/ä b+%2F&<x>.json", "last"] {
        let version = put(store, &from(name), name).await;
        moves.push(Move { from: from(name), version, to: to(name) });
    }
    store.delete(&from("gone"), None).await.unwrap();
    put(store, &from("replaced"), "newer content").await;
    put(store, &to("taken"), "theirs").await;
    moves[4].to = format!("{prefix}/../out");

    let expected = ["Moved", "SourceChanged", "SourceChanged", "TargetExists", "InvalidKey", "Moved", "Moved"];
    assert_eq!(outcomes(store.rename_many(&moves).await), expected, "rename_many: wrong answers");
    let left = [("invalid", "invalid"), ("replaced", "newer content"), ("taken", "taken")];
    assert_eq!(list_keys(store, &from("")).await, left.map(|(name, _)| from(name)), "rename_many: wrong sources left");
    for (name, expected) in left {
        assert_eq!(content(store, &from(name)).await, expected, "rename_many: a refused move touched the source");
    }
    let moved = ["first", "folder/ä b+%2F&<x>.json", "last", "taken"].map(to);
    assert_eq!(list_keys(store, &to("")).await, moved, "rename_many: wrong targets");
    assert_eq!(content(store, &to("taken")).await, "theirs", "rename_many: overwrote a target");
    assert_eq!(content(store, &to("last")).await, "last", "rename_many: the target's content differs");
    assert!(store.rename_many(&[]).await.is_empty(), "rename_many: of nothing");
}

async fn batches_that_name_a_key_twice_are_done_in_order(store: &dyn Store, prefix: &str) {
    let key = |name: &str| format!("{prefix}/{name}");
    let (a, b) = (put(store, &key("a"), "content of a").await, put(store, &key("b"), "content of b").await);
    let step =
        |from: &str, version: &Version, to: &str| Move { from: key(from), version: version.clone(), to: key(to) };
    let moves = [step("a", &a, "x"), step("b", &b, "x"), step("a", &a, "y"), step("b", &b, "y"), step("x", &b, "z")];
    let expected = ["Moved", "TargetExists", "SourceChanged", "Moved", "SourceChanged"];
    assert_eq!(outcomes(store.rename_many(&moves).await), expected, "rename_many: not as if one after another");
    assert_eq!(list_keys(store, &key("")).await, [key("x"), key("y")], "rename_many: wrong keys are left");
    assert_eq!(content(store, &key("x")).await, "content of a", "rename_many: the first move to a key must win");
    let y = store.head(&key("y")).await.unwrap().unwrap().version;
    let twice = [(key("y"), a), (key("y"), y.clone()), (key("y"), y)];
    let expected = ["VersionMismatch", "Deleted", "Deleted"];
    assert_eq!(outcomes(store.delete_many(&twice).await), expected, "delete_many: not as if one after another");
}

async fn batches_may_be_large(store: &dyn Store, prefix: &str) {
    const COUNT: usize = 250;
    let key = |folder: &str, number: usize| format!("{prefix}/{folder}/{number:03}.json");
    let mut moves = Vec::new();
    for number in 0..COUNT {
        let version = put(store, &key("pending", number), &number.to_string()).await;
        moves.push(Move { from: key("pending", number), version, to: key("done", number) });
    }
    assert_eq!(outcomes(store.rename_many(&moves).await), ["Moved"; COUNT], "rename_many: of {COUNT}");
    assert!(list_keys(store, &format!("{prefix}/pending/")).await.is_empty(), "rename_many: sources are left");
    let mut moved = Vec::new();
    for number in 0..COUNT {
        let head = store.head(&key("done", number)).await.unwrap().expect("rename_many: a target is missing");
        assert_eq!(content(store, &head.key).await, number.to_string(), "rename_many: targets were mixed up");
        moved.push((head.key, head.version));
    }
    assert_eq!(outcomes(store.delete_many(&moved).await), ["Deleted"; COUNT], "delete_many: of {COUNT}");
    assert!(list_keys(store, &format!("{prefix}/")).await.is_empty(), "delete_many: objects are left");
}

/// For stores that move by copying and deleting: what a crash between the two leaves is finished by the next call.
/// Not part of [`run_all`], as other stores cannot come into that state by a copy.
///
/// # Panics
/// With the broken guarantee in the message.
pub async fn interrupted_moves_are_finished(store: &dyn Store, prefix: &str) {
    let mut moves = Vec::new();
    for name in ["single", "a", "b", "c", "newer"] {
        let (from, to) = (format!("{prefix}/pending/{name}"), format!("{prefix}/done/{name}"));
        moves.push(Move { version: put(store, &from, name).await, from, to });
    }
    for name in [0, 1, 2, 4] {
        let Move { from, version, to } = &moves[name];
        store.copy(from, version, to).await.unwrap();
    }
    put(store, &moves[4].from, "a newer file came meanwhile").await;

    let Move { from, version, to } = &moves[0];
    assert_eq!(store.rename(from, version, to).await.unwrap(), RenameOutcome::Moved, "rename: was not finished");
    let batch = outcomes(store.rename_many(&moves[1..]).await);
    assert_eq!(batch, ["Moved", "Moved", "Moved", "SourceChanged"], "rename_many: was not finished");
    let left = list_keys(store, &format!("{prefix}/pending/")).await;
    assert_eq!(left, [moves[4].from.clone()], "wrong sources are left");
    assert_eq!(content(store, &moves[4].from).await, "a newer file came meanwhile", "a newer source was touched");
    assert_eq!(content(store, &moves[4].to).await, "newer", "the target was touched");
}

async fn deletes_take_only_the_version_they_name(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let first = put(store, &key, "first").await;
    let second = put(store, &key, "second").await;
    let stale = store.delete(&key, Some(&first)).await.unwrap();
    assert_eq!(stale, DeleteOutcome::VersionMismatch, "delete: an old version must not be accepted");
    assert_eq!(content(store, &key).await, "second", "delete: a refused one took the object");
    for _ in 0..2 {
        let outcome = store.delete(&key, Some(&second)).await.unwrap();
        assert_eq!(outcome, DeleteOutcome::Deleted, "delete: of the version that is there, or of one that is gone");
        assert_eq!(store.head(&key).await.unwrap(), None, "delete: the object is still there");
    }
    let nowhere = format!("{prefix}/no/such/folder");
    assert_eq!(store.delete(&nowhere, Some(&second)).await.unwrap(), DeleteOutcome::Deleted, "delete: never was");
}

async fn batches_of_deletes_answer_each_for_itself(store: &dyn Store, prefix: &str) {
    let key = |name: &str| format!("{prefix}/{name}");
    let mut objects = Vec::new();
    for name in ["first", "gone", "replaced", "folder/ä b+%2F&<x>.json", "last"] {
        objects.push((key(name), put(store, &key(name), name).await));
    }
    objects.insert(3, (format!("{prefix}/../out"), objects[0].1.clone()));
    store.delete(&key("gone"), None).await.unwrap();
    put(store, &key("replaced"), "newer content").await;
    put(store, &key("neighbour"), "x").await;
    let expected = ["Deleted", "Deleted", "VersionMismatch", "InvalidKey", "Deleted", "Deleted"];
    assert_eq!(outcomes(store.delete_many(&objects).await), expected, "delete_many: wrong answers");
    assert_eq!(list_keys(store, &key("")).await, [key("neighbour"), key("replaced")], "delete_many: wrong keys left");
    assert_eq!(content(store, &key("replaced")).await, "newer content", "delete_many: touched a newer object");
    assert!(store.delete_many(&[]).await.is_empty(), "delete_many: of nothing");
}

/// The outcomes and kinds of errors of a batch, by name.
fn outcomes<T: std::fmt::Debug>(answers: Vec<super::Result<T>>) -> Vec<String> {
    let name = |answer: super::Result<T>| match answer {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => format!("{:?}", error.kind),
    };
    answers.into_iter().map(name).collect()
}

async fn copies_are_pinned_and_leave_the_source(store: &dyn Store, prefix: &str) {
    let (from, to) = (format!("{prefix}/a b%20+ü"), format!("{prefix}/copies/a b%20+ü"));
    let version = put(store, &from, "content").await;
    put(store, &to, "overwritten by the copy").await;
    store.copy(&from, &version, &to).await.unwrap();
    assert_eq!(content(store, &to).await, "content", "copy: the target's content differs");
    assert_eq!(content(store, &from).await, "content", "copy: the source changed");
    put(store, &from, "newer content").await;
    for missing_or_changed in [&from, &format!("{prefix}/nothing")] {
        let error = store.copy(missing_or_changed, &version, &to).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::VersionMismatch, "copy: of a source that is not that version: {error}");
    }
    assert_eq!(content(store, &to).await, "content", "copy: a refused one touched the target");
}

async fn deletes_are_idempotent(store: &dyn Store, prefix: &str) {
    let (key, neighbour) = (format!("{prefix}/folder/key"), format!("{prefix}/folder/neighbour"));
    put(store, &key, "x").await;
    put(store, &neighbour, "x").await;
    for _ in 0..2 {
        store.delete(&key, None).await.expect("delete: of a key that is gone must succeed");
        assert_eq!(store.head(&key).await.unwrap(), None, "delete: the object is still there");
    }
    let never = format!("{prefix}/no/such/folder");
    store.delete(&never, None).await.expect("delete: of a key that never was must succeed");
    assert_eq!(list_keys(store, &format!("{prefix}/")).await, [neighbour], "delete: took more than its key");
}

async fn parts_become_one_object(store: &dyn Store, prefix: &str) {
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

async fn what_is_put_in_parts_is_one_object(store: &dyn Store, prefix: &str) {
    let (key, body, metadata) = (format!("{prefix}/one"), pattern(LARGE_BYTES), Metadata::new());
    let put = async |body: Bytes| store.put_in_parts(&key, &body, PutCondition::IfAbsent, &metadata).await;
    let outcome = put(body.clone()).await.unwrap();
    assert!(matches!(outcome, PutOutcome::Written(_)), "put in parts: {outcome:?} for a key that is free");
    let outcome = put(Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(outcome, PutOutcome::AlreadyExists, "put in parts: it replaced what was there");
    let (_, read) = read_all(store, &key, u64::MAX).await.unwrap().expect("put in parts: nothing is there");
    assert_eq!(read, body, "put in parts: another body came back");
}

async fn a_late_completion_loses(store: &dyn Store, prefix: &str) {
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
    assert_eq!(outcomes[1], PutOutcome::AlreadyExists, "complete if absent: the second must be told that it lost");
    assert_eq!(content(store, &key).await, "first", "complete if absent: the loser changed the winner's object");
    assert_eq!(list_keys(store, prefix).await, [key], "complete if absent: the loser left something behind");
}

async fn an_aborted_upload_leaves_nothing(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let mut upload = store.multipart(&key, &Metadata::new()).await.unwrap();
    upload.part(Bytes::from_static(b"never seen")).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.head(&key).await.unwrap(), None, "abort: the object is there");
    assert!(list_keys(store, prefix).await.is_empty(), "abort: something is listed");
}

async fn keys_that_leave_the_root_are_refused(store: &dyn Store, prefix: &str) {
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

/// Bytes of which no two neighbourhoods look alike, so that pieces in a wrong order show.
fn pattern(size: usize) -> Bytes {
    let words = (0u64..).flat_map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    words.take(size).collect::<Vec<u8>>().into()
}

async fn put(store: &dyn Store, key: &str, body: &str) -> Version {
    let body = Bytes::from(body.to_owned());
    match store.put(key, body, PutCondition::None, &Metadata::new()).await.unwrap() {
        PutOutcome::Written(version) => version,
        other => panic!("put: an unconditional put of '{key}' answered {other:?}"),
    }
}

async fn put_if_absent(store: &dyn Store, key: &str, body: &str) -> PutOutcome {
    store.put(key, Bytes::from(body.to_owned()), PutCondition::IfAbsent, &Metadata::new()).await.unwrap()
}

fn is_written(outcome: &PutOutcome) -> bool {
    matches!(outcome, PutOutcome::Written(_))
}

async fn content(store: &dyn Store, key: &str) -> String {
    let (_, body) =
        read_all(store, key, u64::MAX).await.unwrap().unwrap_or_else(|| panic!("get: '{key}' is not there"));
    String::from_utf8(body.to_vec()).expect("get: the content is not what was put")
}

async fn read_range(store: &dyn Store, key: &str, range: std::ops::Range<u64>) -> (ObjectMeta, String) {
    let options = GetOptions { range: Some(range), if_version: None };
    let (meta, mut reader) = store.open(key, options).await.unwrap().expect("get: the object is not there");
    let mut body = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        body.extend_from_slice(&piece);
    }
    (meta, String::from_utf8(body).unwrap())
}

async fn list_keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let options = ListOptions { prefix: prefix.to_owned(), ..ListOptions::default() };
    store.list(&options).await.unwrap().objects.into_iter().map(|object| object.key).collect()
}

/// Objects and folded prefixes in one order.
fn entries(page: &ListPage) -> Vec<String> {
    let mut entries: Vec<String> = page.objects.iter().map(|object| object.key.clone()).collect();
    entries.extend(page.prefixes.iter().cloned());
    entries.sort();
    entries
}

/// Goes on from the last entry of each page until there is no more.
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
