//! Look-ahead: from which places a whole value can be read, and whether it reads as an event.
//!
//! # Verdicts
//!
//! The verdict on each `{` of the stream equals that of a scan from there, and depends only on the bytes from it on: a
//! whole value begins ([`Verdicts::values`]), within [`Limits::max_event_bytes`] and the format's depth; it reads as an
//! event ([`Verdicts::events`]; a lone surrogate deep in its `data`, if those are rejected, is left to the parser that
//! follows); it is the head of a wrapper up to its array of events ([`Verdicts::heads`]). Where the scout began, how
//! far it has advanced, and how the bytes were divided have no influence.
//!
//! # Linear time
//!
//! Every byte is scanned once, by at most two parsers, however many candidates are open.
//!
//! - *Candidates share a parser.* Two scans that are both outside a string at a `{` continue equally from there: the
//!   outer one is broken wherever the inner one is. The open candidates of one reading are therefore a stack, and the
//!   byte that breaks the innermost breaks all of them.
//! - *There are two readings.* A scan that is within a string at a `{` may be read as outside from there. From then on
//!   the two are always opposite: a quotation mark inverts both, and a backslash breaks the one that is outside. A
//!   third reading cannot arise.
//! - *Judging whether an object reads as an event* reads its text without the parts deeper than its fields (see
//!   [`condense`]).
//!
//! # Memory
//!
//! Candidates are dropped when they exceed the size limit of an event. Until then the caller keeps their bytes. Each of
//! the two readings keeps a copy of them for each segment of the longest field pointer, and the verdicts take three
//! bits for each byte.

mod condense;
mod parser;
mod places;

use common::event::{EventFormat, Field};
use common::json::{FieldPaths, Spans};

use super::Limits;
use parser::{Judge, Parser};
use places::Places;

pub(super) use parser::View;

/// Places of `{`, by the kind of value that begins there.
#[derive(Debug)]
pub(super) struct Verdicts {
    values: Places,
    events: Places,
    heads: Places,
}

pub(super) struct Scout {
    /// The first byte not yet scanned.
    frontier: u64,
    /// At most one of them is outside a string.
    parsers: [Parser; 2],
    verdicts: Verdicts,
    max_event_bytes: u64,
    spans: Spans,
    no_paths: FieldPaths,
    /// The number of bytes scanned, including copies.
    looked_at: u64,
}

impl Scout {
    pub(super) fn new(from: u64, limits: &Limits, format: &EventFormat) -> Self {
        let levels = deepest_field(format);
        let places = || Places::from(from);
        Self {
            frontier: from,
            parsers: [Parser::new(levels), Parser::new(levels)],
            verdicts: Verdicts { values: places(), events: places(), heads: places() },
            max_event_bytes: limits.max_event_bytes as u64,
            spans: Spans::default(),
            no_paths: FieldPaths::default(),
            looked_at: 0,
        }
    }

    pub(super) fn frontier(&self) -> u64 {
        self.frontier
    }

    pub(super) fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// The verdicts on all places before this one are final.
    pub(super) fn decided(&self) -> u64 {
        self.outermost().map_or(self.frontier, |begin| begin.min(self.frontier))
    }

    fn outermost(&self) -> Option<u64> {
        let [one, other] = &self.parsers;
        match (one.outermost(), other.outermost()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Whether a whole value begins at a decided place.
    pub(super) fn is_value(&self, place: u64) -> bool {
        self.verdicts.values.has(place)
    }

    /// Whether the head of a wrapper begins there; a positive answer may precede the decision of the place.
    pub(super) fn is_head(&self, place: u64) -> bool {
        self.verdicts.heads.has(place)
    }

    /// The first place in `from..to` from which a whole event can be read; the range must be decided.
    pub(super) fn first_event(&self, from: u64, to: u64) -> Option<u64> {
        self.verdicts.events.first_in(from, to)
    }

    /// Drops the verdicts before `place`, which are no longer needed.
    pub(super) fn retire(&mut self, place: u64) {
        self.parsers.iter_mut().for_each(|parser| parser.retire(place));
        let Verdicts { values, events, heads } = &mut self.verdicts;
        [values, events, heads].into_iter().for_each(|places| places.forget_before(place));
    }

    /// No more bytes will come: open candidates are broken.
    pub(super) fn finish(&mut self) {
        self.parsers.iter_mut().for_each(Parser::stop);
    }

    /// Scans bytes before `to`, which `view` must contain: all of them, or until more is decided. If that suffices, the
    /// scan ends with the value, and the following bytes are read without the scout.
    pub(super) fn scan(&mut self, view: View<'_>, to: u64, format: &EventFormat) {
        let before = self.outermost();
        while self.frontier < to && self.outermost() == before {
            if self.parsers.iter().all(Parser::is_idle) {
                let rest = view.range(self.frontier, to);
                let skipped = memchr::memchr(b'{', rest).unwrap_or(rest.len());
                self.looked_at += skipped as u64;
                self.frontier += skipped as u64;
                if skipped == rest.len() {
                    return;
                }
            }
            self.scan_one(view, format);
        }
    }

    fn scan_one(&mut self, view: View<'_>, format: &EventFormat) {
        let place = self.frontier;
        let Some(byte) = view.range(place, place + 1).first().copied() else { return };
        self.frontier += 1;
        let Self { parsers, verdicts, spans, no_paths, looked_at, max_event_bytes, .. } = self;
        let mut judge = Judge { format, max_event_bytes: *max_event_bytes, spans, no_paths, verdicts, looked_at };
        for parser in parsers.iter_mut().filter(|parser| !parser.is_idle()) {
            *judge.looked_at += 1;
            parser.step(place, byte, view, &mut judge);
        }
        // A reading outside a string has taken the brace; if there is none, a new one begins.
        let is_taken = parsers.iter().any(|parser| !parser.is_idle() && !parser.is_in_string());
        if byte == b'{'
            && !is_taken
            && let Some(parser) = parsers.iter_mut().find(|parser| parser.is_idle())
        {
            parser.step(place, byte, view, &mut judge);
        }
    }
}

/// Segments of the longest pointer to a field.
fn deepest_field(format: &EventFormat) -> usize {
    let rules = Field::ALL.into_iter().filter_map(|field| field.rule(format.rules().get(field)).ok());
    let depth = |rule: common::event::FieldRule| rule.pointers().map(|pointer| pointer.segments().len()).max();
    rules.filter_map(depth).max().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests;
