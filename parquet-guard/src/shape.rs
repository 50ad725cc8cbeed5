//! Checks in constant memory that a footer has the shape of those that this program writes, before it is parsed.
//!
//! A footer is a struct of Thrift's compact protocol. Its parser allocates as many entries as a list claims to have, and as
//! an element of the schema claims to have children: twenty bytes request 3 GB. It ignores the types that fields claim,
//! skips lists of booleans without reading a byte, and recurses as deep as the schema is nested. That is fine for files of
//! this program, but others may write to the bucket. So only known fields with their types pass, in complete lists of
//! bounded length.
//!
//! Sources: `parquet.thrift` of parquet-format 2.11, and "Thrift compact protocol encoding".

/// The root, the columns of every table, configured columns.
const MOST_COLUMNS: usize = 200;
/// Their ordinals have 16 bits.
const MOST_ROW_GROUPS: usize = 32_767;
const MOST_FACTS: usize = 1_000;
const MOST_ENCODINGS: usize = 100;
/// Of nested values, which do not occur.
const MOST_LEVELS: usize = 100;
const MAX_VARINT_BYTES: usize = 10;
const STOP: u8 = 0;

enum Shape {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    /// An `i32` of 0 to so many, of entries that follow.
    Count(usize),
    Binary,
    List(usize, &'static Shape),
    Struct(&'static [(i16, Shape)]),
}

use Shape::{Binary, Bool, Byte, Count, I16, I32, I64, List, Struct};

const EMPTY: Shape = Struct(&[]);
const TIME: Shape = Struct(&[(1, Bool), (2, Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);
const LOGICAL_TYPE: Shape = Struct(&[
    (1, EMPTY),
    // Maps and lists, in checkpoints of tables.
    (2, EMPTY),
    (3, EMPTY),
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
    (5, Count(MOST_COLUMNS)),
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

/// Whether all of these bytes are such a footer.
pub(crate) fn is_known(footer: &[u8]) -> bool {
    let mut rest = Rest(footer);
    rest.pass(&FILE_META_DATA).is_some() && rest.0.is_empty()
}

impl Shape {
    /// Whether a field of this shape has this type code. A boolean has no other bytes.
    fn is_of(&self, code: u8) -> bool {
        match self {
            Bool => matches!(code, 1 | 2),
            Byte => code == 3,
            I16 => code == 4,
            I32 | Count(_) => code == 5,
            I64 => code == 6,
            Binary => code == 8,
            List(..) => code == 9,
            Struct(_) => code == 12,
        }
    }
}

/// The remaining bytes. After `None` it must not be used.
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
            Count(most) => {
                // Zigzag: an odd number is negative.
                let number = self.varint()?;
                let count = usize::try_from(number / 2).ok()?;
                (number % 2 == 0 && count <= *most).then_some(())
            }
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
                // Written in full only if fields are far apart.
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
    fn a_list_passes_only_if_it_is_complete() {
        // A version, a schema of two elements, no rows, no row groups.
        let footer = |count: &[u8]| {
            [&[0x15, 2, 0x19], count, &[0x48, 1, b'a', 0, 0x48, 1, b'b', 0, 0x16, 0, 0x19, 0, 0]].concat()
        };
        assert!(is_known(&footer(&[0x2c])) && is_known(&footer(&[0xfc, 2])));
        for wrong in [&[0x3c][..], &[0x1c], &[0xfc, 0xff, 0xff, 0xff, 0x07], &[0x28], &[0x2c, 0]] {
            assert!(!is_known(&footer(wrong)), "{wrong:?}");
        }
        let one_child = [0x29, 0x1c, 0x48, 1, b'a', 0x15, 2, 0, 0];
        assert!(!is_known(&[]) && !is_known(&[0x15]) && is_known(&[0]) && is_known(&one_child));
    }

    #[test]
    fn a_schema_has_fewer_elements_than_the_stack_has_room_for() {
        // Each contains the next one.
        let nested = |count: usize| {
            let elements = [0x35, 2, 0x18, 1, b'a', 0x15, 2, 0].repeat(count);
            let count = [u8::try_from(count % 128).unwrap() | 128, u8::try_from(count / 128).unwrap()];
            [&[0x15, 2, 0x19, 0xfc][..], &count, &elements, &[0]].concat()
        };
        assert!(is_known(&nested(MOST_COLUMNS)) && !is_known(&nested(MOST_COLUMNS + 1)));
    }

    #[test]
    fn unknown_fields_and_fields_of_other_types_do_not_pass() {
        for wrong in [
            // The row groups as a number, which the parser would read as a list.
            &[0x45, 0xff, 0xff, 0xff, 0x07, 0][..],
            // A schema of one element that claims four hundred million children, or less than none.
            &[0x29, 0x1c, 0x48, 1, b'a', 0x15, 0xbe, 0xff, 0xff, 0xff, 0x02, 0, 0],
            &[0x29, 0x1c, 0x48, 1, b'a', 0x15, 1, 0, 0],
            // A list of booleans.
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
