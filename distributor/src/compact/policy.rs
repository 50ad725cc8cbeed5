//! Which files are merged: a pure function of their sizes, their order and their age.
//!
//! Each row is written again few times. While a folder still grows, a run of files is merged only if the result is
//! [`GROWTH`] times as large as the largest of them: from one batch every 30 seconds to a day of them that is at most twice.
//! Once the folder has rested, what is left is merged up to the target, which is the third time.

use std::ops::Range;

/// A merge makes files at least so many times as large, in a folder that grows.
const GROWTH: u64 = 16;
/// A folder that has rested is left with at most so many small files beside large ones.
const FEW: usize = 8;

/// How files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Bytes of a file that is large enough. None becomes larger, but by what its encoding adds.
    pub target_bytes: u64,
    /// A folder has rested when its newest batch is so old, milliseconds.
    pub rest_ms: i64,
}

/// A file of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sized {
    pub bytes: u64,
    /// Files of one kind can be merged. None: it stays as it is.
    pub kind: Option<usize>,
}

impl Policy {
    /// Whether a folder has rested whose newest batch has this log time.
    pub(super) fn has_rested(&self, clock_ms: i64, now_ms: i64) -> bool {
        clock_ms <= now_ms.saturating_sub(self.rest_ms)
    }

    /// Runs of files to be merged, as ranges of `files`, which are in the order of their offsets. Each has at least two.
    pub(super) fn runs(&self, files: &[Sized], has_rested: bool) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let mut begin = 0;
        let mergeable = |file: &Sized| file.kind.filter(|_| !self.is_large(file.bytes));
        for alike in files.chunk_by(|one, next| mergeable(one) == mergeable(next)) {
            if alike.first().and_then(mergeable).is_some() {
                let found = if has_rested { self.rested(alike) } else { self.growing(alike) };
                runs.extend(found.into_iter().map(|run| begin + run.start..begin + run.end));
            }
            begin += alike.len();
        }
        runs
    }

    /// Whether a file is large enough to stay as it is.
    pub(super) fn is_large(&self, bytes: u64) -> bool {
        bytes >= self.target_bytes / 4 * 3
    }

    /// Runs that grow enough.
    fn growing(&self, files: &[Sized]) -> Vec<Range<usize>> {
        let (mut runs, mut begin) = (Vec::new(), 0);
        for end in 1..=files.len() {
            let (mut total, mut largest, mut found) = (0_u64, 0, None);
            for at in (begin..end).rev() {
                let Some(file) = files.get(at) else { break };
                // Files that are larger than all after them together wait for their like.
                if total > 0 && file.bytes > total || total.saturating_add(file.bytes) > self.target_bytes {
                    break;
                }
                total += file.bytes;
                largest = largest.max(file.bytes);
                if end - at > 1 && total >= largest.saturating_mul(GROWTH) {
                    found = Some(at);
                }
            }
            if let Some(at) = found {
                runs.push(at..end);
                begin = end;
            }
        }
        runs
    }

    /// Runs up to the target.
    fn rested(&self, files: &[Sized]) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let mut begin = 0;
        while begin < files.len() {
            let (mut end, mut total) = (begin, 0_u64);
            while let Some(file) = files.get(end).filter(|file| end == begin || total + file.bytes <= self.target_bytes)
            {
                total += file.bytes;
                end += 1;
            }
            runs.extend(Self::without_large(files, begin..end));
            begin = end;
        }
        runs
    }

    /// A few small files beside a large one are no reason to write that again.
    fn without_large(files: &[Sized], run: Range<usize>) -> Vec<Range<usize>> {
        let within = files.get(run.clone()).unwrap_or_default();
        let total: u64 = within.iter().map(|file| file.bytes).sum();
        let largest = within.iter().enumerate().max_by_key(|(_, file)| file.bytes);
        match largest {
            None => Vec::new(),
            Some(_) if within.len() < 2 => Vec::new(),
            Some((at, file)) if within.len() <= FEW && file.bytes > total / 5 * 4 => {
                let at = run.start + at;
                [Self::without_large(files, run.start..at), Self::without_large(files, at + 1..run.end)].concat()
            }
            Some(_) => vec![run],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { target_bytes: 128_000_000, rest_ms: 3_600_000 };

    fn files(sizes: &[u64]) -> Vec<Sized> {
        sizes.iter().map(|bytes| Sized { bytes: *bytes, kind: Some(0) }).collect()
    }

    fn ends(runs: &[Range<usize>]) -> Vec<(usize, usize)> {
        runs.iter().map(|run| (run.start, run.end)).collect()
    }

    /// Replays a day of batches, with a compaction after each so many, and how often a row was written again at most.
    fn rewritten(batches: usize, bytes: u64, each: usize) -> (usize, u32) {
        let mut files: Vec<(Sized, u32)> = Vec::new();
        let compact = |files: &mut Vec<(Sized, u32)>, has_rested: bool| loop {
            let sized: Vec<Sized> = files.iter().map(|(file, _)| *file).collect();
            let runs = POLICY.runs(&sized, has_rested);
            if runs.is_empty() {
                return;
            }
            for run in runs.into_iter().rev() {
                let merged = &files[run.clone()];
                let bytes = merged.iter().map(|(file, _)| file.bytes).sum();
                let times = 1 + merged.iter().map(|(_, times)| *times).max().unwrap();
                files.splice(run, [(Sized { bytes, kind: Some(0) }, times)]);
            }
        };
        for batch in 0..batches {
            files.push((Sized { bytes, kind: Some(0) }, 0));
            if batch % each == 0 {
                compact(&mut files, false);
            }
        }
        compact(&mut files, true);
        (files.len(), files.iter().map(|(_, times)| *times).max().unwrap())
    }

    #[test]
    fn a_day_of_batches_ends_in_few_files_and_each_row_is_written_three_times_more_at_most() {
        for bytes in [5_000, 60_000, 900_000] {
            for each in [1, 10, 120, 5_000] {
                let (left, times) = rewritten(2_880, bytes, each);
                let all = 2_880 * bytes;
                assert!(left as u64 <= 8.max(all / POLICY.target_bytes * 3 / 2 + 2), "{bytes} {each}: {left} files");
                assert!(times <= 3, "{bytes} {each}: {times} times");
            }
        }
    }

    #[test]
    fn a_late_event_is_no_reason_to_write_a_large_file_again() {
        let runs = |sizes: &[u64]| ends(&POLICY.runs(&files(sizes), true));
        assert_eq!(runs(&[90_000_000, 1_000]), []);
        assert_eq!(runs(&[90_000_000, 1_000, 1_000]), [(1, 3)]);
        assert_eq!(runs(&[1_000, 1_000, 90_000_000, 2_000]), [(0, 2)]);
        assert_eq!(runs(&[60_000_000, 60_000_000, 60_000_000]), [(0, 2)]);
        assert_eq!(runs(&[1_000]), []);
        let many = [&[50_000_000][..], &[1_000; 9]].concat();
        assert_eq!(runs(&many), [(0, 10)], "with so many of them it is");
    }

    #[test]
    fn what_stays_divides_what_is_merged() {
        let mut all = files(&[1_000; 7]);
        all[3].kind = None;
        assert_eq!(ends(&POLICY.runs(&all, true)), [(0, 3), (4, 7)]);
        assert!(POLICY.runs(&all, false).is_empty(), "it grows");
        all[3].kind = Some(0);
        all[4].kind = Some(1);
        assert_eq!(ends(&POLICY.runs(&all, true)), [(0, 4), (5, 7)], "its rows have other columns");
        assert!(!POLICY.has_rested(1, POLICY.rest_ms) && POLICY.has_rested(0, POLICY.rest_ms));
    }

    proptest! {
        #[test]
        fn runs_are_disjoint_within_the_target_and_come_to_an_end(
            sizes in prop::collection::vec((0..140_000_000_u64, any::<u8>()), 0..60),
            has_rested in any::<bool>(),
        ) {
            // Sizes of all magnitudes.
            let sizes: Vec<u64> = sizes.into_iter().map(|(bytes, shift)| bytes >> (shift % 24)).collect();
            let mut left = sizes;
            for _ in 0..64 {
                let sized = files(&left);
                let runs = POLICY.runs(&sized, has_rested);
                if runs.is_empty() {
                    return Ok(());
                }
                let mut end = 0;
                for run in &runs {
                    prop_assert!(run.start >= end && run.len() >= 2 && run.end <= left.len());
                    prop_assert!(left[run.clone()].iter().sum::<u64>() <= POLICY.target_bytes);
                    end = run.end;
                }
                for run in runs.into_iter().rev() {
                    let total = left[run.clone()].iter().sum();
                    left.splice(run, [total]);
                }
            }
            prop_assert!(false, "it goes on and on: {left:?}");
        }
    }
}
