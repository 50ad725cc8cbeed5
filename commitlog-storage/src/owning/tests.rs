//! Owners over a store in memory, in interleavings that a seed picks, with crashes at any request.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use commitlog::actor::Choice;
use commitlog::{Fate, Hash, Header, InFolder, Planned, Reason, ReplaceIntent, ReplaceSlot, Scope, Source, State};
use common::clock::ManualClock;
use common::store::{MemoryStore, Metadata, PutCondition, Store};
use proptest::prelude::*;

use super::*;
use crate::replacing::{self, Files, Published, Replacing, Staged};
use crate::tests::pauses::{Pause, now, polled};
use crate::tests::watched::Watched;
use crate::{CommitLog, Keep};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Log(#[from] CommitLogError),
    #[error(transparent)]
    Store(#[from] common::store::StoreError),
}

/// What all owners share.
struct Outside {
    offsets: i64,
    /// First offset that the log holds.
    earliest: Mutex<i64>,
    committed: Mutex<Option<i64>>,
    /// Puts that rest on so few entries, or fewer, are refused.
    fence: Mutex<Option<u64>>,
    /// What was reported.
    unrestored: Mutex<Vec<FileId>>,
}

fn of<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outside {
    fn is_too_old(&self, proof: Proof) -> bool {
        of(&self.fence).is_some_and(|entry| proof.entries <= entry)
    }
}

const WITNESS: Witness = Witness { append_ms: 0, key_hash: 0 };

/// Offsets as rows: each file holds every third of its batch.
struct Rows {
    outside: Arc<Outside>,
    store: Arc<dyn Store>,
    memory: MemoryStore,
    /// Sizes of batches, one after another.
    sizes: Vec<u8>,
    layout: u8,
    encoded: Option<Encoded>,
    committed_here: Vec<i64>,
}

fn folders(intent: &Intent) -> Vec<String> {
    let count = if intent.recipe.layout == 1 { 3 } else { 1 };
    (0..count).map(|folder| format!("f{folder}")).collect()
}

fn rows(intent: &Intent, k: u32) -> Vec<i64> {
    let folders = i64::try_from(folders(intent).len()).expect("few");
    (intent.from..intent.to).filter(|offset| offset % folders == i64::from(k)).collect()
}

fn body(rows: &[i64]) -> Bytes {
    serde_json::to_vec(rows).expect("numbers").into()
}

fn key(folder: &str, id: FileId) -> String {
    format!("data/{folder}/{id}")
}

impl Rows {
    fn encode(&self, from: i64, to: i64, recipe: Recipe, is_first: bool) -> Encoded {
        let header = is_first.then(|| Header {
            topic: "t".into(),
            partition: 0,
            log_id: "log".into(),
            start: from,
            first: WITNESS,
        });
        let mut intent = Intent {
            from,
            to,
            recipe,
            window_from: from,
            clock_ms: to,
            first: WITNESS,
            last: WITNESS,
            folders: Vec::new(),
        };
        intent.folders = folders(&intent);
        Encoded { intent, counts: serde_json::json!({"read": to - from}), header }
    }

    /// None: its proof is too old. The store looks at that at the very moment of the put.
    async fn put(&self, intent: &Intent, k: u32, proof: Proof) -> Result<Option<Stored>, Failed> {
        let folder = &intent.folders[k as usize];
        let key = key(folder, FileId::Batch { from: intent.from, k });
        Pause::default().await;
        if self.outside.is_too_old(proof) {
            return Ok(None);
        }
        self.memory.put(&key, body(&rows(intent, k)), PutCondition::IfAbsent, &Metadata::new()).await?;
        let stands = self.memory.get(&key).expect("just put");
        Pause::default().await;
        Ok(Some(stored(&stands)))
    }
}

fn stored(body: &Bytes) -> Stored {
    let rows: Vec<i64> = serde_json::from_slice(body).expect("rows");
    Stored { rows: rows.len() as u64, bytes: body.len() as u64, sha256: Hash::of(body), bounds: None }
}

#[async_trait]
impl Work for Rows {
    type Error = Failed;

    async fn facts(&mut self) -> Result<Facts, Failed> {
        Pause::default().await;
        let (earliest, committed) = (*of(&self.outside.earliest), *of(&self.outside.committed));
        Ok(Facts { log_id: "log".into(), earliest, latest: self.outside.offsets, committed })
    }

    async fn fill(&mut self, at: i64, _: Option<Witness>, recent: &Recent) -> Result<Filled, Failed> {
        Pause::default().await;
        if at >= self.outside.offsets {
            return Ok(Filled::Ended);
        }
        let size = i64::from(self.sizes.pop().unwrap_or(3) % 7) + 1;
        let recipe = Recipe { layout: self.layout.into(), encoding: 0.into() };
        let is_first = *recent == Recent::default();
        let encoded = self.encode(at, (at + size).min(self.outside.offsets), recipe, is_first);
        self.encoded = Some(encoded.clone());
        Ok(Filled::Batch(Box::new(encoded)))
    }

    async fn make(&mut self, intent: &Intent, _: &Recent) -> Result<Filled, Failed> {
        Pause::default().await;
        let encoded = self.encode(intent.from, intent.to, intent.recipe.clone(), false);
        self.encoded = Some(encoded.clone());
        Ok(Filled::Batch(Box::new(encoded)))
    }

    async fn put_files(&mut self, files: &[u32], proof: Proof) -> Result<Vec<(u32, PutFile)>, Failed> {
        let intent = self.encoded.as_ref().expect("encoded before").intent.clone();
        let mut put = Vec::new();
        for k in files {
            let stands = self.put(&intent, *k, proof).await?;
            put.push((*k, stands.map_or(PutFile::TooOld, PutFile::Stands)));
        }
        Ok(put)
    }

    fn key_run(&mut self) -> Result<(u64, Bytes), Failed> {
        Ok((1, Bytes::from_static(b"keys")))
    }

    async fn missing(&mut self, live: Vec<(FileId, LiveFile)>) -> Result<Vec<(FileId, LiveFile)>, Failed> {
        let mut missing = Vec::new();
        for (id, file) in live {
            if self.store.head(&key(&file.folder, id)).await?.is_none() {
                missing.push((id, file));
            }
        }
        Ok(missing)
    }

    async fn put_again(
        &mut self,
        files: &[FileId],
        recent: &Recent,
        proof: Proof,
    ) -> Result<Vec<(FileId, Restored)>, Failed> {
        let log = CommitLog::new(self.store.clone(), "t", 0);
        let state = log.state_at(recent).await?;
        let mut outcomes = Vec::new();
        for id in files {
            let file = &state.live[id];
            let FileId::Batch { from, k } = *id else { panic!("nothing was replaced") };
            let Fate::Batch(batch) = &state.spans[&from].fate else { panic!("a batch") };
            let intent = self.encode(from, file.to, batch.recipe.clone(), false).intent;
            let outcome = if from < *of(&self.outside.earliest) {
                Restored::CannotMake
            } else {
                let put = self.put(&intent, k, proof).await?;
                put.map_or(Restored::TooOld, |_| Restored::Present)
            };
            outcomes.push((*id, outcome));
        }
        Ok(outcomes)
    }

    fn unrestored(&mut self, unrestored: &Unrestored) {
        of(&self.outside.unrestored).extend(unrestored.files());
    }

    async fn commit_offset(&mut self, offset: i64) -> Result<(), Failed> {
        Pause::default().await;
        *of(&self.outside.committed) = Some(offset);
        Ok(())
    }

    fn appended(&mut self, _: i64, ops: &[Op], head: &Head) {
        if ops.iter().any(|op| matches!(op, Op::Commit(_))) {
            self.committed_here.push(head.end);
        }
    }
}

/// Merges all files of each folder that has several.
struct Compaction {
    outside: Arc<Outside>,
    memory: MemoryStore,
}

impl Compaction {
    fn staged(id: FileId) -> String {
        format!("staged/{id}")
    }

    fn output(intent: &ReplaceIntent, k: u32) -> (FileId, String) {
        let (id, planned) = intent.outputs().nth(k as usize).expect("as many as planned");
        (id, key(&planned.folder, id))
    }
}

#[async_trait]
impl Files for Compaction {
    type Error = Failed;

    async fn choose(&mut self, state: &State) -> Result<Option<Choice>, Failed> {
        Pause::default().await;
        let mut folders: BTreeMap<String, Vec<(FileId, i64, i64)>> = BTreeMap::new();
        for (id, file) in &state.live {
            folders.entry(file.folder.clone()).or_default().push((*id, file.from, file.to));
        }
        folders.retain(|_, files| files.len() > 1);
        let scopes: Vec<Scope> = folders
            .into_iter()
            .map(|(folder, files)| {
                let from = files.iter().map(|(_, from, _)| *from).min().unwrap_or_default();
                let to = files.iter().map(|(_, _, to)| *to).max().unwrap_or_default();
                let files = files.into_iter().map(|(id, ..)| id).collect();
                let inputs = vec![InFolder { folder: folder.clone(), files }];
                Scope { from, to, inputs, outputs: vec![Planned { folder, from, to }] }
            })
            .collect();
        let recipe = Recipe { layout: 1.into(), encoding: 0.into() };
        let choice = Choice { reason: Reason::Compaction, source: Source::Inputs, recipe, scopes };
        Ok((!choice.scopes.is_empty()).then_some(choice))
    }

    async fn stage(&mut self, intent: &ReplaceIntent, k: u32) -> Result<Staged, Failed> {
        let mut rows: Vec<i64> = Vec::new();
        for (folder, id) in intent.scopes[k as usize].inputs() {
            Pause::default().await;
            let Some(input) = self.memory.get(&key(folder, id)) else { return Ok(Staged::InputGone(id)) };
            rows.extend(serde_json::from_slice::<Vec<i64>>(&input).expect("rows"));
        }
        rows.sort_unstable();
        let staged = Self::staged(Self::output(intent, k).0);
        Pause::default().await;
        self.memory.put(&staged, body(&rows), PutCondition::IfAbsent, &Metadata::new()).await?;
        Ok(Staged::Stands(stored(&self.memory.get(&staged).expect("just put"))))
    }

    async fn await_fence(&mut self, entry: u64, put_ms: Option<i64>) -> Result<(), Failed> {
        Pause::default().await;
        assert!(put_ms.is_some(), "nothing was collected");
        let mut fence = of(&self.outside.fence);
        *fence = (*fence).max(Some(entry));
        Ok(())
    }

    async fn examine(&mut self, intent: &ReplaceIntent, decided: &[Stored]) -> Result<Vec<u32>, Failed> {
        let mut gone = Vec::new();
        for (k, decided) in (0u32..).zip(decided) {
            Pause::default().await;
            let (id, to) = Self::output(intent, k);
            let stands = self.memory.get(&to).or(self.memory.get(&Self::staged(id)));
            if stands.is_none_or(|body| stored(&body) != *decided) {
                gone.push(k);
            }
        }
        Ok(gone)
    }

    async fn delete(&mut self, intent: &ReplaceIntent, files: &[FileId]) -> Result<Vec<FileId>, Failed> {
        for (folder, id) in intent.inputs().filter(|(_, id)| files.contains(id)) {
            Pause::default().await;
            self.memory.set(&key(folder, id), None);
        }
        Ok(files.to_vec())
    }

    async fn publish(&mut self, intent: &ReplaceIntent, k: u32, proof: Proof) -> Result<Published, Failed> {
        let (id, to) = Self::output(intent, k);
        Pause::default().await;
        if self.outside.is_too_old(proof) {
            return Ok(Published::TooOld);
        }
        let (there, staged) = (self.memory.get(&to), self.memory.get(&Self::staged(id)));
        match there.or(staged) {
            Some(body) => self.memory.set(&to, Some(body)),
            None => return Ok(Published::Gone),
        }
        Ok(Published::Stands)
    }

    async fn drop_staged(&mut self, replace: u64) -> Result<(), Failed> {
        Pause::default().await;
        for key in self.memory.keys(&format!("staged/c{replace}-")) {
            self.memory.set(&key, None);
        }
        Ok(())
    }
}

/// Owners and replacers can be run by a runtime of several threads.
type Run = Pin<Box<dyn Future<Output = Result<(), Failed>> + Send>>;

struct Scene {
    memory: MemoryStore,
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    outside: Arc<Outside>,
    owners: u64,
}

impl Scene {
    fn new(offsets: i64) -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let memory = MemoryStore::new(clock.clone());
        let outside = Arc::new(Outside {
            offsets,
            earliest: Mutex::new(0),
            committed: Mutex::new(None),
            fence: Mutex::new(None),
            unrestored: Mutex::default(),
        });
        Self { store: Arc::new(Watched::interleaved(memory.clone())), memory, clock, outside, owners: 0 }
    }

    fn session(&mut self) -> Session {
        self.owners += 1;
        let (actor, mut entry) = (self.owners, 0);
        let writer = Box::new(move || {
            entry += 1;
            format!("{actor}-{entry}")
        });
        Session::new(CommitLog::new(self.store.clone(), "t", 0), self.clock.clone(), writer)
    }

    fn owner(&mut self, layout: u8, sizes: &[u8]) -> Run {
        let work = Rows {
            outside: self.outside.clone(),
            store: self.store.clone(),
            memory: self.memory.clone(),
            sizes: sizes.to_vec(),
            layout,
            encoded: None,
            committed_here: Vec::new(),
        };
        let recipe = Recipe { layout: layout.into(), encoding: 0.into() };
        let owning = Owning::new(self.session(), recipe, true, work);
        Box::pin(async { owning.run().await.map(|ended| assert_eq!(ended, Ended::Done)) })
    }

    fn compactor(&mut self) -> Run {
        let (outside, memory) = (self.outside.clone(), self.memory.clone());
        let replacing = Replacing::new(self.session(), ReplaceSlot::Merging, Compaction { outside, memory });
        Box::pin(async { replacing.run().await.map(|ended| assert_eq!(ended, replacing::Ended::Rested)) })
    }

    /// Every row that a reader of the folders sees.
    fn visible(&self) -> Vec<i64> {
        let bodies = self.memory.keys("data/").into_iter().filter_map(|key| self.memory.get(&key));
        let mut rows: Vec<i64> =
            bodies.flat_map(|body| serde_json::from_slice::<Vec<i64>>(&body).expect("rows")).collect();
        rows.sort_unstable();
        rows
    }
}

