use bytes::Bytes;
use commitlog::testing::History;
use commitlog::{Commit, Hash, Header, Intent, Op, Recipe, Stored, Witness, with_sum};
use common::store::MemoryStore;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

mod collectors;
mod cost;
pub(crate) mod pauses;
pub(crate) mod watched;

type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

const NOTHING: Keep = Keep { entries: 1, kept_ms: i64::MIN, log_from: i64::MIN };

#[derive(Clone)]
struct Zone {
    store: MemoryStore,
    log: CommitLog,
}

impl Zone {
    fn new() -> Self {
        let store = MemoryStore::default();
        let log = CommitLog::new(Arc::new(store.clone()), "t", 3);
        Self { store, log }
    }

    async fn append_all(&self, mut tail: Tail, entries: &[Vec<commitlog::Op>]) -> Tail {
        for (n, ops) in entries.iter().enumerate() {
            match self.log.append(tail, &format!("w{n}"), ops).await.expect("appended") {
                Append::Appended { tail: after } => tail = after,
                other => panic!("nobody else appends: {other:?}"),
            }
        }
        tail
    }

    fn keys(&self, below: &str) -> Vec<String> {
        self.store.keys(&format!("_commits/t/3/{below}/"))
    }

    fn remove(&self, key: &str) {
        self.store.set(key, None);
    }

    fn copy(&self, from: &str, to: &str) {
        self.store.set(to, self.store.get(from));
    }

    fn alter(&self, key: &str, how: impl FnOnce(&mut Vec<u8>)) {
        let mut body = self.store.get(key).expect("it is there").to_vec();
        how(&mut body);
        self.store.set(key, Some(body.into()));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_state_is_the_fold_of_all_entries_whatever_was_collected(
        choices in prop::collection::vec(any::<u8>(), 1..60),
        collected_after in prop::collection::vec(any::<bool>(), 60),
        keep in 0u64..5,
    ) {
        runtime().block_on(async {
            let (zone, history) = (Zone::new(), History::of(&choices));
            let mut tail = Tail::default();
            for (ops, collects) in history.entries.iter().zip(collected_after) {
                tail = zone.append_all(tail, std::slice::from_ref(ops)).await;
                if collects {
                    zone.log.collect(Keep { entries: keep, ..NOTHING }, "collector").await.unwrap();
                }
            }
            let (state, at, loaded) = zone.log.load_state().await.unwrap();
            assert_eq!(state, history.state);
            assert_eq!((at, loaded.head), (tail, history.state.head));
            // Anybody who follows from the checkpoint on ends at the same place.
            let followed = zone.log.follow(tail).await.unwrap();
            assert_eq!(followed, (Vec::new(), tail));
        });
    }
}

#[tokio::test]
async fn who_appends_second_gets_the_entries_of_the_first() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9, 9, 9, 9]));
    let [first, second, third, _] = &history.entries[..] else { panic!("four entries") };
    let begin = zone.append_all(Tail::default(), std::slice::from_ref(first)).await;
    let tail = zone.append_all(begin, &[second.clone(), third.clone()]).await;
    match zone.log.append(begin, "late", second).await? {
        Append::Lost { entries, tail: seen } => {
            let ops: Vec<_> = entries.into_iter().map(|sealed| sealed.entry.ops).collect();
            assert_eq!((ops, seen), (vec![second.clone(), third.clone()], tail));
        }
        other => panic!("{other:?}"),
    }
    // An answer that was lost: the same entry again is ours.
    assert_eq!(zone.log.append(begin, "w0", second).await?, zone.log.append(begin, "w0", second).await?);
    Ok(())
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_won() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9, 9]));
    let won = zone.log.append(Tail::default(), "me", &history.entries[0]).await?;
    assert!(matches!(won, Append::Appended { tail } if tail.next == 1));
    assert_eq!(zone.log.append(Tail::default(), "me", &history.entries[0]).await?, won);
    let other = zone.log.append(Tail::default(), "another", &history.entries[0]).await?;
    assert!(matches!(other, Append::Lost { .. }), "equal operations of somebody else are not ours: {other:?}");
    Ok(())
}

