//! `ddl`: statements that make the folder of tables a table of an engine. Nothing is sent to the engine.

mod columns;
mod delta;
mod engines;
mod hive;
mod places;

use anyhow::anyhow;
use common::config::Config;
use common::event::civil_from_micros;
use common::store::Location;
use serde::Serialize;

use crate::args::{DdlArgs, Engine, Output, TableFormat};
use crate::wiring::required;
use crate::{Failure, configure, print, stores};
use columns::{Column, columns};
use places::{Found, find};

/// A statement, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// One line.
    pub about: String,
    pub sql: String,
}

/// What statements are made from.
pub struct Facts {
    /// Name of the table; its views begin with it.
    name: String,
    /// The trusted zone, without a slash at its end.
    root: String,
    columns: Vec<Column>,
    found: Found,
    /// Years of a projection.
    years: (i64, i64),
}

impl Facts {
    /// The folder of the table.
    fn folder(&self) -> String {
        format!("{}/events", self.root)
    }
}

/// A name in double quotes.
fn double(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name in backticks.
fn back(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

pub async fn ddl(args: &DdlArgs) -> Result<(), Failure> {
    let config = configure::config(&args.common, &[("--trusted", "trusted.url", args.trusted.as_ref())])?;
    let location = required(config.trusted.location.as_ref(), "trusted.url", "--trusted")?;
    let statements = statements(args, &config, location).await?;
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "engine": args.engine, "statements": statements }))?,
        Output::Text => print::text(&text(&statements))?,
    }
    Ok(())
}

async fn statements(args: &DdlArgs, config: &Config, location: &Location) -> Result<Vec<Statement>, Failure> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if args.name.is_empty() || args.name.len() > 100 || !args.name.chars().all(is_name) {
        let message = "--name: a name has letters, digits and underscores, at most 100";
        return Err(Failure::usage(anyhow!(message)));
    }
    let root = match location {
        Location::S3 { .. } => location.to_string().trim_end_matches('/').to_owned(),
        Location::Local(path) if args.engine.reads_folders() => {
            let absolute = std::path::absolute(path)?;
            let text = absolute.to_str().map(str::to_owned);
            text.ok_or_else(|| Failure::usage(anyhow!("trusted.url: {} is not UTF-8", path.display())))?
        }
        Location::Local(_) => {
            let message =
                format!("{} reads no folders of this machine: trusted.url has to be s3://…", args.engine.name());
            return Err(Failure::usage(anyhow!(message)));
        }
    };
    // Their own patterns; DuckDB's can be escaped.
    if matches!(args.engine, Engine::Clickhouse | Engine::Spark) && root.contains(['*', '?', '[', ']', '{', '}']) {
        let message = format!("{} would take trusted.url for a pattern: {root}", args.engine.name());
        return Err(Failure::usage(anyhow!(message)));
    }
    // Projections list what there is.
    let found = if args.engine.projects() && args.format == TableFormat::Files {
        find(&*stores::as_it_is(location).await?).await?
    } else {
        Found::default()
    };
    let this_year =
        civil_from_micros(common::clock::Clock::now_ms(&common::clock::SystemClock).saturating_mul(1_000)).year;
    let first = found.years.iter().next().copied().unwrap_or(this_year);
    let last = found.years.iter().next_back().copied().unwrap_or(this_year).max(this_year);
    let facts = Facts {
        name: args.name.clone(),
        root,
        columns: columns(&config.columns).map_err(|error| Failure::usage(anyhow!("columns: {error}")))?,
        found,
        years: (first, last.saturating_add(1)),
    };
    if args.format == TableFormat::Delta {
        return Ok(match args.engine {
            Engine::Duckdb => delta::duckdb(&facts),
            Engine::Clickhouse => delta::clickhouse(&facts),
            Engine::Spark => delta::spark(&facts),
            Engine::Bigquery => delta::bigquery(&facts),
            Engine::Snowflake => delta::snowflake(&facts),
            Engine::Athena => delta::athena(&facts),
            Engine::Glue => delta::glue(&facts)?,
            Engine::Trino => delta::trino(&facts),
        });
    }
    Ok(match args.engine {
        Engine::Duckdb => engines::duckdb(&facts),
        Engine::Clickhouse => engines::clickhouse(&facts),
        Engine::Spark => engines::spark(&facts),
        Engine::Bigquery => engines::bigquery(&facts),
        Engine::Snowflake => engines::snowflake(&facts),
        Engine::Athena => hive::athena(&facts),
        Engine::Glue => hive::glue(&facts)?,
        Engine::Trino => hive::trino(&facts),
    })
}

fn text(statements: &[Statement]) -> String {
    let mut text = String::new();
    for Statement { about, sql } in statements {
        // Names come from a configuration, and folders from events.
        for line in [format!("-- {about}")].iter().map(String::as_str).chain(sql.lines()) {
            text.push_str(&common::printable::escape(line));
            text.push('\n');
        }
        text.push('\n');
    }
    text
}
