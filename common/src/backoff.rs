//! Waits between attempts: exponential with full jitter, bounded.

use std::time::Duration;

/// Yields increasing waits. The jitter comes from the caller's seed, so that a simulation can repeat a run.
#[derive(Debug, Clone)]
pub struct Backoff {
    next_ms: u64,
    max_ms: u64,
    state: u64,
}

impl Backoff {
    /// Waits start around `first` and never exceed `max`.
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { next_ms: millis(first), max_ms: millis(max), state: seed }
    }

    /// Returns between half and the whole of the current step, and doubles the step.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.next_ms.min(self.max_ms);
        self.next_ms = step.saturating_mul(2);
        self.state = splitmix64(self.state);
        Duration::from_millis(step / 2 + self.state % (step / 2 + 1))
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014).
pub fn splitmix64(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100), 1);
        let waits: Vec<_> = (0..8).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= Duration::from_millis(5) && waits[0] <= Duration::from_millis(10), "{waits:?}");
        assert!(waits[7] >= Duration::from_millis(50), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(100)), "{waits:?}");
    }
}