#[tokio::test]
async fn of_many_racers_one_appends_each_entry() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9]));
    let begin = zone.append_all(Tail::default(), &history.entries).await;
    let ops = history.one_more();
    let racers = (0..16).map(|n| {
        let (log, ops) = (zone.log.clone(), ops.clone());
        async move { log.append(begin, &format!("racer {n}"), &ops).await }
    });
    let outcomes = futures_util::future::join_all(racers).await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Append::Appended { .. }))).count();
    let lost = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Append::Lost { .. }))).count();
    assert_eq!((won, lost), (1, 15));
    Ok(())
}

/// A zone with two checkpoints and entries after them, of which nothing was collected.
async fn zone_with_everything() -> Zone {
    let (zone, history) = (Zone::new(), History::of(&[9, 25, 41, 57, 4, 9, 0, 9, 0, 23, 9, 9, 24]));
    let keep = Keep { entries: u64::MAX, kept_ms: i64::MAX, log_from: i64::MIN };
    let (before, after) = history.entries.split_at(9);
    let tail = zone.append_all(Tail::default(), before).await;
    zone.log.collect(Keep { entries: 0, ..keep }, "collector").await.expect("a checkpoint");
    zone.append_all(tail, after).await;
    zone
}

#[tokio::test]
async fn every_altered_missing_or_exchanged_object_is_noticed_when_it_is_read() -> TestResult {
    let is_noticed = async |zone: &Zone, what: &str| {
        let loaded = zone.log.load_state().await;
        assert!(matches!(loaded, Err(CommitLogError::Damaged { .. })), "{what}: {loaded:?}");
    };
    // Entries after the checkpoint, newest first: the newest has no successor that names its hash.
    for at in 0..4 {
        let zone = zone_with_everything().await;
        let entry = zone.keys("log")[at].clone();
        zone.alter(&entry, |body| body.truncate(body.len() / 2));
        is_noticed(&zone, "a truncated entry").await;
        if at > 0 {
            let zone = zone_with_everything().await;
            zone.alter(&zone.keys("log")[at], |body| {
                let text = String::from_utf8(body.clone()).expect("JSON").replace("\"writer\":\"w", "\"writer\":\"v");
                *body = text.into_bytes();
            });
            is_noticed(&zone, "an altered entry").await;
            let zone = zone_with_everything().await;
            zone.remove(&zone.keys("log")[at]);
            is_noticed(&zone, "a missing entry").await;
            let zone = zone_with_everything().await;
            let (one, other) = (zone.keys("log")[at].clone(), zone.keys("log")[at - 1].clone());
            let body = zone.store.get(&one);
            zone.copy(&other, &one);
            zone.store.set(&other, body);
            is_noticed(&zone, "exchanged entries").await;
        }
    }
    let zone = zone_with_everything().await;
    zone.alter(&zone.keys("segments")[0], |body| body[20] ^= 1);
    is_noticed(&zone, "an altered segment").await;
    let zone = zone_with_everything().await;
    zone.remove(&zone.keys("segments")[0]);
    is_noticed(&zone, "a missing segment").await;
    let zone = zone_with_everything().await;
    zone.alter(&zone.keys("checkpoints")[0], |body| body.truncate(40));
    is_noticed(&zone, "a truncated checkpoint").await;
    let (zone, foreign) = (zone_with_everything().await, Zone::new());
    let other = History::of(&[9, 9, 9, 9, 9, 9, 9, 9, 9]);
    foreign.append_all(Tail::default(), &other.entries).await;
    foreign.log.collect(Keep { entries: 0, kept_ms: i64::MAX, log_from: i64::MIN }, "collector").await?;
    zone.store.set(&zone.keys("checkpoints")[0], foreign.store.get(&foreign.keys("checkpoints")[0]));
    is_noticed(&zone, "a foreign checkpoint").await;
    let zone = zone_with_everything().await;
    for entry in zone.keys("log") {
        zone.remove(&entry);
    }
    is_noticed(&zone, "no entry beside a checkpoint").await;
    Ok(())
}

