//! Limits the bytes published a second; shared by all lanes of a process.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A token bucket that may go into debt: a transaction larger than a second's budget is published whole, and the next
/// one waits longer.
pub(crate) struct Rate {
    bytes_per_second: Option<u64>,
    /// The time at which everything published so far is within the rate.
    free_at: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may be published.
    pub(crate) async fn wait_for(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        // Held while waiting: first come, first served.
        let mut free_at = self.free_at.lock().await;
        tokio::time::sleep_until(*free_at).await;
        *free_at = paid_at(*free_at, Instant::now(), bytes, rate);
    }
}

/// The time at which a transaction that begins at `now` is within the rate.
fn paid_at(free_at: Instant, now: Instant, bytes: usize, bytes_per_second: u64) -> Instant {
    #[allow(clippy::cast_precision_loss, reason = "a waiting time does not need more")]
    let cost = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
    now.max(free_at) + cost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_several_transactions_and_idle_time_is_not_saved_up() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let first = paid_at(begun, begun, 2_000, 1_000);
        assert_eq!(first, after(2));
        assert_eq!(paid_at(first, after(1), 3_000, 1_000), after(5), "asked early: it pays behind the first");
        assert_eq!(paid_at(first, after(60), 1_000, 1_000), after(61));
    }
}
