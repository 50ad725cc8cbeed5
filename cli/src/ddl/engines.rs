//! Engines that list the folders by themselves.

use super::columns::{Column, IN_PATH, Kind};
use super::{Facts, Statement, back, double};

/// A text in SQL.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// … where a backslash escapes.
pub fn escaped(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The view of the last row of each event id. Of rows with the same timestamp the one that the log received first counts.
pub fn latest(facts: &Facts, create: &str, name: fn(&str) -> String) -> Statement {
    let columns = facts.columns.iter().map(|column| column.name.as_str()).chain(IN_PATH.iter().map(|(name, _)| *name));
    let columns: Vec<String> = columns.map(|column| format!("  {}", name(column))).collect();
    latest_of(facts, create, name, &columns.join(",\n"))
}

/// … of the columns that the files have: a new one is in none until the next batch.
pub fn latest_but_rank(facts: &Facts, create: &str, name: fn(&str) -> String, but: &str) -> Statement {
    latest_of(facts, create, name, &format!("  * {but} ({})", name(RANK)))
}

fn latest_of(facts: &Facts, create: &str, name: fn(&str) -> String, columns: &str) -> Statement {
    let order = ["_ingested_at", "_partition", "_offset"].map(name).join(", ");
    let sql = format!(
        "{create} {} AS\nSELECT\n{}\nFROM (\n  SELECT *, row_number() OVER (PARTITION BY {} ORDER BY {} DESC, {order}) AS {}\n  \
         FROM {}\n) AS ranked\nWHERE {} = 1;",
        name(&format!("{}_latest", facts.name)),
        columns,
        name("event_id"),
        name("timestamp"),
        name(RANK),
        name(&facts.name),
        name(RANK),
    );
    Statement { about: "One row of each event_id: the one with the last timestamp".to_owned(), sql }
}

/// No column of anybody begins with an underscore.
const RANK: &str = "_rank";

/// A path in which DuckDB finds no pattern.
fn literal(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for char in path.chars() {
        if matches!(char, '*' | '?' | '[') {
            text.extend(['[', char, ']']);
        } else {
            text.push(char);
        }
    }
    text
}

/// Below each type, so that other folders of the table are passed over.
fn pattern(facts: &Facts) -> String {
    format!("{}/domain_event_type=*/**/*.parquet", facts.folder())
}

pub fn duckdb(facts: &Facts) -> Vec<Statement> {
    let sql = format!(
        "CREATE OR REPLACE VIEW {} AS\nSELECT * FROM read_parquet(\n  {},\n  hive_partitioning = true, union_by_name = true,\n  \
         hive_types = {{'domain_event_type': VARCHAR, 'year': INTEGER, 'month': INTEGER, 'day': INTEGER}}\n);",
        double(&facts.name),
        quoted(&format!("{}/domain_event_type=*/**/*.parquet", literal(&facts.folder()))),
    );
    let lookup = "The view; a value inside data: data->>'$.order.amount'".to_owned();
    vec![Statement { about: lookup, sql }, latest_but_rank(facts, "CREATE OR REPLACE VIEW", double, "EXCLUDE")]
}

pub fn clickhouse(facts: &Facts) -> Vec<Statement> {
    let pattern = pattern(facts);
    let source = match pattern.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        Some((bucket, key)) => {
            format!("s3({}, 'Parquet')", escaped(&format!("https://{bucket}.s3.amazonaws.com/{key}")))
        }
        None => format!("file({}, 'Parquet')", escaped(&pattern)),
    };
    let sql = format!(
        "CREATE OR REPLACE VIEW {} AS\nSELECT * FROM {source}\nSETTINGS use_hive_partitioning = 1, input_format_parquet_allow_missing_columns = 1;",
        back(&facts.name),
    );
    let about = "The view; a value inside data: JSONExtractString(data, 'order', 'amount')".to_owned();
    vec![Statement { about, sql }, latest_but_rank(facts, "CREATE OR REPLACE VIEW", back, "EXCEPT")]
}

pub fn spark(facts: &Facts) -> Vec<Statement> {
    let folder = facts.folder();
    // Spark's own names for the two.
    let path = folder.strip_prefix("s3://").map_or_else(|| folder.clone(), |rest| format!("s3a://{rest}"));
    let sql = format!(
        "CREATE OR REPLACE TEMPORARY VIEW {}\nUSING parquet\nOPTIONS (path {}, mergeSchema 'true');",
        back(&facts.name),
        escaped(&path),
    );
    let about = "The view of a session; a value inside data: get_json_object(data, '$.order.amount')".to_owned();
    vec![Statement { about, sql }, latest(facts, "CREATE OR REPLACE TEMPORARY VIEW", back)]
}

pub fn bigquery(facts: &Facts) -> Vec<Statement> {
    let kind = |kind| if kind == Kind::Text { "STRING" } else { "INT64" };
    let in_path: Vec<String> = IN_PATH.iter().map(|(name, of)| format!("  {} {}", back(name), kind(*of))).collect();
    let folder = facts.folder();
    let sql = format!(
        "CREATE OR REPLACE EXTERNAL TABLE {}\nWITH PARTITION COLUMNS (\n{}\n)\nWITH CONNECTION `aws-us-east-1.connection`\nOPTIONS (\n  \
         format = 'PARQUET',\n  uris = [{}],\n  hive_partition_uri_prefix = {}\n);",
        back(&facts.name),
        in_path.join(",\n"),
        escaped(&format!("{folder}/domain_event_type=*")),
        escaped(&folder),
    );
    let about = "The table, in a dataset of an AWS region; name your own connection. A value inside data: \
                 JSON_VALUE(data, '$.order.amount')"
        .to_owned();
    vec![Statement { about, sql }, latest(facts, "CREATE OR REPLACE VIEW", back)]
}

pub fn snowflake(facts: &Facts) -> Vec<Statement> {
    let stage = format!("{}_stage", facts.name);
    let in_path = |(name, kind): &(&str, Kind)| {
        let value =
            format!("split_part(regexp_substr(metadata$filename, {}), '=', 2)", escaped(&format!("{name}=[^/]*")));
        format!("  {} {} AS (CAST({value} AS {}))", double(name), kind.snowflake(), kind.snowflake())
    };
    let column = |column: &Column| {
        let (name, kind) = (double(&column.name), column.kind.snowflake());
        format!("  {name} {kind} AS (CAST(value:{name} AS {kind}))")
    };
    let columns: Vec<String> = IN_PATH.iter().map(in_path).chain(facts.columns.iter().map(column)).collect();
    let names: Vec<String> = IN_PATH.iter().map(|(name, _)| double(name)).collect();
    let sql = format!(
        "CREATE OR REPLACE EXTERNAL TABLE {} (\n{}\n)\nPARTITION BY ({})\nLOCATION = @{}/events/\nAUTO_REFRESH = FALSE\n\
         PATTERN = '.*events/domain_event_type=.*[.]parquet'\nFILE_FORMAT = (TYPE = PARQUET);",
        double(&facts.name),
        columns.join(",\n"),
        names.join(", "),
        double(&stage),
    );
    let stage = format!(
        "CREATE OR REPLACE STAGE {}\nURL = {}\nSTORAGE_INTEGRATION = my_integration;",
        double(&stage),
        escaped(&format!("{}/", facts.root)),
    );
    vec![
        Statement { about: "Where the files are; name your own storage integration".to_owned(), sql: stage },
        Statement {
            about: format!("The table; new files are seen after ALTER EXTERNAL TABLE {} REFRESH", double(&facts.name)),
            sql,
        },
        latest(facts, "CREATE OR REPLACE VIEW", double),
    ]
}
