//! One reading of the bytes as JSON: the objects open in it, each a candidate.

use std::collections::VecDeque;

use common::event::EventFormat;
use common::json::{FieldPaths, Pointer, Spans, key_means, scan};

use super::super::grammar::{Grammar, Step};
use super::Verdicts;
use super::condense::Condenser;

/// A range of bytes of the stream.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct View<'a> {
    pub bytes: &'a [u8],
    /// The place of its first byte.
    pub base: u64,
}

impl<'a> View<'a> {
    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// Its bytes in `from..to`.
    pub fn range(&self, from: u64, to: u64) -> &'a [u8] {
        let index = |place: u64| usize::try_from(place.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.bytes.get(index(from)..index(to).min(self.bytes.len())).unwrap_or_default()
    }
}

/// The inputs of a judgement besides the bytes.
pub(super) struct Judge<'a> {
    pub format: &'a EventFormat,
    pub max_event_bytes: u64,
    pub spans: &'a mut Spans,
    pub no_paths: &'a FieldPaths,
    pub verdicts: &'a mut Verdicts,
    pub looked_at: &'a mut u64,
}

#[derive(Debug)]
struct Open {
    begin: u64,
    object: bool,
    /// Bit `i`: the first `i` keys on the way to a wrapper's array of events lead here from the object `i` levels
    /// further out.
    reached: u32,
    /// Bit `i`: the key after these has occurred in this object.
    occurred: u32,
    /// It contains bytes that are not UTF-8.
    garbled: bool,
}

#[derive(Debug)]
pub(super) struct Parser {
    grammar: Grammar,
    /// The outermost is an object: an array around candidates decides nothing.
    open: VecDeque<Open>,
    condenser: Condenser,
    /// The bytes of the innermost open value are in the condenser up to this place.
    condensed_to: u64,
    /// Where the current word or string begins.
    token: u64,
    /// As [`Open::reached`], for the value of the last key.
    reached: u32,
}

impl Parser {
    pub(super) fn new(levels: usize) -> Self {
        Self {
            grammar: Grammar::before_value(),
            open: VecDeque::new(),
            condenser: Condenser::new(levels),
            condensed_to: 0,
            token: 0,
            reached: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn is_in_string(&self) -> bool {
        self.grammar.in_string()
    }

    /// Where the outermost candidate begins.
    pub(super) fn outermost(&self) -> Option<u64> {
        self.open.front().map(|open| open.begin)
    }

    /// Drops all open candidates.
    pub(super) fn stop(&mut self) {
        self.open.clear();
        self.condenser.clear();
    }

    /// Drops the candidates that begin before `place`.
    pub(super) fn retire(&mut self, place: u64) {
        while self.outermost().is_some_and(|begin| begin < place) {
            self.drop_outermost();
        }
    }

    /// Processes the byte at `place`.
    pub(super) fn step(&mut self, place: u64, byte: u8, view: View<'_>, judge: &mut Judge<'_>) {
        if self.is_idle() {
            self.grammar = Grammar::before_value();
        }
        let in_object = self.open.back().is_some_and(|open| open.object);
        let in_word = self.grammar.in_word();
        let Some(step) = self.grammar.step(byte, in_object) else { return self.stop() };
        if in_word && !self.grammar.in_word() && !is_value(view.range(self.token, place), judge) {
            return self.stop();
        }
        match step {
            Step::Inside => {}
            Step::WordBegins | Step::StringBegins { .. } => self.token = place,
            Step::StringEnds { key: true } => self.note_key(view.range(self.token + 1, place), judge),
            Step::StringEnds { key: false } => {}
            Step::Opens { object } => self.open(place, object, view, judge),
            Step::Closes => self.close(place + 1, byte, view, judge),
        }
        while self.outermost().is_some_and(|begin| place + 1 - begin >= judge.max_event_bytes) {
            self.drop_outermost();
        }
    }

    fn open(&mut self, place: u64, object: bool, view: View<'_>, judge: &mut Judge<'_>) {
        self.condense_to(place, view, judge);
        let in_object = self.open.back().is_some_and(|open| open.object);
        let reached = if in_object { self.reached } else { 0 };
        self.note_head(object, reached, judge);
        if self.open.len() >= judge.format.max_depth() {
            self.drop_outermost();
        }
        if self.open.is_empty() && !object {
            return self.stop();
        }
        self.open.push_back(Open { begin: place, object, reached: reached | 1, occurred: 0, garbled: false });
        self.condenser.open();
        self.condensed_to = place;
    }

    /// Closes the innermost array or object, which ends before `end`.
    fn close(&mut self, end: u64, bracket: u8, view: View<'_>, judge: &mut Judge<'_>) {
        self.condense_to(end, view, judge);
        let Some(open) = self.open.pop_back() else { return };
        let own_text = self.condenser.own_text();
        *judge.looked_at += own_text.len() as u64;
        let garbled = open.garbled || std::str::from_utf8(own_text).is_err();
        if open.object {
            judge.verdicts.values.add(open.begin);
            if !garbled && reads_as_event(self.condenser.whole_text(), judge) {
                judge.verdicts.events.add(open.begin);
            }
        }
        self.condenser.close(if bracket == b'}' { b"{}" } else { b"[]" });
        match self.open.back_mut() {
            Some(around) => around.garbled |= garbled,
            None => self.stop(),
        }
    }

    fn condense_to(&mut self, place: u64, view: View<'_>, judge: &mut Judge<'_>) {
        if self.open.is_empty() {
            return;
        }
        let bytes = view.range(self.condensed_to, place);
        self.condenser.push(bytes);
        *judge.looked_at += (bytes.len() * self.condenser.levels()) as u64;
        self.condensed_to = place;
    }

    /// Drops the outermost candidate, and the arrays between it and the next.
    fn drop_outermost(&mut self) {
        loop {
            self.open.pop_front();
            self.condenser.drop_outermost();
            match self.open.front() {
                Some(open) if !open.object => {}
                Some(_) => return,
                None => return self.stop(),
            }
        }
    }

    /// Records where the value of the last key leads on the way to a wrapper's array of events.
    fn note_key(&mut self, key: &[u8], judge: &Judge<'_>) {
        let Some(records) = judge.format.records().map(Pointer::segments) else { return };
        self.reached = 0;
        let Some(open) = self.open.back_mut() else { return };
        for (index, wanted) in records.iter().enumerate() {
            let bit = 1 << index;
            if open.reached & bit != 0 && open.occurred & bit == 0 && key_means(key, wanted) {
                open.occurred |= bit;
                self.reached |= bit << 1;
            }
        }
    }

    /// Records the object whose array of events begins.
    fn note_head(&self, object: bool, reached: u32, judge: &mut Judge<'_>) {
        let levels = judge.format.records().map_or(0, |records| records.segments().len());
        if object || levels == 0 || reached >> levels & 1 == 0 {
            return;
        }
        let wrapper = self.open.len().checked_sub(levels).and_then(|index| self.open.get(index));
        if let Some(wrapper) = wrapper {
            judge.verdicts.heads.add(wrapper.begin);
        }
    }
}

fn is_value(word: &[u8], judge: &mut Judge<'_>) -> bool {
    *judge.looked_at += word.len() as u64;
    scan(word, judge.no_paths, 1, judge.spans) == Ok(word.len())
}

fn reads_as_event(text: &[u8], judge: &mut Judge<'_>) -> bool {
    *judge.looked_at += 2 * text.len() as u64;
    judge.format.scan(text, judge.spans) == Ok(text.len()) && judge.format.read(text, judge.spans).is_ok()
}
