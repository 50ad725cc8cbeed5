//! A chain under compaction answers as a plain list of its cuts does, wherever a compaction is broken off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::store::{LocalStore, Store, StoreErrorKind};
use proptest::prelude::*;

use super::*;
use crate::batch::testing::{cut, origin};
use crate::chain::{Completion, CutKind, PutDocument};
use crate::testing::interposed::{Fate, interposed};
use crate::testing::to_its_last_effect;

/// Of the layout that tests use.
const WINDOW_MS: i64 = 86_400_000;

struct Model {
    folder: tempfile::TempDir,
    documents: Vec<(Cut, Option<Completion>)>,
}

impl Model {
    async fn new() -> Self {
        let model = Self { folder: tempfile::tempdir().unwrap(), documents: Vec::new() };
        model.chain().put_origin(&origin(0)).await.unwrap();
        model
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(LocalStore::new(self.folder.path().to_owned()))
    }

    fn chain(&self) -> ChainStore {
        ChainStore::new(self.store(), "events", 0)
    }

    fn end(&self) -> i64 {
        self.documents.last().map_or(0, |(cut, _)| cut.to)
    }

    async fn append(&mut self, kind: CutKind, length: i64, step_ms: i64) {
        self.append_of(kind, length, step_ms, None).await;
    }

    async fn append_of(&mut self, kind: CutKind, length: i64, step_ms: i64, folders: Option<Vec<String>>) {
        let from = self.end();
        let clock_ms = self.documents.last().map_or(0, |(cut, _)| cut.clock_ms) + step_ms;
        let cut = Cut { kind, clock_ms, folders, ..cut(from, from + length) };
        let completion = cut.is_batch().then(|| Completion {
            version: 1,
            from,
            to: cut.to,
            files: Vec::new(),
            counts: crate::batch::Counts::default(),
            damage: None,
            first_append_ms: clock_ms,
            last_append_ms: clock_ms,
        });
        let chain = self.chain();
        assert_eq!(chain.put_cut(&cut).await.unwrap(), PutDocument::Ours);
        if let Some(completion) = &completion {
            chain.put_key_run(&chain.key_run_key(from), vec![1]).await.unwrap();
            chain.put_completion(completion).await.unwrap();
        }
        self.documents.push((cut, completion));
    }

    /// Ten batches, two days apart, one of them offsets that were passed over.
    async fn of_ten() -> Self {
        Self::of(10).await
    }

    async fn of(batches: i64) -> Self {
        let mut model = Self::new().await;
        for number in 0..batches {
            let kind = if number == 3 { CutKind::Skipped } else { CutKind::Batch };
            model.append(kind, number + 1, 2 * WINDOW_MS).await;
        }
        model
    }

    /// Every look-up, by a chain that is used for all of them.
    async fn agrees(&self, chain: &ChainStore) -> Result<(), String> {
        let told = |error: ChainError| error.to_string();
        let same = |what: String, is_same: bool| if is_same { Ok(()) } else { Err(what) };
        let cuts: Vec<&Cut> = self.documents.iter().map(|(cut, _)| cut).collect();
        same("last".into(), chain.last_cut().await.map_err(told)?.as_ref() == cuts.last().copied())?;
        for offset in -1..self.end() + 3 {
            let found = chain.cut_at_or_before(offset).await.map_err(told)?;
            let expected = cuts.iter().rev().find(|cut| cut.from <= offset).copied();
            same(format!("at or before {offset}: {found:?}"), found.as_ref() == expected)?;
        }
        let mut begins = Vec::new();
        loop {
            let page = chain.cuts_begin_before(begins.last().copied()).await.map_err(told)?;
            if page.is_empty() {
                break;
            }
            begins.extend(page);
        }
        let expected: Vec<i64> = cuts.iter().rev().map(|cut| cut.from).collect();
        same(format!("begins {begins:?}"), begins == expected)?;
        for (cut, completion) in &self.documents {
            let found = chain.cut_from(cut.from).await.map_err(told)?;
            same(format!("cut from {}: {found:?}", cut.from), found.as_ref() == Some(cut))?;
            let found = chain.completion(cut.from).await.map_err(told)?;
            same(format!("completion of {}: {found:?}", cut.from), found == *completion)?;
            let next = chain.next_cut(cut).await.map_err(told)?;
            same(
                format!("after {}", cut.from),
                next.as_ref() == cuts.iter().find(|next| next.from == cut.to).copied(),
            )?;
        }
        let mut at = self.end();
        loop {
            let page = chain.cuts_before(at).await.map_err(told)?;
            let Some(oldest) = page.last() else { break };
            let expected = cuts.iter().rev().filter(|cut| cut.from < at).take(page.len()).copied();
            same(format!("before {at}: {page:?}"), page.iter().eq(expected))?;
            at = oldest.from;
        }
        same(format!("walked down to {at}"), at == 0)
    }