#[tokio::test]
async fn a_key_run_is_the_one_that_was_named() -> TestResult {
    let zone = Zone::new();
    let named = zone.log.put_key_run(7, 2, Bytes::from_static(b"two keys")).await?;
    assert_eq!(zone.log.put_key_run(7, 2, Bytes::from_static(b"two keys")).await?, named, "put again");
    let other = zone.log.put_key_run(7, 2, Bytes::from_static(b"2nd keys")).await?;
    assert_eq!(&zone.log.key_run(7, &named).await?[..], b"two keys");
    let [one, two] = &zone.keys("keys")[..] else { panic!("two runs of one batch") };
    zone.copy(one, two);
    let both = [zone.log.key_run(7, &named).await.is_ok(), zone.log.key_run(7, &other).await.is_ok()];
    assert!(both == [true, false] || both == [false, true], "the run of another is noticed: {both:?}");
    zone.remove(one);
    zone.remove(two);
    let missing = zone.log.key_run(7, &named).await;
    assert!(matches!(missing, Err(CommitLogError::Damaged { damage: Damage::Missing, .. })), "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn the_floor_only_rises() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9; 12]));
    zone.append_all(Tail::default(), &history.entries).await;
    assert!(matches!(zone.log.raise_floor(1).await, Err(CommitLogError::Unwritable { .. })), "no checkpoint holds it");
    assert!(zone.log.put_checkpoint(&zone.log.load().await?).await?);
    assert_eq!(zone.log.floor().await?, 0);
    for (to, then) in [(5, 5), (3, 5), (9, 9), (9, 9)] {
        assert_eq!(zone.log.raise_floor(to).await?, then);
        assert_eq!(zone.log.floor().await?, then);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_young_or_needed_is_not_collected() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9; 40]));
    let mut tail = Tail::default();
    for entries in history.entries.chunks(8) {
        tail = zone.append_all(tail, entries).await;
        zone.log.collect(Keep { entries: 4, kept_ms: i64::MAX, log_from: i64::MIN }, "collector").await?;
    }
    assert_eq!((zone.keys("log").len(), zone.keys("checkpoints").len()), (40, 5), "all of it is young");
    assert_eq!(zone.keys("segments").len(), 5, "each checkpoint made the last segment longer");
    for from in [0, 10, 20] {
        zone.log.put_key_run(from, 1, Bytes::from(vec![1])).await?;
    }
    let keep = Keep { entries: 4, kept_ms: i64::MIN, log_from: 11 };
    let collected = zone.log.collect(keep, "collector").await?;
    assert_eq!((collected.checkpoints, collected.segments, collected.key_runs), (2, 2, 1), "three checkpoints stay");
    assert_eq!(collected.entries, 0, "the floor was there");
    let Loaded { head, tail: after, .. } = zone.log.load().await?;
    assert_eq!((head.keys_from, after.next), (10, tail.next + 1), "the commit log says so before they go");
    let tail = zone.append_all(after, &[history.one_more()]).await;
    let collected = zone.log.collect(keep, "collector").await?;
    assert_eq!(collected.entries, 38, "all below the floor, what an earlier run left among it");
    assert_eq!((zone.keys("log").len(), zone.log.floor().await?), (4, tail.next - 4));
    Ok(())
}

/// Others append these entries, collect, and one of them puts garbage into a hole.
async fn others_collect(zone: Zone, tail: Tail, ops: Vec<Vec<commitlog::Op>>, garbage: Option<Tail>) {
    zone.append_all(tail, &ops).await;
    zone.log.collect(NOTHING, "collector").await.expect("collected");
    if let Some(Tail { next, .. }) = garbage {
        let tail = Tail { next, last: Some(Hash::of(b"another")) };
        let put = zone.log.append(tail, "who slept", &ops[0]).await.expect("appended");
        assert!(matches!(put, Append::Appended { .. }), "a hole: {put:?}");
    }
}

