//! What a long history costs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::watched::{Request, Watched};
use super::*;

/// Requests by kind, and bytes.
#[derive(Debug, Clone, Default)]
struct Cost {
    requests: BTreeMap<Request, u64>,
    bytes: u64,
}

impl Cost {
    fn of(&self, request: Request) -> u64 {
        self.requests.get(&request).copied().unwrap_or_default()
    }
}

#[derive(Clone, Default)]
struct Counter(Arc<Mutex<Cost>>);

impl Counter {
    fn take(&self) -> Cost {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn store(&self, memory: &MemoryStore) -> Watched {
        let counter = self.clone();
        Watched::new(memory.clone(), move |call| {
            let mut cost = counter.0.lock().unwrap_or_else(PoisonError::into_inner);
            if call.is_answered {
                *cost.requests.entry(call.request).or_default() += 1;
                cost.bytes += call.bytes;
            }
            Box::pin(std::future::ready(()))
        })
    }
}

const BATCHES: usize = 100_000;
/// Entries between two checkpoints.
const BETWEEN: usize = 1_024;

#[tokio::test]
async fn checkpoints_and_loads_cost_what_changed_and_not_what_was() -> TestResult {
    let (memory, counter) = (MemoryStore::default(), Counter::default());
    let log = CommitLog::new(Arc::new(counter.store(&memory)), "t", 3);
    let (mut history, mut tail, mut loads) = (History::default(), Tail::default(), Vec::new());
    let (mut batches, mut appended) = (0, 0);
    while batches < BATCHES {
        for _ in 0..BETWEEN {
            // Now and then the oldest file is replaced.
            let choice = match appended % 40_000 {
                39_990 => 4,
                39_991 | 39_992 => 0,
                _ => 9,
            };
            history.go_on(choice);
            let ops = history.entries.pop().expect("one more");
            batches += usize::from(ops.iter().any(|op| matches!(op, commitlog::Op::Commit(_))));
            let Append::Appended { tail: after } = log.append(tail, &appended.to_string(), &ops).await? else {
                panic!("nobody else appends");
            };
            (tail, appended) = (after, appended + 1);
        }
        counter.take();
        log.collect(Keep { entries: 1, kept_ms: i64::MIN, log_from: i64::MAX }, "collector").await?;
        let cost = counter.take();
        // Segments that changed: that of the replaced file, and the last one or two.
        assert!(cost.of(Request::Put) <= 8, "after {batches} batches: {cost:?}");
        assert!(cost.of(Request::List) <= 6, "after {batches} batches: {cost:?}");
        assert!(cost.of(Request::Get) <= BETWEEN as u64 + 20, "after {batches} batches: {cost:?}");
        assert!(cost.of(Request::Head) <= 32, "after {batches} batches: {cost:?}");
        assert!(cost.bytes <= 8_000_000, "after {batches} batches: {cost:?}");
        log.load().await?;
        loads.push((batches, cost, counter.take()));
    }
    let (batches, checkpoint, load) = loads.last().expect("some");
    println!("after {batches} batches: a checkpoint and a collection: {checkpoint:?}");
    println!("after {batches} batches: a load without entries since: {load:?}");
    assert!(load.of(Request::Get) <= 2 && load.of(Request::List) <= 1 && load.of(Request::Head) == 0, "{load:?}");
    assert_eq!(log.load_state().await?.0, history.state);
    Ok(())
}
