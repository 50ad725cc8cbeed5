//! The schema of a table, from the layouts of its batches.

use arrow_schema::{DataType, Schema as ArrowSchema};
use commitlog::Recipe;
use deltalog::Field;

use super::TableError;
use crate::batch::{events_columns, rejected_columns};
use crate::layout::Layout;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Events,
    Rejected,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Events, Self::Rejected];

    /// The root of the table.
    pub(crate) fn root(self) -> &'static str {
        match self {
            Self::Events => "events/",
            Self::Rejected => "rejected/",
        }
    }

    pub(super) fn holds(self, folder: &str) -> bool {
        folder.starts_with(self.root())
    }

    pub(super) fn partition_columns(self) -> Vec<Field> {
        let date = ["year", "month", "day"].map(|name| Field::new(name, "integer"));
        let kind = (self == Self::Events).then(|| Field::new("domain_event_type", "string"));
        kind.into_iter().chain(date).collect()
    }

    /// The columns in files of a layout.
    ///
    /// # Errors
    /// The layout has columns that this build does not know.
    pub(super) fn columns(self, layout: &Layout) -> Result<Vec<Field>, TableError> {
        let schema = match self {
            Self::Events => events_columns(layout).map_err(TableError::Layout)?,
            Self::Rejected => rejected_columns(),
        };
        fields(&schema)
    }

    /// The columns in files of a recipe.
    ///
    /// # Errors
    /// As [`Kind::columns`].
    pub(super) fn columns_of(self, recipe: &Recipe) -> Result<Vec<Field>, TableError> {
        let layout: Layout = serde_json::from_value(recipe.layout.clone()).map_err(|error| {
            TableError::Layout(format!("a batch has a layout that this build does not know: {error}"))
        })?;
        self.columns(&layout)
    }
}

fn fields(schema: &ArrowSchema) -> Result<Vec<Field>, TableError> {
    let field = |field: &arrow_schema::FieldRef| {
        let data_type = match field.data_type() {
            DataType::Utf8 => "string".to_owned(),
            DataType::Binary => "binary".to_owned(),
            DataType::Int32 => "integer".to_owned(),
            DataType::Int64 => "long".to_owned(),
            DataType::Float64 => "double".to_owned(),
            DataType::Boolean => "boolean".to_owned(),
            DataType::Timestamp(..) => "timestamp".to_owned(),
            DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
            other => return Err(TableError::Layout(format!("column {} is {other}, which no table has", field.name()))),
        };
        Ok(Field::new(field.name(), &data_type))
    };
    schema.fields().iter().map(field).collect()
}
