//! The worker's end of a lane: delivers orders without ever waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use common::log::{LogError, LogErrorKind};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use super::{LaneState, Order};

/// Orders that a lane has not taken yet: enough to keep it busy while the worker serves others.
pub(crate) const ORDERS_IN_FLIGHT: usize = 3;
/// The limit for all lanes together, beyond one order each: with many lanes, others work while one waits.
const ORDERS_OF_ALL: usize = 24;

/// Dropping it ends the lane.
pub(crate) struct LaneHandle {
    pub generation: u64,
    pub state: Arc<LaneState>,
    /// Reading of its partition is paused, because the lane has enough work.
    pub is_paused: bool,
    orders: mpsc::Sender<Order>,
    /// Orders that do not fit, in sequence. They are few: no chunk arrives while reading is paused, and a restart is
    /// ordered only at the lane's request.
    waiting: VecDeque<Order>,
    task: JoinHandle<()>,
}

impl LaneHandle {
    pub(crate) fn new(
        generation: u64,
        state: Arc<LaneState>,
        orders: mpsc::Sender<Order>,
        task: JoinHandle<()>,
    ) -> Self {
        Self { generation, state, is_paused: false, orders, waiting: VecDeque::new(), task }
    }

    /// Accepts an order, which may have to wait for room in the lane. Never waits itself.
    ///
    /// # Errors
    /// As [`LaneHandle::hand_over`].
    pub(crate) fn order(&mut self, order: Order) -> Result<(), LogError> {
        if let Order::Chunk(chunk) = &order {
            self.state.is_to_take(chunk);
        }
        self.waiting.push_back(order);
        self.hand_over()
    }

    /// Delivers waiting orders while the lane has room.
    ///
    /// # Errors
    /// The lane has ended. If it failed, it has reported so.
    pub(crate) fn hand_over(&mut self) -> Result<(), LogError> {
        while let Some(order) = self.waiting.pop_front() {
            if let Err(TrySendError::Full(order) | TrySendError::Closed(order)) = self.orders.try_send(order) {
                self.waiting.push_front(order);
                break;
            }
        }
        if self.orders.is_closed() {
            return Err(LogError::new(LogErrorKind::Transient, "a partition's task ended before its time"));
        }
        Ok(())
    }

    /// Whether a chunk could be delivered now within the limit for `lanes` lanes. Without room the lane has an order to
    /// take.
    pub(crate) fn has_room(&self, lanes: usize) -> bool {
        let share = (ORDERS_OF_ALL / lanes.max(1)).clamp(1, ORDERS_IN_FLIGHT);
        let in_flight = ORDERS_IN_FLIGHT.saturating_sub(self.orders.capacity());
        self.waiting.is_empty() && in_flight < share
    }

    /// Ends it at any point.
    pub(crate) async fn stop(self) {
        self.task.abort();
        // Cancelled, or just ended.
        let _ended = self.task.await;
    }
}

#[cfg(test)]
impl LaneHandle {
    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> (LaneHandle, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_IN_FLIGHT);
        (LaneHandle::new(1, Arc::default(), orders, tokio::spawn(async {})), receiver)
    }

    #[tokio::test]
    async fn orders_wait_for_a_lane_that_takes_none_and_keep_their_sequence() {
        let (mut handle, mut lane) = handle();
        for number in 0..ORDERS_IN_FLIGHT + 2 {
            assert_eq!(handle.has_room(8), number < ORDERS_IN_FLIGHT, "{number}");
            handle.order(Order::EndReached { announced: number == ORDERS_IN_FLIGHT }).unwrap();
        }
        handle.order(Order::Restarted).unwrap();
        let mut taken = Vec::new();
        while let Ok(order) = lane.try_recv() {
            taken.push(format!("{order:?}"));
            handle.hand_over().unwrap();
        }
        assert!(handle.has_room(8));
        let end = |announced| format!("{:?}", Order::EndReached { announced });
        assert_eq!(
            taken,
            [end(false), end(false), end(false), end(true), end(false), format!("{:?}", Order::Restarted)]
        );
    }

    #[tokio::test]
    async fn with_many_lanes_each_has_fewer_orders_waiting_but_at_least_one() {
        for (lanes, share) in [(1, 3), (8, 3), (9, 2), (12, 2), (13, 1), (10_000, 1)] {
            let (mut handle, _lane) = handle();
            for _ in 0..share {
                assert!(handle.has_room(lanes), "{lanes}");
                handle.order(Order::Restarted).unwrap();
            }
            assert!(!handle.has_room(lanes), "{lanes}");
        }
    }

    #[tokio::test]
    async fn a_lane_that_has_ended_is_an_error_even_if_it_had_no_room() {
        let (mut handle, lane) = handle();
        for _ in 0..=ORDERS_IN_FLIGHT {
            handle.order(Order::Restarted).unwrap();
        }
        drop(lane);
        assert!(handle.hand_over().is_err());
    }
}
