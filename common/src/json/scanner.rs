//! The loop that scans a value.

use super::nesting::Kinds;
use super::number::{end_of_literal, end_of_number};
use super::paths::{FieldPaths, MAX_SLOTS, NOWHERE, NodeId, ROOT};
use super::pointer::MAX_SEGMENTS;
use super::string::{StringEnd, end_of_string};
use super::{MAX_DEPTH, ScanError, ScanErrorKind, skip_blanks};

/// The span of a wanted value: its first byte and the byte after its last, without surrounding whitespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
    /// The value is a string with escapes.
    pub escaped: bool,
}

/// The spans of the wanted values that are present. Reusable: each scan clears them first.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    places: [(usize, usize); MAX_SLOTS],
    /// One bit for each slot.
    there: u32,
    escaped: u32,
    surrogates: bool,
    /// State of the scan. It is here so that it need not be cleared for every value, and so that the scanner's other
    /// state, which has no arrays, fits into registers.
    kinds: Kinds,
    frames: [Frame; MAX_SEGMENTS + 1],
}

impl Spans {
    /// `None` if there is no value at the pointer of that slot.
    #[inline]
    pub fn get(&self, slot: usize) -> Option<Span> {
        let (start, end) = *self.places.get(slot)?;
        (self.there >> slot & 1 == 1).then_some(Span { start, end, escaped: self.escaped >> slot & 1 == 1 })
    }

    /// Whether a string or key anywhere in the value has an escape of a surrogate (`\ud800` to `\udfff`), paired or
    /// lone.
    #[inline]
    pub fn has_surrogates(&self) -> bool {
        self.surrogates
    }

    #[inline(always)]
    fn set(&mut self, slot: usize, start: usize, end: usize, escaped: bool) {
        if let Some(place) = self.places.get_mut(slot) {
            *place = (start, end);
            self.there |= 1 << slot;
            self.escaped |= u32::from(escaped) << slot;
        }
    }
}

/// What [`find_array`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The wanted array begins; the index of the byte after its bracket.
    Array { after: usize },
    /// The value is valid and has no such array; the index of the byte after its last.
    None { end: usize },
}

/// Scans the value that `bytes` begin with, after whitespace, and returns the index of the byte after it. Does not read
/// further. Sets `spans` to those of the values at `paths`; after an error they are undefined.
///
/// `max_depth` counts nested arrays and objects and is at most [`MAX_DEPTH`].
///
/// # Errors
/// The first error. A key that occurs twice is reported only if there is no other error.
pub fn scan(bytes: &[u8], paths: &FieldPaths, max_depth: usize, spans: &mut Spans) -> Result<usize, ScanError> {
    Scanner::new(bytes, paths, max_depth, spans).run::<false>()
}

/// Scans the beginning of a value up to the bracket that opens the array at one of `paths`, so that its elements can be
/// read one by one. Does not read past the bracket.
///
/// # Errors
/// As [`scan`].
pub fn find_array(bytes: &[u8], paths: &FieldPaths, max_depth: usize) -> Result<Opened, ScanError> {
    let mut spans = Spans::default();
    let mut scanner = Scanner::new(bytes, paths, max_depth, &mut spans);
    let end = scanner.run::<true>()?;
    Ok(if scanner.stopped { Opened::Array { after: end } } else { Opened::None { end } })
}

/// An array or object on the way to a wanted value.
#[derive(Debug, Clone, Copy, Default)]
struct Frame {
    node: NodeId,
    start: usize,
    /// The index of the next element.
    index: usize,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    paths: &'a FieldPaths,
    spans: &'a mut Spans,
    max_depth: usize,
    /// The number of open arrays and objects.
    depth: usize,
    in_object: bool,
    /// The number of those on the way to a wanted value; they are always the outermost.
    on_the_way: usize,
    /// The node of the innermost open array or object.
    here: NodeId,
    /// The node of the next value.
    target: NodeId,
    /// The key that probably follows.
    next_key: usize,
    /// One bit for each node: its key has occurred.
    seen: u64,
    duplicate: Option<(usize, usize)>,
    /// The array to stop at has begun.
    stopped: bool,
}