fn is_done(run: &mut Run) -> bool {
    match polled(&mut run.as_mut()) {
        Poll::Pending => false,
        Poll::Ready(ended) => {
            ended.expect("no failure, and no answer to another question");
            true
        }
    }
}

/// Which actor acts next, and whether it crashes or, if it has ended, comes again.
type Step = (u8, u8);
/// A step of the actor without either, and little time.
const PLAIN: u8 = 255;
const CRASH: u8 = 8;

/// Runs until everybody is done. Two actors are owners, the others compact.
fn run(scene: &mut Scene, steps: &[Step], sizes: &[u8], actors: usize) {
    let begin = |scene: &mut Scene, place: usize| match place {
        0 => scene.owner(1, sizes),
        1 => scene.owner(2, sizes),
        _ => scene.compactor(),
    };
    let mut running: Vec<Option<Run>> = (0..actors).map(|place| Some(begin(scene, place))).collect();
    let (mut seen, mut done_at) = (0, None);
    let endless = (0..=u8::MAX).cycle().map(|place| (place, PLAIN)).take(60_000);
    for (place, chance) in steps.iter().copied().chain(endless) {
        let place = usize::from(place) % actors;
        scene.clock.advance(i64::from(chance) * 10);
        if chance < CRASH {
            running[place] = Some(begin(scene, place));
        } else if running[place].as_mut().is_some_and(is_done) {
            running[place] = None;
        }
        let files = scene.memory.keys("data/").len();
        if std::mem::replace(&mut seen, files) != files {
            let visible = scene.visible();
            assert!(visible.windows(2).all(|pair| pair[0] < pair[1]), "a row is visible twice: {visible:?}");
        }
        if chance == PLAIN && running.iter().all(Option::is_none) {
            // Compactors look once more: there may have been nothing to do when they did.
            if done_at.replace(seen) == Some(seen) {
                return;
            }
            (2..actors).for_each(|place| running[place] = Some(begin(scene, place)));
        }
    }
    panic!("it never ends");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn owners_that_interleave_and_crash_write_every_row_once(
        steps in prop::collection::vec(any::<Step>(), 0..400),
        sizes in prop::collection::vec(any::<u8>(), 0..20),
        offsets in 1i64..30,
    ) {
        let mut scene = Scene::new(offsets);
        run(&mut scene, &steps, &sizes, 2);
        prop_assert_eq!(scene.visible(), (0..offsets).collect::<Vec<_>>());
        prop_assert_eq!(*of(&scene.outside.committed), Some(offsets));
        // What the commit log says stands there.
        let log = CommitLog::new(Arc::new(scene.memory.clone()), "t", 0);
        let state = now(log.load_state()).unwrap().0;
        for (id, file) in &state.live {
            let stands = scene.memory.get(&key(&file.folder, *id)).expect("it is there");
            prop_assert_eq!(Hash::of(&stands), file.stored.sha256);
        }
        prop_assert_eq!(state.live.len(), scene.memory.keys("data/").len());

        // An operator deletes half of the files and sets the group back: the same files come again.
        let before: BTreeMap<String, Option<Bytes>> =
            scene.memory.keys("data/").into_iter().map(|key| (key.clone(), scene.memory.get(&key))).collect();
        now(log.collect(Keep { entries: 1, kept_ms: i64::MIN, log_from: i64::MIN }, "collector")).unwrap();
        for key in before.keys().step_by(2) {
            scene.memory.set(key, None);
        }
        *of(&scene.outside.committed) = Some(0);
        run(&mut scene, &steps, &sizes, 2);
        let after: BTreeMap<String, Option<Bytes>> =
            scene.memory.keys("data/").into_iter().map(|key| (key.clone(), scene.memory.get(&key))).collect();
        prop_assert_eq!(after, before);
    }

    #[test]
    fn files_that_the_log_cannot_make_again_hold_nothing_up(
        steps in prop::collection::vec(any::<Step>(), 0..400),
        sizes in prop::collection::vec(any::<u8>(), 0..20),
        deleted in prop::collection::vec(any::<bool>(), 90),
        offsets in 1i64..30,
        earliest in 0i64..30,
        actors in prop_oneof![Just(2usize), Just(3)],
    ) {
        let earliest = earliest.min(offsets);
        let mut scene = Scene::new(offsets);
        run(&mut scene, &steps, &sizes, actors);
        let log = CommitLog::new(Arc::new(scene.memory.clone()), "t", 0);
        let live = now(log.load_state()).unwrap().0.live;
        let deleted: Vec<_> = live.iter().zip(deleted).filter(|(_, is_deleted)| *is_deleted).map(|(file, _)| file).collect();
        for (id, file) in &deleted {
            scene.memory.set(&key(&file.folder, **id), None);
        }
        *of(&scene.outside.earliest) = earliest;
        *of(&scene.outside.committed) = Some(0);
        run(&mut scene, &steps, &sizes, actors);
        prop_assert_eq!(*of(&scene.outside.committed), Some(offsets));
        for (id, file) in deleted {
            let is_there = scene.memory.get(&key(&file.folder, *id)).is_some();
            let is_makeable = matches!(id, FileId::Batch { .. }) && file.from >= earliest;
            let is_reported = of(&scene.outside.unrestored).contains(id);
            prop_assert!(is_there || !is_makeable, "{} can be made", id);
            prop_assert!(is_there || is_reported, "nobody knows of {}", id);
        }
    }

    #[test]
    fn files_are_compacted_beside_owners_and_every_row_is_there_once(
        steps in prop::collection::vec(any::<Step>(), 0..800),
        sizes in prop::collection::vec(any::<u8>(), 0..20),
        offsets in 1i64..30,
    ) {
        let mut scene = Scene::new(offsets);
        run(&mut scene, &steps, &sizes, 4);
        prop_assert_eq!(scene.visible(), (0..offsets).collect::<Vec<_>>());
        let log = CommitLog::new(Arc::new(scene.memory.clone()), "t", 0);
        let state = now(log.load_state()).unwrap().0;
        let counted: Vec<String> = state.live.iter().map(|(id, file)| key(&file.folder, *id)).collect();
        let mut there = scene.memory.keys("data/");
        there.sort();
        let mut expected = counted;
        expected.sort();
        prop_assert_eq!(&there, &expected);
        prop_assert!(there.len() <= 3, "a file for each folder: {:?}", there);
    }
}

