//! Finds the events in a stream of bytes.
//!
//! # Input, detected automatically and mixed in one file
//!
//! Objects in sequence (newline-delimited, without separators, pretty-printed over many lines) and arrays of objects of
//! any length, at the top level of the file; a UTF-8 byte order mark wherever a value may begin; any whitespace between
//! values; one comma after a value; a record separator (0x1E, RFC 7464) before a value. A line ends with LF, CR, or
//! both.
//!
//! If the format says so, each of these objects is a *wrapper* that holds the events in an array (`{"Records": [{…},
//! {…}], …}`). The part before the array must fit the size limit of an event, the events are read one by one, and the
//! part after the array is skipped. An object without that array is an event if it reads as one.
//!
//! # The rule
//!
//! Separators aside, each piece of the file begins where the previous one ended. The bytes from there on decide its
//! kind:
//!
//! 1. A `{` from which a *whole value* can be read is one piece, and its inside is not searched. A whole value is valid
//!    JSON of at most [`Limits::max_event_bytes`], and nested no more deeply than the format permits. It is an event if
//!    it reads as one under the format, and a bad piece otherwise.
//! 2. Anything else is a bad piece, and so is, within a wrapper, a whole value that is not an event. It ends before the
//!    first `{` after its first byte *from which a whole event can be read*, or at its own end if that comes first.
//! 3. Its own end is that of the whole value; else where its brackets close, provided that no string ran into the end
//!    of a line; before a line that begins with `{` no deeper than the piece began; before a record separator. Loose
//!    text, which does not begin with a bracket, ends before the end of its line and before a bracket (in an array also
//!    before a comma or the closing bracket), unless these are in a string.
//! 4. If the part after the array of a wrapper is broken, the piece begins after the array. It ends before no event
//!    that precedes the break, except one in the last string there, which may not be a string. An event that ends the
//!    piece still belongs to that array, which then had not ended.
//! 5. A record separator within an array or a wrapper means that it was cut off. Within a wrapper, so does the head of
//!    another one on a line of its own, no deeper than the first began. A bad piece of length 0 reports it.
//!
//! A cut-off event therefore never destroys later ones, whether they are on lines of their own or not. Two ambiguities
//! remain that no reader can resolve. A cut-off event that forms a whole event together with the bytes after it is read
//! as that event. And whole events in the `data` of a broken value, cut off or only too long, are read as events of
//! their own. (A whole value that is not an event is searched within a wrapper only: there the brackets that end the
//! wrapper can complete a cut-off element.)
//!
//! # Guarantees
//!
//! 1. Every byte of the file that is not a separator, nor part of a wrapper around its events, belongs to exactly one
//!    [`Framed::Event`] or [`Framed::Bad`], in order. An event carries exactly its bytes.
//! 2. No bad piece contains a whole event, except in the `data` of a value that is whole itself or too large. The
//!    result depends only on the bytes from a piece's first one on and the [`FramingState`] there.
//! 3. The division of the file into pieces for [`Framer::push`] does not change the result, nor does resuming from any
//!    [`Framer::checkpoint`].
//! 4. Memory, for every input: one event of at most [`Limits::max_event_bytes`] plus one read piece; after damage, up
//!    to five of them (see [`scout`]). Longer pieces are skipped as they stream by and reported with their whole
//!    length.
//! 5. Time: each byte is scanned a bounded number of times, for every input and however small the pieces are
//!    ([`Framer::bytes_looked_at`]).

mod find;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod grammar;
#[cfg(any(test, feature = "fuzz"))]
mod model;
mod piece;
mod resync;
mod scout;
mod tail;
mod wrapper;

use common::event::{Event, EventFormat, EventProblem};
use common::json::Spans;
use serde::{Deserialize, Serialize};

use find::{Finder, Found, no_records};
use piece::{Natural, Piece};
use resync::{Resync, Scope};
use scout::{Scout, View};
use wrapper::{Passing, Wrapper, begins_wrapper};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// RFC 7464: precedes each value, and occurs in no valid one.
const RECORD_SEPARATOR: u8 = 0x1e;
/// The unprocessed bytes are moved to the beginning of the buffer once they are at most this many times the processed
/// ones.
const MOVES: usize = 8;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_event_bytes: usize,
    /// The number of bytes of a bad piece that are kept.
    pub bad_head_bytes: usize,
}

impl Limits {
    fn too_large(&self) -> EventProblem {
        EventProblem::TooLarge { limit_bytes: self.max_event_bytes }
    }
}

