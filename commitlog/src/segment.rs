//! Segments: consecutive spans, and the live files that begin in them. Checkpoints share those that did not change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::CheckpointError;
use crate::files::{Batch, Blanks, Fate, LiveFile, Span};
use crate::hash::Hash;
use crate::op::{FileId, PassReason, Recipe, Stored};

/// What a checkpoint says of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRef {
    /// Its spans are those of the offsets `[from, to)`.
    pub from: i64,
    pub to: i64,
    /// No file that begins in it goes on beyond this offset, which is at least `to`.
    pub reach: i64,
    /// The checkpoint that made it, by its number of entries. It is part of the segment's name: a later checkpoint names
    /// the segments that it made, and those that the one before it named. So what is older and not named now is never
    /// named again, and may be deleted by anybody at any time.
    pub made: u64,
    pub bytes: u64,
    /// Part of its name, too.
    pub sha256: Hash,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    pub spans: BTreeMap<i64, Span>,
    pub live: BTreeMap<FileId, LiveFile>,
}

/// A segment as it is stored: consecutive batches have the same recipe, mostly, which is there once.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSegment {
    recipes: Vec<Recipe>,
    spans: BTreeMap<i64, StoredSpan>,
    live: BTreeMap<FileId, LiveFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSpan {
    to: i64,
    fate: StoredFate,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredFate {
    Batch(StoredBatch),
    Passed(PassReason),
    Abandoned(Blanks),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBatch {
    /// Place in `recipes`.
    recipe: usize,
    window_from: i64,
    clock_ms: i64,
    keys: Stored,
    counts: Value,
}

impl Segment {
    /// The bytes to put.
    ///
    /// # Errors
    /// A value has no JSON. None has that was read from an entry.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut recipes: Vec<Recipe> = Vec::new();
        let mut spans = BTreeMap::new();
        for (from, span) in &self.spans {
            let fate = match &span.fate {
                Fate::Batch(batch) => {
                    let known = recipes.iter().position(|recipe| *recipe == batch.recipe);
                    let recipe = known.unwrap_or_else(|| {
                        recipes.push(batch.recipe.clone());
                        recipes.len() - 1
                    });
                    let Batch { window_from, clock_ms, keys, .. } = **batch;
                    let counts = batch.counts.clone();
                    StoredFate::Batch(StoredBatch { recipe, window_from, clock_ms, keys, counts })
                }
                Fate::Passed(reason) => StoredFate::Passed(*reason),
                Fate::Abandoned(blanks) => StoredFate::Abandoned(blanks.clone()),
            };
            spans.insert(*from, StoredSpan { to: span.to, fate });
        }
        let stored = StoredSegment { recipes, spans, live: self.live.clone() };
        serde_json::to_vec(&stored).map_err(|error| CheckpointError::malformed(&error))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let StoredSegment { recipes, spans: stored, live } =
            serde_json::from_slice(bytes).map_err(|error| CheckpointError::malformed(&error))?;
        let mut spans = BTreeMap::new();
        for (from, StoredSpan { to, fate }) in stored {
            let fate = match fate {
                StoredFate::Batch(StoredBatch { recipe, window_from, clock_ms, keys, counts }) => {
                    let known = recipes.get(recipe).cloned();
                    let recipe = known.ok_or(CheckpointError::NoRecipe { from, recipe })?;
                    Fate::Batch(Box::new(Batch { recipe, window_from, clock_ms, keys, counts }))
                }
                StoredFate::Passed(reason) => Fate::Passed(reason),
                StoredFate::Abandoned(blanks) => Fate::Abandoned(blanks),
            };
            spans.insert(from, Span { to, fate });
        }
        Ok(Self { spans, live })
    }
}

impl SegmentRef {
    /// Whether it holds the fate of an offset in `[from, to)`, or a file that may.
    pub fn meets(&self, from: i64, to: i64) -> bool {
        self.from < to && from < self.reach
    }

    /// What was read under the segment's name.
    ///
    /// # Errors
    /// It was altered, or holds other offsets than the checkpoint says.
    pub fn decode(&self, bytes: &[u8]) -> Result<Segment, CheckpointError> {
        let found = Hash::of(bytes);
        if found != self.sha256 {
            return Err(CheckpointError::OtherHash { expected: self.sha256, found });
        }
        let segment = Segment::decode(bytes)?;
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
