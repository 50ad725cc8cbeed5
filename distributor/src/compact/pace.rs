//! What merging may take of a process that has other work to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Clones share one turn.
#[derive(Debug, Clone)]
pub struct Pace {
    turn: Arc<Semaphore>,
    /// Of inputs.
    bytes_per_second: Option<u64>,
}

impl Pace {
    /// One file is made at a time, from so many bytes of inputs a second at most; `None`: as fast as it goes.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), bytes_per_second }
    }

    /// Does some work that reads `bytes`, once all other work has ended, and is not over before that many are due.
    pub(super) async fn take<T>(&self, bytes: u64, work: impl Future<Output = T>) -> T {
        // It is never closed; if it were, nothing would be limited.
        let turn = self.turn.acquire().await;
        let begun = Instant::now();
        let made = work.await;
        if let Some(rate) = self.bytes_per_second {
            tokio::time::sleep_until(begun + due_after(bytes, rate)).await;
        }
        drop(turn);
        made
    }
}

fn due_after(bytes: u64, rate: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_of_all_partitions_together_keeps_to_the_rate() {
        let (pace, begun) = (Pace::new(Some(1_000)), Instant::now());
        let other = pace.clone();
        let (one, two) =
            tokio::join!(pace.take(2_000, async { begun.elapsed() }), other.take(3_000, async { begun.elapsed() }));
        assert_eq!((one, two), (Duration::ZERO, Duration::from_secs(2)), "one after the other");
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        Pace::new(None).take(u64::MAX, async {}).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "without a rate nothing waits");
    }
}
