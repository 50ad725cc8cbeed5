//! A state as it is put: a small checkpoint, and segments that checkpoints share.
//!
//! A checkpoint is made from the one before it and the entries since. Spans are never changed, and a replace changes the
//! files of its scopes: only the segments that these lie in, and the last one, are read, and put again. The others are
//! named as they were. So the cost of a checkpoint does not grow with the history, but for its list of segments.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::files::State;
use crate::hash::Hash;
use crate::head::Head;
use crate::op::{FileId, Op, Scope};
use crate::segment::{Segment, SegmentRef};

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

/// Some segments of a checkpoint, by their places in its list.
pub type Places = BTreeSet<usize>;

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
    #[error("a segment of the offsets {from}..{to} cannot reach to {reach}, or be made by checkpoint {made}")]
    Segment { from: i64, to: i64, reach: i64, made: u64 },
    #[error("the batch from offset {from} has recipe {recipe}, which is not there")]
    NoRecipe { from: i64, recipe: usize },
    #[error("{file} is in two segments")]
    Twice { file: FileId },
    #[error("the segment from offset {from} was changed, and is not read")]
    NotRead { from: i64 },
}

impl CheckpointError {
    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed { message: error.to_string() }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn full_spans() -> usize {
    #[cfg(any(test, feature = "testing"))]
    if let Some(few) = crate::testing::full_spans() {
        return few;
    }
    FULL_SPANS
}

/// Where segments begin: as before, and after those wherever one is full.
fn begins(state: &State, before: &[SegmentRef]) -> Vec<i64> {
    let mut begins: Vec<i64> = before.iter().map(|segment| segment.from).collect();
    let (open_from, known_to) = before.last().map_or((i64::MIN, i64::MIN), |last| (last.from, last.to));
    let mut files_from: BTreeMap<i64, usize> = BTreeMap::new();
    for file in state.live.values().filter(|file| file.from >= open_from) {
        *files_from.entry(file.from).or_default() += 1;
    }
    let (mut spans, mut files) = (0, 0);
    for (from, span) in state.spans.range(open_from..) {
        if begins.is_empty() || *from >= known_to && (spans >= full_spans() || files >= FULL_FILES) {
            begins.push(*from);
            (spans, files) = (0, 0);
        }
        spans += 1;
        // A replaced file may begin in the middle of a span.
        files += files_from.range(*from..span.to).map(|(_, files)| files).sum::<usize>();
    }
    begins
}

/// A checkpoint, and the segments that the one before it does not name, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub checkpoint: Checkpoint,
    pub made: Vec<(SegmentRef, Vec<u8>)>,
}

impl Checkpoint {
    /// The checkpoint of a state. `state` has to hold the segments of the one before it at `read`, and may leave out the
    /// others, which are taken over.
    ///
    /// # Errors
    /// Something is in the state that belongs to a segment that is not read; or a value has no JSON.
    pub fn split(
        before: Option<&Self>,
        read: &Places,
        state: &State,
        last_entry: Hash,
    ) -> Result<Split, CheckpointError> {
        let old = before.map_or(&[][..], |before| &before.segments);
        let begins = begins(state, old);
        let mut divided: BTreeMap<i64, Segment> = begins.iter().map(|from| (*from, Segment::default())).collect();
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
        let entries = state.head.next;
        let ends: Vec<i64> = begins.iter().skip(1).copied().chain([state.head.end]).collect();
        let (mut segments, mut made) = (Vec::with_capacity(divided.len()), Vec::new());
        for (place, ((from, segment), to)) in divided.into_iter().zip(ends).enumerate() {
            let named = old.get(place);
            if let Some(named) = named.filter(|_| !read.contains(&place)) {
                if segment != Segment::default() || named.to != to {
                    return Err(CheckpointError::NotRead { from });
                }
                segments.push(named.clone());
                continue;
            }
            let bytes = segment.encode()?;
            let reach = segment.live.values().map(|file| file.to).fold(to, i64::max);
            let (length, sha256) = (bytes.len() as u64, Hash::of(&bytes));
            if let Some(named) = named.filter(|named| named.sha256 == sha256) {
                segments.push(named.clone());
                continue;
            }
            let new = SegmentRef { from, to, reach, made: entries, bytes: length, sha256 };
            segments.push(new.clone());
            made.push((new, bytes));
        }
        let (version, head) = (CHECKPOINT_VERSION, state.head.clone());
        Ok(Split { checkpoint: Self { version, entries, last_entry, head, segments }, made })
    }

