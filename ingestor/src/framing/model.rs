//! An independent implementation of the module's rule, as simple and slow as possible: the framer must give the same
//! result. Compiled for tests and fuzzing only.

#![allow(clippy::unwrap_used, reason = "a failure must be noticed")]

use common::event::EventFormat;
use common::json::{Opened, ScanError, ScanErrorKind, Spans};

use super::resync::{Resync, Scope};
use super::tail::{Tail, TailProblem, TailStep};
use super::wrapper::Wrapper;
use super::{BYTE_ORDER_MARK, Framed, Framer, FramingState, Limits};

/// The most scans of each byte: by a scan, with its repetitions in small pieces; by the two readings of the scout and
/// their copies; for the end of a piece and for its message; as part of an event.
pub(crate) const SCANS: u64 = 40;

/// A piece of a file: an event's id, or the length and code of a bad piece, with its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Event(u64, String),
    Bad(u64, u64, &'static str),
}

/// The piece must have the bytes of `file`.
pub(super) fn piece_of(framed: &Framed<'_>, file: &[u8], limits: Limits) -> Piece {
    match framed {
        Framed::Event { offset, bytes, event } => {
            let start = usize::try_from(*offset).unwrap();
            assert_eq!(&&file[start..start + bytes.len()], bytes, "an event carries its bytes");
            Piece::Event(*offset, event.event_id.clone().into_owned())
        }
        Framed::Bad { offset, length, head, problem } => {
            let start = usize::try_from(*offset).unwrap();
            let whole = &file[start..start + usize::try_from(*length).unwrap()];
            assert_eq!(head, &&whole[..whole.len().min(limits.bad_head_bytes)], "a bad piece carries its first bytes");
            Piece::Bad(*offset, *length, problem.code())
        }
    }
}

/// Frames a file that arrives in pieces of `lengths`, repeated. Returns what was found and how many bytes were examined.
pub(crate) fn frame(format: &EventFormat, limits: Limits, file: &[u8], lengths: &[usize]) -> (Vec<Piece>, u64) {
    let mut framer = Framer::new(limits, 0, FramingState::default());
    let mut found = Vec::new();
    let mut rest = file;
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).clamp(1, rest.len()));
        framer.push(piece);
        while let Some(framed) = framer.next(format) {
            found.push(piece_of(&framed, file, limits));
        }
        rest = after;
    }
    framer.finish();
    while let Some(framed) = framer.next(format) {
        found.push(piece_of(&framed, file, limits));
    }
    (found, framer.bytes_looked_at())
}

/// Resumes from the checkpoint after each piece with a new framer: that must give the rest of `whole`, the pieces of the
/// file.
pub(crate) fn resume_everywhere(format: &EventFormat, limits: Limits, file: &[u8], whole: &[Piece]) {
    let mut framer = Framer::new(limits, 0, FramingState::default());
    framer.push(file);
    framer.finish();
    for done in 0..=whole.len() {
        if let Some((offset, state)) = framer.checkpoint() {
            let saved = serde_json::to_string(&state).unwrap();
            let mut resumed = Framer::new(limits, offset, serde_json::from_str(&saved).unwrap());
            resumed.core.end_reported = framer.core.end_reported;
            let rest = &file[usize::try_from(offset).unwrap()..];
            let mut seen = Vec::new();
            for piece in rest.chunks(61) {
                resumed.push(piece);
                while let Some(framed) = resumed.next(format) {
                    seen.push(piece_of(&framed, file, limits));
                }
            }
            resumed.finish();
            while let Some(framed) = resumed.next(format) {
                seen.push(piece_of(&framed, file, limits));
            }
            assert_eq!(seen, whole[done..], "from {offset} {saved}");
        }
        if framer.next(format).is_none() {
            break;
        }
    }
}

struct Model<'a> {
    file: &'a [u8],
    format: &'a EventFormat,
    max_event_bytes: usize,
    at: usize,
    in_array: bool,
    after_value: bool,
    wrapper: Option<Wrapper>,
    found: Vec<Piece>,
}

enum What {
    Event(usize, String),
    Value(usize, &'static str),
    Broken,
}

impl Model<'_> {
    fn window(&self, at: usize) -> &[u8] {
        &self.file[at..self.file.len().min(at + self.max_event_bytes)]
    }

    fn what(&self, at: usize) -> What {
        let mut spans = Spans::default();
        match self.format.scan(self.window(at), &mut spans) {
            _ if self.file[at] != b'{' => What::Broken,
            Ok(end) => match self.format.read(&self.file[at..at + end], &spans) {
                Ok(event) => What::Event(end, event.event_id.into_owned()),
                Err(problem) => What::Value(end, problem.code()),
            },
            Err(error) => match error.kind {
                ScanErrorKind::Duplicate { end, .. } => What::Value(end, "duplicate_field"),
                _ => What::Broken,
            },
        }
    }

    /// The byte after the bracket of the array of events.
    fn head(&self, at: usize) -> Option<usize> {
        match self.format.scan_to_records(self.window(at)) {
            Ok(Opened::Array { after }) if self.file[at] == b'{' => Some(at + after),
            _ => None,
        }
    }

    fn first_event(&self, from: usize, to: usize) -> Option<usize> {
        (from..to).find(|at| self.file[*at] == b'{' && matches!(self.what(*at), What::Event(..)))
    }

    fn column(&self, at: usize) -> u64 {
        let line = self.file[..at].iter().rposition(|byte| b"\r\n".contains(byte)).map_or(0, |end| end + 1);
        (at - line) as u64
    }