    async fn compact(&self, store: Arc<dyn Store>, log_begins_at: i64, at_least: usize) -> Result<Compacted, String> {
        let chain = ChainStore::new(store, "events", 0);
        chain.compact(log_begins_at, at_least).await.map_err(|error| error.to_string())
    }

    /// One that fails at a call, before or after its effect, or is done before it gets there.
    fn compact_broken(&self, at: (usize, bool), log_begins_at: i64, at_least: usize) -> Result<Compacted, String> {
        let store = broken(self.store(), at);
        to_its_last_effect(async || self.compact(store, log_begins_at, at_least).await)
    }

    fn count(&self, part: &str) -> usize {
        std::fs::read_dir(self.folder.path().join("_batches/events/0").join(part)).map_or(0, Iterator::count)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { is_batch: bool, length: i64, hours: i64 },
    Compact { at_least: usize, log_begins_at_percent: i64, broken_at: Option<(usize, bool)> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 1_i64..5, 0_i64..80)
            .prop_map(|(is_batch, length, hours)| Step::Append { is_batch, length, hours }),
        1 => (1_usize..4, 0_i64..=110, prop::option::of((0_usize..40, any::<bool>()))).prop_map(
            |(at_least, log_begins_at_percent, broken_at)| Step::Compact { at_least, log_begins_at_percent, broken_at }
        ),
    ]
}

