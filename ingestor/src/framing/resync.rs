//! Finds the end of a broken value by its brackets and lines: a scan in constant memory over any number of pieces.
//!
//! - A value that began with a bracket ends after the bracket that closes it, provided that no string ran into the end
//!   of a line; and before a line that begins with `{` no deeper than the value began.
//! - Anything else is loose text. It ends before the end of the line and before a bracket, within an array also before
//!   a comma and the array's closing bracket, unless these are in a string.
//! - A record separator (RFC 7464) ends either.

use super::RECORD_SEPARATOR;

/// The surroundings of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Top,
    Array,
}

/// The state of the scan. Positions are counted from the value's first byte.
#[derive(Debug, Clone)]
pub(super) struct Resync {
    scope: Scope,
    start_column: u64,
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// A string ran into a line break: brackets can no longer be trusted.
    broken: bool,
    /// Column of the next byte while only blanks have followed the last line break.
    indent: Option<u64>,
    first: bool,
    /// The value began with a bracket; otherwise it is loose text up to the next separator.
    bracketed: bool,
}

impl Resync {
    pub(super) fn new(start_column: u64, scope: Scope) -> Self {
        Self {
            scope,
            start_column,
            depth: 0,
            in_string: false,
            escaped: false,
            broken: false,
            indent: None,
            first: true,
            bracketed: false,
        }
    }

    /// Resumes within a value of which `depth` brackets are open, after a byte that no valid value can have here.
    /// `indent` counts the blanks since the last line break, if only blanks have followed it.
    pub(super) fn inside(start_column: u64, depth: u64, in_string: bool, indent: Option<u64>) -> Self {
        let within = Self::new(start_column, Scope::Top);
        Self { depth, in_string, indent, first: false, bracketed: true, ..within }
    }

    /// The length of the part of `bytes` that still belongs to the value, if it ends within them.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            if *byte == RECORD_SEPARATOR {
                return Some(index);
            }
            if self.first {
                self.first = false;
                match byte {
                    b'{' | b'[' => {
                        self.bracketed = true;
                        self.depth = 1;
                    }
                    b'"' => self.in_string = true,
                    _ => {}
                }
                continue;
            }
            if self.bracketed {
                match self.bracketed_byte(*byte) {
                    Step::Inside => {}
                    Step::EndsBefore => return Some(index),
                    Step::EndsAfter => return Some(index + 1),
                }
            } else if self.loose_byte(*byte) {
                return Some(index);
            }
        }
        None
    }

    fn bracketed_byte(&mut self, byte: u8) -> Step {
        if matches!(byte, b'\n' | b'\r') {
            self.broken |= self.in_string;
            self.in_string = false;
            self.escaped = false;
            self.indent = Some(0);
            return Step::Inside;
        }
        if self.in_string {
            self.string_byte(byte);
            return Step::Inside;
        }
        if let Some(column) = self.indent {
            match byte {
                b' ' | b'\t' => {
                    self.indent = Some(column + 1);
                    return Step::Inside;
                }
                b'{' if column <= self.start_column => return Step::EndsBefore,
                _ => self.indent = None,
            }
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 && !self.broken {
                    return Step::EndsAfter;
                }
            }
            _ => {}
        }
        Step::Inside
    }

    fn string_byte(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }

    /// Whether loose text ends before this byte.
    fn loose_byte(&mut self, byte: u8) -> bool {
        if matches!(byte, b'\n' | b'\r') {
            return true;
        }
        if self.in_string {
            self.string_byte(byte);
            return false;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                false
            }
            b'{' | b'[' => true,
            b',' | b']' => self.scope == Scope::Array,
            _ => false,
        }
    }
}

enum Step {
    Inside,
    EndsBefore,
    EndsAfter,
}
