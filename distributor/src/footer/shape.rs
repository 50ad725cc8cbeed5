//! Whether a footer has the shape of one that this program writes, looked at in constant memory before it is read.
//!
//! A footer is a struct of Thrift's compact protocol. Its reader makes room for as many entries as a list says that it has,
//! before it looks for them: twenty bytes ask for 3 GB. It takes fields for what they should be, whatever type they say
//! they have, passes over lists of truth values without reading a byte, and goes as deep as the schema is nested. That is
//! fine for files of ours. Others may write to the bucket as well, so that only known fields of known types are let
//! through, in lists whose length is bounded and which are there to their end.
//!
//! Sources: `parquet.thrift` of parquet-format 2.11, and "Thrift compact protocol encoding".

/// Root, columns of every table, columns of the user's: none nests.
const MOST_COLUMNS: usize = 200;
/// A row group has an ordinal of 16 bits.
const MOST_ROW_GROUPS: usize = 32_767;
const MOST_FACTS: usize = 1_000;
/// Of the few that there are.
const MOST_ENCODINGS: usize = 100;
/// Levels of what is nested: none here.
const MOST_LEVELS: usize = 100;
const MAX_VARINT_BYTES: usize = 10;
const STOP: u8 = 0;

enum Shape {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Binary,
    List(usize, &'static Shape),
    Struct(&'static [(i16, Shape)]),
}

use Shape::{Binary, Bool, Byte, I16, I32, I64, List, Struct};

const EMPTY: Shape = Struct(&[]);
const TIME: Shape = Struct(&[(1, Bool), (2, Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);
const LOGICAL_TYPE: Shape = Struct(&[
    (1, EMPTY),
    (4, EMPTY),
    (5, Struct(&[(1, I32), (2, I32)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Struct(&[(1, Byte), (2, Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
]);
const SCHEMA_ELEMENT: Shape = Struct(&[
    (1, I32),
    (2, I32),
    (3, I32),
    (4, Binary),
    (5, I32),
    (6, I32),
    (7, I32),
    (8, I32),
    (9, I32),
    (10, LOGICAL_TYPE),
]);
const KEY_VALUE: Shape = Struct(&[(1, Binary), (2, Binary)]);
const STATISTICS: Shape =
    Struct(&[(1, Binary), (2, Binary), (3, I64), (4, I64), (5, Binary), (6, Binary), (7, Bool), (8, Bool)]);
const SIZE_STATISTICS: Shape = Struct(&[(1, I64), (2, List(MOST_LEVELS, &I64)), (3, List(MOST_LEVELS, &I64))]);
const COLUMN_META_DATA: Shape = Struct(&[
    (1, I32),
    (2, List(MOST_ENCODINGS, &I32)),
    (3, List(MOST_COLUMNS, &Binary)),
    (4, I32),
    (5, I64),
    (6, I64),
    (7, I64),
    (8, List(MOST_FACTS, &KEY_VALUE)),
    (9, I64),
    (10, I64),
    (11, I64),
    (12, STATISTICS),
    (13, List(MOST_ENCODINGS, &Struct(&[(1, I32), (2, I32), (3, I32)]))),
    (14, I64),
    (15, I32),
    (16, SIZE_STATISTICS),
]);
const COLUMN_CHUNK: Shape =
    Struct(&[(1, Binary), (2, I64), (3, COLUMN_META_DATA), (4, I64), (5, I32), (6, I64), (7, I32)]);
const ROW_GROUP: Shape = Struct(&[
    (1, List(MOST_COLUMNS, &COLUMN_CHUNK)),
    (2, I64),
    (3, I64),
    (4, List(MOST_COLUMNS, &Struct(&[(1, I32), (2, Bool), (3, Bool)]))),
    (5, I64),
    (6, I64),
    (7, I16),
]);
const FILE_META_DATA: Shape = Struct(&[
    (1, I32),
    (2, List(MOST_COLUMNS, &SCHEMA_ELEMENT)),
    (3, I64),
    (4, List(MOST_ROW_GROUPS, &ROW_GROUP)),
    (5, List(MOST_FACTS, &KEY_VALUE)),
    (6, Binary),
    (7, List(MOST_COLUMNS, &Struct(&[(1, EMPTY)]))),
]);

/// Whether these bytes, all of them, are such a footer.
pub(super) fn is_known(footer: &[u8]) -> bool {
    let mut rest = Rest(footer);
    rest.pass(&FILE_META_DATA).is_some() && rest.0.is_empty()
}

impl Shape {
    /// What a field of this type says of itself. A truth value is its own type.
    fn is_of(&self, code: u8) -> bool {
        match self {
            Bool => matches!(code, 1 | 2),
            Byte => code == 3,
            I16 => code == 4,
            I32 => code == 5,
            I64 => code == 6,
            Binary => code == 8,
            List(..) => code == 9,
            Struct(_) => code == 12,
        }
    }
}

/// What was not passed over yet. After `None` it is of no use.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for index in 0..MAX_VARINT_BYTES {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).wrapping_shl(u32::try_from(7 * index).ok()?);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn pass(&mut self, shape: &Shape) -> Option<()> {
        match shape {
            Bool => Some(()),
            Byte => self.byte().map(|_| ()),
            I16 | I32 | I64 => self.varint().map(|_| ()),
            Binary => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.0 = self.0.get(length..)?;
                Some(())
            }
            List(most, entry) => self.pass_list(*most, entry),
            Struct(fields) => self.pass_struct(fields),
        }
    }

    fn pass_list(&mut self, most: usize, entry: &Shape) -> Option<()> {
        let head = self.byte()?;
        // Some writers give an empty list no type.
        if head == 0 {
            return Some(());
        }
        let count = match head >> 4 {
            15 => usize::try_from(self.varint()?).ok()?,
            short => usize::from(short),
        };
        if count > most || !entry.is_of(head & 0x0f) {
            return None;
        }
        (0..count).try_for_each(|_| self.pass(entry))
    }

    fn pass_struct(&mut self, fields: &[(i16, Shape)]) -> Option<()> {
        let mut id: i16 = 0;
        loop {
            let head = self.byte()?;
            if head == STOP {
                return Some(());
            }
            id = match head >> 4 {
                // Written out where fields are far apart, which those of ours are not.
                0 => return None,
                delta => id.checked_add(i16::from(delta))?,
            };
            let (_, shape) = fields.iter().find(|(known, _)| *known == id)?;
            if !shape.is_of(head & 0x0f) {
                return None;
            }
            self.pass(shape)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_let_through_only_if_it_is_there_to_its_end() {
        // A version, a schema of two elements, no rows, no row groups.
        let footer = |count: &[u8]| {
            [&[0x15, 2, 0x19], count, &[0x48, 1, b'a', 0, 0x48, 1, b'b', 0, 0x16, 0, 0x19, 0, 0]].concat()
        };
        assert!(is_known(&footer(&[0x2c])) && is_known(&footer(&[0xfc, 2])));
        for wrong in [&[0x3c][..], &[0x1c], &[0xfc, 0xff, 0xff, 0xff, 0x07], &[0x28], &[0x2c, 0]] {
            assert!(!is_known(&footer(wrong)), "{wrong:?}");
        }
        assert!(!is_known(&[]) && !is_known(&[0x15]) && is_known(&[0]));
    }

    #[test]
    fn a_schema_has_no_more_elements_than_the_stack_has_room_for() {
        // Each is within the one before it.
        let nested = |count: usize| {
            let elements = [0x35, 2, 0x18, 1, b'a', 0x15, 2, 0].repeat(count);
            let count = [u8::try_from(count % 128).unwrap() | 128, u8::try_from(count / 128).unwrap()];
            [&[0x15, 2, 0x19, 0xfc][..], &count, &elements, &[0]].concat()
        };
        assert!(is_known(&nested(MOST_COLUMNS)) && !is_known(&nested(MOST_COLUMNS + 1)));
    }

    #[test]
    fn fields_of_other_types_and_unknown_ones_are_not_let_through() {
        for wrong in [
            // The row groups as a number, which the reader would take for a list.
            &[0x45, 0xff, 0xff, 0xff, 0x07, 0][..],
            // A list of truth values.
            &[0x39, 0xf1, 0xff, 0xff, 0xff, 0x07, 0],
            &[0xf5, 0, 0],
            &[0x05, 0x02, 0, 0],
            // Longer than any number.
            &[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        ] {
            assert!(!is_known(wrong), "{wrong:?}");
        }
    }
}
