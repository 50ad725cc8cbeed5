//! Limits the growth of a compressed file. A pure decision over counts.

/// Ratios of small files are not judged: a few equal events compress by any factor. More than these bytes of events with
/// ids of their own compress by a hundred at most, so a higher limit would only let bombs work for longer.
pub const RATIO_JUDGED_FROM_BYTES: u64 = 10_000_000;

/// The limits of one file. With nested compressions the output bytes of each count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpansionLimits {
    /// Decompressed bytes for each compressed byte read so far.
    pub max_ratio: u64,
    /// The ratio is judged from this many decompressed bytes on, see [`RATIO_JUDGED_FROM_BYTES`].
    pub ratio_from_bytes: u64,
    /// All decompressed bytes.
    pub max_bytes: u64,
}

impl ExpansionLimits {
    /// The reason to stop decompressing, if there is one.
    pub(super) fn judge(&self, compressed: u64, expanded: u64) -> Option<String> {
        let Self { max_ratio, ratio_from_bytes, max_bytes } = *self;
        let exceeded = if expanded > max_bytes {
            format!("more than landing.max_expanded_bytes = {max_bytes}")
        } else if expanded >= ratio_from_bytes && expanded > compressed.saturating_mul(max_ratio) {
            format!("more than landing.max_expansion_ratio = {max_ratio} to one")
        } else {
            return None;
        };
        Some(format!(
            "{compressed} compressed bytes expand to {expanded}, {exceeded}; if the file is meant, raise the setting and use --retry-quarantined"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ExpansionLimits = ExpansionLimits { max_ratio: 10, ratio_from_bytes: 1_000, max_bytes: 50_000 };

    #[test]
    fn the_ratio_is_judged_from_the_minimum_on_and_the_size_at_once() {
        for (compressed, expanded, is_fine) in [
            (0, 999, true),
            (0, 1_000, false),
            (100, 1_000, true),
            (99, 1_000, false),
            (5_000, 50_000, true),
            (50_000, 50_001, false),
            (u64::MAX, 50_000, true),
        ] {
            assert_eq!(LIMITS.judge(compressed, expanded).is_none(), is_fine, "{compressed} to {expanded}");
        }
    }

    #[test]
    fn the_reason_has_the_figures_the_limit_and_the_setting() {
        for (compressed, expanded, parts) in [
            (99, 1_000, ["99", "1000", "landing.max_expansion_ratio = 10", "--retry-quarantined"]),
            (50_000, 50_001, ["50000", "50001", "landing.max_expanded_bytes = 50000", "--retry-quarantined"]),
        ] {
            let reason = LIMITS.judge(compressed, expanded).unwrap_or_default();
            assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
        }
    }
}
