//! Moves, copies and deletes, one by one and many at once.

use super::{content, list_keys, put};
use crate::store::{DeleteOutcome, Move, RenameOutcome, Store, StoreErrorKind, Version};

pub(super) async fn renames_move_exactly_one_version(store: &dyn Store, prefix: &str) {
    let (from, to) = (format!("{prefix}/pending/ä b+%2F.json"), format!("{prefix}/done/date=1/ä b+%2F.json"));
    let version = put(store, &from, "content").await;
    assert_eq!(store.rename(&from, &version, &to).await.unwrap(), RenameOutcome::Moved, "rename: refused");
    assert_eq!(content(store, &to).await, "content", "rename: the target's content differs");
    assert_eq!(store.head(&from).await.unwrap(), None, "rename: the source is still there");

    let again = format!("{prefix}/done/again");
    let gone = store.rename(&from, &version, &again).await.unwrap();
    assert_eq!(gone, RenameOutcome::SourceChanged, "rename: of a missing source");
    put(store, &from, "newer content").await;
    let changed = store.rename(&from, &version, &again).await.unwrap();
    assert_eq!(changed, RenameOutcome::SourceChanged, "rename: of a source that is another version by now");
    assert_eq!(store.head(&again).await.unwrap(), None, "rename: a refused one left a target");
    assert_eq!(content(store, &from).await, "newer content", "rename: a refused one touched the source");
}

pub(super) async fn renames_never_overwrite(store: &dyn Store, prefix: &str) {
    let (from, to) = (format!("{prefix}/from"), format!("{prefix}/to"));
    let version = put(store, &from, "mine").await;
    put(store, &to, "theirs").await;
    let outcome = store.rename(&from, &version, &to).await.unwrap();
    assert_eq!(outcome, RenameOutcome::TargetExists, "rename: onto an existing object");
    assert_eq!(content(store, &to).await, "theirs", "rename: overwrote the target");
    assert_eq!(content(store, &from).await, "mine", "rename: a refused one touched the source");
}

pub(super) async fn a_move_onto_itself_is_refused(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let version = put(store, &key, "x").await;
    assert_eq!(store.rename(&key, &version, &key).await.unwrap(), RenameOutcome::TargetExists, "rename: onto itself");
    let batch = store.rename_many(&[Move { from: key.clone(), version, to: key.clone() }]).await;
    assert_eq!(outcomes(batch), ["TargetExists"], "rename_many: onto itself");
    assert_eq!(content(store, &key).await, "x", "rename: onto itself lost the object");
}

pub(super) async fn batches_of_heads_answer_each_for_itself(store: &dyn Store, prefix: &str) {
    let mut keys: Vec<String> = ["a", "folder/b", "folder/c"].iter().map(|name| format!("{prefix}/{name}")).collect();
    for key in &keys {
        put(store, key, key).await;
    }
    // More directories than may be open at a time.
    for number in 0..200 {
        let key = format!("{prefix}/{number}/x");
        put(store, &key, &key).await;
        keys.push(key);
    }
    for missing in ["gone", "folder/gone", "no-folder/gone", "folder"] {
        keys.push(format!("{prefix}/{missing}"));
    }
    keys.push(format!("{prefix}/../out"));
    let answers = store.head_many(&keys).await;
    assert_eq!(answers.len(), keys.len(), "head_many: answers are missing");
    for (key, answer) in keys.iter().zip(answers) {
        match (answer, store.head(key).await) {
            (Ok(many), Ok(one)) => assert_eq!(many, one, "head_many: not what head says of '{key}'"),
            (Err(many), Err(one)) => assert_eq!(many.kind, one.kind, "head_many: not what head says of '{key}'"),
            other => panic!("head_many: not what head says of '{key}': {other:?}"),
        }
    }
}

pub(super) async fn batches_of_moves_answer_each_for_itself(store: &dyn Store, prefix: &str) {
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

pub(super) async fn batches_that_name_a_key_twice_are_done_in_order(store: &dyn Store, prefix: &str) {
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

pub(super) async fn batches_may_be_large(store: &dyn Store, prefix: &str) {
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

/// For stores that move by copying and deleting: the next call finishes a move that a crash interrupted between the
/// two. Not part of [`run_all`], because a copy cannot bring other stores into that state.
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

pub(super) async fn deletes_take_only_the_version_they_name(store: &dyn Store, prefix: &str) {
    let key = format!("{prefix}/key");
    let first = put(store, &key, "first").await;
    let second = put(store, &key, "second").await;
    let stale = store.delete(&key, Some(&first)).await.unwrap();
    assert_eq!(stale, DeleteOutcome::VersionMismatch, "delete: an old version must not be accepted");
    assert_eq!(content(store, &key).await, "second", "delete: a refused one took the object");
    for _ in 0..2 {
        let outcome = store.delete(&key, Some(&second)).await.unwrap();
        assert_eq!(outcome, DeleteOutcome::Deleted, "delete: of the current version, or of a missing object");
        assert_eq!(store.head(&key).await.unwrap(), None, "delete: the object is still there");
    }
    let nowhere = format!("{prefix}/no/such/folder");
    assert_eq!(store.delete(&nowhere, Some(&second)).await.unwrap(), DeleteOutcome::Deleted, "delete: never was");
}

pub(super) async fn batches_of_deletes_answer_each_for_itself(store: &dyn Store, prefix: &str) {
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

/// The outcomes and kinds of errors of a batch, as text.
fn outcomes<T: std::fmt::Debug>(answers: Vec<crate::store::Result<T>>) -> Vec<String> {
    let name = |answer: crate::store::Result<T>| match answer {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => format!("{:?}", error.kind),
    };
    answers.into_iter().map(name).collect()
}

pub(super) async fn copies_are_pinned_and_leave_the_source(store: &dyn Store, prefix: &str) {
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

pub(super) async fn deletes_are_idempotent(store: &dyn Store, prefix: &str) {
    let (key, neighbour) = (format!("{prefix}/folder/key"), format!("{prefix}/folder/neighbour"));
    put(store, &key, "x").await;
    put(store, &neighbour, "x").await;
    for _ in 0..2 {
        store.delete(&key, None).await.expect("delete: of a missing key must succeed");
        assert_eq!(store.head(&key).await.unwrap(), None, "delete: the object is still there");
    }
    let never = format!("{prefix}/no/such/folder");
    store.delete(&never, None).await.expect("delete: of a key that never was must succeed");
    assert_eq!(list_keys(store, &format!("{prefix}/")).await, [neighbour], "delete: took more than its key");
}
