//! A state as it is put: a small checkpoint, and segments that checkpoints share.
//!
//! A segment holds consecutive spans and the live files that begin in them. Spans are never changed and a replace changes
//! few files, so the next checkpoint names most of the segments of the one before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::files::{LiveFile, Span, State};
use crate::hash::Hash;
use crate::head::Head;
use crate::op::FileId;

pub const CHECKPOINT_VERSION: u32 = 1;
/// A segment that is as long takes no further span.
const FULL_SPANS: usize = 1_000;
/// … nor one with as many files. A single batch may have more than that.
const FULL_FILES: usize = 5_000;

/// The state after the first `entries` entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub version: u32,
    pub entries: u64,
    /// Of the bytes of entry `entries - 1`: the next one names it.
    pub last_entry: Hash,
    pub head: Head,
    /// In order of their offsets, without a gap.
    pub segments: Vec<SegmentRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRef {
    /// Offsets `[from, to)`.
    pub from: i64,
    pub to: i64,
    pub bytes: u64,
    /// Its name, too.
    pub sha256: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    pub spans: BTreeMap<i64, Span>,
    pub live: BTreeMap<FileId, LiveFile>,
}

/// Why objects are not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("it cannot be read: {message}")]
    Malformed { message: String },
    #[error("it is of version {found}; this build reads version {CHECKPOINT_VERSION}")]
    Version { found: u32 },
    #[error("it says that it is the checkpoint of {found} entries, not of {expected}")]
    OtherNumber { expected: u64, found: u64 },
    #[error("its head is that of {found} entries, not of {expected}")]
    OtherHead { expected: u64, found: u64 },
    #[error("its hash is {found}, the checkpoint names {expected}: it was altered or exchanged")]
    OtherHash { expected: Hash, found: Hash },
    #[error("it holds the offsets {found:?}, and {expected:?} is named")]
    OtherRange { expected: (i64, i64), found: (i64, i64) },
    #[error("the offsets from {from} to {to} are in no segment")]
    Gap { from: i64, to: i64 },
    #[error("{file} is in two segments")]
    Twice { file: FileId },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn malformed(error: &serde_json::Error) -> CheckpointError {
    CheckpointError::Malformed { message: error.to_string() }
}

/// Where segments begin: as before, and after those wherever one is full.
fn begins(state: &State, before: &[SegmentRef]) -> Vec<i64> {
    let mut files_from: BTreeMap<i64, usize> = BTreeMap::new();
    for file in state.live.values() {
        *files_from.entry(file.from).or_default() += 1;
    }
    let mut begins: Vec<i64> = before.iter().map(|segment| segment.from).collect();
    let (open_from, known_to) = before.last().map_or((i64::MIN, i64::MIN), |last| (last.from, last.to));
    let (mut spans, mut files) = (0, 0);
    for (from, span) in state.spans.range(open_from..) {
        if begins.is_empty() || *from >= known_to && (spans >= FULL_SPANS || files >= FULL_FILES) {
            begins.push(*from);
            (spans, files) = (0, 0);
        }
        spans += 1;
        // A replaced file may begin in the middle of a span.
        files += files_from.range(*from..span.to).map(|(_, files)| files).sum::<usize>();
    }
    begins
}

/// A checkpoint and the bodies of its segments, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub checkpoint: Checkpoint,
    pub segments: Vec<Vec<u8>>,
}

impl Checkpoint {
    /// Divides a state. Segments begin where those of the checkpoint before it began, as far as it goes.
    ///
    /// # Errors
    /// A value has no JSON. None has that was read from an entry.
    pub fn split(state: &State, last_entry: Hash, before: &[SegmentRef]) -> Result<Split, CheckpointError> {
        let mut divided: BTreeMap<i64, Segment> =
            begins(state, before).into_iter().map(|from| (from, Segment::default())).collect();
        for (from, span) in &state.spans {
            if let Some((_, segment)) = divided.range_mut(..=from).next_back() {
                segment.spans.insert(*from, span.clone());
            }
        }
        for (id, file) in &state.live {
            if let Some((_, segment)) = divided.range_mut(..=file.from).next_back() {
                segment.live.insert(*id, file.clone());
            }
        }
        let ends: Vec<i64> = divided.keys().skip(1).copied().chain([state.head.end]).collect();
        let (mut refs, mut segments) = (Vec::with_capacity(divided.len()), Vec::with_capacity(divided.len()));
        for ((from, segment), to) in divided.into_iter().zip(ends) {
            let bytes = serde_json::to_vec(&segment).map_err(|error| malformed(&error))?;
            refs.push(SegmentRef { from, to, bytes: bytes.len() as u64, sha256: Hash::of(&bytes) });
            segments.push(bytes);
        }
        let (version, entries, head) = (CHECKPOINT_VERSION, state.head.next, state.head.clone());
        Ok(Split { checkpoint: Self { version, entries, last_entry, head, segments: refs }, segments })
    }

