//! Enters a wrapper object, skips the part after its array of events, and leaves it.

use common::event::{EventFormat, EventProblem};
use common::json::Opened;
use serde::{Deserialize, Serialize};

use super::piece::Piece;
use super::resync::Resync;
use super::scout::View;
use super::tail::{Tail, TailProblem, TailStep};
use super::{Core, Framed};

/// A wrapper object whose array of events is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wrapper {
    /// The number of braces to close after the array.
    pub(super) braces: u32,
    /// The column at which it began.
    pub(super) column: u64,
}

/// The part after the array of events, skipped as it streams by. Its last string is kept, because a stray quotation
/// mark makes the first brace of the next event part of a string.
pub(super) struct Passing {
    /// Its offset in the file.
    offset: u64,
    /// The place of the next byte to scan.
    looked_to: u64,
    /// Its first bytes, in case it is bad.
    head: Vec<u8>,
    tail: Tail,
    wrapper: Wrapper,
}

impl Core {
    pub(super) fn enter_wrapper(&mut self, buffer: &[u8], format: &EventFormat, after: usize) {
        let braces = format.records().map_or(0, |pointer| pointer.segments().len());
        let column = self.column(buffer);
        self.position.advance(after);
        self.position.state.wrapper = Some(Wrapper { braces: u32::try_from(braces).unwrap_or(u32::MAX), column });
        self.position.state.after_value = false;
    }

    /// Whether a line begins with a wrapper where an event is expected: the wrapper around it was cut off. `is_head`
    /// checks whether a wrapper begins at the cursor.
    pub(super) fn wrapper_is_cut_off(&mut self, buffer: &[u8], is_head: impl FnOnce(&Self) -> bool) -> bool {
        let Some(wrapper) = self.position.state.wrapper else { return false };
        self.column(buffer) <= wrapper.column && is_head(self)
    }

    /// Reports that a wrapper was cut off before the value at the cursor.
    pub(super) fn leave_wrapper(&mut self) -> Framed<'static> {
        self.position.state.wrapper = None;
        self.position.wait_for = 0;
        self.cut_off_here()
    }

    pub(super) fn enter_tail(&mut self, format: &EventFormat) {
        let Some(wrapper) = self.position.state.wrapper.take() else { return };
        let tail = Tail::new(wrapper.braces as usize, format.records(), format.max_depth());
        let (offset, head) = (self.offset(), Vec::new());
        self.tail = Some(Box::new(Passing { offset, looked_to: offset, head, tail, wrapper }));
    }

    /// Skips the part after the array of events; `None` if more bytes are needed. A broken tail becomes a bad piece.
    pub(super) fn pass_tail(&mut self, buffer: &[u8], format: &EventFormat) -> Option<()> {
        let mut passing = self.tail.take()?;
        let view = View { bytes: buffer, base: self.base };
        let rest = view.range(passing.looked_to, view.end());
        let (length, problem) = match passing.tail.scan(rest) {
            TailStep::Closed(length) => {
                self.looked_at += length as u64;
                self.pass_to(passing.looked_to + length as u64);
                return Some(());
            }
            TailStep::Broken(length, problem) => (length, Some(tail_problem(problem, format))),
            TailStep::Inside if self.finished => {
                self.end_reported = true;
                (rest.len(), Some(EventProblem::Truncated))
            }
            TailStep::Inside => (rest.len(), None),
        };
        self.looked_at += length as u64;
        passing.looked_to += length as u64;
        let oldest = passing.looked_to.saturating_sub(self.limits.max_event_bytes as u64);
        let is_at_end = self.end_reported && problem.is_some();
        let string = passing.offset + passing.tail.before_last_string();
        let passed_to = if is_at_end { passing.looked_to } else { string.max(oldest) };
        keep_head(&mut passing.head, view.range(self.offset(), passed_to), self.limits.bad_head_bytes);
        self.pass_to(passed_to);
        let Some(problem) = problem else {
            self.tail = Some(passing);
            return None;
        };
        let Passing { offset, looked_to, head, tail, wrapper } = *passing;
        let resync = Resync::inside(wrapper.column, tail.depth() as u64, tail.in_string(), tail.indent());
        let piece = Piece::tail((offset, passed_to, looked_to), head, resync, problem, wrapper);
        self.begin_piece(piece, format);
        Some(())
    }

    /// Moves the cursor past a part of a tail.
    fn pass_to(&mut self, place: u64) {
        let length = place.saturating_sub(self.offset());
        self.position.advance(usize::try_from(length).unwrap_or(usize::MAX));
    }
}

/// Keeps the first bytes of a piece that streams by.
pub(super) fn keep_head(head: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let room = limit.saturating_sub(head.len());
    head.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

pub(super) fn begins_wrapper(value: &[u8], format: &EventFormat) -> bool {
    matches!(format.scan_to_records(value), Ok(Opened::Array { .. }))
}

fn tail_problem(problem: TailProblem, format: &EventFormat) -> EventProblem {
    let pointer = format.records().map(ToString::to_string).unwrap_or_default();
    match problem {
        TailProblem::NotJson => EventProblem::NotJson(format!("what follows the array at {pointer} is none")),
        TailProblem::TooDeep => EventProblem::TooDeep { limit: format.max_depth() },
        TailProblem::Duplicate => EventProblem::DuplicateField(pointer.into()),
    }
}
