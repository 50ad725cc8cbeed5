//! Classifies the value that begins with a brace. Takes facts and returns a decision; moves nothing.

use common::event::{EventFormat, EventProblem};
use common::json::{Opened, ScanError, ScanErrorKind, Spans};

use super::Limits;

pub(super) enum Found {
    /// A whole value that may be an event: its fields are not read yet.
    Value { end: usize },
    /// A whole value that is not an event.
    NoEvent { end: usize, problem: EventProblem },
    /// The head of a wrapper: the byte after the bracket that opens its array of events.
    Opened { after: usize },
    /// No whole value within the size limit begins here.
    Broken,
    /// More bytes are needed to decide.
    Incomplete,
}

pub(super) struct Finder<'a> {
    /// The bytes from the brace on.
    pub rest: &'a [u8],
    pub format: &'a EventFormat,
    pub limits: &'a Limits,
    /// No more bytes will come.
    pub finished: bool,
}

impl Finder<'_> {
    /// Bytes beyond the size limit of an event are ignored: whether they have already arrived must not affect the
    /// result.
    fn window(&self) -> &[u8] {
        &self.rest[..self.rest.len().min(self.limits.max_event_bytes.saturating_add(1))]
    }

    fn fits(&self, end: usize) -> bool {
        end <= self.limits.max_event_bytes
    }

    /// Classifies a value as an event; also returns the number of bytes scanned.
    #[inline]
    pub(super) fn event(&self, spans: &mut Spans) -> (Found, usize) {
        match self.format.scan(self.window(), spans) {
            Ok(end) if self.fits(end) => (Found::Value { end }, end),
            Ok(end) => (Found::Broken, end),
            Err(error) => (self.failed(&error, |error| self.format.problem(error)), looked_at(&error)),
        }
    }

    /// Classifies a value as a wrapper up to its array of events, or as an event that is not wrapped.
    pub(super) fn wrapper(&self, spans: &mut Spans) -> (Found, usize) {
        match self.format.scan_to_records(self.window()) {
            Ok(Opened::Array { after }) if self.fits(after) => (Found::Opened { after }, after),
            Ok(Opened::None { end }) if self.fits(end) => match self.format.scan(&self.rest[..end], spans) {
                Ok(_) => (Found::Value { end }, 2 * end),
                Err(_) => (Found::NoEvent { end, problem: no_records(self.format) }, 2 * end),
            },
            Ok(Opened::Array { after: end } | Opened::None { end }) => (Found::Broken, end),
            Err(error) => (self.failed(&error, |error| self.format.wrapper_problem(error)), looked_at(&error)),
        }
    }

    #[cold]
    fn failed(&self, error: &ScanError, problem: impl FnOnce(&ScanError) -> EventProblem) -> Found {
        match error.kind {
            ScanErrorKind::Duplicate { end, .. } if self.fits(end) => Found::NoEvent { end, problem: problem(error) },
            ScanErrorKind::Eof if !self.finished && self.fits(self.rest.len()) => Found::Incomplete,
            _ => Found::Broken,
        }
    }
}

fn looked_at(error: &ScanError) -> usize {
    match error.kind {
        ScanErrorKind::Duplicate { end, .. } => end,
        _ => error.at,
    }
}

pub(super) fn no_records(format: &EventFormat) -> EventProblem {
    EventProblem::NoRecords(format.records().map(ToString::to_string).unwrap_or_default())
}