/// The place in the grammar of a position between two values: everything needed to resume there.
///
/// The ledger stores it, so states of older versions stay readable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramingState {
    in_array: bool,
    /// A value precedes, without a comma yet.
    after_value: bool,
    /// Bytes since the last end of a line.
    column: u64,
    /// Set within the array of events of a wrapper object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wrapper: Option<Wrapper>,
}

impl FramingState {
    fn is_inside(&self) -> bool {
        self.in_array || self.wrapper.is_some()
    }
}

/// A piece of the file.
#[derive(Debug)]
pub enum Framed<'a> {
    Event { offset: u64, bytes: &'a [u8], event: Event<'a> },
    Bad { offset: u64, length: u64, head: &'a [u8], problem: EventProblem },
}

struct Position {
    /// Everything before this index of the buffer is processed.
    cursor: usize,
    state: FramingState,
    /// The value at the cursor was incomplete: it is scanned again once this many bytes of it are present.
    wait_for: usize,
}

impl Position {
    /// Moves past a value.
    fn advance(&mut self, length: usize) {
        self.cursor += length;
        self.state.after_value = true;
        self.wait_for = 0;
    }
}

/// Frames one file. Feed it with [`Framer::push`], empty it with [`Framer::next`], end it with [`Framer::finish`].
pub struct Framer {
    /// Separate from the other state, which changes while a piece borrows the buffer.
    buffer: Vec<u8>,
    core: Core,
}

struct Core {
    limits: Limits,
    /// Offset in the file of the buffer's first byte.
    base: u64,
    column: Column,
    position: Position,
    /// The spans of the fields of the value at the cursor.
    spans: Spans,
    /// Has decided some bytes from the cursor on; present only after damage.
    scout: Option<Box<Scout>>,
    piece: Option<Piece>,
    tail: Option<Box<Passing>>,
    /// The first bytes of the last skipped piece, borrowed by the piece returned.
    passed_head: Vec<u8>,
    finished: bool,
    end_reported: bool,
    looked_at: u64,
}

/// The column of one position in the buffer, from which that of a later one follows.
#[derive(Debug, Clone, Copy)]
struct Column {
    at: usize,
    column: u64,
}

impl Column {
    fn of(self, buffer: &[u8], index: usize) -> u64 {
        match memchr::memrchr2(b'\n', b'\r', &buffer[self.at..index]) {
            Some(end) => (index - self.at - end - 1) as u64,
            None => self.column + (index - self.at) as u64,
        }
    }
}

/// The result of looking for the next value.
enum Between {
    /// A value, or the end of the buffer.
    Value,
    /// More bytes are needed to decide.
    Unknown,
    /// The end of a wrapper's array of events.
    ArrayEnd,
    /// The open array or wrapper was cut off.
    CutOff,
}

impl Framer {
    /// Starts at byte `offset` of the file, in the state saved there.
    pub fn new(limits: Limits, offset: u64, state: FramingState) -> Self {
        let core = Core {
            limits,
            base: offset,
            column: Column { at: 0, column: state.column },
            position: Position { cursor: 0, state, wait_for: 0 },
            spans: Spans::default(),
            scout: None,
            piece: None,
            tail: None,
            passed_head: Vec::new(),
            finished: false,
            end_reported: false,
            looked_at: 0,
        };
        Self { buffer: Vec::new(), core }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let Self { buffer, core } = self;
        let (done, rest) = (core.position.cursor, buffer.len() - core.position.cursor);
        // Otherwise many small pieces would move a long rest repeatedly.
        if done > 0 && done >= rest / MOVES {
            core.column = Column { at: 0, column: core.column(buffer) };
            buffer.drain(..done);
            core.looked_at += rest as u64;
            core.base += done as u64;
            core.position.cursor = 0;
        }
        buffer.extend_from_slice(bytes);
    }

    /// No more bytes will come.
    pub fn finish(&mut self) {
        self.core.finished = true;
    }

    /// The byte up to which everything was returned, and the state there; `None` while a piece is skipped.
    pub fn checkpoint(&self) -> Option<(u64, FramingState)> {
        let Core { position, piece, tail, column, .. } = &self.core;
        let column = column.of(&self.buffer, position.cursor);
        let is_passing = tail.is_some() || piece.as_ref().is_some_and(|piece| !piece.is_kept());
        (!is_passing).then(|| (self.core.offset(), FramingState { column, ..position.state }))
    }

