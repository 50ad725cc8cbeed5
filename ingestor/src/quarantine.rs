//! Decides when a file is quarantined: pure functions of counts.

use common::config::Quarantine;

/// Pieces of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub good: u64,
    pub bad: u64,
}

/// The reason for quarantining the file, if there is one. Judged at the end of a batch and of the file, never on the
/// first few pieces: a file may begin with a header that is not an event. The counts are those of this attempt.
pub(crate) fn judge(counts: Counts, limits: &Quarantine) -> Option<String> {
    let Counts { good, bad } = counts;
    if let Some(max_errors) = limits.max_errors
        && bad > max_errors
    {
        return Some(format!("{bad} bad events, more than quarantine.max_errors = {max_errors}"));
    }
    let all = good.saturating_add(bad);
    if all < limits.min_events {
        return None;
    }
    // Counts of a file are far below 2^53.
    #[allow(clippy::cast_precision_loss, reason = "a share does not need more")]
    let ratio = bad as f64 / all as f64;
    (ratio > limits.max_error_ratio).then(|| {
        format!("{bad} of {all} events are bad, more than quarantine.max_error_ratio = {}", limits.max_error_ratio)
    })
}

/// The reason for publishing no more of the file, if there is one. Bytes and counts are those of the whole file,
/// committed or about to be.
pub(crate) fn judge_published(published_bytes: u64, max_bytes: u64, counts: impl FnOnce() -> Counts) -> Option<String> {
    (published_bytes > max_bytes).then(|| {
        let Counts { good, bad } = counts();
        format!(
            "{good} events and {bad} dead letters take {published_bytes} bytes, more than landing.max_published_bytes = {max_bytes}; if the file is meant, raise the setting and use --retry-quarantined"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Quarantine = Quarantine { max_error_ratio: 0.5, min_events: 100, max_errors: None };

    fn judged(good: u64, bad: u64, limits: &Quarantine) -> bool {
        judge(Counts { good, bad }, limits).is_some()
    }

    #[test]
    fn the_ratio_is_judged_from_the_minimum_on() {
        assert!(!judged(0, 99, &LIMITS), "too few to judge");
        assert!(judged(0, 100, &LIMITS));
        assert!(!judged(50, 50, &LIMITS), "at the limit is not past it");
        assert!(judged(49, 51, &LIMITS));
        assert!(!judged(0, 1_000_000, &Quarantine { max_error_ratio: 1.0, ..LIMITS }), "1 turns it off");
        assert!(judged(99, 1, &Quarantine { max_error_ratio: 0.0, ..LIMITS }), "0 takes no bad event");
    }

    #[test]
    fn published_bytes_are_limited_and_the_reason_says_how_to_continue() {
        let counts = || Counts { good: 3, bad: 2 };
        assert_eq!(judge_published(1_000, 1_000, counts), None);
        let reason = judge_published(1_001, 1_000, counts).unwrap_or_default();
        for part in ["3 events", "2 dead letters", "1001 bytes", "landing.max_published_bytes = 1000", "--retry-"] {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn the_count_is_judged_at_once() {
        let limits = Quarantine { max_errors: Some(3), ..LIMITS };
        assert!(!judged(0, 3, &limits));
        assert!(judged(1_000, 4, &limits));
        assert!(judged(0, 1, &Quarantine { max_errors: Some(0), ..LIMITS }));
    }
}
