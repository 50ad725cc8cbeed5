//! Going into a wrapper object, past its array of events, and out of it again.

use common::event::{EventFormat, EventProblem};
use common::json::Opened;
use serde::{Deserialize, Serialize};

use super::resync::Resync;
use super::tail::{Tail, TailProblem, TailStep};
use super::{Framer, Passed, Passing};

/// A wrapper object whose array of events is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wrapper {
    /// How many are to close behind the array.
    pub(super) braces: u32,
    /// Where it began.
    pub(super) column: u64,
}

impl Framer {
    pub(super) fn enter_wrapper(&mut self, format: &EventFormat, after: usize) {
        let braces = format.records().map_or(0, |pointer| pointer.segments().len());
        let wrapper =
            Wrapper { braces: u32::try_from(braces).unwrap_or(u32::MAX), column: self.column_of(self.position.cursor) };
        self.position.advance(after);
        self.position.state.wrapper = Some(wrapper);
        self.position.state.after_value = false;
    }

    /// As [`begins_wrapper`], of the value at the cursor, which ends before `end`.
    pub(super) fn is_wrapper(&self, format: &EventFormat, end: usize) -> bool {
        let rest = &self.buffer[self.position.cursor..];
        let rest = &rest[..rest.len().min(end).min(self.limits.max_event_bytes.saturating_add(1))];
        begins_wrapper(self.position.state.wrapper, self.column_of(self.position.cursor), rest, format)
    }

    pub(super) fn enter_tail(&mut self, format: &EventFormat) {
        let Some(Wrapper { braces, column }) = self.position.state.wrapper.take() else { return };
        let tail = Tail::new(braces as usize, format.records(), format.max_depth());
        let what = Passed::Tail { tail: Box::new(tail), column };
        self.passing = Some(Passing { offset: self.offset(), head: Vec::new(), what });
    }

    /// Passes over what follows the array of events; `None` when more bytes are needed. A tail that turns out to be
    /// broken becomes a bad piece.
    pub(super) fn pass_tail(&mut self, format: &EventFormat) -> Option<()> {
        let passing = self.passing.as_mut()?;
        let Passed::Tail { tail, column } = &mut passing.what else { return None };
        let rest = &self.buffer[self.position.cursor..];
        let (length, problem) = match tail.scan(rest) {
            TailStep::Closed(length) => {
                self.passing = None;
                self.position.advance(length);
                return Some(());
            }
            TailStep::Broken(length, problem) => (length, Some(tail_problem(problem, format))),
            TailStep::Inside if self.finished => {
                self.end_reported = true;
                (rest.len(), Some(EventProblem::Truncated))
            }
            TailStep::Inside => (rest.len(), None),
        };
        let resync = Resync::inside(*column, tail.depth() as u64, tail.in_string(), tail.indent());
        passing.keep_head(&rest[..length], self.limits.bad_head_bytes);
        if let Some(problem) = problem.clone() {
            passing.what = Passed::Bad { problem, resync };
        }
        self.position.advance(length);
        problem.map(|_| ())
    }
}

/// A line that begins with a wrapper where an event of `wrapper` was expected: that one was cut off. Judged by nothing
/// but the bytes of what was found there, however many more have come.
pub(super) fn begins_wrapper(wrapper: Option<Wrapper>, column: u64, value: &[u8], format: &EventFormat) -> bool {
    wrapper.is_some_and(|wrapper| column <= wrapper.column)
        && matches!(format.scan_to_records(value), Ok(Opened::Array { .. }))
}

fn tail_problem(problem: TailProblem, format: &EventFormat) -> EventProblem {
    let pointer = format.records().map(ToString::to_string).unwrap_or_default();
    match problem {
        TailProblem::NotJson => EventProblem::NotJson(format!("what follows the array at {pointer} is none")),
        TailProblem::TooDeep => EventProblem::TooDeep { limit: format.max_depth() },
        TailProblem::Duplicate => EventProblem::DuplicateField(pointer.into()),
    }
}
