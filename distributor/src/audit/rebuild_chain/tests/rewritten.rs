//! Zones of which a part was rewritten, and that then lost their chain, in whole or in part.

mod broken_off;

use std::path::{Path, PathBuf};

use common::config::Compression;

use super::*;
use crate::batch::testing::layout;
use crate::layout::Layout;
use crate::rewrite::Rewriter;
use crate::{EndOfInput, ReplayTarget, Replayer};

const SNAPPY: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: true };
/// What a chain consists of, with a rewrite.
const PARTS: [&str; 5] = ["cuts", "done", "keys", "revisions", "revision-keys"];

type Documents = Vec<(PathBuf, Vec<u8>)>;

/// Other keys than before: what had no zone is fourteen hours earlier.
fn other_zone() -> Layout {
    Layout { timezone: "Pacific/Kiritimati".into(), ..layout() }
}

/// The same keys, other files.
fn small_files() -> Layout {
    Layout { max_rows_per_file: 8, ..other_zone() }
}

impl Zone {
    /// Two batches as they were cut, then one that was made again with other keys, then two more that were made again
    /// twice, and after those batches cut under the settings of the last rewrite.
    async fn half_rewritten() -> Self {
        let zone = Self::of_two_halves().await;
        zone.make_again(1, 40, other_zone(), ENCODING).await;
        zone.make_again(2, 75, small_files(), SNAPPY).await;
        zone.append_new("fourth", 30).await;
        zone.go_on().await;
        let audit = zone.audit().await;
        assert!(audit.is_sound(), "{:?}", audit.findings);
        let partition = &audit.partitions[0];
        assert!(partition.revised_batches >= 3 && partition.batches > partition.revised_batches + 3, "{partition:?}");
        zone
    }

    async fn make_again(&self, id: i64, from: i64, layout: Layout, encoding: Encoding) {
        let rewriter = self.rewriter(id, layout, encoding, self.store());
        let plans = rewriter.plan(ReplayTarget::Offset(from), None).await.unwrap();
        let done = rewriter.apply(&plans).await.unwrap();
        assert!(done[0].rewritten > 0, "{done:?}");
    }

    fn rewriter(&self, now_ms: i64, layout: Layout, encoding: Encoding, store: Arc<dyn Store>) -> Rewriter {
        Rewriter {
            replayer: Replayer { store, log: self.log.clone(), topic: "events".into(), group: "g".into() },
            layout,
            encoding,
            window_memory: 1_000_000_000,
            batch_memory: 1_000_000_000,
            scratch: crate::Scratch::new(self.folder.path()),
            all: false,
            require_all: false,
            now_ms,
            on_batch: Box::new(|_| {}),
        }
    }

    /// Distributes what has come, under the settings of the last rewrite.
    async fn go_on(&self) {
        let mut distributor = self.distributor();
        (distributor.settings.layout, distributor.settings.encoding) = (small_files(), SNAPPY);
        distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    }

