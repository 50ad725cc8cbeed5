//! JSON pointers (RFC 6901).

use std::fmt;

/// Longest pointer, in segments: the scanner keeps a frame for each.
pub const MAX_SEGMENTS: usize = 16;

/// The path of a value: `/a/b` is the member `b` of the member `a`, `/a/0` the first element of the array `a`, and the
/// empty pointer the whole value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    segments: Vec<String>,
}

impl Pointer {
    /// # Errors
    /// The text is not a pointer; the message says what is permitted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return match text {
                "" => Ok(Self::default()),
                _ => Err(format!("'{text}' is not a JSON pointer: it must begin with '/', such as /a/b")),
            };
        };
        let segments: Vec<_> =
            rest.split('/').map(|segment| unescape_segment(text, segment)).collect::<Result<_, _>>()?;
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("'{text}' has more than {MAX_SEGMENTS} segments"));
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    pub fn is_whole(&self) -> bool {
        self.segments.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The keys on the way, with `~0` and `~1` resolved.
    pub fn segments(&self) -> &[String] {
        &self.segments
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn unescape_segment(pointer: &str, segment: &str) -> Result<String, String> {
    let mut parts = segment.split('~');
    let mut key = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', &part[1..]),
            Some(b'1') => ('/', &part[1..]),
            _ => return Err(format!("'{pointer}' is not a JSON pointer: '~' is written ~0 and '/' within a key ~1")),
        };
        key.push(character);
        key.push_str(rest);
    }
    Ok(key)
}
