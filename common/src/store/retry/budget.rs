//! Limits how often all callers of a store together may retry.
//!
//! Back-off limits the load that one call puts on a failing store. Many calls at once add up, so all retries share one
//! budget. It holds [`RETRY_BURST`] attempts, and regains [`RETRIES_PER_SECOND`] of them each second and one more for
//! each call that succeeds. A store that fails for all callers sees a few attempts a second, however many wait. Once it
//! works again, waiting calls continue as fast as they succeed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Attempts that may be made at once before the budget is used up.
pub const RETRY_BURST: u32 = 32;
/// Attempts a second while everything fails.
pub const RETRIES_PER_SECOND: u32 = 4;

const BURST_TIME: Duration = Duration::from_secs(RETRY_BURST as u64 / RETRIES_PER_SECOND as u64);
const TIME_PER_TRY: Duration = Duration::from_millis(1_000 / RETRIES_PER_SECOND as u64);

pub(super) struct Budget {
    purse: Mutex<Purse>,
    regained: Notify,
}

/// The remaining budget, as the time needed to regain it, and when that was computed.
struct Purse {
    left: Duration,
    at: Instant,
}

impl Budget {
    pub fn new() -> Self {
        Self { purse: Mutex::new(Purse { left: BURST_TIME, at: Instant::now() }), regained: Notify::new() }
    }

    /// Waits until another attempt is permitted, and takes it.
    pub async fn take(&self) {
        while let Err(wait) = self.try_take() {
            // Time or a success regains one, whichever comes first.
            let _elapsed = tokio::time::timeout(wait, self.regained.notified()).await;
        }
    }

    /// The time until an attempt is permitted, if none is now.
    fn try_take(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (purse.left + now.duration_since(purse.at)).min(BURST_TIME);
        let rest = left.checked_sub(TIME_PER_TRY);
        *purse = Purse { left: rest.unwrap_or(left), at: now };
        if rest.is_some() { Ok(()) } else { Err(TIME_PER_TRY - left) }
    }

    /// Records a successful call.
    pub fn succeeded(&self) {
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        purse.left = (purse.left + TIME_PER_TRY).min(BURST_TIME);
        drop(purse);
        self.regained.notify_one();
    }
}
