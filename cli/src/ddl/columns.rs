//! The columns of the table `events`, and their types in each engine.

use common::event::{ColumnRule, ColumnType};

/// Columns in the path.
pub const IN_PATH: [(&str, Kind); 4] =
    [("domain_event_type", Kind::Text), ("year", Kind::Number), ("month", Kind::Number), ("day", Kind::Number)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// 32 bits.
    Number,
    /// 64 bits.
    Long,
    Double,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Boolean,
    /// Microseconds, UTC.
    Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub comment: String,
}

/// The columns of a file, in order.
///
/// # Errors
/// A type that is none.
pub fn columns(rules: &[ColumnRule]) -> Result<Vec<Column>, String> {
    let column = |name: &str, kind, comment: &str| Column { name: name.to_owned(), kind, comment: comment.to_owned() };
    let mut all = vec![
        column("event_id", Kind::Text, "as in the event"),
        column("timestamp", Kind::Time, "as in the event"),
        column("domain", Kind::Text, "as in the event"),
        column("event_type", Kind::Text, "as in the event"),
        column("data", Kind::Text, "JSON text, as in the event"),
    ];
    for rule in rules {
        let kind = kind(ColumnType::parse(&rule.column_type)?);
        all.push(Column { name: rule.name.clone(), kind, comment: format!("{} of data", rule.pointer) });
    }
    all.extend([
        column("_ingested_at", Kind::Time, "when the log received the record"),
        column("_partition", Kind::Number, "partition of the log"),
        column("_offset", Kind::Long, "offset in the partition"),
        column("_source", Kind::Text, "file of the landing zone"),
    ]);
    Ok(all)
}

fn kind(column_type: ColumnType) -> Kind {
    match column_type {
        ColumnType::Int => Kind::Long,
        ColumnType::Double => Kind::Double,
        ColumnType::Decimal { precision, scale } => Kind::Decimal { precision, scale },
        ColumnType::Boolean => Kind::Boolean,
        ColumnType::String => Kind::Text,
        ColumnType::Timestamp => Kind::Time,
    }
}

impl Kind {
    /// In Hive's language, which Athena, Glue and Spark speak.
    pub fn hive(self) -> String {
        match self {
            Self::Text => "string".to_owned(),
            Self::Number => "int".to_owned(),
            Self::Long => "bigint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Boolean => "boolean".to_owned(),
            Self::Time => "timestamp".to_owned(),
        }
    }

    pub fn trino(self) -> String {
        match self {
            Self::Text => "varchar".to_owned(),
            Self::Number => "integer".to_owned(),
            Self::Time => "timestamp(6)".to_owned(),
            other => other.hive(),
        }
    }

    pub fn snowflake(self) -> String {
        match self {
            Self::Text => "varchar".to_owned(),
            Self::Number | Self::Long => "number(38,0)".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Decimal { precision, scale } => format!("number({precision},{scale})"),
            Self::Boolean => "boolean".to_owned(),
            Self::Time => "timestamp_ltz".to_owned(),
        }
    }
}
