//! Finding the events in a stream of bytes.
//!
//! # What is accepted, untold and mixed in one file
//!
//! Objects one after another (newline-delimited, with no separator at all, pretty-printed over many lines) and arrays
//! of objects of any length, at the top level of the file; a UTF-8 byte order mark wherever a value may begin; any
//! blank between values; one comma after a value.
//!
//! Where the format says so, each of these objects is a *wrapper* that holds the events in an array
//! (`{"Records": [{…}, {…}], …}`): what stands before the array must be no longer than an event may be, the events are
//! read one by one, and what follows the array is passed over.
//!
//! # What is guaranteed
//!
//! 1. Every byte of the file that is not a separator, nor of a wrapper around its events, belongs to exactly one
//!    [`Framed::Event`] or [`Framed::Bad`], in order; an event carries its very bytes.
//! 2. A bad piece ends where the next value can be told to begin: at the end of the bracketed value if its brackets
//!    and strings are whole, at the latest before a line that begins with `{` no deeper than the bad one began. One
//!    broken line of newline-delimited JSON costs that line only, also when the lines are wrappers.
//! 3. Memory: one event of at most [`Limits::max_event_bytes`] plus one read piece, whatever the file holds. Larger
//!    values are skipped as they stream by and reported with their whole length.
//! 4. How the file was cut into pieces for [`Framer::push`] does not change the result.
//! 5. Time: a byte is looked at a bounded number of times, however small the pieces are.

mod find;
mod resync;
mod tail;
mod wrapper;

use common::event::{Event, EventFormat, EventProblem};
use common::json::Spans;
use serde::{Deserialize, Serialize};

use find::{Finder, Found};
use resync::{Resync, Scope};
use tail::Tail;
use wrapper::{Wrapper, begins_wrapper};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_event_bytes: usize,
    /// How many bytes of a bad piece are kept.
    pub bad_head_bytes: usize,
}

impl Limits {
    fn too_large(&self) -> EventProblem {
        EventProblem::TooLarge { limit_bytes: self.max_event_bytes }
    }
}

/// Where in the grammar a position between two values lies: all that is needed to go on from there.
///
/// It stands in the ledger, so states of older versions stay readable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramingState {
    in_array: bool,
    /// A value came before and no comma yet.
    after_value: bool,
    /// Bytes since the last line break.
    column: u64,
    /// Set within the array of events of a wrapper object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapper: Option<Wrapper>,
}

/// A piece of the file.
#[derive(Debug)]
pub enum Framed<'a> {
    Event { offset: u64, bytes: &'a [u8], event: Event<'a> },
    Bad { offset: u64, length: u64, head: &'a [u8], problem: EventProblem },
}

/// What is passed over as it streams by, and not kept but for its first bytes.
struct Passing {
    offset: u64,
    head: Vec<u8>,
    what: Passed,
}

enum Passed {
    /// A bad piece.
    Bad { problem: EventProblem, resync: Resync },
    /// What follows the array of events in a wrapper that began in `column`.
    Tail { tail: Box<Tail>, column: u64 },
}

struct Position {
    /// Everything before this index of the buffer is done with.
    cursor: usize,
    state: FramingState,
    /// The value at the cursor was incomplete: it is not looked at again before there are so many bytes of it.
    wait_for: usize,
}

impl Position {
    /// Moves behind a value.
    fn advance(&mut self, length: usize) {
        self.cursor += length;
        self.state.after_value = true;
        self.wait_for = 0;
    }

    /// Reports that a wrapper was cut off before the value at the cursor.
    fn leave_wrapper(&mut self, offset: u64) -> Framed<'static> {
        self.state.wrapper = None;
        self.wait_for = 0;
        Framed::Bad { offset, length: 0, head: &[], problem: EventProblem::Truncated }
    }
}

/// Frames one file. Feed it with [`Framer::push`], empty it with [`Framer::next`], end it with [`Framer::finish`].
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Offset in the file of `buffer[0]`.
    base: u64,
    /// Column of `buffer[0]`.
    base_column: u64,
    /// Apart from the buffer, so that it can move on while a piece is handed out.
    position: Position,
    /// Where the fields of the value at the cursor stand.
    spans: Spans,
    passing: Option<Passing>,
    /// Of the last piece that was passed over, for handing out.
    passed_head: Vec<u8>,
    finished: bool,
    end_reported: bool,
}