    /// The number of bytes scanned so far, counting repetitions: a bounded number of times the bytes pushed.
    pub fn bytes_looked_at(&self) -> u64 {
        self.core.looked_at + self.core.scout.as_ref().map_or(0, |scout| scout.looked_at())
    }

    /// The next piece; `None` when more bytes are needed, or after [`Framer::finish`] at the end of the file.
    pub fn next(&mut self, format: &EventFormat) -> Option<Framed<'_>> {
        let Self { buffer, core } = self;
        loop {
            if core.piece.is_some() {
                return core.end_piece(buffer, format);
            }
            if core.tail.is_some() {
                core.pass_tail(buffer, format)?;
                continue;
            }
            match core.skip_separators(buffer) {
                Between::Value => {}
                Between::Unknown => return None,
                Between::ArrayEnd => {
                    core.enter_tail(format);
                    continue;
                }
                Between::CutOff => return Some(core.cut_off_here()),
            }
            if core.position.cursor == buffer.len() {
                return core.end_of_file();
            }
            match core.find(buffer, format) {
                Found::Incomplete => return None,
                Found::Opened { after } => core.enter_wrapper(buffer, format, after),
                Found::Value { end } => return core.event(buffer, format, end),
                Found::NoEvent { end, problem } => return core.no_event(buffer, format, end, problem),
                Found::Broken => return core.broken(buffer, format),
            }
        }
    }
}

impl Core {
    fn offset(&self) -> u64 {
        self.base + self.position.cursor as u64
    }

    /// The column of the cursor.
    fn column(&mut self, buffer: &[u8]) -> u64 {
        let cursor = self.position.cursor;
        self.looked_at += (cursor - self.column.at) as u64;
        self.column = Column { at: cursor, column: self.column.of(buffer, cursor) };
        self.column.column
    }

    fn skip_separators(&mut self, buffer: &[u8]) -> Between {
        let before = self.position.cursor;
        let between = self.reach_value(buffer);
        self.looked_at += (self.position.cursor - before) as u64;
        between
    }

