//! Engines with Hive's table model, by partition projection: no crawler, and no partition is ever added.

use std::fmt::Write;

use anyhow::anyhow;
use serde_json::json;

use super::columns::{Column, IN_PATH};
use super::engines::{escaped, latest, quoted};
use super::{Facts, Statement, back, double};
use crate::Failure;

const INPUT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat";
const OUTPUT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat";
const SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

fn template(facts: &Facts) -> String {
    let parts: Vec<String> = IN_PATH.iter().map(|(name, _)| format!("{name}=${{{name}}}")).collect();
    format!("{}/{}/", facts.folder(), parts.join("/"))
}

/// Whether all event types can be named: with a comma in one they cannot, nor if there are too many.
fn names_types(facts: &Facts) -> bool {
    !facts.found.types.is_empty() && !facts.found.is_cut && facts.found.types.iter().all(|name| !name.contains(','))
}

fn about_types(facts: &Facts) -> &'static str {
    if names_types(facts) {
        "it names the event types of today: make it again when there are new ones"
    } else {
        "each query has to name event types: WHERE domain_event_type = '…'"
    }
}

/// Properties of Athena's partition projection.
fn projection(facts: &Facts) -> Vec<(String, String)> {
    let (first, last) = facts.years;
    let property = |name: &str, value: String| (name.to_owned(), value);
    let mut all = vec![property("projection.enabled", "true".to_owned())];
    if names_types(facts) {
        let types: Vec<&str> = facts.found.types.iter().map(String::as_str).collect();
        all.push(property("projection.domain_event_type.type", "enum".to_owned()));
        all.push(property("projection.domain_event_type.values", types.join(",")));
    } else {
        all.push(property("projection.domain_event_type.type", "injected".to_owned()));
    }
    for (name, range, digits) in
        [("year", format!("{first},{last}"), "4"), ("month", "1,12".to_owned(), "2"), ("day", "1,31".to_owned(), "2")]
    {
        all.push(property(&format!("projection.{name}.type"), "integer".to_owned()));
        all.push(property(&format!("projection.{name}.range"), range));
        all.push(property(&format!("projection.{name}.digits"), digits.to_owned()));
    }
    all.push(property("storage.location.template", template(facts)));
    all
}

pub fn athena(facts: &Facts) -> Vec<Statement> {
    let column = |column: &Column| {
        format!("  {} {} COMMENT {}", back(&column.name), column.kind.hive(), escaped(&column.comment))
    };
    let columns: Vec<String> = facts.columns.iter().map(column).collect();
    let in_path: Vec<String> = IN_PATH.iter().map(|(name, kind)| format!("  {} {}", back(name), kind.hive())).collect();
    let properties: Vec<String> =
        projection(facts).iter().map(|(name, value)| format!("  {} = {}", escaped(name), escaped(value))).collect();
    let mut sql = format!("CREATE EXTERNAL TABLE {} (\n{}\n)\n", back(&facts.name), columns.join(",\n"));
    let _ = writeln!(sql, "PARTITIONED BY (\n{}\n)\nSTORED AS PARQUET", in_path.join(",\n"));
    let _ = writeln!(sql, "LOCATION {}", escaped(&format!("{}/", facts.folder())));
    let _ = write!(sql, "TBLPROPERTIES (\n{}\n);", properties.join(",\n"));
    vec![
        Statement { about: format!("The table; {}", about_types(facts)), sql },
        latest(facts, "CREATE OR REPLACE VIEW", double),
    ]
}

/// Input of `aws glue create-table`.
pub fn glue(facts: &Facts) -> Result<Vec<Statement>, Failure> {
    let column = |name: &str, kind: String, comment: &str| json!({ "Name": name, "Type": kind, "Comment": comment });
    let columns: Vec<_> = facts.columns.iter().map(|one| column(&one.name, one.kind.hive(), &one.comment)).collect();
    let in_path: Vec<_> = IN_PATH.iter().map(|(name, kind)| json!({ "Name": name, "Type": kind.hive() })).collect();
    let mut parameters: serde_json::Map<String, serde_json::Value> =
        projection(facts).into_iter().map(|(name, value)| (name, value.into())).collect();
    parameters.insert("EXTERNAL".to_owned(), "TRUE".into());
    parameters.insert("classification".to_owned(), "parquet".into());
    let table = json!({
        "Name": facts.name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        "PartitionKeys": in_path,
        "StorageDescriptor": {
            "Columns": columns,
            "Location": format!("{}/", facts.folder()),
            "InputFormat": INPUT,
            "OutputFormat": OUTPUT,
            "SerdeInfo": { "SerializationLibrary": SERDE, "Parameters": { "serialization.format": "1" } },
        },
    });
    let sql = serde_json::to_string_pretty(&table).map_err(|error| Failure::Runtime(anyhow!(error)))?;
    let about = format!(
        "For 'aws glue create-table --database-name … --table-input file://…' (without this line); {}",
        about_types(facts)
    );
    Ok(vec![Statement { about, sql }])
}

pub fn trino(facts: &Facts) -> Vec<Statement> {
    let (first, last) = facts.years;
    let list = |values: &[String]| {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        format!("ARRAY[{}]", values.join(", "))
    };
    let mut columns: Vec<String> =
        facts.columns.iter().map(|column| format!("  {} {}", double(&column.name), column.kind.trino())).collect();
    for (name, kind) in IN_PATH {
        let projection = match name {
            "domain_event_type" if names_types(facts) => {
                let types: Vec<String> = facts.found.types.iter().cloned().collect();
                format!("partition_projection_type = 'enum', partition_projection_values = {}", list(&types))
            }
            "domain_event_type" => "partition_projection_type = 'injected'".to_owned(),
            _ => {
                let (from, to, digits) = match name {
                    "year" => (first.to_string(), last.to_string(), 4),
                    "month" => ("1".to_owned(), "12".to_owned(), 2),
                    _ => ("1".to_owned(), "31".to_owned(), 2),
                };
                format!(
                    "partition_projection_type = 'integer', partition_projection_range = {}, partition_projection_digits = {digits}",
                    list(&[from, to])
                )
            }
        };
        columns.push(format!("  {} {} WITH ({projection})", double(name), kind.trino()));
    }
    let in_path: Vec<String> = IN_PATH.iter().map(|(name, _)| (*name).to_owned()).collect();
    let sql = format!(
        "CREATE TABLE {} (\n{}\n)\nWITH (\n  external_location = {},\n  format = 'PARQUET',\n  partitioned_by = {},\n  \
         partition_projection_enabled = true,\n  partition_projection_location_template = {}\n);",
        double(&facts.name),
        columns.join(",\n"),
        quoted(&format!("{}/", facts.folder())),
        list(&in_path),
        quoted(&template(facts)),
    );
    vec![
        Statement { about: format!("The table, in a schema of a Hive catalog; {}", about_types(facts)), sql },
        latest(facts, "CREATE OR REPLACE VIEW", double),
    ]
}
