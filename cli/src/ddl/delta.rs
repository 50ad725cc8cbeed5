//! Engines that read the Delta table: they learn from it which files there are, and its columns.

use serde_json::json;

use anyhow::anyhow;

use super::engines::{escaped, latest, latest_but_rank, quoted};
use super::{Facts, Statement, back, double};
use crate::Failure;

/// The root of the table, as an engine's own client of S3 names it.
fn root(facts: &Facts, scheme: &str) -> String {
    let folder = facts.folder();
    folder.strip_prefix("s3://").map_or_else(|| folder.clone(), |rest| format!("{scheme}://{rest}"))
}

pub fn duckdb(facts: &Facts) -> Vec<Statement> {
    let scan = quoted(&facts.folder());
    let sql = format!("CREATE OR REPLACE VIEW {} AS\nSELECT * FROM delta_scan({scan});", double(&facts.name));
    let about = "The view, after INSTALL delta; LOAD delta; a value inside data: data->>'$.order.amount'".to_owned();
    vec![Statement { about, sql }, latest_but_rank(facts, "CREATE OR REPLACE VIEW", double, "EXCLUDE")]
}

pub fn clickhouse(facts: &Facts) -> Vec<Statement> {
    let folder = facts.folder();
    let source = match folder.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        Some((bucket, key)) => {
            format!("deltaLake({})", escaped(&format!("https://{bucket}.s3.amazonaws.com/{key}/")))
        }
        None => format!("deltaLakeLocal({})", escaped(&format!("{folder}/"))),
    };
    let sql = format!("CREATE OR REPLACE VIEW {} AS\nSELECT * FROM {source};", back(&facts.name));
    let about = "The view; a value inside data: JSONExtractString(data, 'order', 'amount')".to_owned();
    vec![Statement { about, sql }, latest_but_rank(facts, "CREATE OR REPLACE VIEW", back, "EXCEPT")]
}

pub fn spark(facts: &Facts) -> Vec<Statement> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {}\nUSING delta\nLOCATION {};",
        back(&facts.name),
        escaped(&root(facts, "s3a"))
    );
    let about =
        "The table, in a session with Delta's extension; a value inside data: get_json_object(data, '$.order.amount')";
    vec![Statement { about: about.to_owned(), sql }, latest(facts, "CREATE OR REPLACE VIEW", back)]
}

pub fn athena(facts: &Facts) -> Vec<Statement> {
    let sql = format!(
        "CREATE EXTERNAL TABLE {}\nLOCATION {}\nTBLPROPERTIES ({} = {});",
        back(&facts.name),
        escaped(&format!("{}/", facts.folder())),
        escaped("table_type"),
        escaped("DELTA")
    );
    let about =
        "The table; Athena reads its columns from it. A value inside data: json_extract_scalar(data, '$.order.amount')";
    vec![Statement { about: about.to_owned(), sql }, latest(facts, "CREATE OR REPLACE VIEW", double)]
}

/// Input of `aws glue create-table`.
pub fn glue(facts: &Facts) -> Result<Vec<Statement>, Failure> {
    let location = format!("{}/", facts.folder());
    let column = |name: &str, kind: String, comment: &str| json!({ "Name": name, "Type": kind, "Comment": comment });
    let mut columns: Vec<_> =
        facts.columns.iter().map(|one| column(&one.name, one.kind.hive(), &one.comment)).collect();
    columns.extend(super::columns::IN_PATH.iter().map(|(name, kind)| column(name, kind.hive(), "partition")));
    let table = json!({
        "Name": facts.name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": { "EXTERNAL": "TRUE", "table_type": "DELTA", "spark.sql.sources.provider": "delta" },
        "StorageDescriptor": {
            "Columns": columns,
            "Location": location,
            "SerdeInfo": { "Parameters": { "path": location, "serialization.format": "1" } },
        },
    });
    let sql = serde_json::to_string_pretty(&table).map_err(|error| Failure::Runtime(anyhow!(error)))?;
    let about = "For 'aws glue create-table --database-name … --table-input file://…' (without this line)".to_owned();
    Ok(vec![Statement { about, sql }])
}

pub fn trino(facts: &Facts) -> Vec<Statement> {
    let sql = format!(
        "CALL system.register_table(schema_name => 'default', table_name => {}, table_location => {});",
        quoted(&facts.name),
        quoted(&format!("{}/", facts.folder()))
    );
    let about = "The table, in schema 'default' of a Delta Lake catalog, which has to allow it: \
                 delta.register-table-procedure.enabled = true"
        .to_owned();
    vec![Statement { about, sql }, latest(facts, "CREATE OR REPLACE VIEW", double)]
}

pub fn bigquery(facts: &Facts) -> Vec<Statement> {
    let sql = format!(
        "CREATE OR REPLACE EXTERNAL TABLE {}\nWITH CONNECTION `aws-us-east-1.connection`\nOPTIONS (\n  format = 'DELTA_LAKE',\n  uris = [{}]\n);",
        back(&facts.name),
        escaped(&facts.folder())
    );
    let about = "The table, in a dataset of an AWS region; name your own connection. A value inside data: \
                 JSON_VALUE(data, '$.order.amount')"
        .to_owned();
    vec![Statement { about, sql }, latest(facts, "CREATE OR REPLACE VIEW", back)]
}

pub fn snowflake(facts: &Facts) -> Vec<Statement> {
    let (volume, catalog) = (format!("{}_volume", facts.name), format!("{}_catalog", facts.name));
    let root = facts.root.strip_prefix("s3://").unwrap_or(&facts.root);
    let volume_sql = format!(
        "CREATE OR REPLACE EXTERNAL VOLUME {}\nSTORAGE_LOCATIONS = ((NAME = 'zone' STORAGE_PROVIDER = 'S3' STORAGE_BASE_URL = {} \
         STORAGE_AWS_ROLE_ARN = 'arn:aws:iam::123456789012:role/my-role'))\nALLOW_WRITES = FALSE;",
        double(&volume),
        escaped(&format!("s3://{root}/"))
    );
    let catalog_sql = format!(
        "CREATE OR REPLACE CATALOG INTEGRATION {}\nCATALOG_SOURCE = OBJECT_STORE\nTABLE_FORMAT = DELTA\nENABLED = TRUE;",
        double(&catalog)
    );
    let sql = format!(
        "CREATE OR REPLACE ICEBERG TABLE {}\nCATALOG = {}\nEXTERNAL_VOLUME = {}\nBASE_LOCATION = 'events/';",
        double(&facts.name),
        quoted(&catalog),
        quoted(&volume)
    );
    vec![
        Statement { about: "Where the files are, read only; name your own role".to_owned(), sql: volume_sql },
        Statement { about: "What kind of tables they are".to_owned(), sql: catalog_sql },
        Statement {
            about: format!(
                "The table; new versions are seen after ALTER ICEBERG TABLE {} REFRESH",
                double(&facts.name)
            ),
            sql,
        },
        latest(facts, "CREATE OR REPLACE VIEW", double),
    ]
}
