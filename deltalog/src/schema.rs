//! A table's schema, and how it grows.

use std::collections::BTreeSet;

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

    /// Whether values of both can be read as one column.
    fn is_like(&self, other: &Self) -> bool {
        (&self.name, &self.data_type) == (&other.name, &other.data_type)
    }
}

/// The columns of a table, partition columns included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    #[serde(rename = "type")]
    kind: String,
    pub fields: Vec<Field>,
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

    /// Adds the columns that it lacks, before the last `partition_columns` ones. Returns whether anything changed.
    ///
    /// A column that has two types cannot be read: it is taken out, and its name, in lower case, goes to `left_out`. Columns whose names
    /// are there stay out. Names that differ only by the case of letters are the same to Delta.
    pub fn grow(&mut self, columns: &[Field], partition_columns: usize, left_out: &mut BTreeSet<String>) -> bool {
        let mut has_changed = false;
        for column in columns {
            let name = column.name.to_ascii_lowercase();
            if left_out.contains(&name) {
                continue;
            }
            let own = self.fields.len().saturating_sub(partition_columns);
            match self.fields.iter().position(|field| field.name.eq_ignore_ascii_case(&column.name)) {
                Some(at) if self.fields.get(at).is_some_and(|field| field.is_like(column)) => {}
                // The values of partition columns are not in the files.
                Some(at) if at >= own => {}
                Some(at) => {
                    self.fields.remove(at);
                    left_out.insert(name);
                    has_changed = true;
                }
                None => {
                    self.fields.insert(own, column.clone());
                    has_changed = true;
                }
            }
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_columns_come_before_those_of_the_partitions_and_keep_their_types() {
        let mut schema = Schema::new(vec![Field::new("a", "long"), Field::new("day", "integer")]);
        let mut left_out = BTreeSet::new();
        assert!(!schema.grow(&[Field::new("a", "long"), Field::new("day", "string")], 1, &mut left_out));
        assert!(schema.grow(&[Field::new("b", "double"), Field::new("c", "string")], 1, &mut left_out));
        let names = |schema: &Schema| schema.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&schema), ["a", "b", "c", "day"]);
        let text = schema.to_text().unwrap();
        assert_eq!(Schema::parse(&text).unwrap(), schema);
        let begin =
            "{\"type\":\"struct\",\"fields\":[{\"name\":\"a\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}";
        assert!(text.starts_with(begin), "{text}");
        assert!(left_out.is_empty());
    }

    #[test]
    fn a_column_with_two_types_is_left_out_and_stays_out() {
        for other in [Field::new("b", "long"), Field::new("B", "double")] {
            let mut schema = Schema::new(vec![Field::new("b", "double"), Field::new("day", "integer")]);
            let mut left_out = BTreeSet::new();
            assert!(schema.grow(std::slice::from_ref(&other), 1, &mut left_out));
            assert_eq!((schema.fields.len(), &left_out), (1, &["b".to_owned()].into()));
            assert!(!schema.grow(&[other, Field::new("b", "double")], 1, &mut left_out));
        }
    }
}
