//! The part of a wrapper object after its array of events: skipped in constant memory, over any number of pieces.
//!
//! None of it is kept, so it is checked only as far as its end requires: strings, brackets and separators are, numbers
//! and words are not. In addition, a second array of events under the same key must not be skipped silently.

use common::json::{Nesting, Pointer, key_means};

use super::grammar::{Grammar, Step};

/// A character of a key takes at most this many times its own bytes (`\u0061`).
const MAX_ESCAPED_BYTES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TailStep {
    /// The tail continues.
    Inside,
    /// The wrapper's last brace has closed; the index of the byte after it.
    Closed(usize),
    /// The byte that JSON does not permit here.
    Broken(usize, TailProblem),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TailProblem {
    NotJson,
    TooDeep,
    /// A key on the way to the array of events occurs again.
    Duplicate,
}

#[derive(Debug, Clone)]
pub(super) struct Tail {
    nesting: Nesting,
    grammar: Grammar,
    /// The number of open braces of the wrapper itself; they are always the outermost.
    own_braces: usize,
    /// The keys on the way to the array of events.
    keys: Vec<String>,
    longest_key_bytes: usize,
    /// The key being read, as written, if it may be one of `keys`.
    key: Option<Vec<u8>>,
    /// Column of the next byte while only blanks have followed the last line break.
    indent: Option<u64>,
    /// The number of bytes skipped.
    passed: u64,
    /// The number of those before the last string.
    before_string: Option<u64>,
}

impl Tail {
    /// Begins after the array's closing bracket, with `braces` of the wrapper open.
    pub(super) fn new(braces: usize, records: Option<&Pointer>, max_depth: usize) -> Self {
        // The wrapper may have begun under a greater limit.
        let mut nesting = Nesting::new(max_depth.max(braces));
        let own_braces = (0..braces).take_while(|_| nesting.open(true)).count();
        // Under other settings than at its beginning, the wrapper's keys are unknown.
        let keys = records.map(Pointer::segments).filter(|keys| keys.len() == braces).unwrap_or_default().to_vec();
        let longest_key_bytes = keys.iter().map(String::len).max().unwrap_or(0);
        let grammar = Grammar::behind_value();
        let (key, indent, passed, before_string) = (None, None, 0, None);
        Self { nesting, grammar, own_braces, keys, longest_key_bytes, key, indent, passed, before_string }
    }

    /// The number of bytes skipped, without those of the last string and after it.
    pub(super) fn before_last_string(&self) -> u64 {
        self.before_string.unwrap_or(self.passed)
    }

    /// The number of open brackets.
    pub(super) fn depth(&self) -> usize {
        self.nesting.depth()
    }

    pub(super) fn in_string(&self) -> bool {
        self.grammar.in_string()
    }

    pub(super) fn indent(&self) -> Option<u64> {
        self.indent
    }

    pub(super) fn scan(&mut self, bytes: &[u8]) -> TailStep {
        for (index, byte) in bytes.iter().enumerate() {
            if let Err(problem) = self.byte(*byte) {
                return TailStep::Broken(index, problem);
            }
            if self.nesting.depth() == 0 {
                return TailStep::Closed(index + 1);
            }
        }
        TailStep::Inside
    }

    fn byte(&mut self, byte: u8) -> Result<(), TailProblem> {
        let in_string = self.grammar.in_string();
        // Its closing quotation mark is not skipped: the string stays open for the search for the end.
        let before = (byte == b'"' && in_string).then(|| self.grammar.clone());
        match self.grammar.step(byte, self.nesting.in_object()).ok_or(TailProblem::NotJson)? {
            Step::Opens { object } if !self.nesting.open(object) => return Err(TailProblem::TooDeep),
            Step::Closes => {
                self.nesting.close();
                self.own_braces = self.own_braces.min(self.nesting.depth());
            }
            Step::StringBegins { key } => {
                let may_be_ours = key && self.nesting.depth() == self.own_braces && !self.keys.is_empty();
                self.key = may_be_ours.then(Vec::new);
                self.before_string = Some(self.passed);
            }
            Step::StringEnds { key: true } if self.ends_own_key() => {
                self.grammar = before.unwrap_or_else(Grammar::behind_value);
                return Err(TailProblem::Duplicate);
            }
            Step::Inside if in_string => self.keep_key_byte(byte),
            Step::Inside | Step::Opens { .. } | Step::WordBegins | Step::StringEnds { .. } => {}
        }
        self.indent = match (byte, self.indent) {
            _ if in_string => None,
            (b'\n' | b'\r', _) => Some(0),
            (b' ' | b'\t', indent) => indent.map(|column| column + 1),
            _ => None,
        };
        self.passed += 1;
        Ok(())
    }

    fn keep_key_byte(&mut self, byte: u8) {
        if let Some(text) = &mut self.key {
            text.push(byte);
            if text.len() > self.longest_key_bytes * MAX_ESCAPED_BYTES {
                self.key = None;
            }
        }
    }

    /// Whether the key that was read is the one on the way to the array of events.
    fn ends_own_key(&mut self) -> bool {
        let ours = self.keys.get(self.own_braces.wrapping_sub(1));
        self.key.take().zip(ours).is_some_and(|(written, ours)| key_means(&written, ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(braces: usize, text: &str) -> TailStep {
        let pointer = Pointer::parse("/a/Records").ok();
        let whole = Tail::new(braces, pointer.as_ref(), 8).scan(text.as_bytes());
        let mut tail = Tail::new(braces, pointer.as_ref(), 8);
        for (index, byte) in text.bytes().enumerate() {
            let step = match tail.scan(&[byte]) {
                TailStep::Inside => continue,
                TailStep::Closed(_) => TailStep::Closed(index + 1),
                TailStep::Broken(_, problem) => TailStep::Broken(index, problem),
            };
            assert_eq!(step, whole, "{text}");
            return whole;
        }
        assert_eq!(whole, TailStep::Inside, "{text}");
        whole
    }

    #[test]
    fn it_ends_with_the_last_brace_of_the_wrapper() {
        for (text, end) in [
            ("}}", 2),
            (" }\n}{", 4),
            (r#","x":{"Records":[1,{"y":"}\"\u00e9"}]},"z":-1.5e3}}"#, 51),
            (r#"},"Records":null}x"#, 17),
            (r#",  "x" : [ ] , "y":{},"w":true}}"#, 32),
        ] {
            assert_eq!(step(2, text), TailStep::Closed(end), "{text}");
        }
        for text in ["", "}", r#","x":"}"#, r#","x":{}"#, ", "] {
            assert_eq!(step(2, text), TailStep::Inside, "{text}");
        }
    }

    #[test]
    fn a_second_array_of_events_is_detected_however_its_key_is_written() {
        for text in [
            r#","Records":[]}}"#,
            r#","x":1,"R\u0065cords":[]}}"#,
            r#","\u0052\u0065\u0063\u006F\u0072\u0064\u0073":1}}"#,
            r#"},"a":{}}"#,
        ] {
            assert!(matches!(step(2, text), TailStep::Broken(_, TailProblem::Duplicate)), "{text}");
        }
        assert_eq!(step(1, r#","Records":[],"a":[]}"#), TailStep::Closed(21), "the pointer is of another depth");
    }

    #[test]
    fn invalid_json_is_detected_at_its_position() {
        for (text, at) in [
            ("]", 0),
            ("x", 0),
            (r#", "x": 1 2"#, 9),
            (r#","x":1{"#, 6),
            (",}", 1),
            (r#","x":[1}"#, 7),
            ("\"", 0),
            (",\"a\nb\"", 3),
            (r#","\q""#, 3),
            (r#","\u12x""#, 6),
        ] {
            assert_eq!(step(2, text), TailStep::Broken(at, TailProblem::NotJson), "{text}");
        }
        assert_eq!(step(2, r#","x":[[[[[[[["#), TailStep::Broken(11, TailProblem::TooDeep));
    }
}