#[tokio::test]
async fn what_others_do_while_it_is_loaded_is_no_damage() -> TestResult {
    for garbage in [false, true] {
        let (zone, history) = (Zone::new(), History::of(&[9; 8]));
        let tail = zone.append_all(Tail::default(), &history.entries[..2]).await;
        assert!(zone.log.put_checkpoint(&zone.log.load().await?).await?);
        let last = zone.append_all(tail, &history.entries[2..4]).await;
        let others = others_collect(zone.clone(), last, history.entries[4..].to_vec(), garbage.then_some(tail));
        let others: std::sync::Mutex<Option<futures_util::future::BoxFuture<'static, ()>>> =
            std::sync::Mutex::new(Some(Box::pin(others)));
        let store = watched::Watched::new(zone.store.clone(), move |call| {
            let is_listed = call.is_answered && call.request == watched::Request::List;
            let others = is_listed.then(|| others.lock().expect("not poisoned").take()).flatten();
            others.unwrap_or_else(|| Box::pin(std::future::ready(())))
        });
        let loaded = CommitLog::new(Arc::new(store), "t", 3).load().await?;
        assert_eq!(loaded.head, history.state.head);
    }
    Ok(())
}

/// A session that has folded two entries of eight, of which the first six are collected.
async fn asleep() -> std::result::Result<(Zone, Session), CommitLogError> {
    let (zone, history) = (Zone::new(), History::of(&[9; 8]));
    let tail = zone.append_all(Tail::default(), &history.entries[..2]).await;
    let mut number = 0;
    let writer = Box::new(move || {
        number += 1;
        format!("asleep {number}")
    });
    let mut session = Session::new(zone.log.clone(), Arc::new(common::clock::ManualClock::at(0)), writer);
    session.load().await?;
    let tail = zone.append_all(tail, &history.entries[2..]).await;
    zone.log.collect(Keep { entries: 5, ..NOTHING }, "collector").await?;
    assert_eq!((tail.next, zone.log.floor().await?), (8, 3));
    Ok((zone, session))
}

#[tokio::test]
async fn garbage_in_a_hole_before_real_entries_is_no_damage() -> TestResult {
    let ops = History::of(&[9; 2]).one_more();
    let garbage = Tail { next: 2, last: Some(Hash::of(b"another")) };
    // What is in the hole does not follow what was folded.
    let (zone, mut session) = asleep().await?;
    zone.log.append(garbage, "another who slept", &ops).await?;
    assert_eq!(session.append(&ops).await?, commitlog::actor::Answer::Behind);
    assert_eq!(session.prove().await?, commitlog::actor::Answer::Behind);
    // It does, and the real entry behind it does not follow it.
    let (zone, mut session) = asleep().await?;
    let tail = zone.log.load().await?.tail;
    zone.log.append(Tail { next: 2, last: session.tail().last }, "another who slept", &ops).await?;
    assert_eq!(session.prove().await?, commitlog::actor::Answer::Behind);
    session.load().await?;
    assert_eq!(session.tail(), tail);
    // Above the floor it is damage.
    let (zone, mut session) = asleep().await?;
    session.load().await?;
    zone.log.append(Tail { next: tail.next, ..garbage }, "who alters", &ops).await?;
    assert!(matches!(session.append(&ops).await, Err(CommitLogError::Damaged { .. })));
    Ok(())
}

#[tokio::test]
async fn a_session_forgets_what_a_newer_checkpoint_holds() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9; 40]));
    let mut session =
        Session::new(zone.log.clone(), Arc::new(common::clock::ManualClock::at(0)), Box::new(|| "w".into()));
    let tail = zone.append_all(Tail::default(), &history.entries[..20]).await;
    session.load().await?;
    zone.append_all(tail, &history.entries[20..]).await;
    zone.log.collect(Keep { entries: 5, kept_ms: i64::MAX, log_from: i64::MIN }, "collector").await?;
    session.prove().await?;
    assert_eq!(session.recent().entries().len(), 40);
    session.floor().await?;
    assert_eq!((session.recent().entries().len(), session.recent().first_entry()), (0, 40));
    assert_eq!(zone.log.state_at(session.recent()).await?, history.state);
    Ok(())
}