/// Fails one call, before or after its effect.
fn broken(store: Arc<dyn Store>, (at, after): (usize, bool)) -> Arc<dyn Store> {
    let calls = AtomicUsize::new(0);
    interposed(store, move |_, _| match calls.fetch_add(1, Ordering::SeqCst) == at {
        true if after => Fate::TimeOut,
        true => Fate::Fail(StoreErrorKind::Transient),
        false => Fate::Pass,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]
    #[test]
    fn a_chain_answers_as_a_list_of_its_cuts_wherever_it_is_compacted(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let agreed: Result<(), String> = runtime.block_on(async {
            let mut model = Model::new().await;
            let lasting = model.chain();
            for step in steps {
                match step {
                    Step::Append { is_batch, length, hours } => {
                        let kind = if is_batch { CutKind::Batch } else { CutKind::Lost };
                        model.append(kind, length, hours * 3_600_000).await;
                    }
                    Step::Compact { at_least, log_begins_at_percent, broken_at } => {
                        let log_begins_at = model.end() * log_begins_at_percent / 100;
                        let compacted = match broken_at {
                            Some(at) => model.compact_broken(at, log_begins_at, at_least),
                            None => model.compact(model.store(), log_begins_at, at_least).await,
                        };
                        if broken_at.is_none() {
                            compacted?;
                        }
                    }
                }
                model.agrees(&model.chain()).await?;
                model.agrees(&lasting).await?;
            }
            Ok(())
        });
        prop_assert!(agreed.is_ok(), "{}", agreed.unwrap_err());
    }
}

#[tokio::test]
async fn only_what_nothing_can_need_again_is_compacted() {
    let model = Model::of_ten().await;
    let log_begins_at = model.documents[7].0.to - 1;
    // The log begins within the eighth: its oldest whole predecessor is the seventh, whose window reaches back to the sixth.
    let done = model.compact(model.store(), log_begins_at, 1).await.unwrap();
    assert_eq!(done, Compacted { summaries: 1, cuts: 6 });
    assert_eq!((model.count("cuts"), model.count("done"), model.count("keys")), (4, 4, 4));
    model.agrees(&model.chain()).await.unwrap();
    assert_eq!(model.compact(model.store(), log_begins_at, 1).await.unwrap(), Compacted::default());
    assert_eq!(model.compact(model.store(), model.end(), 4).await.unwrap(), Compacted::default(), "too few");
    // Never the newest, whatever is asked for.
    model.compact(model.store(), model.end() + 5, 1).await.unwrap();
    assert!(model.count("cuts") >= 1);
    model.agrees(&model.chain()).await.unwrap();
}

#[tokio::test]
async fn a_compaction_that_is_broken_off_anywhere_is_finished_by_the_next() {
    for after in [false, true] {
        for at in 0.. {
            let model = Model::of(6).await;
            let whole = model.compact_broken((at, after), model.end(), 3).is_ok();
            model.agrees(&model.chain()).await.unwrap_or_else(|error| panic!("broken off at {at}: {error}"));
            model.compact(model.store(), model.end(), 3).await.unwrap();
            model.agrees(&model.chain()).await.unwrap_or_else(|error| panic!("finished after {at}: {error}"));
            assert_eq!((model.count("cuts"), model.count("done"), model.count("keys")), (1, 1, 1), "after {at}");
            assert_eq!(model.count("summaries"), 1, "after {at}");
            if whole {
                assert!(at > 25, "{at} calls");
                break;
            }
        }
    }
}

#[tokio::test]
async fn of_two_that_compact_at_once_both_succeed_and_readers_see_every_cut_meanwhile() {
    let model = Model::of_ten().await;
    let end = model.end();
    let one = async { model.compact(model.store(), end, 3).await };
    let other = async { model.compact(model.store(), end - 1, 3).await };
    let reading = async {
        let chain = model.chain();
        for _ in 0..20 {
            model.agrees(&chain).await.unwrap();
        }
    };
    let (one, other, ()) = tokio::join!(one, other, reading);
    one.unwrap();
    other.unwrap();
    model.agrees(&model.chain()).await.unwrap();
    model.compact(model.store(), end, 3).await.unwrap();
    assert!(model.count("cuts") <= 2 && model.count("summaries") == 1, "one summary");
}

#[tokio::test]
async fn a_worker_that_slept_since_before_a_compaction_cannot_bring_a_batch_back() {
    let model = Model::of_ten().await;
    model.compact(model.store(), model.end(), 3).await.unwrap();
    let first = &model.documents[1].0;
    // It filled its batch otherwise.
    let late = Cut { to: first.to + 1, ..first.clone() };
    let put = model.chain().put_cut(&late).await.unwrap();
    assert_eq!(put, PutDocument::Theirs(first.clone()));
    assert_eq!(model.count("cuts"), 1, "and it leaves nothing");
    model.agrees(&model.chain()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_deleted_by_a_summary_that_does_not_hold_it_in_the_same_words() {
    let model = Model::of_ten().await;
    model.compact(model.store(), model.end(), 3).await.unwrap();
    let path =
        std::fs::read_dir(model.folder.path().join("_batches/events/0/summaries")).unwrap().next().unwrap().unwrap();
    let whole = std::fs::read_to_string(path.path()).unwrap();
    // A leftover that says something else.
    let other = Cut { clock_ms: 1, ..model.documents[2].0.clone() };
    model.chain().put(&model.chain().cut_key(other.from), &other).await.unwrap();
    model.compact(model.store(), model.end(), 3).await.unwrap();
    assert_eq!(model.count("cuts"), 2, "it is kept");
    for (broken, words) in [
        (whole.replacen("\"to\": 3", "\"to\": 4", 1), "the completion of 1..4 is not in it"),
        (whole.replacen("\"completion\"", "\"completed\"", 1), "cannot be understood"),
        (whole[..whole.len() / 2].to_owned(), "cannot be understood"),
        (whole.replacen("\"topic\": \"events\"", "\"topic\": \"others\"", 1), "another partition"),
    ] {
        assert_ne!(broken, whole);
        std::fs::write(path.path(), broken).unwrap();
        let error = model.compact(model.store(), model.end(), 3).await.unwrap_err();
        assert!(error.contains(words), "{error}");
        assert_eq!(model.count("cuts"), 2);
    }
}

/// Batches of many files: what is read again as one object stays small, and one batch that is larger goes alone.
#[tokio::test]
async fn summaries_end_by_their_size_and_hold_one_batch_at_least() {
    let mut model = Model::new().await;
    let folders = |count: usize| Some(vec!["f".repeat(90); count]);
    for files in [100, 100, 100, 400, 2_000, 100, 1_000, 1_000, 1] {
        model.append_of(CutKind::Batch, 1, 2 * WINDOW_MS, folders(files)).await;
    }
    let done = model.compact(model.store(), model.end(), 3).await.unwrap();
    assert_eq!(done, Compacted { summaries: 4, cuts: 6 }, "100, 100, 100; 400; 2,000; 100; not yet 1,000, 1,000");
    assert_eq!(model.count("summaries"), 4);
    for offset in 0..model.end() {
        let cut = model.chain().cut_from(offset).await.unwrap().unwrap();
        assert_eq!(cut, model.documents[usize::try_from(offset).unwrap()].0);
    }
}
