//! Finding the events in a stream of bytes.
//!
//! # What is accepted, untold and mixed in one file
//!
//! Objects one after another (newline-delimited, with no separator at all, pretty-printed over many lines) and arrays
//! of objects of any length, at the top level of the file; a UTF-8 byte order mark wherever a value may begin; any
//! blank between values; one comma after a value.
//!
//! # What is guaranteed
//!
//! 1. Every byte of the file that is not a separator belongs to exactly one [`Framed::Event`] or [`Framed::Bad`], in
//!    order; an event carries its very bytes.
//! 2. A bad piece ends where the next value can be told to begin: at the end of the bracketed value if its brackets
//!    and strings are whole, at the latest before a line that begins with `{` no deeper than the bad one began. One
//!    broken line of newline-delimited JSON costs that line only.
//! 3. Memory: one event of at most [`Limits::max_event_bytes`] plus one read piece, whatever the file holds. Larger
//!    values are skipped as they stream by and reported with their whole length.
//! 4. How the file was cut into pieces for [`Framer::push`] does not change the result.

mod resync;

use common::event::{Event, EventFormat, EventProblem, RawEvent, diagnose_bytes};
use serde::{Deserialize, Serialize};

use resync::{Resync, Scope};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_event_bytes: usize,
    /// How many bytes of a bad piece are kept.
    pub bad_head_bytes: usize,
}

/// Where in the grammar a position between two values lies: all that is needed to go on from there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramingState {
    in_array: bool,
    /// A value came before and no comma yet.
    after_value: bool,
    /// Bytes since the last line break.
    column: u64,
}

/// A piece of the file.
#[derive(Debug)]
pub enum Framed<'a> {
    Event { offset: u64, bytes: &'a [u8], event: Event<'a> },
    Bad { offset: u64, length: u64, head: &'a [u8], problem: EventProblem },
}

/// A bad piece whose end has not come yet and whose bytes are no longer kept.
struct Skipping {
    offset: u64,
    head: Vec<u8>,
    problem: EventProblem,
    resync: Resync,
}

/// Frames one file. Feed it with [`Framer::push`], empty it with [`Framer::next`], end it with [`Framer::finish`].
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Everything before this index of `buffer` is done with.
    cursor: usize,
    /// Offset in the file of `buffer[0]`.
    base: u64,
    state: FramingState,
    /// Column of `buffer[0]`.
    base_column: u64,
    skipping: Option<Skipping>,
    /// Of the last skipped piece, for handing out.
    skipped_head: Vec<u8>,
    finished: bool,
    end_reported: bool,
}

enum Found<'a> {
    Event {
        end: usize,
        raw: RawEvent<'a>,
    },
    Bad {
        end: usize,
        problem: EventProblem,
    },
    /// More bytes are needed to tell.
    Incomplete,
    /// Longer than an event may be: skip it as it streams by.
    Oversize,
}

impl Framer {
    /// Starts at byte `offset` of the file, in the state that was saved there.
    pub fn new(limits: Limits, offset: u64, state: FramingState) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            cursor: 0,
            base: offset,
            base_column: state.column,
            state,
            skipping: None,
            skipped_head: Vec::new(),
            finished: false,
            end_reported: false,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.cursor > 0 {
            self.base_column = self.column_of(self.cursor);
            self.buffer.drain(..self.cursor);
            self.base += self.cursor as u64;
            self.cursor = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// No more bytes will come.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The byte up to which everything was handed out, and the state there; `None` inside a skipped piece.
    pub fn checkpoint(&self) -> Option<(u64, FramingState)> {
        let state = FramingState { column: self.column_of(self.cursor), ..self.state };
        self.skipping.is_none().then(|| (self.base + self.cursor as u64, state))
    }

    fn column_of(&self, index: usize) -> u64 {
        match memchr::memrchr(b'\n', &self.buffer[..index]) {
            Some(newline) => (index - newline - 1) as u64,
            None => self.base_column + index as u64,
        }
    }

    /// The next piece; `None` when more bytes are needed, or after [`Framer::finish`] at the end of the file.
    pub fn next(&mut self, format: &EventFormat) -> Option<Framed<'_>> {
        if self.skipping.is_some() {
            return self.next_skipped();
        }
        if !self.skip_separators() {
            return None;
        }
        if self.cursor == self.buffer.len() {
            return self.end_of_file();
        }
        let resync = self.resync_here();
        // Split into its fields: what is handed out borrows the buffer while the cursor moves on.
        let Self { buffer, cursor, state, skipping, .. } = self;
        let (rest, offset) = (&buffer[*cursor..], self.base + *cursor as u64);
        let (end, problem) = match find(rest, &self.limits, self.finished, resync.clone()) {
            Found::Incomplete => return None,
            Found::Event { end, raw } => match check(&rest[..end], raw, format) {
                Ok(event) => {
                    *cursor += end;
                    state.after_value = true;
                    return Some(Framed::Event { offset, bytes: &rest[..end], event });
                }
                Err(problem) => (end, problem),
            },
            Found::Bad { end, problem } => (end, problem),
            Found::Oversize => {
                // Its end is not here yet, so there is nothing to hand out before the next push.
                let head = rest[..rest.len().min(self.limits.bad_head_bytes)].to_vec();
                *skipping = Some(Skipping { offset, head, problem: too_large(&self.limits), resync });
                return None;
            }
        };
        *cursor += end;
        state.after_value = true;
        let head = &rest[..end.min(self.limits.bad_head_bytes)];
        Some(Framed::Bad { offset, length: end as u64, head, problem })
    }