    /// The bytes to put.
    ///
    /// # Errors
    /// As [`Checkpoint::split`].
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        serde_json::to_vec(self).map_err(|error| malformed(&error))
    }

    /// What was read as the checkpoint of `entries` entries.
    ///
    /// # Errors
    /// It is another one, of another build, or none.
    pub fn decode(bytes: &[u8], entries: u64) -> Result<Self, CheckpointError> {
        let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        if version != CHECKPOINT_VERSION {
            return Err(CheckpointError::Version { found: version });
        }
        let checkpoint: Self = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        if checkpoint.entries != entries {
            return Err(CheckpointError::OtherNumber { expected: entries, found: checkpoint.entries });
        }
        if checkpoint.head.next != entries {
            return Err(CheckpointError::OtherHead { expected: entries, found: checkpoint.head.next });
        }
        let start = checkpoint.head.header.as_ref().map_or(checkpoint.head.end, |header| header.start);
        let mut at = start;
        for segment in &checkpoint.segments {
            if segment.from != at || segment.to <= segment.from {
                return Err(CheckpointError::Gap { from: at, to: segment.from });
            }
            at = segment.to;
        }
        if at != checkpoint.head.end {
            return Err(CheckpointError::Gap { from: at, to: checkpoint.head.end });
        }
        Ok(checkpoint)
    }

    /// The segment that holds an offset.
    pub fn segment_of(&self, offset: i64) -> Option<&SegmentRef> {
        let at = self.segments.partition_point(|segment| segment.to <= offset);
        self.segments.get(at).filter(|segment| segment.from <= offset)
    }

    /// The whole state, from all segments in order.
    ///
    /// # Errors
    /// A segment is missing, or a file is in two.
    pub fn join(&self, segments: impl IntoIterator<Item = Segment>) -> Result<State, CheckpointError> {
        let mut state = State { head: self.head.clone(), ..State::default() };
        let mut segments = segments.into_iter();
        for named in &self.segments {
            let segment = segments.next().ok_or(CheckpointError::Gap { from: named.from, to: named.to })?;
            state.spans.extend(segment.spans);
            for (id, file) in segment.live {
                if state.live.insert(id, file).is_some() {
                    return Err(CheckpointError::Twice { file: id });
                }
            }
        }
        Ok(state)
    }
}

impl SegmentRef {
    /// What was read under the segment's name.
    ///
    /// # Errors
    /// It was altered, or holds other offsets than the checkpoint says.
    pub fn decode(&self, bytes: &[u8]) -> Result<Segment, CheckpointError> {
        let found = Hash::of(bytes);
        if found != self.sha256 {
            return Err(CheckpointError::OtherHash { expected: self.sha256, found });
        }
        let segment: Segment = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        let mut at = self.from;
        for (from, span) in &segment.spans {
            if *from != at || span.to <= *from {
                return Err(CheckpointError::Gap { from: at, to: *from });
            }
            at = span.to;
        }
        if at != self.to {
            return Err(CheckpointError::OtherRange { expected: (self.from, self.to), found: (self.from, at) });
        }
        Ok(segment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::History;

    fn read(split: &Split) -> Result<State, CheckpointError> {
        let checkpoint = Checkpoint::decode(&split.checkpoint.encode()?, split.checkpoint.entries)?;
        let named = checkpoint.segments.iter().zip(&split.segments);
        let segments: Vec<Segment> = named.map(|(named, bytes)| named.decode(bytes)).collect::<Result<_, _>>()?;
        checkpoint.join(segments)
    }

    proptest! {
        #[test]
        fn a_state_is_read_as_it_was_divided_also_after_another_checkpoint(
            choices in prop::collection::vec(any::<u8>(), 1..80),
            at in 0usize..80,
        ) {
            let hash = Hash::of(b"the last entry");
            let early = History::of(&choices[..choices.len().min(at).max(1)]);
            let before = Checkpoint::split(&early.state, hash, &[]).unwrap();
            prop_assert_eq!(read(&before), Ok(early.state));
            let state = History::of(&choices).state;
            let split = Checkpoint::split(&state, hash, &before.checkpoint.segments).unwrap();
            prop_assert_eq!(read(&split), Ok(state.clone()));
            for offset in state.spans.keys() {
                let named = split.checkpoint.segment_of(*offset);
                prop_assert!(named.is_some_and(|named| (named.from..named.to).contains(offset)));
            }
        }
    }

    #[test]
    fn full_segments_stay_as_they_are() {
        let mut history = History::of(&[9]);
        while history.state.spans.len() < 2 * FULL_SPANS + 10 {
            history.go_on(9);
        }
        let hash = Hash::of(b"");
        let first = Checkpoint::split(&history.state, hash, &[]).unwrap();
        assert_eq!(first.segments.len(), 3);
        for _ in 0..20 {
            history.go_on(9);
        }
        let second = Checkpoint::split(&history.state, hash, &first.checkpoint.segments).unwrap();
        assert_eq!(second.checkpoint.segments[..2], first.checkpoint.segments[..2], "their names are their content");
        assert_ne!(second.checkpoint.segments[2], first.checkpoint.segments[2]);
        assert_eq!(read(&second), Ok(history.state));
    }

    #[test]
    fn checkpoints_of_other_numbers_and_versions_and_gaps_are_refused() {
        let history = History::of(&[9, 9, 9, 9]);
        let checkpoint = Checkpoint::split(&history.state, Hash::of(b""), &[]).unwrap().checkpoint;
        let decode = |checkpoint: &Checkpoint, entries| Checkpoint::decode(&checkpoint.encode().unwrap(), entries);
        assert_eq!(decode(&checkpoint, 4).as_ref(), Ok(&checkpoint));
        assert!(matches!(decode(&checkpoint, 5), Err(CheckpointError::OtherNumber { expected: 5, found: 4 })));
        let newer = Checkpoint { version: 2, ..checkpoint.clone() };
        assert_eq!(decode(&newer, 4), Err(CheckpointError::Version { found: 2 }));
        let mut other = checkpoint.clone();
        other.head.next = 3;
        assert!(matches!(decode(&other, 4), Err(CheckpointError::OtherHead { .. })));
        let mut short = checkpoint;
        short.segments[0].to -= 1;
        assert!(matches!(decode(&short, 4), Err(CheckpointError::Gap { .. })));
    }
}
