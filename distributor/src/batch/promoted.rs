//! Promoted columns for values inside `data`.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field};
use common::event::{ColumnType, ColumnValue, Columns, Found};

use super::rows::timestamp;
use crate::layout::Layout;

/// The columns of a layout.
#[derive(Debug)]
pub(crate) struct Promoted {
    columns: Columns,
    names: Vec<String>,
}

impl Promoted {
    /// # Errors
    /// The layout has columns that this build cannot write.
    pub(crate) fn of(layout: &Layout) -> Result<Self, String> {
        Ok(Self { columns: layout.columns()?, names: layout.columns.iter().map(|rule| rule.name.clone()).collect() })
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = Field> {
        let data_type = |column_type| match column_type {
            ColumnType::Int => DataType::Int64,
            ColumnType::Double => DataType::Float64,
            ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::String => DataType::Utf8,
            ColumnType::Timestamp => timestamp(),
        };
        self.names.iter().zip(self.columns.types()).map(move |(name, kind)| Field::new(name, data_type(kind), true))
    }

    /// The columns for the rows of one type.
    pub(super) fn of_type(self: &Arc<Self>, domain_event_type: &str) -> PromotedRows {
        PromotedRows { wanted: self.columns.of_type(domain_event_type), unfit: Vec::new(), promoted: self.clone() }
    }

    fn builders(&self, rows: usize) -> Vec<Builder> {
        let builder = |column_type| match column_type {
            ColumnType::Int => Builder::Int(Int64Builder::with_capacity(rows)),
            ColumnType::Double => Builder::Double(Float64Builder::with_capacity(rows)),
            ColumnType::Decimal { precision, scale } => Builder::Decimal(
                Decimal128Builder::with_capacity(rows).with_data_type(DataType::Decimal128(precision, scale)),
            ),
            ColumnType::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            ColumnType::String => Builder::String(StringBuilder::with_capacity(rows, 8 * rows)),
            ColumnType::Timestamp => {
                Builder::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(timestamp()))
            }
        };
        self.columns.types().map(builder).collect()
    }
}

enum Builder {
    Int(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Boolean(BooleanBuilder),
    String(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

/// Reads the columns of the rows of one type. Small, because there may be many types.
pub(super) struct PromotedRows {
    promoted: Arc<Promoted>,
    wanted: Vec<bool>,
    /// By column: values that did not fit. Empty while all fit.
    unfit: Vec<u64>,
}

/// Cells to be encoded.
pub(super) struct PromotedColumns(Vec<Builder>);

impl PromotedRows {
    /// With capacity for `rows` rows.
    pub(super) fn columns(&self, rows: usize) -> PromotedColumns {
        PromotedColumns(self.promoted.builders(rows))
    }

    /// Adds a row to `columns`.
    pub(super) fn push(&mut self, columns: &mut PromotedColumns, data: &str) {
        let Self { promoted, wanted, unfit } = self;
        promoted.columns.read(data, wanted, |index, found| {
            let value = match found {
                Found::Value(value) => Some(value),
                Found::Nothing => None,
                Found::Unfit => {
                    unfit.resize(promoted.names.len(), 0);
                    if let Some(count) = unfit.get_mut(index) {
                        *count += 1;
                    }
                    None
                }
            };
            if let Some(builder) = columns.0.get_mut(index) {
                builder.append(value);
            }
        });
    }

    pub(super) fn unfit(&self) -> &[u64] {
        &self.unfit
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.wanted.capacity() + self.unfit.capacity() * size_of::<u64>()
    }
}

impl PromotedColumns {
    pub(super) fn finish(&mut self) -> Vec<ArrayRef> {
        self.0.iter_mut().map(Builder::finish).collect()
    }
}

impl Builder {
    /// A value of another type cannot occur, because both follow the same rule; it would be null.
    fn append(&mut self, value: Option<ColumnValue<'_>>) {
        match (self, value) {
            (Self::Int(builder), Some(ColumnValue::Int(value))) => builder.append_value(value),
            (Self::Double(builder), Some(ColumnValue::Double(value))) => builder.append_value(value),
            (Self::Decimal(builder), Some(ColumnValue::Decimal(value))) => builder.append_value(value),
            (Self::Boolean(builder), Some(ColumnValue::Boolean(value))) => builder.append_value(value),
            (Self::Timestamp(builder), Some(ColumnValue::Timestamp(value))) => builder.append_value(value),
            (Self::String(builder), Some(ColumnValue::String(value))) => builder.append_value(&value),
            (Self::Int(builder), _) => builder.append_null(),
            (Self::Double(builder), _) => builder.append_null(),
            (Self::Decimal(builder), _) => builder.append_null(),
            (Self::Boolean(builder), _) => builder.append_null(),
            (Self::Timestamp(builder), _) => builder.append_null(),
            (Self::String(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::String(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}