    /// The bytes to put.
    ///
    /// # Errors
    /// As [`Checkpoint::split`].
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        serde_json::to_vec(self).map_err(|error| CheckpointError::malformed(&error))
    }

    /// What was read as the checkpoint of `entries` entries.
    ///
    /// # Errors
    /// It is another one, of another build, or none.
    pub fn decode(bytes: &[u8], entries: u64) -> Result<Self, CheckpointError> {
        let malformed = |error: serde_json::Error| CheckpointError::malformed(&error);
        let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != CHECKPOINT_VERSION {
            return Err(CheckpointError::Version { found: version });
        }
        let checkpoint: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if checkpoint.entries != entries {
            return Err(CheckpointError::OtherNumber { expected: entries, found: checkpoint.entries });
        }
        if checkpoint.head.next != entries {
            return Err(CheckpointError::OtherHead { expected: entries, found: checkpoint.head.next });
        }
        let start = checkpoint.head.header.as_ref().map_or(checkpoint.head.end, |header| header.start);
        let mut at = start;
        for &SegmentRef { from, to, reach, made, .. } in &checkpoint.segments {
            if from != at || to <= from {
                return Err(CheckpointError::Gap { from: at, to: from });
            }
            if reach < to || made > entries {
                return Err(CheckpointError::Segment { from, to, reach, made });
            }
            at = to;
        }
        if at != checkpoint.head.end {
            return Err(CheckpointError::Gap { from: at, to: checkpoint.head.end });
        }
        Ok(checkpoint)
    }

    /// The segment that holds the fate of an offset.
    pub fn segment_of(&self, offset: i64) -> Option<&SegmentRef> {
        let at = self.segments.partition_point(|segment| segment.to <= offset);
        self.segments.get(at).filter(|segment| segment.from <= offset)
    }

    pub fn all(&self) -> Places {
        (0..self.segments.len()).collect()
    }

    /// The segments that hold the fates of the offsets `[from, to)`, and every file with rows of them.
    pub fn within(&self, from: i64, to: i64) -> Places {
        let segments = self.segments.iter().enumerate();
        segments.filter(|(_, segment)| segment.meets(from, to)).map(|(place, _)| place).collect()
    }

    /// The segments that have to be read to fold these entries: those in which files are replaced, and the last one.
    pub fn changed_by<'a>(&self, entries: impl IntoIterator<Item = &'a Vec<Op>>) -> Places {
        let mut places: Places = self.segments.len().checked_sub(1).into_iter().collect();
        let mut add = |scopes: &[Scope]| {
            places.extend(scopes.iter().flat_map(|scope| self.within(scope.from, scope.to)));
        };
        let mut begun: BTreeMap<u64, Vec<Scope>> = BTreeMap::new();
        for replace in self.head.replaces() {
            begun.insert(replace.intent.replace, replace.intent.scopes.clone());
        }
        for op in entries.into_iter().flatten() {
            match op {
                Op::ReplaceIntent(intent) => add(&intent.scopes),
                Op::ReplaceReady(ready) => add(&begun.remove(&ready.replace).unwrap_or_default()),
                _ => {}
            }
        }
        places
    }

    /// The state of some segments: their spans and their files.
    ///
    /// # Errors
    /// A file is in two of them.
    pub fn join(&self, segments: impl IntoIterator<Item = Segment>) -> Result<State, CheckpointError> {
        let mut state = State { head: self.head.clone(), ..State::default() };
        for segment in segments {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::History;

    /// Checkpoints one after another, and every segment that was put.
    #[derive(Default)]
    struct Chain {
        last: Option<Checkpoint>,
        put: BTreeMap<(u64, Hash), Vec<u8>>,
        /// Segments that were read.
        read: usize,
    }

    impl Chain {
        fn state(&mut self, places: &Places) -> Result<State, CheckpointError> {
            let Some(last) = &self.last else { return Ok(State::default()) };
            let last = Checkpoint::decode(&last.encode()?, last.entries)?;
            let segments = places.iter().map(|place| {
                let named = &last.segments[*place];
                named.decode(&self.put[&(named.made, named.sha256)])
            });
            let segments: Vec<Segment> = segments.collect::<Result<_, _>>()?;
            self.read += segments.len();
            last.join(segments)
        }

        /// A checkpoint after these entries more. Returns how many segments were put.
        fn go_on(&mut self, entries: &[Vec<Op>]) -> Result<usize, CheckpointError> {
            let read = self.last.as_ref().map(|last| last.changed_by(entries)).unwrap_or_default();
            let mut state = self.state(&read)?;
            entries.iter().for_each(|ops| state.apply(ops).unwrap());
            let split = Checkpoint::split(self.last.as_ref(), &read, &state, Hash::of(b"the last entry"))?;
            let made = split.made.len();
            self.put.extend(split.made.into_iter().map(|(named, bytes)| ((named.made, named.sha256), bytes)));
            self.last = Some(split.checkpoint);
            Ok(made)
        }

        fn whole(&mut self) -> Result<State, CheckpointError> {
            let all = self.last.as_ref().map(Checkpoint::all).unwrap_or_default();
            self.state(&all)
        }
    }

    proptest! {
        #[test]
        fn a_state_is_read_as_it_was_divided_after_any_number_of_checkpoints(
            choices in prop::collection::vec(any::<u8>(), 1..120),
            lengths in prop::collection::vec(1usize..40, 1..8),
            (from, length) in (0i64..200, 1i64..40),
        ) {
            let history = History::of(&choices);
            let (mut chain, mut rest) = (Chain::default(), &history.entries[..]);
            for length in lengths {
                let (now, later) = rest.split_at(length.min(rest.len()));
                chain.go_on(now).unwrap();
                rest = later;
            }
            chain.go_on(rest).unwrap();
            let whole = chain.whole().unwrap();
            prop_assert_eq!(&whole, &history.state);
            let last = chain.last.clone().unwrap();
            for offset in whole.spans.keys() {
                let named = last.segment_of(*offset);
                prop_assert!(named.is_some_and(|named| (named.from..named.to).contains(offset)));
            }
            // A part holds everything of its offsets.
            let to = from + length;
            let part = chain.state(&last.within(from, to)).unwrap();
            for (id, file) in whole.live.iter().filter(|(_, file)| file.from < to && from < file.to) {
                prop_assert_eq!(part.live.get(id), Some(file));
            }
            for (at, span) in whole.spans.iter().filter(|(at, span)| **at < to && from < span.to) {
                prop_assert_eq!(part.spans.get(at), Some(span));
            }
        }
    }

    #[test]
    fn a_checkpoint_reads_and_puts_what_changed_and_names_the_rest_as_it_was() {
        let mut history = History::of(&[9]);
        while history.state.spans.len() < 5 * FULL_SPANS + 10 {
            history.go_on(9);
        }
        let mut chain = Chain::default();
        assert_eq!(chain.go_on(&history.entries), Ok(6));
        let first = chain.last.clone().unwrap();
        let mut at = history.entries.len();
        for _ in 0..20 {
            history.go_on(9);
        }
        chain.read = 0;
        assert_eq!(chain.go_on(&history.entries[at..]), Ok(1));
        let second = chain.last.clone().unwrap();
        assert_eq!((chain.read, &second.segments[..5]), (1, &first.segments[..5]));
        assert_eq!(second.segments[5].made, second.entries);
        // The first files are replaced: they lie in the first segment.
        at = history.entries.len();
        for choice in [4, 0, 0] {
            history.go_on(choice);
        }
        chain.read = 0;
        assert_eq!(chain.go_on(&history.entries[at..]), Ok(1), "the last one is read and did not change");
        let third = chain.last.clone().unwrap();
        assert_eq!((chain.read, &third.segments[1..]), (2, &second.segments[1..]));
        assert_eq!(chain.whole(), Ok(history.state));
    }

    #[test]
    fn what_changed_and_was_not_read_is_noticed() {
        let history = History::of(&[9, 9, 9, 9]);
        let mut chain = Chain::default();
        chain.go_on(&history.entries).unwrap();
        let split = Checkpoint::split(chain.last.as_ref(), &Places::new(), &history.state, Hash::of(b""));
        assert!(matches!(split, Err(CheckpointError::NotRead { .. })), "{split:?}");
    }

    #[test]
    fn checkpoints_of_other_numbers_and_versions_and_gaps_are_refused() {
        let history = History::of(&[9, 9, 9, 9]);
        let split = Checkpoint::split(None, &Places::new(), &history.state, Hash::of(b""));
        let checkpoint = split.unwrap().checkpoint;
        let decode = |checkpoint: &Checkpoint, entries| Checkpoint::decode(&checkpoint.encode().unwrap(), entries);
        assert_eq!(decode(&checkpoint, 4).as_ref(), Ok(&checkpoint));
        assert!(matches!(decode(&checkpoint, 5), Err(CheckpointError::OtherNumber { expected: 5, found: 4 })));
        let newer = Checkpoint { version: 2, ..checkpoint.clone() };
        assert_eq!(decode(&newer, 4), Err(CheckpointError::Version { found: 2 }));
        let mut other = checkpoint.clone();
        other.head.next = 3;
        assert!(matches!(decode(&other, 4), Err(CheckpointError::OtherHead { .. })));
        let refused = |change: fn(&mut SegmentRef)| {
            let mut other = checkpoint.clone();
            change(&mut other.segments[0]);
            decode(&other, 4).err()
        };
        assert!(matches!(refused(|segment| segment.to -= 1), Some(CheckpointError::Gap { .. })));
        assert!(matches!(refused(|segment| segment.reach -= 1), Some(CheckpointError::Segment { .. })));
        assert!(matches!(refused(|segment| segment.made += 1), Some(CheckpointError::Segment { .. })));
    }

    /// All that an owner of it holds of its history.
    #[test]
    fn the_checkpoint_of_a_million_batches_is_small() {
        let mut history = History::of(&[9]);
        while history.state.spans.len() < FULL_SPANS {
            history.go_on(9);
        }
        let mut checkpoint = Checkpoint::split(None, &Places::new(), &history.state, Hash::of(b"")).unwrap().checkpoint;
        let full = checkpoint.segments[0].clone();
        let length = full.to - full.from;
        let following =
            (1..1_000).map(|n| SegmentRef { from: full.from + n * length, to: full.to + n * length, ..full });
        checkpoint.segments = std::iter::once(full.clone()).chain(following).collect();
        let bytes = checkpoint.encode().unwrap().len();
        let in_memory = size_of_val(&checkpoint.segments[..]);
        println!("1,000,000 batches: a checkpoint of {bytes} bytes, {in_memory} bytes of segment list");
        assert!(bytes < 250_000 && in_memory < 100_000, "{bytes} {in_memory}");
    }
}