    /// Moves the cursor to the next value, entering and leaving arrays.
    #[inline]
    fn reach_value(&mut self, buffer: &[u8]) -> Between {
        let Position { cursor, state, .. } = &mut self.position;
        while let Some(byte) = buffer.get(*cursor) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b',' if state.after_value => state.after_value = false,
                b']' if state.wrapper.is_some() => {
                    *cursor += 1;
                    return Between::ArrayEnd;
                }
                b'[' if !state.is_inside() => {
                    state.in_array = true;
                    state.after_value = false;
                }
                b']' if state.in_array => {
                    state.in_array = false;
                    state.after_value = true;
                }
                &RECORD_SEPARATOR if state.is_inside() => {
                    *state = FramingState { in_array: false, wrapper: None, ..*state };
                    return Between::CutOff;
                }
                &RECORD_SEPARATOR => state.after_value = false,
                0xef => {
                    let rest = &buffer[*cursor..];
                    if rest.starts_with(BYTE_ORDER_MARK) {
                        *cursor += BYTE_ORDER_MARK.len();
                        continue;
                    }
                    let may_be_one = !self.finished && BYTE_ORDER_MARK.starts_with(rest);
                    return if may_be_one { Between::Unknown } else { Between::Value };
                }
                _ => return Between::Value,
            }
            *cursor += 1;
        }
        Between::Value
    }

    /// Reports that something is missing before the cursor.
    fn cut_off_here(&self) -> Framed<'static> {
        Framed::Bad { offset: self.offset(), length: 0, head: &[], problem: EventProblem::NotClosed }
    }

    /// A file that ends inside an array or wrapper was cut off; reports that once.
    fn end_of_file(&mut self) -> Option<Framed<'static>> {
        if !self.finished || !self.position.state.is_inside() || self.end_reported {
            return None;
        }
        self.end_reported = true;
        Some(self.cut_off_here())
    }

    /// Classifies the value at the cursor.
    #[inline]
    fn find(&mut self, buffer: &[u8], format: &EventFormat) -> Found {
        let rest = &buffer[self.position.cursor..];
        if rest.first() != Some(&b'{') {
            return Found::Broken;
        }
        let at_wrapper = format.records().is_some() && self.position.state.wrapper.is_none();
        if self.scout.is_some()
            && let Some(known) = self.known(buffer, format, at_wrapper)
        {
            return known;
        }
        if !self.finished && rest.len() < self.position.wait_for {
            return Found::Incomplete;
        }
        let finder = Finder { rest, format, limits: &self.limits, finished: self.finished };
        let (found, looked_at) =
            if at_wrapper { finder.wrapper(&mut self.spans) } else { finder.event(&mut self.spans) };
        self.looked_at += looked_at as u64;
        match found {
            Found::Incomplete => {
                // Scanning again at each small piece would take quadratic time.
                self.position.wait_for = (rest.len() * 2).min(self.limits.max_event_bytes.saturating_add(1));
                Found::Incomplete
            }
            // The scout scans the bytes of a failed scan once more, and never again.
            Found::Broken => {
                self.scout_from(self.offset(), format);
                self.decided(buffer, format, at_wrapper).unwrap_or(Found::Broken)
            }
            found => found,
        }
    }

    /// The scout's verdict on the value at the cursor: [`Found::Broken`], [`Found::Incomplete`], or `None` if a scan is
    /// worthwhile.
    #[cold]
    fn known(&mut self, buffer: &[u8], format: &EventFormat, at_wrapper: bool) -> Option<Found> {
        let place = self.offset();
        if self.scout.as_ref().is_some_and(|scout| scout.frontier() <= place) {
            self.drop_scout();
            return None;
        }
        self.scout_from(place, format);
        self.decided(buffer, format, at_wrapper)
    }

    fn decided(&mut self, buffer: &[u8], format: &EventFormat, at_wrapper: bool) -> Option<Found> {
        let (view, place) = (View { bytes: buffer, base: self.base }, self.offset());
        loop {
            let scout = self.scout.as_ref()?;
            if at_wrapper && scout.is_head(place) || scout.is_value(place) {
                return None;
            }
            if scout.decided() > place {
                return Some(Found::Broken);
            }
            if !self.advance_scout(view, format) {
                return Some(Found::Incomplete);
            }
        }
    }

    #[inline]
    fn event<'a>(&'a mut self, buffer: &'a [u8], format: &EventFormat, end: usize) -> Option<Framed<'a>> {
        let (offset, begin) = (self.offset(), self.position.cursor);
        let bytes = &buffer[begin..begin + end];
        self.looked_at += end as u64;
        match format.read(bytes, &self.spans) {
            Ok(event) => {
                self.position.advance(end);
                Some(Framed::Event { offset, bytes, event })
            }
            Err(problem) => {
                let at_wrapper = format.records().is_some() && self.position.state.wrapper.is_none();
                self.no_event(buffer, format, end, if at_wrapper { no_records(format) } else { problem })
            }
        }
    }

    /// A whole value at the cursor is not an event.
    #[cold]
    fn no_event<'a>(
        &'a mut self,
        buffer: &'a [u8],
        format: &EventFormat,
        end: usize,
        problem: EventProblem,
    ) -> Option<Framed<'a>> {
        let (offset, begin) = (self.offset(), self.position.cursor);
        let bytes = &buffer[begin..begin + end];
        if self.position.state.wrapper.is_some() {
            self.looked_at += end as u64;
            if self.wrapper_is_cut_off(buffer, |_| begins_wrapper(bytes, format)) {
                return Some(self.leave_wrapper());
            }
            let natural = Natural::Known(offset + end as u64);
            self.begin_piece(Piece::kept(offset, natural, Some(problem)), format);
            return self.end_piece(buffer, format);
        }
        self.position.advance(end);
        let head = &bytes[..end.min(self.limits.bad_head_bytes)];
        Some(Framed::Bad { offset, length: end as u64, head, problem })
    }

    /// No whole value begins at the cursor.
    #[cold]
    fn broken<'a>(&'a mut self, buffer: &'a [u8], format: &EventFormat) -> Option<Framed<'a>> {
        let offset = self.offset();
        let is_head = |core: &Self| core.scout.as_ref().is_some_and(|scout| scout.is_head(offset));
        if self.wrapper_is_cut_off(buffer, is_head) {
            return Some(self.leave_wrapper());
        }
        let scope = if self.position.state.is_inside() { Scope::Array } else { Scope::Top };
        let natural = Natural::Resync(Resync::new(self.column(buffer), scope));
        self.begin_piece(Piece::kept(offset, natural, None), format);
        self.end_piece(buffer, format)
    }
}

#[cfg(test)]
mod tests;
