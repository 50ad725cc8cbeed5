//! Where the log's reader is, and the orders of the worker.

use std::sync::Arc;

use commitlog::Witness;
use common::log::{Chunk, LogError};
use tokio::sync::{Mutex, Notify, mpsc};

use crate::lane::{Order, Report};

/// Held until a lane has reported how it ended. Dropped, however the task ends, even by a panic, it notifies a worker that
/// waits for room, and that finds the lane gone.
pub(super) struct Ending {
    orders: Arc<Mutex<mpsc::Receiver<Order>>>,
    room: Arc<Notify>,
}

impl Ending {
    pub(super) fn new(orders: mpsc::Receiver<Order>, room: Arc<Notify>) -> Self {
        Self { orders: Arc::new(Mutex::new(orders)), room }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody else has it then: whoever reads orders was dropped before.
        if let Ok(mut orders) = self.orders.try_lock() {
            orders.close();
        }
        self.room.notify_one();
    }
}

pub(super) struct Reading {
    id: i32,
    generation: u64,
    orders: Arc<Mutex<mpsc::Receiver<Order>>>,
    reports: mpsc::UnboundedSender<(i32, u64, Report)>,
    /// Notified when an order was taken.
    room: Arc<Notify>,
    /// Every record from this offset on comes next, if reading has begun.
    next: Option<i64>,
    /// Waits for [`Order::Restarted`]; everything before is of an earlier place.
    is_waiting: bool,
    /// The record before `next`, which comes first and must equal this one.
    pub expected: Option<(i64, Witness)>,
    /// The chunk whose records are taken, and the index of the next one.
    chunk: Chunk,
    index: usize,
    /// Why nothing further can be read.
    pub unreadable: Option<LogError>,
    /// No record has arrived since the log's end was reached.
    pub at_end: bool,
    /// The same, after the end of input was announced.
    pub end_seen: bool,
}

impl Reading {
    pub(super) fn new(
        id: i32,
        generation: u64,
        ending: &Ending,
        reports: mpsc::UnboundedSender<(i32, u64, Report)>,
    ) -> Self {
        let (orders, room) = (ending.orders.clone(), ending.room.clone());
        Self {
            id,
            generation,
            orders,
            reports,
            room,
            next: None,
            is_waiting: false,
            expected: None,
            chunk: Chunk::default(),
            index: 0,
            unreadable: None,
            at_end: false,
            end_seen: false,
        }
    }

    pub(super) fn report(&self, report: Report) {
        // A worker that has ended needs no reports.
        let _ = self.reports.send((self.id, self.generation, report));
    }

    /// Makes the record at `at` the next one. If reading begins anew there, the one before it comes first, if `last` says
    /// what it has to be.
    pub(super) fn go_to(&mut self, at: i64, last: Option<Witness>) {
        if self.next == Some(at) && self.expected.is_none() {
            return;
        }
        self.expected = last.map(|last| (at - 1, last));
        (self.chunk, self.index) = (Chunk::default(), 0);
        (self.at_end, self.end_seen) = (false, false);
        self.unreadable = None;
        self.is_waiting = true;
        self.next = Some(at);
        self.report(Report::Start(if last.is_some() { at - 1 } else { at }));
    }

    /// Waits for an order, and takes it. None: the worker has ended.
    pub(super) async fn order(&mut self) -> Option<()> {
        let order = self.orders.lock().await.recv().await?;
        self.room.notify_one();
        match order {
            Order::Restarted => self.is_waiting = false,
            Order::Chunk(_) | Order::EndReached { .. } | Order::Unreadable(_) if self.is_waiting => {}
            Order::Unreadable(error) => self.unreadable = Some(error),
            Order::EndReached { announced } => (self.at_end, self.end_seen) = (true, announced),
            Order::Chunk(chunk) => {
                self.at_end = false;
                (self.chunk, self.index) = (chunk, 0);
            }
        }
        Some(())
    }

    /// The chunk whose records are to be taken, and the index of the next one.
    pub(super) fn rest(&self) -> Option<(&Chunk, usize)> {
        (self.index < self.chunk.offsets.len()).then_some((&self.chunk, self.index))
    }

    /// Everything before this index was taken.
    pub(super) fn took_to(&mut self, index: usize) {
        if let Some(last) = index.checked_sub(1).and_then(|last| self.chunk.offsets.get(last)) {
            self.next = Some(last + 1);
        }
        self.index = index;
        if self.index >= self.chunk.offsets.len() {
            (self.chunk, self.index) = (Chunk::default(), 0);
        }
    }

    /// Compares the record before the first one, if it comes next. False: it is another one.
    pub(super) fn is_as_expected(&mut self) -> bool {
        let Some((offset, expected)) = self.expected else { return true };
        let Some((chunk, index)) = self.rest() else { return true };
        let (Some(found), Some(append_ms)) = (chunk.offsets.get(index), chunk.times_ms.get(index)) else {
            return true;
        };
        let is_same = *found == offset
            && expected
                == Witness {
                    append_ms: *append_ms,
                    key_hash: xxhash_rust::xxh3::xxh3_64(chunk.records.get(index).key),
                };
        if is_same {
            self.expected = None;
            let next = self.next;
            self.took_to(index + 1);
            self.next = next;
        }
        is_same
    }
}
