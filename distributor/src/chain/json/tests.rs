//! What is put can be read again, and what cannot be ours is refused before it takes memory.

use std::sync::Arc;

use common::config::MAX_FILES_PER_BATCH;
use common::store::{LocalStore, Metadata, PutCondition, Store};

use super::*;
use crate::batch::testing::{ENCODING, cut, layout};
use crate::batch::{Counts, Place, Series};
use crate::chain::{ChainStore, Completion, Cut, Damage, FileEntry, Origin, PutDocument, Revision};

/// Kafka's limit for the name of a topic.
const LONGEST_TOPIC: usize = 249;
/// Of `domain_event_type=…`, as `route` cuts it off.
const LONGEST_SEGMENT: usize = 200;
/// Rounds in which the log let go of more while files were put.
const ROUNDS: u32 = 3;

fn longest_folder(number: u64) -> String {
    let name = format!("domain_event_type={number:06}");
    let name = format!("{name}{}", "t".repeat(LONGEST_SEGMENT - name.len()));
    format!("events/{name}/year=292277/month=12/day=31")
}

fn largest_cut() -> Cut {
    let folders = (0..MAX_FILES_PER_BATCH).map(longest_folder).collect();
    let topic = "t".repeat(LONGEST_TOPIC);
    Cut { topic, partition: i32::MAX, folders: Some(folders), ..cut(i64::MAX - 1_000_000_000, i64::MAX - 1) }
}

fn entries(cut: &Cut, series: Series) -> Vec<FileEntry> {
    let place = Place { series, ..Place::of(cut) };
    let entry = |(folder, sequence): (&String, u32)| FileEntry {
        path: place.path(folder, sequence),
        rows: 1_000_000_000,
        bytes: u64::MAX,
    };
    cut.folders.iter().flatten().zip(0..).map(entry).collect()
}

fn completion(cut: &Cut, files: Vec<FileEntry>) -> Completion {
    let counts = Counts { read: u64::MAX, ..Counts::default() };
    let damage = Some(Damage { rounds: ROUNDS, log_from: i64::MAX, lost_offsets: u64::MAX });
    let (first_append_ms, last_append_ms) = (i64::MAX, i64::MAX);
    Completion { version: 1, from: cut.from, to: cut.to, files, counts, first_append_ms, last_append_ms, damage }
}

fn share<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(document: &T) -> f64 {
    let body = encode("x", document).unwrap();
    assert!(decode::<T>("x", &body).unwrap() == *document);
    #[allow(clippy::cast_precision_loss)]
    let share = body.len() as f64 / LIMIT_BYTES as f64;
    share
}

#[test]
fn the_documents_of_the_largest_batch_that_may_be_configured_fit_with_the_longest_names() {
    let cut = largest_cut();
    let files = entries(&cut, Series::Cut);
    assert_eq!(files.len() as u64, MAX_FILES_PER_BATCH);
    let whole = completion(&cut, files.clone());
    assert!(share(&cut) < 0.1 && share(&whole) < 0.25, "{} {}", share(&cut), share(&whole));
    let removals = files.iter().map(|file| file.path.clone()).collect();
    let revised = Revision {
        version: 1,
        revision: u32::MAX,
        rewrite: i64::MAX,
        layout: layout(),
        encoding: ENCODING,
        window_from: 0,
        key_run: "x".repeat(1_024),
        completion: completion(&cut, entries(&cut, Series::Revision(u32::MAX))),
        removals,
    };
    assert!(share(&revised) < 0.5, "{}", share(&revised));
    let rounds = (1..=ROUNDS).flat_map(|round| entries(&cut, Series::Salvage(round)));
    let damaged = completion(&cut, files.into_iter().chain(rounds).collect());
    assert!(share(&damaged) < 1.0, "{}", share(&damaged));
}

#[tokio::test]
async fn a_document_that_could_not_be_read_again_is_not_put() {
    let folder = tempfile::tempdir().unwrap();
    let chain = ChainStore::new(Arc::new(LocalStore::new(folder.path().to_owned())), "events", 0);
    let too_long = Cut { folders: Some(vec!["f".repeat(1_000_000); 70]), ..cut(0, 10) };
    let too_many = Cut { folders: Some(vec![String::new(); LISTED + 1]), ..cut(0, 10) };
    for (document, part) in [(too_long, "more than the 67108864"), (too_many, "more than 250000 entries")] {
        let error = chain.put_cut(&document).await.unwrap_err();
        assert!(matches!(error, ChainError::Unwritable { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("cuts/") && error.contains(part) && error.contains("flush.max_files"), "{error}");
    }
    assert!(!folder.path().join("_batches").exists(), "nothing is there");
    assert_eq!(chain.put_cut(&cut(0, 10)).await.unwrap(), PutDocument::Ours);
}

#[tokio::test]
async fn an_object_of_others_under_a_documents_name_is_refused_with_its_name_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::new(folder.path().to_owned()));
    let chain = ChainStore::new(store.clone(), "events", 0);
    let key = chain.origin_key();
    let list = |entries: usize| format!(r#"{{"version":1,"files":[{}""]}}"#, "\"\",".repeat(entries));
    for (body, part) in [
        ("{".to_owned(), "EOF"),
        ("[]".to_owned(), "invalid length 0"),
        ("{\"version\":2}".to_owned(), "version 2, this build knows 1"),
        ("{\"versio\":1}".to_owned(), "no version"),
        (list(10), "unknown field `files`"),
        ("x".repeat(usize::try_from(LIMIT_BYTES).unwrap() + 1), "bring the right one back"),
    ] {
        store.put(&key, body.into(), PutCondition::None, &Metadata::new()).await.unwrap();
        let error = chain.origin().await.unwrap_err();
        assert!(matches!(error, ChainError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(&key) && error.to_string().contains(part), "{error}");
    }
    store.put(&key, list(LISTED).into(), PutCondition::None, &Metadata::new()).await.unwrap();
    assert!(decode::<Origin>(&key, b"{}").is_err());
}

#[test]
fn lists_end_at_their_limit_however_short_their_entries_are() {
    let body = |entries: usize| {
        let mut document = serde_json::to_value(cut(0, 10)).unwrap();
        document["folders"] = vec![""; entries].into();
        serde_json::to_vec(&document).unwrap()
    };
    assert_eq!(decode::<Cut>("x", &body(LISTED)).unwrap().folders.map(|folders| folders.len()), Some(LISTED));
    let error = decode::<Cut>("x", &body(LISTED + 1)).unwrap_err().to_string();
    assert!(error.contains("lists more than 250000 entries"), "{error}");
}

#[test]
fn the_length_of_a_part_is_what_it_takes_in_a_summary() {
    let part = completion(&cut(0, 1), entries(&largest_cut(), Series::Cut).split_off(19_990));
    let alone = serde_json::to_vec_pretty(&part).unwrap().len();
    let whole = serde_json::to_vec_pretty(&serde_json::json!({ "held": [part] })).unwrap().len();
    assert!(len_bytes(&part) > alone && len_bytes(&part).abs_diff(whole) < 50, "{} {whole}", len_bytes(&part));
}