impl Framer {
    /// Starts at byte `offset` of the file, in the state that was saved there.
    pub fn new(limits: Limits, offset: u64, state: FramingState) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            base: offset,
            base_column: state.column,
            position: Position { cursor: 0, state, wait_for: 0 },
            spans: Spans::default(),
            passing: None,
            passed_head: Vec::new(),
            finished: false,
            end_reported: false,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.position.cursor > 0 {
            self.base_column = self.column_of(self.position.cursor);
            self.buffer.drain(..self.position.cursor);
            self.base += self.position.cursor as u64;
            self.position.cursor = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// No more bytes will come.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The byte up to which everything was handed out, and the state there; `None` while something is passed over.
    pub fn checkpoint(&self) -> Option<(u64, FramingState)> {
        let state = FramingState { column: self.column_of(self.position.cursor), ..self.position.state };
        self.passing.is_none().then(|| (self.offset(), state))
    }

    fn offset(&self) -> u64 {
        self.base + self.position.cursor as u64
    }

    fn column_of(&self, index: usize) -> u64 {
        column_at(&self.buffer, self.base_column, index)
    }

    /// The next piece; `None` when more bytes are needed, or after [`Framer::finish`] at the end of the file.
    pub fn next(&mut self, format: &EventFormat) -> Option<Framed<'_>> {
        loop {
            match self.passing.as_ref().map(|passing| &passing.what) {
                Some(Passed::Bad { .. }) => return self.pass_bad(),
                Some(Passed::Tail { .. }) => {
                    self.pass_tail(format)?;
                    continue;
                }
                None => {}
            }
            if !self.skip_separators(format) {
                return None;
            }
            if self.passing.is_some() {
                continue;
            }
            if self.position.cursor == self.buffer.len() {
                return self.end_of_file();
            }
            if !self.finished && self.buffer.len() - self.position.cursor < self.position.wait_for {
                return None;
            }
            let at_wrapper = format.records().is_some() && self.position.state.wrapper.is_none();
            match self.find(format, at_wrapper) {
                Found::Incomplete => return self.wait(),
                Found::Opened { after } => self.enter_wrapper(format, after),
                Found::Oversize if self.is_wrapper(format, usize::MAX) => {
                    return Some(self.position.leave_wrapper(self.offset()));
                }
                Found::Oversize => self.pass_over_oversize(),
                Found::Bad { end, .. } if self.is_wrapper(format, end) => {
                    return Some(self.position.leave_wrapper(self.offset()));
                }
                Found::Bad { end, problem } => return self.bad(end, problem),
                Found::Value { end } => return self.event(format, end),
            }
        }
    }

