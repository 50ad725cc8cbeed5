//! Another owner writes between two reads of a worker that takes over. The worker must not mistake newer objects for
//! damage.

use std::sync::atomic::{AtomicI64, Ordering};

use common::store::LocalStore;
use common::telemetry::Registry;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::*;
use crate::batch::testing::{ENCODING, cut, layout, origin};
use crate::chain::Completion;
use crate::testing::interposed::{Fate, delayed};

type Rival = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// `inner`, with a rival that acts before the read with this number.
fn interrupted(inner: Arc<dyn Store>, reads_before: i64, rival: Rival) -> Arc<dyn Store> {
    let (reads, rival) = (AtomicI64::new(reads_before), Arc::new(Mutex::new(Some(rival))));
    delayed(inner, move |operation, _| {
        let is_read = ["head", "open", "list"].contains(&operation);
        let (acts, rival) = (is_read && reads.fetch_sub(1, Ordering::SeqCst) == 0, rival.clone());
        Box::pin(async move {
            if acts && let Some(rival) = rival.lock().await.take() {
                rival().await;
            }
            Fate::Pass
        })
    })
}

fn completion(from: i64, to: i64) -> Completion {
    Completion {
        version: DOCUMENT_VERSION,
        from,
        to,
        files: Vec::new(),
        counts: crate::batch::Counts::default(),
        damage: None,
        first_append_ms: 5,
        last_append_ms: 5,
    }
}

struct Zone {
    folder: tempfile::TempDir,
}

impl Zone {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> LocalStore {
        LocalStore::new(self.folder.path().to_owned())
    }

    fn chain(&self) -> ChainStore {
        ChainStore::new(Arc::new(self.store()), "events", 0)
    }

    /// Takes over while the rival acts before the read with this number.
    async fn take_over(&self, committed: Option<i64>, log: Bounds, reads_before: i64, rival: Rival) -> Result<i64> {
        let context = Context {
            store: interrupted(Arc::new(self.store()), reads_before, rival),
            topic: "events".into(),
            group: "g".into(),
            log_id: "log".into(),
            layout: layout(),
            encoding: ENCODING,
            max_rows: u64::MAX,
            max_bytes: u64::MAX,
            max_files: usize::MAX,
            budget: Budget::new(u64::MAX, Scratch::new(self.folder.path())),
            scratch: Scratch::new(self.folder.path()),
            max_age: std::time::Duration::from_secs(3_600),
            ages: common::config::TypeAges::default(),
            uploads: crate::partition::UploadRoom::default(),
            missing: MissingFiles::Restore,
            metrics: Arc::new(Metrics::new(&Registry::new()).unwrap()),
        };
        Partition::take_over(&context, 0, committed, log).await.map(|(_, start)| start)
    }
}

/// More reads than a take-over has.
const READS: i64 = 12;

#[tokio::test]
async fn a_chain_that_is_begun_while_it_is_read_is_not_damaged() {
    for reads_before in 0..READS {
        let zone = Zone::new();
        let chain = zone.chain();
        let rival: Rival = Box::new(move || {
            Box::pin(async move {
                chain.put_origin(&origin(0)).await.unwrap();
                chain.put_cut(&cut(0, 10)).await.unwrap();
            })
        });
        let start = zone.take_over(None, Bounds { earliest: 0, latest: 10 }, reads_before, rival).await;
        assert_eq!(start.map_err(|error| error.to_string()), Ok(0), "before read {reads_before}");
    }
}

#[tokio::test]
async fn a_cut_put_during_a_walk_is_not_said_to_have_later_ones() {
    let mut refusals = 0;
    for reads_before in 0..READS {
        let zone = Zone::new();
        let chain = zone.chain();
        chain.put_origin(&origin(0)).await.unwrap();
        chain.put_cut(&cut(0, 10)).await.unwrap();
        let key_run = chain.key_run_key(0);
        chain.put_key_run(&key_run, crate::window::encode_key_run(&Window::overlay())).await.unwrap();
        chain.put_completion(&completion(0, 10)).await.unwrap();
        let rival: Rival = Box::new(move || Box::pin(async move { drop(chain.put_cut(&cut(10, 20)).await.unwrap()) }));
        // Retention deleted 10 to 12 after the rival had read them.
        match zone.take_over(Some(0), Bounds { earliest: 12, latest: 30 }, reads_before, rival).await {
            // It was faster than the rival, and has put a cut for the lost offsets.
            Ok(start) => assert_eq!(start, 12),
            Err(PartitionError::Refused(refusal)) => {
                assert!(refusal.0.contains("the batch 10..20 was begun"), "before read {reads_before}: {refusal}");
                refusals += 1;
            }
            Err(error) => panic!("before read {reads_before}: {error}"),
        }
    }
    assert!(refusals > 3, "the rival was faster in {refusals} of {READS} cases only");
}