/// Steps, sizes of batches and length of the log of a seed.
fn chosen(seed: u64) -> (Vec<Step>, Vec<u8>, i64) {
    let mut state = seed;
    let mut next = move || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).to_be_bytes()[0]
    };
    let steps = (0..800).map(|_| (next(), next())).collect();
    let sizes = (0..20).map(|_| next()).collect();
    (steps, sizes, i64::from(next() % 30) + 1)
}

#[test]
fn this_test_notices_rules_that_are_dropped() {
    use commitlog::rules::{Rule, without};
    let is_sound = |seed: u64, actors: usize| {
        let (steps, sizes, offsets) = chosen(seed);
        let mut scene = Scene::new(offsets);
        run(&mut scene, &steps, &sizes, actors);
        scene.visible() == (0..offsets).collect::<Vec<_>>()
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let rules = [
        (2, Rule::IntentBeforeFiles),
        (2, Rule::RecipeOfIntent),
        (2, Rule::FilesBeforeCommit),
        (2, Rule::IntentFromEnd),
        (2, Rule::OneIntent),
        (4, Rule::DeleteBeforePublish),
        (4, Rule::StagedBeforeReady),
        (4, Rule::PublishedBeforeDone),
    ];
    let survivors: Vec<(usize, Rule)> = rules
        .into_iter()
        .filter(|(actors, rule)| {
            (0..300).all(|seed| {
                let outcome = std::panic::catch_unwind(|| without(Some(*rule), || is_sound(seed, *actors)));
                outcome.unwrap_or(false)
            })
        })
        .collect();
    std::panic::set_hook(hook);
    assert_eq!(survivors, [], "300 seeds did not notice that these were dropped");
}
