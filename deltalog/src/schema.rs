//! A table's schema, and how it grows.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    /// The name of a primitive type such as `long` or `decimal(10,2)`; an object for nested ones, which this program does not
    /// write.
    #[serde(rename = "type")]
    pub data_type: Value,
    pub nullable: bool,
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Field {
    pub fn new(name: &str, data_type: &str) -> Self {
        Self { name: name.to_owned(), data_type: data_type.into(), nullable: true, metadata: Map::new() }
    }
}

/// The columns of a table, partition columns included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    #[serde(rename = "type")]
    kind: String,
    pub fields: Vec<Field>,
}

/// A column of the table has another type in new files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} is {had} in the table and {wanted} in new files: give it another name")]
pub struct Conflict {
    pub column: String,
    pub had: String,
    pub wanted: String,
}

impl Schema {
    pub fn new(fields: Vec<Field>) -> Self {
        Self { kind: "struct".to_owned(), fields }
    }

    /// # Errors
    /// It is not the text of a schema.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The text for [`crate::MetaData::schema_string`].
    ///
    /// # Errors
    /// Never for a schema that was read or made of names.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Adds the columns that it lacks, before the last `partition_columns` ones. Returns whether there were any. Delta's names
    /// of columns differ by more than the case of letters.
    ///
    /// # Errors
    /// A column has another type.
    pub fn grow(&mut self, columns: &[Field], partition_columns: usize) -> Result<bool, Conflict> {
        let mut has_grown = false;
        for column in columns {
            match self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(&column.name)) {
                Some(field) if field.data_type == column.data_type && field.name == column.name => {}
                Some(field) => {
                    return Err(Conflict {
                        column: field.name.clone(),
                        had: field.data_type.as_str().unwrap_or("nested").to_owned(),
                        wanted: format!("{} {}", column.name, column.data_type.as_str().unwrap_or("nested")),
                    });
                }
                None => {
                    let place = self.fields.len().saturating_sub(partition_columns);
                    self.fields.insert(place, column.clone());
                    has_grown = true;
                }
            }
        }
        Ok(has_grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_columns_come_before_those_of_the_partitions_and_keep_their_types() {
        let mut schema = Schema::new(vec![Field::new("a", "long"), Field::new("day", "integer")]);
        assert_eq!(schema.grow(&[Field::new("a", "long")], 1), Ok(false));
        assert_eq!(schema.grow(&[Field::new("b", "double"), Field::new("c", "string")], 1), Ok(true));
        let names = |schema: &Schema| schema.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&schema), ["a", "b", "c", "day"]);
        for other in [Field::new("b", "long"), Field::new("B", "double")] {
            assert!(schema.grow(&[other], 1).is_err());
        }
        let text = schema.to_text().unwrap();
        assert_eq!(Schema::parse(&text).unwrap(), schema);
        assert!(
            text.starts_with(
                "{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}"
            ),
            "{text}"
        );
    }
}
