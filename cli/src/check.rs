//! `check`: reports what would stop the roles, or hurt later, before they run.

mod archivable;
mod forecast;
mod inspect;
mod pending;
mod report;

use anyhow::anyhow;
use common::config::Config;
use indicatif::HumanCount;

use crate::args::{CheckArgs, Output};
use crate::{Failure, configure, print, trusted};
use distributor::CloseReason;
use forecast::{Forecast, Input, Limits, age_for, float, forecast, memory_for_age};
use inspect::Inspected;
use report::{Findings, size, whole};

/// Used if neither a flag nor the tables give the number.
const DEFAULT_TYPES: u64 = 12;

pub async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let findings = findings(args).await?;
    match args.common.output {
        Output::Json => print::json(&findings)?,
        Output::Text => print::text(&findings.text())?,
    }
    match (findings.errors.len(), findings.warnings.len()) {
        (0, warnings) if warnings > 0 && args.strict => {
            Err(anyhow!("{}", counted(warnings as u64, "warning", "s")).into())
        }
        (0, _) => Ok(()),
        (errors, _) => Err(Failure::usage(anyhow!("a role would not run: {}", counted(errors as u64, "error", "s")))),
    }
}

async fn findings(args: &CheckArgs) -> Result<Findings, Failure> {
    let landing = ("--landing", "landing.url", args.landing.as_ref());
    let flags: Vec<_> = trusted::flags(&args.log).into_iter().chain([landing]).collect();
    let mut findings = Findings::default();
    let config = match configure::check(&configure::tree(&args.common, &flags)?) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors.0 {
                findings.error("configuration", error);
            }
            return Ok(findings);
        }
    };
    inspect::check_settings(&config, &mut findings);
    findings.looked = !args.offline && inspect::is_anything_named(&config);
    let inspected = if args.offline { Inspected::default() } else { inspect::inspect(&config, &mut findings).await };
    judge(args, &config, &inspected, &mut findings);
    Ok(findings)
}

/// Adds the forecast and the warnings about it.
fn judge(args: &CheckArgs, config: &Config, inspected: &Inspected, findings: &mut Findings) {
    let input = Input {
        types: args.types.or(inspected.types).unwrap_or(DEFAULT_TYPES),
        days: args.days,
        partitions: args
            .partitions
            .or(inspected.partitions)
            .unwrap_or_else(|| inspect::default_partitions(config).into()),
        distributors: args.distributors,
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        events_per_second: args.events_per_second.map(|rate| rate as f64),
        event_bytes: args.event_bytes,
    };
    let limits = Limits {
        max_age: config.flush.max_age,
        max_rows: config.flush.max_rows,
        max_files: config.flush.max_files,
        max_bytes: config.flush.max_bytes,
        max_memory: config.flush.max_memory,
        max_rows_per_file: config.trusted.max_rows_per_file,
        target_bytes: config.compact.target_bytes,
    };
    let estimate = forecast(&input, &limits);
    let most = config.flush.warn_files_per_day;
    let left = if config.compact.every.is_some() { estimate.files_a_day_merged } else { estimate.files_a_day };
    if left > float(most) {
        findings.warn("flush.warn_files_per_day", too_many(&estimate, &input, &limits, most));
    }
    if let Some(age) = config.flush.ages.shortest() {
        let urgent = forecast(&input, &Limits { max_age: age, ..limits });
        if urgent.files_a_day > float(config.flush.warn_files_per_day) {
            let files = HumanCount(whole(urgent.files_a_day));
            findings.warn(
                "flush.ages",
                format!(
                    "if every batch holds an event of the type with the age of {age:?}, {files} files a day are made"
                ),
            );
        }
    }
    if input.types > u64::from(config.trusted.max_types) {
        let (types, guard) = (HumanCount(input.types), HumanCount(config.trusted.max_types.into()));
        findings.warn(
            "trusted.max_types",
            format!("rows of {types} types come, but a batch holds {guard}: those of further ones are rejected"),
        );
    }
    findings.forecast = Some(estimate);
}

/// The number and size of files, and what would reduce the number.
fn too_many(estimate: &Forecast, input: &Input, limits: &Limits, limit: u64) -> String {
    let files = HumanCount(whole(estimate.files_a_day));
    let sizes = estimate.file_bytes.map_or_else(String::new, |bytes| format!(" of about {}", size(bytes)));
    let batches = counted(whole(estimate.batches_a_day / float(input.partitions)), "batch", "es");
    let (partitions, types) = (counted(input.partitions, "partition", "s"), counted(input.types, "type", "s"));
    let days = counted(input.days, "day", "s");
    format!(
        "about {files} Parquet files a day{sizes}, more than {}: {partitions} x {batches} a day x up to {types} x {days}. \
         {}. Merged they are about {} (compact.every, or the command 'compact'); see docs/small-files.md",
        HumanCount(limit),
        mend(estimate, input, limits, limit),
        HumanCount(whole(estimate.files_a_day_merged))
    )
}

fn mend(estimate: &Forecast, input: &Input, limits: &Limits, limit: u64) -> String {
    let closed_early = format!(
        "{} closes batches after {:.1} s",
        estimate.closed_by.setting().unwrap_or_default(),
        estimate.batch_seconds
    );
    match (estimate.closed_by, age_for(input, limits, limit)) {
        (CloseReason::Age, Some(age)) => format!("With flush.max_age = {age} there would be fewer than that"),
        (CloseReason::Age, None) => {
            "No flush.max_age mends this alone: it takes fewer partitions or types, or more flush.max_memory with a larger age"
                .to_owned()
        }
        (CloseReason::Memory, _) => {
            let max_memory = memory_for_age(input, limits).map_or(limits.max_memory, whole);
            let with = forecast(input, &Limits { max_memory, ..*limits });
            format!(
                "{closed_early}, before flush.max_age; with {} there would be {} files a day",
                size(float(max_memory)),
                HumanCount(whole(with.files_a_day))
            )
        }
        (_, _) => format!("{closed_early}, before flush.max_age: raise it"),
    }
}

fn counted(number: u64, name: &str, plural: &str) -> String {
    format!("{} {name}{}", HumanCount(number), if number == 1 { "" } else { plural })
}
