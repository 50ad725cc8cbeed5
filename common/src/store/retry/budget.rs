//! How often all callers of a store together may try again.
//!
//! Back-off bounds what one call does to a store that fails. Many calls at once add up, so retries are paid for out of
//! one budget that they share: it holds [`RETRY_BURST`] tries, regains [`RETRIES_PER_SECOND`] of them each second, and one more for
//! each call that succeeds. So a store that fails for all sees a few tries a second however many wait, and once it works
//! again the waiting calls follow each other as fast as they succeed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Tries that may be made at once, before the budget is used up.
pub const RETRY_BURST: u32 = 32;
/// Tries a second for as long as everything fails.
pub const RETRIES_PER_SECOND: u32 = 4;

const BURST_TIME: Duration = Duration::from_secs(RETRY_BURST as u64 / RETRIES_PER_SECOND as u64);
const TIME_PER_TRY: Duration = Duration::from_millis(1_000 / RETRIES_PER_SECOND as u64);

pub(super) struct Budget {
    purse: Mutex<Purse>,
    regained: Notify,
}

/// What is left, in the time that it takes to regain it, and since when it grows.
struct Purse {
    left: Duration,
    at: Instant,
}

impl Budget {
    pub fn new() -> Self {
        Self { purse: Mutex::new(Purse { left: BURST_TIME, at: Instant::now() }), regained: Notify::new() }
    }

    /// Waits until another try may be made, and takes it.
    pub async fn take(&self) {
        while let Err(wait) = self.try_take() {
            // Whichever comes first: time gives one back, or a success does.
            let _elapsed = tokio::time::timeout(wait, self.regained.notified()).await;
        }
    }

    /// Or how long it is until there is one.
    fn try_take(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (purse.left + now.duration_since(purse.at)).min(BURST_TIME);
        let rest = left.checked_sub(TIME_PER_TRY);
        *purse = Purse { left: rest.unwrap_or(left), at: now };
        if rest.is_some() { Ok(()) } else { Err(TIME_PER_TRY - left) }
    }

    /// A call succeeded.
    pub fn succeeded(&self) {
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        purse.left = (purse.left + TIME_PER_TRY).min(BURST_TIME);
        drop(purse);
        self.regained.notify_one();
    }
}
