//! What stands at the beginning of some bytes? Facts in, a decision out; nothing is moved here.

use common::event::{EventFormat, EventProblem};
use common::json::{Opened, ScanError, ScanErrorKind, Spans};

use super::Limits;
use super::resync::Resync;

pub(super) enum Found {
    /// A value that may be an event: its fields are not looked at yet.
    Value {
        end: usize,
    },
    /// The head of a wrapper: the byte after the bracket that opens its array of events.
    Opened {
        after: usize,
    },
    Bad {
        end: usize,
        problem: EventProblem,
    },
    /// More bytes are needed to tell.
    Incomplete,
    /// Longer than an event may be: it has to be passed over as it streams by.
    Oversize,
}

pub(super) struct Finder<'a> {
    /// Not empty.
    pub rest: &'a [u8],
    pub format: &'a EventFormat,
    pub limits: &'a Limits,
    /// No more bytes will come.
    pub finished: bool,
}

impl Finder<'_> {
    /// Bytes beyond what an event may have are not looked at: whether they are there yet must not decide.
    fn window(&self) -> &[u8] {
        &self.rest[..self.rest.len().min(self.limits.max_event_bytes.saturating_add(1))]
    }

    fn fits(&self, end: usize) -> bool {
        end <= self.limits.max_event_bytes
    }

    #[inline]
    pub(super) fn event(&self, spans: &mut Spans, resync: impl FnOnce() -> Resync) -> Found {
        if self.rest[0] != b'{' {
            return self.bad(resync());
        }
        match self.format.scan(self.window(), spans) {
            Ok(end) if self.fits(end) => Found::Value { end },
            Ok(_) => self.bad(resync()),
            Err(error) => self.failed(&error, |error| self.format.problem(error), resync),
        }
    }

    /// The head of a wrapper, up to its array of events.
    pub(super) fn wrapper(&self, resync: impl FnOnce() -> Resync) -> Found {
        if self.rest[0] != b'{' {
            return self.bad(resync());
        }
        match self.format.scan_to_records(self.window()) {
            Ok(Opened::Array { after }) if self.fits(after) => Found::Opened { after },
            Ok(Opened::None { end }) if self.fits(end) => Found::Bad { end, problem: self.no_records() },
            Ok(_) => self.bad(resync()),
            Err(error) => self.failed(&error, |error| self.format.wrapper_problem(error), resync),
        }
    }

    fn no_records(&self) -> EventProblem {
        EventProblem::NoRecords(self.format.records().map(ToString::to_string).unwrap_or_default())
    }

    #[cold]
    fn failed(
        &self,
        error: &ScanError,
        problem: impl FnOnce(&ScanError) -> EventProblem,
        resync: impl FnOnce() -> Resync,
    ) -> Found {
        match error.kind {
            ScanErrorKind::Duplicate { end, .. } if self.fits(end) => Found::Bad { end, problem: problem(error) },
            ScanErrorKind::Eof if !self.finished && self.fits(self.rest.len()) => Found::Incomplete,
            _ => self.bad(resync()),
        }
    }

    /// Finds the end of what is no value of the wanted kind.
    fn bad(&self, mut resync: Resync) -> Found {
        let end = match resync.scan(self.rest) {
            Some(end) => end,
            None if self.finished => self.rest.len(),
            None if self.fits(self.rest.len()) => return Found::Incomplete,
            None => return Found::Oversize,
        };
        let problem = if self.fits(end) { self.explain(&self.rest[..end]) } else { self.limits.too_large() };
        Found::Bad { end, problem }
    }

    fn explain(&self, bytes: &[u8]) -> EventProblem {
        match self.format.explain(bytes) {
            // Loose text has no end that could be missing.
            EventProblem::Truncated if bytes[0] != b'{' => EventProblem::NotJson("no whole value".to_owned()),
            problem => problem,
        }
    }
}