#[tokio::test]
async fn a_part_of_the_state_is_read_from_the_segments_that_hold_it() -> TestResult {
    let (zone, history) = (Zone::new(), History::of(&[9; 40]));
    zone.append_all(Tail::default(), &history.entries).await;
    zone.log.collect(NOTHING, "collector").await?;
    let (recent, whole) = (zone.log.load().await?.recent, history.state);
    let part = zone.log.state_within(&recent, 5, 9).await?;
    assert_eq!(part.head, whole.head);
    for (id, file) in whole.live.iter().filter(|(_, file)| file.from < 9 && 5 < file.to) {
        assert_eq!(part.live.get(id), Some(file));
    }
    zone.remove(&zone.keys("segments")[0]);
    let missing = zone.log.state_within(&recent, 5, 9).await;
    assert!(matches!(missing, Err(CommitLogError::Damaged { damage: Damage::Missing, .. })), "{missing:?}");
    // It is no damage if the checkpoint does not count any more.
    let root = zone.log.root().await?;
    let superseded = Root { checkpoints: vec![CheckpointRef { entries: 99, ..root.checkpoints[0] }], ..root };
    let key = "_commits/t/3/root.json";
    zone.store.set(key, Some(with_sum(&serde_json::to_vec(&superseded)?).into()));
    let missing = zone.log.state_within(&recent, 5, 9).await;
    assert!(matches!(missing, Err(CommitLogError::Superseded { entries: 40 })), "{missing:?}");
    Ok(())
}

/// In a directory a put that makes rows visible is begun under the lock, and only if nothing was appended.
#[test]
fn nobody_makes_files_visible_who_does_not_know_the_last_entry() -> TestResult {
    use crate::session::Entered;
    let folder = tempfile::tempdir()?;
    runtime_with_time().block_on(async {
        let store: Arc<dyn Store> = Arc::new(common::store::LocalStore::new(folder.path().to_owned()));
        let log = CommitLog::new(store.clone(), "t", 3);
        let session = || {
            let writer: Writer = Box::new(|| "w".to_owned());
            Session::new(log.clone(), Arc::new(common::clock::SystemClock), writer)
        };
        let history = History::of(&[9, 9]);
        let mut tail = Tail::default();
        for (n, ops) in history.entries.iter().enumerate() {
            let mut one = session();
            one.load().await?;
            assert!(matches!(one.enter().await?, Entered::Open(Some(_))), "it knows all entries");
            match log.append(tail, &format!("w{n}"), ops).await? {
                Append::Appended { tail: after } => tail = after,
                other => panic!("nobody else appends: {other:?}"),
            }
            assert!(matches!(one.enter().await?, Entered::Behind), "entry {n} is not known to it");
            one.prove().await?;
            assert!(matches!(one.enter().await?, Entered::Open(Some(_))), "it knows all entries again");
        }
        let mut one = session();
        one.load().await?;
        let known = tail.next;
        for ops in History::of(&[9, 9, 9, 9]).entries.get(2..).unwrap_or_default() {
            match log.append(tail, "further", ops).await? {
                Append::Appended { tail: after } => tail = after,
                other => panic!("nobody else appends: {other:?}"),
            }
        }
        log.collect(NOTHING, "collector").await?;
        assert_eq!(log.read(&log.entry_key(known), u64::MAX).await?, None, "it is collected");
        assert!(matches!(one.enter().await?, Entered::Behind), "an absent entry below the floor is a hole");
        Ok(())
    })
}