    /// Moves the cursor to the next value, following arrays; false when more bytes are needed to tell.
    fn skip_separators(&mut self) -> bool {
        while let Some(byte) = self.buffer.get(self.cursor) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b',' if self.state.after_value => self.state.after_value = false,
                b'[' if !self.state.in_array => {
                    self.state.in_array = true;
                    self.state.after_value = false;
                }
                b']' if self.state.in_array => {
                    self.state.in_array = false;
                    self.state.after_value = true;
                }
                0xef => {
                    let rest = &self.buffer[self.cursor..];
                    if rest.starts_with(BYTE_ORDER_MARK) {
                        self.cursor += BYTE_ORDER_MARK.len();
                        continue;
                    }
                    return self.finished || !BYTE_ORDER_MARK.starts_with(rest);
                }
                _ => return true,
            }
            self.cursor += 1;
        }
        true
    }

    /// A file that ends inside an array was cut off: that is reported once.
    fn end_of_file(&mut self) -> Option<Framed<'_>> {
        if !self.finished || !self.state.in_array || self.end_reported {
            return None;
        }
        self.end_reported = true;
        let offset = self.base + self.cursor as u64;
        Some(Framed::Bad { offset, length: 0, head: &[], problem: EventProblem::Truncated })
    }

    fn resync_here(&self) -> Resync {
        let scope = if self.state.in_array { Scope::Array } else { Scope::Top };
        Resync::new(self.column_of(self.cursor), scope)
    }

    fn next_skipped(&mut self) -> Option<Framed<'_>> {
        let skipping = self.skipping.as_mut()?;
        match skipping.resync.scan(&self.buffer[self.cursor..]) {
            Some(length) => self.cursor += length,
            None => {
                self.cursor = self.buffer.len();
                if !self.finished {
                    return None;
                }
            }
        }
        let Skipping { offset, head, problem, .. } = self.skipping.take()?;
        self.skipped_head = head;
        self.state.after_value = true;
        let length = self.base + self.cursor as u64 - offset;
        Some(Framed::Bad { offset, length, head: &self.skipped_head, problem })
    }
}

/// What stands at the beginning of `rest`, which is not empty.
fn find<'a>(rest: &'a [u8], limits: &Limits, finished: bool, resync: Resync) -> Found<'a> {
    if rest[0] != b'{' {
        return find_bad_end(rest, limits, finished, resync, None);
    }
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<RawEvent<'_>>();
    match values.next() {
        Some(Ok(raw)) => match values.byte_offset() {
            end if end > limits.max_event_bytes => Found::Bad { end, problem: too_large(limits) },
            end => Found::Event { end, raw },
        },
        Some(Err(error)) if error.is_eof() && !finished => {
            if rest.len() > limits.max_event_bytes {
                Found::Oversize
            } else {
                Found::Incomplete
            }
        }
        Some(Err(error)) => find_bad_end(rest, limits, finished, resync, Some(&error)),
        // The slice begins with `{`, so there is a value or an error.
        None => Found::Incomplete,
    }
}

fn too_large(limits: &Limits) -> EventProblem {
    EventProblem::TooLarge { limit_bytes: limits.max_event_bytes }
}

fn find_bad_end<'a>(
    rest: &'a [u8],
    limits: &Limits,
    finished: bool,
    mut resync: Resync,
    error: Option<&serde_json::Error>,
) -> Found<'a> {
    let end = match resync.scan(rest) {
        Some(end) => end,
        None if finished => rest.len(),
        None if rest.len() > limits.max_event_bytes => return Found::Oversize,
        None => return Found::Incomplete,
    };
    let problem = if end > limits.max_event_bytes { too_large(limits) } else { explain(&rest[..end], error) };
    Found::Bad { end, problem }
}

fn check<'a>(bytes: &'a [u8], raw: RawEvent<'a>, format: &EventFormat) -> Result<Event<'a>, EventProblem> {
    // The parser looks at the encoding of the fields it reads only, not of those it passes over.
    simdutf8::basic::from_utf8(bytes).map_err(|_| EventProblem::NotUtf8)?;
    raw.check(format)
}

fn explain(bytes: &[u8], error: Option<&serde_json::Error>) -> EventProblem {
    match error {
        Some(error) => diagnose_bytes(bytes, error),
        None => match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => EventProblem::NotAnObject,
            Err(error) => match diagnose_bytes(bytes, &error) {
                EventProblem::Truncated => EventProblem::NotJson(error.to_string()),
                problem => problem,
            },
        },
    }
}

#[cfg(test)]
mod tests;
