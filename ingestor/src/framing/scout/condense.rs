//! The text of open arrays and objects without their deeply nested parts.
//!
//! The values at its fields' pointers decide whether an object reads as an event. Everything deeper than the longest of
//! these pointers is left out: an array there becomes `[]`, an object `{}`. A byte then is in the text of at most as
//! many surrounding objects as the longest pointer has segments. Judging each of many nested objects therefore takes
//! linear time.

use std::collections::VecDeque;

/// Dropped text is removed from memory once it is this much.
const GARBAGE_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Condenser {
    /// The first has no nested arrays or objects, each further one has one more level of them.
    levels: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    text: Vec<u8>,
    /// Where the open arrays and objects begin in it, the outermost first.
    begins: VecDeque<usize>,
}

impl Condenser {
    pub(super) fn new(levels: usize) -> Self {
        Self { levels: (0..levels.max(1)).map(|_| Level::default()).collect() }
    }

    /// How often a byte is copied, if it is nested at least this deeply.
    pub(super) fn levels(&self) -> usize {
        self.levels.len()
    }

    pub(super) fn clear(&mut self) {
        for Level { text, begins } in &mut self.levels {
            text.clear();
            begins.clear();
        }
    }

    /// Opens an array or object; its bracket follows with [`Condenser::push`].
    pub(super) fn open(&mut self) {
        for Level { text, begins } in &mut self.levels {
            begins.push_back(text.len());
        }
    }

    /// Adds bytes directly within the innermost open array or object.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for level in &mut self.levels {
            level.text.extend_from_slice(bytes);
        }
    }

    /// The text of the innermost open array or object without nested ones.
    pub(super) fn own_text(&self) -> &[u8] {
        self.levels.first().map(Level::innermost).unwrap_or_default()
    }

    /// The text of the innermost open array or object with all levels.
    pub(super) fn whole_text(&self) -> &[u8] {
        self.levels.last().map(Level::innermost).unwrap_or_default()
    }

    /// Closes the innermost open array or object: each level keeps of it what the level before has.
    pub(super) fn close(&mut self, empty: &[u8]) {
        for index in (0..self.levels.len()).rev() {
            let (before, from) = self.levels.split_at_mut(index);
            let Some(Level { text, begins }) = from.first_mut() else { continue };
            let Some(begin) = begins.pop_back() else { continue };
            text.truncate(begin);
            text.extend_from_slice(before.last().map_or(empty, Level::innermost));
        }
    }

    /// Drops the outermost open array or object.
    pub(super) fn drop_outermost(&mut self) {
        for Level { text, begins } in &mut self.levels {
            begins.pop_front();
            let garbage = begins.front().copied().unwrap_or(text.len());
            if garbage >= GARBAGE_BYTES && garbage >= text.len() / 2 {
                text.drain(..garbage);
                begins.iter_mut().for_each(|begin| *begin -= garbage);
            }
        }
    }
}

impl Level {
    fn innermost(&self) -> &[u8] {
        self.begins.back().and_then(|begin| self.text.get(*begin..)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(levels: usize, text: &str) -> Vec<String> {
        let mut condenser = Condenser::new(levels);
        let mut texts = Vec::new();
        for byte in text.bytes() {
            if matches!(byte, b'{' | b'[') {
                condenser.open();
            }
            condenser.push(&[byte]);
            if matches!(byte, b'}' | b']') {
                texts.push(String::from_utf8_lossy(condenser.whole_text()).into_owned());
                condenser.close(if byte == b'}' { b"{}" } else { b"[]" });
            }
        }
        texts
    }

    #[test]
    fn text_deeper_than_the_levels_is_left_out() {
        let text = r#"{"a":[1,{"b":[2]}],"c":{"d":3}}"#;
        let own = ["[2]", r#"{"b":[]}"#, "[1,{}]", r#"{"d":3}"#, r#"{"a":[],"c":{}}"#];
        assert_eq!(texts(1, text), own);
        let two = ["[2]", r#"{"b":[2]}"#, r#"[1,{"b":[]}]"#, r#"{"d":3}"#, r#"{"a":[1,{}],"c":{"d":3}}"#];
        assert_eq!(texts(2, text), two);
        assert_eq!(texts(4, text).last().map(String::as_str), Some(text));
    }

    #[test]
    fn memory_of_dropped_outer_values_is_freed() {
        let mut condenser = Condenser::new(2);
        for _ in 0..1_000 {
            condenser.open();
            condenser.push(&[b'x'; 100]);
            if condenser.levels[0].begins.len() > 10 {
                condenser.drop_outermost();
            }
        }
        assert!(condenser.levels.iter().all(|level| level.text.len() < 3 * GARBAGE_BYTES));
        assert_eq!(condenser.whole_text(), [b'x'; 100]);
    }
}