    fn bad(&mut self, begin: usize, end: usize, code: &'static str) {
        self.found.push(Piece::Bad(begin as u64, (end - begin) as u64, code));
        self.at = end;
        self.after_value = true;
    }

    fn broken_code(&self, begin: usize, end: usize) -> &'static str {
        if end - begin > self.max_event_bytes {
            return "too_large";
        }
        match self.format.explain(&self.file[begin..end]).code() {
            "truncated" if self.file[begin] != b'{' => "not_json",
            code => code,
        }
    }

    fn broken(&mut self, begin: usize, from: usize, resync: &mut Resync, code: Option<&'static str>) {
        let natural = resync.scan(&self.file[from..]).map_or(self.file.len(), |length| from + length);
        let first = from.max(begin + 1);
        let end = self.first_event(first, natural).unwrap_or(natural);
        self.bad(begin, end, code.unwrap_or_else(|| self.broken_code(begin, end)));
    }

    fn is_inside(&self) -> bool {
        self.in_array || self.wrapper.is_some()
    }

    fn tail(&mut self, wrapper: Wrapper) {
        let begin = self.at;
        let mut tail = Tail::new(wrapper.braces as usize, self.format.records(), self.format.max_depth());
        let (from, code) = match tail.scan(&self.file[begin..]) {
            TailStep::Closed(length) => {
                self.at += length;
                self.after_value = true;
                return;
            }
            TailStep::Broken(length, TailProblem::NotJson) => (begin + length, "not_json"),
            TailStep::Broken(length, TailProblem::TooDeep) => (begin + length, "too_deep"),
            TailStep::Broken(length, TailProblem::Duplicate) => (begin + length, "duplicate_field"),
            TailStep::Inside => {
                self.bad(begin, self.file.len(), "truncated");
                self.in_array = false;
                return;
            }
        };
        let last_string = begin + usize::try_from(tail.before_last_string()).unwrap();
        let search_from = last_string.max(from.saturating_sub(self.max_event_bytes));
        let mut resync = Resync::inside(wrapper.column, tail.depth() as u64, tail.in_string(), tail.indent());
        let natural = resync.scan(&self.file[from..]).map_or(self.file.len(), |length| from + length);
        let event = self.first_event(search_from, natural);
        self.bad(begin, event.unwrap_or(natural), code);
        self.wrapper = event.map(|_| wrapper);
    }

    fn value(&mut self) {
        let (begin, column) = (self.at, self.column(self.at));
        let at_wrapper = self.format.records().is_some() && self.wrapper.is_none();
        let head = self.head(begin);
        if at_wrapper && let Some(after) = head {
            let braces = u32::try_from(self.format.records().unwrap().segments().len()).unwrap();
            self.wrapper = Some(Wrapper { braces, column });
            self.at = after;
            self.after_value = false;
            return;
        }
        let what = self.what(begin);
        if let What::Event(end, id) = what {
            self.found.push(Piece::Event(begin as u64, id));
            self.at += end;
            self.after_value = true;
            return;
        }
        if head.is_some() && self.wrapper.is_some_and(|wrapper| column <= wrapper.column) {
            self.wrapper = None;
            self.found.push(Piece::Bad(begin as u64, 0, "truncated"));
            return;
        }
        let scope = if self.is_inside() { Scope::Array } else { Scope::Top };
        match what {
            What::Value(end, code) if self.wrapper.is_none() => {
                let second_array = matches!(
                    self.format.scan_to_records(self.window(begin)),
                    Err(ScanError { kind: ScanErrorKind::Duplicate { .. }, .. })
                );
                let at_wrapper_code = if second_array { "duplicate_field" } else { "no_records" };
                self.bad(begin, begin + end, if at_wrapper { at_wrapper_code } else { code });
            }
            What::Value(length, code) => {
                let end = self.first_event(begin + 1, begin + length).unwrap_or(begin + length);
                let code = if end == begin + length { code } else { self.broken_code(begin, end) };
                self.bad(begin, end, code);
            }
            _ => self.broken(begin, begin, &mut Resync::new(column, scope), None),
        }
    }

    fn run(mut self) -> Vec<Piece> {
        while let Some(byte) = self.file.get(self.at).copied() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b',' if self.after_value => (self.at, self.after_value) = (self.at + 1, false),
                b']' if self.wrapper.is_some() => {
                    self.at += 1;
                    let wrapper = self.wrapper.take().unwrap();
                    self.tail(wrapper);
                }
                b'[' if !self.is_inside() => {
                    (self.at, self.in_array, self.after_value) = (self.at + 1, true, false);
                }
                b']' if self.in_array => (self.at, self.in_array, self.after_value) = (self.at + 1, false, true),
                0x1e if self.is_inside() => {
                    (self.in_array, self.wrapper) = (false, None);
                    self.found.push(Piece::Bad(self.at as u64, 0, "truncated"));
                }
                0x1e => (self.at, self.after_value) = (self.at + 1, false),
                _ if self.file[self.at..].starts_with(BYTE_ORDER_MARK) => self.at += BYTE_ORDER_MARK.len(),
                _ => self.value(),
            }
        }
        if self.is_inside() {
            self.found.push(Piece::Bad(self.at as u64, 0, "truncated"));
        }
        self.found
    }
}

/// The pieces of a file by the rule.
pub(crate) fn model(format: &EventFormat, limits: Limits, file: &[u8]) -> Vec<Piece> {
    let Limits { max_event_bytes, .. } = limits;
    let (in_array, after_value, wrapper, found) = (false, false, None, Vec::new());
    Model { file, format, max_event_bytes, at: 0, in_array, after_value, wrapper, found }.run()
}
