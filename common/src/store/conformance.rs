//! The guarantees of every [`Store`], as one suite that runs over each implementation.
//!
//! Each function checks one guarantee under its own keys below the given prefix. No test stores both `x` and `x/y`: a
//! directory cannot, nor can gateways that keep objects in one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test suite: failing loudly is its job")]

mod capabilities;
mod listings;
mod locks;
mod moves;
mod parts;
mod puts;
mod unfinished;

pub use moves::interrupted_moves_are_finished;

use std::sync::Arc;

use bytes::Bytes;

use super::{GetOptions, ListOptions, Metadata, ObjectMeta, PutCondition, PutOutcome, Store, Version, read_all};

const LARGE_BYTES: usize = 6 * 1024 * 1024;

/// Runs every test. `prefix` must be unused: no object may exist below it.
///
/// # Panics
/// With the broken guarantee in the message.
pub async fn run_all(store: Arc<dyn Store>, prefix: &str) {
    let under = |name: &str| format!("{prefix}/{name}");
    puts::one_of_many_racers_wins(&store, &under("race")).await;
    let store = store.as_ref();
    puts::bodies_come_back_as_they_were_put(store, &under("bodies")).await;
    puts::ranges_are_cut_out_and_clipped(store, &under("ranges")).await;
    puts::missing_objects_are_none(store, &under("missing")).await;
    puts::put_if_absent_keeps_the_first(store, &under("absent")).await;
    puts::put_if_version_replaces_only_that_version(store, &under("version")).await;
    listings::keys_are_listed_in_byte_order(store, &under("order")).await;
    listings::listings_start_after_any_string(store, &under("after")).await;
    listings::listings_take_prefixes_that_end_inside_a_segment(store, &under("prefixes")).await;
    listings::delimiters_fold_and_page(store, &under("fold")).await;
    listings::pages_give_each_key_once(store, &under("pages")).await;
    listings::listings_describe_objects_as_head_does(store, &under("describe")).await;
    listings::surveys_find_what_listings_find(store, &under("survey")).await;
    puts::reads_are_pinned_to_a_version(store, &under("pinned")).await;
    moves::renames_move_exactly_one_version(store, &under("rename")).await;
    moves::renames_never_overwrite(store, &under("taken")).await;
    moves::copies_are_pinned_and_leave_the_source(store, &under("copy")).await;
    moves::a_move_onto_itself_is_refused(store, &under("itself")).await;
    moves::batches_of_moves_answer_each_for_itself(store, &under("moves")).await;
    moves::batches_that_name_a_key_twice_are_done_in_order(store, &under("twice")).await;
    moves::batches_may_be_large(store, &under("large")).await;
    moves::batches_of_heads_answer_each_for_itself(store, &under("heads")).await;
    moves::deletes_are_idempotent(store, &under("delete")).await;
    moves::deletes_take_only_the_version_they_name(store, &under("versions")).await;
    moves::batches_of_deletes_answer_each_for_itself(store, &under("deletes")).await;
    parts::parts_become_one_object(store, &under("parts")).await;
    parts::an_object_put_in_parts_is_one_object(store, &under("large-parts")).await;
    parts::a_late_completion_loses(store, &under("late")).await;
    parts::an_aborted_upload_leaves_nothing(store, &under("abort")).await;
    unfinished::run_all(store, &under("unfinished")).await;
    locks::an_exclusive_lock_excludes_all_others(store, &under("locks")).await;
    capabilities::capabilities_are_true(store, &under("capabilities")).await;
    puts::keys_that_leave_the_root_are_refused(store, &under("keys")).await;
    super::probe(store, &under("probe")).await.expect("probe: a store that keeps its promises was refused");
}

/// Bytes without repetition, so that pieces in a wrong order are detected.
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