impl<'a> Scanner<'a> {
    #[inline(always)]
    fn new(bytes: &'a [u8], paths: &'a FieldPaths, max_depth: usize, spans: &'a mut Spans) -> Self {
        (spans.there, spans.escaped, spans.surrogates) = (0, 0, false);
        Self {
            bytes,
            paths,
            spans,
            max_depth: max_depth.min(MAX_DEPTH),
            depth: 0,
            in_object: false,
            on_the_way: 0,
            here: NOWHERE,
            target: ROOT,
            next_key: 0,
            seen: 0,
            duplicate: None,
            stopped: false,
        }
    }

    /// Returns the byte after the value, or after the bracket to stop at.
    #[inline(always)]
    fn run<const STOP: bool>(&mut self) -> Result<usize, ScanError> {
        let bytes = self.bytes;
        let mut at = 0;
        loop {
            // A value begins here.
            at = skip_blanks(bytes, at);
            let start = at;
            let mut escaped = false;
            at = match bytes.get(at) {
                Some(b'"') => {
                    let end = self.string(at + 1)?;
                    escaped = end.escaped;
                    end.quote + 1
                }
                Some(b'{') => {
                    self.open(at, true)?;
                    at = skip_blanks(bytes, at + 1);
                    if bytes.get(at) != Some(&b'}') {
                        at = self.key(at)?;
                        continue;
                    }
                    self.close(at + 1);
                    at + 1
                }
                Some(b'[') => {
                    if STOP && self.is_wanted() {
                        self.stopped = true;
                        return Ok(at + 1);
                    }
                    self.open(at, false)?;
                    at = skip_blanks(bytes, at + 1);
                    if bytes.get(at) != Some(&b']') {
                        self.element();
                        continue;
                    }
                    self.close(at + 1);
                    at + 1
                }
                Some(b'-' | b'0'..=b'9') => end_of_number(bytes, at)?,
                Some(b't') => end_of_literal(bytes, at, b"true")?,
                Some(b'f') => end_of_literal(bytes, at, b"false")?,
                Some(b'n') => end_of_literal(bytes, at, b"null")?,
                _ => return Err(ScanError::at(bytes, at, "no value")),
            };
            self.note(start, at, escaped);
            // After a value: a separator, or ends of the surrounding arrays and objects.
            loop {
                if self.depth == 0 {
                    return self.end(at);
                }
                at = skip_blanks(bytes, at);
                match (bytes.get(at), self.in_object) {
                    (Some(b','), true) => {
                        at = self.key(skip_blanks(bytes, at + 1))?;
                        break;
                    }
                    (Some(b','), false) => {
                        at += 1;
                        self.element();
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        at += 1;
                        self.close(at);
                    }
                    (_, true) => return Err(ScanError::at(bytes, at, "neither ',' nor '}' after a member")),
                    (_, false) => return Err(ScanError::at(bytes, at, "neither ',' nor ']' after an element")),
                }
            }
        }
    }

    /// The end of the string whose first character is at `at`.
    #[inline(always)]
    fn string(&mut self, at: usize) -> Result<StringEnd, ScanError> {
        end_of_string(self.bytes, at, &mut self.spans.surrogates)
    }

    fn is_wanted(&self) -> bool {
        self.duplicate.is_none() && self.target != NOWHERE && self.paths.slot(self.target).is_some()
    }

    /// Records the span of a value that is not an array or object.
    #[inline(always)]
    fn note(&mut self, start: usize, end: usize, escaped: bool) {
        if self.target != NOWHERE {
            if let Some(slot) = self.paths.slot(self.target) {
                self.spans.set(slot, start, end, escaped);
            }
            self.target = NOWHERE;
        }
    }

