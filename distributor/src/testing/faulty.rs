//! A store that fails once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use common::store::{Store, StoreErrorKind};

use super::interposed::{Fate, interposed};

/// Fails one call after a while: before it takes effect, or after, so that the caller sees a time-out of a success.
pub(crate) struct Faulty {
    calls_left: AtomicI64,
    after_effect: bool,
}

impl Faulty {
    /// The store, and its observer. A negative number of calls: never.
    pub fn over(inner: Arc<dyn Store>, calls: i64, after_effect: bool) -> (Arc<dyn Store>, Arc<Self>) {
        let faulty = Arc::new(Self { calls_left: AtomicI64::new(calls), after_effect });
        let judge = faulty.clone();
        (interposed(inner, move |_, _| judge.judge()), faulty)
    }

    /// Whether a call has failed.
    pub fn has_failed(&self) -> bool {
        self.calls_left.load(Ordering::SeqCst) < 0
    }

    fn judge(&self) -> Fate {
        if self.calls_left.fetch_sub(1, Ordering::SeqCst) != 0 {
            Fate::Pass
        } else if self.after_effect {
            Fate::TimeOut
        } else {
            Fate::Fail(StoreErrorKind::Transient)
        }
    }
}