    fn tables(&self) -> Documents {
        let files = self.files("events", ".parquet").into_iter().chain(self.files("rejected", ".parquet"));
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// The chain is sound, what comes again is known by the keys of the last rewrite, files that go are made again as
    /// they were, and the zone can be rewritten.
    async fn is_as_good_as_before(&self, what: &str, tables: &Documents) {
        assert!(self.tables() == *tables, "{what}");
        let before = self.audit().await;
        assert!(before.is_sound(), "{what}: {:?}", before.findings);
        let partition = &before.partitions[0];
        let in_log = self.log.bounds("events").await.unwrap()[&0].earliest;
        self.append_new("fourth", 30).await;
        self.go_on().await;
        let after = self.audit().await;
        assert!(after.is_sound(), "{what}: {:?}", after.findings);
        // All but one that is no event, which nobody can tell from another one.
        assert_eq!(after.partitions[0].rows, partition.rows, "{what}: an event was written twice");
        assert_eq!(after.partitions[0].duplicates, partition.duplicates + 31, "{what}");
        let is_held = |path: &Path| begin(path) >= in_log;
        let gone: Vec<&PathBuf> = tables.iter().map(|(path, _)| path).filter(|path| is_held(path)).step_by(2).collect();
        assert!(gone.len() > 3, "{what}");
        gone.iter().for_each(|path| fs::remove_file(path).unwrap());
        self.log.set_committed("g", "events", &[(0, partition.from)].into()).await.unwrap();
        self.go_on().await;
        let restored: Documents =
            self.tables().into_iter().filter(|(path, _)| tables.iter().any(|(before, _)| before == path)).collect();
        assert!(restored == *tables, "{what}");
        // Not earlier, for keys would be others there, too, and tell more duplicates.
        self.make_again(9, in_log.max(40), Layout { max_rows_per_file: 3, ..other_zone() }, ENCODING).await;
        let rewritten = self.audit().await;
        assert!(rewritten.is_sound(), "{what}: {:?}", rewritten.findings);
        assert_eq!(rewritten.partitions[0].rows, partition.rows, "{what}");
    }

    fn lose_parts(&self, parts: &[&str]) {
        parts.iter().for_each(|part| self.lose(part));
        if parts.len() == PARTS.len() {
            fs::remove_file(self.trusted("_batches/events/0/origin.json")).unwrap();
        }
    }

    /// What is left of the chain has not changed.
    fn has_kept(&self, left: &Documents) {
        for (path, body) in left {
            assert!(fs::read(path).is_ok_and(|now| now == *body), "{} was changed", path.display());
        }
    }

    async fn refusal(&self) -> String {
        self.rebuilder().rebuild(false).await.unwrap().partitions[0].refused.clone().unwrap_or_default()
    }
}

/// Where the batch of a file begins.
fn begin(path: &Path) -> i64 {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    stem.split('-').nth(2).unwrap().parse().unwrap()
}

const LOSSES: [&[&str]; 9] = [
    &PARTS,
    &["revisions"],
    &["revisions", "revision-keys"],
    &["revision-keys"],
    &["cuts"],
    &["done"],
    &["keys", "revision-keys"],
    &["cuts", "done", "keys"],
    &["cuts", "revisions"],
];

#[tokio::test]
async fn what_is_lost_of_a_rewritten_chain_is_made_again_from_the_log() {
    for parts in LOSSES {
        let zone = Zone::half_rewritten().await;
        let tables = zone.tables();
        zone.lose_parts(parts);
        let left = zone.documents();
        let rebuilt = zone.rebuilt().await;
        assert_eq!(rebuilt.refused, None, "{parts:?}");
        assert_eq!(rebuilt.revisions > 0, parts.contains(&"revisions"), "{parts:?}: {rebuilt:?}");
        zone.has_kept(&left);
        assert_eq!(zone.rebuilt().await.revisions, 0, "{parts:?}: nothing is missing any more");
        assert!(!zone.trusted("_batches/events/0/rebuild.json").exists());
        if parts.contains(&"done") {
            // What lists files has them taken away by who is late with a batch: none of a revision may be among them.
            let done = zone.chain("done").into_iter().map(|path| fs::read_to_string(path).unwrap());
            let (lists_none, lists_some): (Vec<_>, Vec<_>) = done.partition(|done| done.contains("\"files\": []"));
            assert!(lists_none.len() > 3 && lists_some.iter().all(|done| !done.contains("-r")), "{parts:?}");
        }
        zone.is_as_good_as_before(&format!("{parts:?}"), &tables).await;
    }
}

#[tokio::test]
async fn where_the_log_has_let_go_files_say_what_was_rewritten() {
    for parts in LOSSES {
        let zone = Zone::half_rewritten().await;
        let tables = zone.tables();
        // Into a batch that was rewritten twice.
        zone.log.trim("events", 0, 110, i64::MAX).await.unwrap();
        let earliest = zone.log.bounds("events").await.unwrap()[&0].earliest;
        assert!((96..=114).contains(&earliest), "{earliest}");
        zone.lose_parts(parts);
        let left = zone.documents();
        let rebuilt = zone.rebuilt().await;
        assert_eq!(rebuilt.refused, None, "{parts:?}");
        zone.has_kept(&left);
        zone.is_as_good_as_before(&format!("{parts:?} and the log"), &tables).await;
    }
}

#[tokio::test]
async fn a_revision_is_put_again_as_it_was_but_for_what_it_was_called() {
    let zone = Zone::half_rewritten().await;
    let documents = |zone: &Zone| {
        let read = |path: &PathBuf| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        zone.chain("revisions").iter().map(|path| (path.clone(), read(path))).collect::<Vec<_>>()
    };
    let before = documents(&zone);
    zone.lose("revisions");
    zone.rebuilt().await;
    let newest = |path: &Path| {
        !before.iter().any(|(other, _)| {
            other.to_str().unwrap()[..].replace("-000002", "-000001") == path.to_str().unwrap() && other != path
        })
    };
    let after = documents(&zone);
    let expected: Vec<_> = before.iter().filter(|(path, _)| newest(path)).collect();
    assert_eq!(after.len(), expected.len(), "only the newest of each batch");
    for ((path, made), (was_path, was)) in after.iter().zip(expected) {
        assert_eq!(path, was_path);
        for field in ["version", "revision", "layout", "encoding", "window_from", "key_run", "completion"] {
            assert_eq!(made[field], was[field], "{}: {field}", path.display());
        }
        assert_eq!(made["rewrite"], 0);
    }
}

#[tokio::test]
async fn a_single_revision_and_a_single_cut_come_back() {
    let zone = Zone::half_rewritten().await;
    let tables = zone.tables();
    // Of different batches, newest first.
    let revision = zone.files("_batches/events/0/revisions", "-000002.json").remove(0);
    fs::remove_file(revision).unwrap();
    fs::remove_file(zone.chain("cuts").into_iter().rev().nth(2).unwrap()).unwrap();
    let left = zone.documents();
    let rebuilt = zone.rebuilt().await;
    assert_eq!((rebuilt.refused, rebuilt.revisions, rebuilt.cuts, rebuilt.completions), (None, 1, 1, 0));
    zone.has_kept(&left);
    zone.is_as_good_as_before("one of each", &tables).await;
}

#[tokio::test]
async fn files_of_a_revision_whose_document_is_lost_are_no_orphans() {
    let zone = Zone::half_rewritten().await;
    let tables = zone.tables();
    zone.lose("revisions");
    let mut auditor = zone.deep_auditor();
    auditor.deep = false;
    let audit = auditor.verify(Repair::Orphans).await.unwrap();
    assert!(audit.removed.is_empty(), "{:?}", audit.removed);
    assert!(audit.findings.iter().any(|finding| finding.message.contains("document of its revision is missing")));
    assert!(zone.tables() == tables);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn files_of_two_revisions_side_by_side_are_refused_unless_a_document_says_which_stand() {
    let zone = Zone::half_rewritten().await;
    let tables = zone.tables();
    let (path, body) = tables.iter().find(|(path, _)| path.to_str().unwrap().contains("-75-r2-")).unwrap();
    let older = PathBuf::from(path.to_str().unwrap().replace("-r2-", "-r1-"));
    fs::write(&older, body).unwrap();
    zone.lose("keys");
    assert_eq!(zone.rebuilt().await.refused, None, "it is an orphan");
    zone.lose("revisions");
    let told = zone.refusal().await;
    assert!(told.contains("two revisions of the batch that begins at 75") && told.contains("-r1-"), "{told}");
    assert!(!zone.trusted("_batches/events/0/revisions").exists(), "nothing is put");
    fs::remove_file(older).unwrap();
    assert_eq!(zone.rebuilt().await.refused, None);
    zone.is_as_good_as_before("side by side", &tables).await;
}

#[tokio::test]
async fn a_revision_of_a_batch_that_a_summary_holds_comes_back_without_keys_that_no_longer_matter() {
    for with_chain in [true, false] {
        let zone = Zone::of_forty_days_and(async |zone, round| {
            if round == 0 {
                zone.make_again(1, 20, small_files(), SNAPPY).await;
            }
        })
        .await;
        let chain = ChainStore::new(zone.store(), "events", 0);
        let compacted = chain.compact(zone.log_begins_at().await, 2).await.unwrap();
        assert!(compacted.cuts >= 3, "{compacted:?}");
        let (before, tables) = (zone.audit().await, zone.tables());
        assert!(before.is_sound() && before.partitions[0].revised_batches == 2, "{before:?}");
        zone.lose_parts(if with_chain { &["revisions", "revision-keys"] } else { &PARTS });
        if !with_chain {
            zone.lose("summaries");
        }
        let rebuilt = zone.rebuilt().await;
        assert_eq!((rebuilt.refused, rebuilt.revisions), (None, 2));
        assert_eq!(rebuilt.key_runs == 0, with_chain);
        let after = zone.audit().await;
        assert!(after.is_sound(), "{:?}", after.findings);
        assert_eq!(after.partitions[0].rows, before.partitions[0].rows);
        zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
        zone.append(1).await;
        zone.distribute().await;
        let walked = zone.audit().await;
        assert!(walked.is_sound(), "{:?}", walked.findings);
        assert!(tables.iter().all(|(path, body)| fs::read(path).is_ok_and(|now| now == *body)));
    }
}

#[tokio::test]
async fn a_revision_of_which_a_file_is_gone_is_refused_once_the_log_has_let_go() {
    for is_held in [true, false] {
        let zone = Zone::half_rewritten().await;
        zone.lose("revisions");
        let tables = zone.tables();
        let (path, _) = tables.iter().find(|(path, _)| path.to_str().unwrap().contains("-75-r2-1.")).unwrap();
        fs::remove_file(path).unwrap();
        if !is_held {
            zone.log.trim("events", 0, 110, i64::MAX).await.unwrap();
        }
        let before = zone.documents();
        let told = zone.refusal().await;
        if is_held {
            assert_eq!(told, "");
            zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
            zone.go_on().await;
            zone.is_as_good_as_before("a file is gone", &tables).await;
        } else {
            assert!(told.contains("file 1 of") && told.contains("the log no longer has its records"), "{told}");
            assert!(zone.documents() == before, "nothing is put");
        }
    }
}

#[tokio::test]
async fn a_revision_that_left_a_batch_without_rows_is_known_by_the_log_only() {
    let zone = Zone::new().await;
    let clock = common::clock::SystemClock;
    let before_ms = clock.now_ms();
    while clock.now_ms() <= before_ms + 2 {
        tokio::task::yield_now().await;
    }
    let narrow = Layout { window_ms: 1, ..layout() };
    zone.append(1).await;
    let mut distributor = zone.distributor();
    distributor.settings.layout = narrow;
    distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    assert_eq!(zone.audit().await.partitions[0].rows, 100, "they came again after more than the window");
    // All is made again under the wider window: of the later batches nothing is left.
    let rewriter = Rewriter { all: true, ..zone.rewriter(1, small_files(), ENCODING, zone.store()) };
    rewriter.apply(&rewriter.plan(ReplayTarget::Earliest, None).await.unwrap()).await.unwrap();
    let before = zone.audit().await;
    assert!(before.is_sound() && before.partitions[0].rows == 50, "{before:?}");
    let tables = zone.tables();
    for parts in [&["revisions"][..], &PARTS] {
        let chain = tempfile::tempdir().unwrap();
        copy(&zone.trusted("_batches"), chain.path());
        zone.lose_parts(parts);
        let rebuilt = zone.rebuilt().await;
        assert_eq!(rebuilt.refused, None, "{parts:?}");
        let after = zone.audit().await;
        assert!(after.is_sound(), "{parts:?}: {:?}", after.findings);
        assert_eq!(after.partitions[0].rows, 50, "{parts:?}");
        // Files of before are not taken for missing.
        zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
        zone.go_on().await;
        assert!(zone.tables() == tables, "{parts:?}");
        fs::remove_dir_all(zone.trusted("_batches")).unwrap();
        copy(chain.path(), &zone.trusted("_batches"));
    }
}