fn runtime_with_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Batches of ten offsets, of which the third was made with a longer window than those beside it.
fn with_windows() -> Vec<Vec<Op>> {
    let witness = Witness { append_ms: 0, key_hash: 0 };
    let nothing = Stored { rows: 0, bytes: 0, sha256: Hash::of(b""), bounds: None };
    let batch = |(from, window_from): (i64, i64)| {
        let intent = Intent {
            from,
            to: from + 10,
            recipe: Recipe { layout: Value::Null, encoding: Value::Null },
            window_from,
            clock_ms: from,
            first: witness,
            last: witness,
            folders: Vec::new(),
        };
        let commit = Commit { from, files: Vec::new(), keys: nothing, counts: Value::Null };
        vec![Op::Intent(intent), Op::Commit(commit)]
    };
    let mut entries: Vec<Vec<Op>> = [(0, 0), (10, 10), (20, 0), (30, 30)].map(batch).into();
    let header = Header { topic: "t".into(), partition: 3, log_id: "log".into(), start: 0, first: witness };
    entries[0].insert(0, Op::Header(header));
    entries
}

#[tokio::test]
async fn keys_are_kept_for_every_batch_that_the_log_still_holds() -> TestResult {
    for is_checkpointed in [false, true] {
        let zone = Zone::new();
        zone.append_all(Tail::default(), &with_windows()).await;
        for from in [0, 10, 20, 30] {
            zone.log.put_key_run(from, 1, Bytes::from(vec![1])).await?;
        }
        if is_checkpointed {
            zone.log.collect(Keep { kept_ms: i64::MAX, log_from: i64::MIN, ..NOTHING }, "a").await?;
        }
        for (log_from, collected, why) in [
            (10, 0, "the batch from 20 on reached back to the first one"),
            (30, 0, "as above: it ends there, and is the last before what the log holds"),
            (40, 3, "the next batch begins with the window of the last one"),
        ] {
            assert_eq!(zone.log.collect(Keep { log_from, ..NOTHING }, "b").await?.key_runs, collected, "{why}");
        }
        let head = zone.log.load().await?.head;
        assert_eq!(head.keys_from, 30);
        // A batch, and the collection of keys that it needs, come one after the other.
        let mut later = with_windows().remove(2);
        later.retain(|op| matches!(op, Op::Intent(_)));
        let Some(Op::Intent(intent)) = later.first_mut() else { panic!("an intent") };
        (intent.from, intent.to, intent.clock_ms, intent.window_from) = (40, 50, 40, 20);
        assert!(head.allows(&later).is_err(), "its keys are gone");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_staged_goes_when_its_replace_has_ended() -> TestResult {
    // Replace 0 is done, replace 1 under way.
    let (zone, history) = (Zone::new(), History::of(&[9, 9, 36, 0, 0, 9, 9, 36]));
    let numbers: Vec<u64> = history.state.head.replaces().map(|open| open.intent.replace).collect();
    assert_eq!((numbers, history.state.head.next_replace), (vec![1], 2));
    zone.append_all(Tail::default(), &history.entries).await;
    for replace in 0..3 {
        zone.store.set(&zone.log.staged_key("events/a=b", replace, 0), Some(Bytes::new()));
    }
    let head = zone.log.load().await?.head;
    assert_eq!(zone.log.delete_staged(&head, i64::MIN).await?, 0, "all of it is young");
    zone.log.collect(NOTHING, "collector").await?;
    assert_eq!(zone.store.keys("events/_staged/").len(), 3, "a collection does not know who reads it");
    assert_eq!(zone.log.delete_staged(&head, i64::MAX).await?, 1);
    let left = [1, 2].map(|replace| zone.log.staged_key("events/a=b", replace, 0));
    assert_eq!(
        zone.store.keys("events/_staged/"),
        left,
        "the last one belongs to a replace that this collector has not seen"
    );
    zone.store.set("rejected/_staged/t/3/01-0.parquet", Some(Bytes::new()));
    assert!(matches!(
        zone.log.delete_staged(&head, i64::MAX).await,
        Err(CommitLogError::Damaged { damage: Damage::Name, .. })
    ));
    Ok(())
}
