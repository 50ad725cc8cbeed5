//! The grammar of JSON, one byte at a time: the permitted next byte within one array or object.
//!
//! It keeps no stack: the caller tracks which arrays and objects are open. Numbers and literals are treated as words of
//! their characters; the caller checks them where that matters.

/// The role of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Inside,
    Opens {
        object: bool,
    },
    Closes,
    /// A number, `true`, `false` or `null` begins with this byte.
    WordBegins,
    /// The opening quotation mark.
    StringBegins {
        key: bool,
    },
    /// The closing quotation mark.
    StringEnds {
        key: bool,
    },
}

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
    Word,
    String { key: bool, escape: Escape },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// This many hexadecimal digits follow.
    Digits(u8),
}

#[derive(Debug, Clone)]
pub(super) struct Grammar {
    next: Next,
    token: Token,
}

impl Grammar {
    /// Before a value.
    pub(super) fn before_value() -> Self {
        Self { next: Next::Value, token: Token::None }
    }

    /// After a value.
    pub(super) fn behind_value() -> Self {
        Self { next: Next::SeparatorOrEnd, token: Token::None }
    }

    pub(super) fn in_string(&self) -> bool {
        matches!(self.token, Token::String { .. })
    }

    pub(super) fn in_word(&self) -> bool {
        self.token == Token::Word
    }

    /// Processes one byte. `in_object`: the innermost open value is an object, not an array. `None` if JSON does not
    /// permit the byte here.
    pub(super) fn step(&mut self, byte: u8, in_object: bool) -> Option<Step> {
        match self.token {
            Token::String { key, escape } => return self.string_byte(byte, key, escape),
            Token::Word if matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') => {
                return Some(Step::Inside);
            }
            Token::Word | Token::None => self.token = Token::None,
        }
        Some(match (byte, self.next) {
            (b' ' | b'\t' | b'\r' | b'\n', _) => Step::Inside,
            (b'"', Next::Value | Next::ValueOrEnd) => self.begin_string(false),
            (b'"', Next::Key | Next::KeyOrEnd) => self.begin_string(true),
            (b'{', Next::Value | Next::ValueOrEnd) => {
                self.next = Next::KeyOrEnd;
                Step::Opens { object: true }
            }
            (b'[', Next::Value | Next::ValueOrEnd) => {
                self.next = Next::ValueOrEnd;
                Step::Opens { object: false }
            }
            (b'-' | b'0'..=b'9' | b't' | b'f' | b'n', Next::Value | Next::ValueOrEnd) => {
                self.token = Token::Word;
                self.next = Next::SeparatorOrEnd;
                Step::WordBegins
            }
            (b':', Next::Colon) => {
                self.next = Next::Value;
                Step::Inside
            }
            (b',', Next::SeparatorOrEnd) => {
                self.next = if in_object { Next::Key } else { Next::Value };
                Step::Inside
            }
            (b'}', Next::SeparatorOrEnd | Next::KeyOrEnd) if in_object => self.close(),
            (b']', Next::SeparatorOrEnd | Next::ValueOrEnd) if !in_object => self.close(),
            _ => return None,
        })
    }

    fn close(&mut self) -> Step {
        self.next = Next::SeparatorOrEnd;
        Step::Closes
    }

    fn begin_string(&mut self, key: bool) -> Step {
        self.token = Token::String { key, escape: Escape::None };
        Step::StringBegins { key }
    }

    fn string_byte(&mut self, byte: u8, key: bool, escape: Escape) -> Option<Step> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') => {
                self.token = Token::None;
                self.next = if key { Next::Colon } else { Next::SeparatorOrEnd };
                return Some(Step::StringEnds { key });
            }
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, 0..=0x1f) => return None,
            (Escape::Begun, b'u') => Escape::Digits(4),
            (Escape::Digits(left @ 2..), _) if byte.is_ascii_hexdigit() => Escape::Digits(left - 1),
            (Escape::Digits(_), _) if byte.is_ascii_hexdigit() => Escape::None,
            (Escape::None, _) | (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
            (Escape::Begun | Escape::Digits(_), _) => return None,
        };
        self.token = Token::String { key, escape };
        Some(Step::Inside)
    }
}