    #[inline(always)]
    fn open(&mut self, at: usize, object: bool) -> Result<(), ScanError> {
        if self.depth >= self.max_depth {
            return Err(ScanError { at, kind: ScanErrorKind::TooDeep });
        }
        self.depth += 1;
        self.spans.kinds.set(self.depth, object);
        self.in_object = object;
        self.here = self.target;
        if self.target != NOWHERE {
            if let Some(frame) = self.spans.frames.get_mut(self.on_the_way) {
                *frame = Frame { node: self.target, start: at, index: 0 };
                self.on_the_way += 1;
            }
            self.target = NOWHERE;
        }
        Ok(())
    }

    /// Closes the innermost array or object, which ends before `end`.
    #[inline(always)]
    fn close(&mut self, end: usize) {
        if self.depth == self.on_the_way {
            self.on_the_way -= 1;
            if let Some(frame) = self.spans.frames.get(self.on_the_way)
                && let Some(slot) = self.paths.slot(frame.node)
            {
                let start = frame.start;
                self.spans.set(slot, start, end, false);
            }
        }
        self.depth -= 1;
        self.in_object = self.spans.kinds.is_object(self.depth);
        if self.depth == self.on_the_way {
            self.here = self.frame().map_or(NOWHERE, |frame| frame.node);
        }
    }

    /// The frame of the innermost array or object on the way.
    #[inline(always)]
    fn frame(&mut self) -> Option<&mut Frame> {
        self.spans.frames.get_mut(self.on_the_way.wrapping_sub(1))
    }

    /// Scans a key and its colon; sets the node of the member.
    #[inline(always)]
    fn key(&mut self, at: usize) -> Result<usize, ScanError> {
        let bytes = self.bytes;
        if bytes.get(at) != Some(&b'"') {
            return Err(ScanError::at(bytes, at, "no key"));
        }
        let end = self.end_of_key(at + 1)?;
        let colon = skip_blanks(bytes, end + 1);
        if bytes.get(colon) != Some(&b':') {
            return Err(ScanError::at(bytes, colon, "no ':' after a key"));
        }
        Ok(colon + 1)
    }

    /// Returns the closing quotation mark of the key that begins at `at`.
    #[inline(always)]
    fn end_of_key(&mut self, at: usize) -> Result<usize, ScanError> {
        if self.here == NOWHERE {
            return Ok(self.string(at)?.quote);
        }
        let behind = self.bytes.get(at..).unwrap_or_default();
        if let Some((target, length)) = self.paths.expected_member(self.here, behind, self.next_key) {
            self.next_key += 1;
            self.target = target;
            self.note_key(at);
            return Ok(at + length);
        }
        let end = self.string(at)?;
        self.target = self.paths.member(self.here, behind, end.quote - at, end.escaped, &mut self.next_key);
        self.note_key(at);
        Ok(end.quote)
    }

    #[inline(always)]
    fn note_key(&mut self, at: usize) {
        if self.target == NOWHERE {
            return;
        }
        let bit = 1_u64 << (self.target % 64);
        if self.seen & bit != 0 {
            self.duplicate = self.duplicate.or(Some((self.paths.reported_slot(self.target), at - 1)));
            // The second value is not searched: all its keys would be duplicates as well.
            self.target = NOWHERE;
        }
        self.seen |= bit;
    }

    /// Sets the node of the next element.
    #[inline(always)]
    fn element(&mut self) {
        if self.here == NOWHERE {
            return;
        }
        if let Some(frame) = self.frame() {
            let index = frame.index;
            frame.index += 1;
            self.target = self.paths.element(self.here, index);
        }
    }

    fn end(&self, end: usize) -> Result<usize, ScanError> {
        match self.duplicate {
            Some((slot, at)) => Err(ScanError { at, kind: ScanErrorKind::Duplicate { slot, end } }),
            None => Ok(end),
        }
    }
}