    /// Moves the cursor to the next value, following arrays; false when more bytes are needed to tell. May end within
    /// a wrapper's tail, to be passed over first.
    fn skip_separators(&mut self, format: &EventFormat) -> bool {
        while let Some(byte) = self.buffer.get(self.position.cursor) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b',' if self.position.state.after_value => self.position.state.after_value = false,
                b']' if self.position.state.wrapper.is_some() => {
                    self.position.cursor += 1;
                    self.enter_tail(format);
                    return true;
                }
                b'[' if !self.position.state.in_array && self.position.state.wrapper.is_none() => {
                    self.position.state.in_array = true;
                    self.position.state.after_value = false;
                }
                b']' if self.position.state.in_array => {
                    self.position.state.in_array = false;
                    self.position.state.after_value = true;
                }
                0xef => {
                    let rest = &self.buffer[self.position.cursor..];
                    if rest.starts_with(BYTE_ORDER_MARK) {
                        self.position.cursor += BYTE_ORDER_MARK.len();
                        continue;
                    }
                    return self.finished || !BYTE_ORDER_MARK.starts_with(rest);
                }
                _ => return true,
            }
            self.position.cursor += 1;
        }
        true
    }

    /// A file that ends inside an array or wrapper was cut off: that is reported once.
    fn end_of_file(&mut self) -> Option<Framed<'_>> {
        let inside = self.position.state.in_array || self.position.state.wrapper.is_some();
        if !self.finished || !inside || self.end_reported {
            return None;
        }
        self.end_reported = true;
        Some(Framed::Bad { offset: self.offset(), length: 0, head: &[], problem: EventProblem::Truncated })
    }

    #[inline]
    fn find(&mut self, format: &EventFormat, at_wrapper: bool) -> Found {
        let rest = &self.buffer[self.position.cursor..];
        let finder = Finder { rest, format, limits: &self.limits, finished: self.finished };
        let resync = || resync_at(&self.buffer, self.base_column, &self.position);
        if at_wrapper { finder.wrapper(resync) } else { finder.event(&mut self.spans, resync) }
    }

    fn resync_here(&self) -> Resync {
        resync_at(&self.buffer, self.base_column, &self.position)
    }

    /// Looking again at each small piece would take time by the square of the value's length.
    fn wait(&mut self) -> Option<Framed<'_>> {
        let there = self.buffer.len() - self.position.cursor;
        self.position.wait_for = (there * 2).min(self.limits.max_event_bytes.saturating_add(1));
        None
    }

    #[inline]
    fn event(&mut self, format: &EventFormat, end: usize) -> Option<Framed<'_>> {
        let (offset, begin) = (self.offset(), self.position.cursor);
        let bytes = &self.buffer[begin..begin + end];
        let problem = match format.read(bytes, &self.spans) {
            Ok(event) => {
                self.position.advance(end);
                return Some(Framed::Event { offset, bytes, event });
            }
            Err(problem) => problem,
        };
        let column = column_at(&self.buffer, self.base_column, begin);
        if begins_wrapper(self.position.state.wrapper, column, bytes, format) {
            return Some(self.position.leave_wrapper(offset));
        }
        self.position.advance(end);
        Some(Framed::Bad { offset, length: end as u64, head: &bytes[..end.min(self.limits.bad_head_bytes)], problem })
    }

    fn bad(&mut self, end: usize, problem: EventProblem) -> Option<Framed<'_>> {
        let (offset, begin) = (self.offset(), self.position.cursor);
        self.position.advance(end);
        let head = &self.buffer[begin..begin + end.min(self.limits.bad_head_bytes)];
        Some(Framed::Bad { offset, length: end as u64, head, problem })
    }

    fn pass_over_oversize(&mut self) {
        let what = Passed::Bad { problem: self.limits.too_large(), resync: self.resync_here() };
        self.passing = Some(Passing { offset: self.offset(), head: Vec::new(), what });
    }

    fn pass_bad(&mut self) -> Option<Framed<'_>> {
        let passing = self.passing.as_mut()?;
        let Passed::Bad { resync, .. } = &mut passing.what else { return None };
        let rest = &self.buffer[self.position.cursor..];
        let (length, ended) = match resync.scan(rest) {
            Some(length) => (length, true),
            None => (rest.len(), self.finished),
        };
        passing.keep_head(&rest[..length], self.limits.bad_head_bytes);
        self.position.advance(length);
        if !ended {
            return None;
        }
        let Passing { offset, head, what } = self.passing.take()?;
        let Passed::Bad { problem, .. } = what else { return None };
        self.passed_head = head;
        Some(Framed::Bad { offset, length: self.offset() - offset, head: &self.passed_head, problem })
    }
}

impl Passing {
    fn keep_head(&mut self, bytes: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

fn resync_at(buffer: &[u8], base_column: u64, position: &Position) -> Resync {
    let in_array = position.state.in_array || position.state.wrapper.is_some();
    Resync::new(column_at(buffer, base_column, position.cursor), if in_array { Scope::Array } else { Scope::Top })
}

fn column_at(buffer: &[u8], base_column: u64, index: usize) -> u64 {
    match memchr::memrchr(b'\n', &buffer[..index]) {
        Some(newline) => (index - newline - 1) as u64,
        None => base_column + index as u64,
    }
}

#[cfg(test)]
mod tests;
