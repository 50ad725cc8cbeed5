//! What follows the array of events in a wrapper object: passed over in constant memory, over as many pieces as come.
//!
//! Nothing of it is kept, so it is looked at only as closely as its end needs: strings, brackets and separators are
//! checked, numbers and words are not. One thing more is watched for: a second array of events, under the same key,
//! must not be passed over in silence.

use common::json::{Nesting, Pointer, key_means};

/// A character of a key can be written with at most this many bytes for each of its own (`\u0061`).
const MAX_ESCAPED_BYTES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TailStep {
    /// It goes on.
    Inside,
    /// The wrapper's last brace has closed: the byte after it.
    Closed(usize),
    /// The byte that no JSON could have here.
    Broken(usize, TailProblem),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TailProblem {
    NotJson,
    TooDeep,
    /// A key on the way to the array of events occurs again.
    Duplicate,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    SeparatorOrEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    /// A number or word.
    Word,
    String {
        key: bool,
        escape: Escape,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// That many hexadecimal digits are to come.
    Digits(u8),
}

#[derive(Debug, Clone)]
pub(super) struct Tail {
    nesting: Nesting,
    /// Of the open braces, how many are of the wrapper itself: always the outermost.
    own_braces: usize,
    /// The keys on the way to the array of events.
    keys: Vec<String>,
    longest_key_bytes: usize,
    next: Next,
    token: Token,
    /// The key being read, as it is written, if it may be one of `keys`.
    key: Option<Vec<u8>>,
    /// Column of the next byte while only blanks came since the last line break.
    indent: Option<u64>,
}

impl Tail {
    /// Behind the array's closing bracket, with `braces` of the wrapper open.
    pub(super) fn new(braces: usize, records: Option<&Pointer>, max_depth: usize) -> Self {
        // The wrapper may have been begun under a greater limit.
        let mut nesting = Nesting::new(max_depth.max(braces));
        let own_braces = (0..braces).take_while(|_| nesting.open(true)).count();
        // Under other settings than the wrapper was begun with, its keys are not known.
        let keys = records.map(Pointer::segments).filter(|keys| keys.len() == braces).unwrap_or_default().to_vec();
        let longest_key_bytes = keys.iter().map(String::len).max().unwrap_or(0);
        let (next, token) = (Next::SeparatorOrEnd, Token::None);
        Self { nesting, own_braces, keys, longest_key_bytes, next, token, key: None, indent: None }
    }

    /// How many brackets are open.
    pub(super) fn depth(&self) -> usize {
        self.nesting.depth()
    }

    pub(super) fn in_string(&self) -> bool {
        matches!(self.token, Token::String { .. })
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
        match self.token {
            Token::String { key, escape } => return self.string_byte(byte, key, escape),
            Token::Word if matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') => {
                return Ok(());
            }
            Token::Word | Token::None => self.token = Token::None,
        }
        match (byte, self.next) {
            (b'\n', _) => {
                self.indent = Some(0);
                return Ok(());
            }
            (b' ' | b'\t' | b'\r', _) => {
                self.indent = self.indent.map(|column| column + 1);
                return Ok(());
            }
            (b'"', Next::Value | Next::ValueOrEnd) => self.begin_string(false),
            (b'"', Next::Key | Next::KeyOrEnd) => self.begin_string(true),
            (b'{', Next::Value | Next::ValueOrEnd) => self.open(true)?,
            (b'[', Next::Value | Next::ValueOrEnd) => self.open(false)?,
            (b'-' | b'0'..=b'9' | b't' | b'f' | b'n', Next::Value | Next::ValueOrEnd) => {
                self.token = Token::Word;
                self.next = Next::SeparatorOrEnd;
            }
            (b':', Next::Colon) => self.next = Next::Value,
            (b',', Next::SeparatorOrEnd) => self.next = if self.nesting.in_object() { Next::Key } else { Next::Value },
            (b'}', Next::SeparatorOrEnd | Next::KeyOrEnd) if self.nesting.in_object() => self.close(),
            (b']', Next::SeparatorOrEnd | Next::ValueOrEnd) if !self.nesting.in_object() => self.close(),
            _ => return Err(TailProblem::NotJson),
        }
        self.indent = None;
        Ok(())
    }

    fn open(&mut self, object: bool) -> Result<(), TailProblem> {
        if !self.nesting.open(object) {
            return Err(TailProblem::TooDeep);
        }
        self.next = if object { Next::KeyOrEnd } else { Next::ValueOrEnd };
        Ok(())
    }

    fn close(&mut self) {
        self.nesting.close();
        self.own_braces = self.own_braces.min(self.nesting.depth());
        self.next = Next::SeparatorOrEnd;
    }

    fn begin_string(&mut self, key: bool) {
        self.token = Token::String { key, escape: Escape::None };
        let may_be_ours = key && self.nesting.depth() == self.own_braces && !self.keys.is_empty();
        self.key = may_be_ours.then(Vec::new);
    }

    fn string_byte(&mut self, byte: u8, key: bool, escape: Escape) -> Result<(), TailProblem> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') => return self.end_string(key),
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, 0..=0x1f) => return Err(TailProblem::NotJson),
            (Escape::Begun, b'u') => Escape::Digits(4),
            (Escape::Digits(left @ 2..), _) if byte.is_ascii_hexdigit() => Escape::Digits(left - 1),
            (Escape::Digits(_), _) if byte.is_ascii_hexdigit() => Escape::None,
            (Escape::None, _) | (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
            (Escape::Begun | Escape::Digits(_), _) => return Err(TailProblem::NotJson),
        };
        self.token = Token::String { key, escape };
        if let Some(text) = &mut self.key {
            text.push(byte);
            if text.len() > self.longest_key_bytes * MAX_ESCAPED_BYTES {
                self.key = None;
            }
        }
        Ok(())
    }

    fn end_string(&mut self, key: bool) -> Result<(), TailProblem> {
        let ours = self.keys.get(self.own_braces.wrapping_sub(1));
        if let (Some(written), Some(ours)) = (self.key.take(), ours)
            && key_means(&written, ours)
        {
            // The string stays open, for its closing quotation mark is not passed over.
            return Err(TailProblem::Duplicate);
        }
        self.token = Token::None;
        self.next = if key { Next::Colon } else { Next::SeparatorOrEnd };
        Ok(())
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
    fn a_second_array_of_events_is_noticed_however_its_key_is_written() {
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
    fn what_no_json_could_be_is_noticed_where_it_stands() {
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
