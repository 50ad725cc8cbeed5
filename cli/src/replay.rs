//! `replay`: sets the distributor's offsets back, and reports the result beforehand.

use anyhow::anyhow;
use common::event::TimeRule;
use common::printable::push_line;
use distributor::{PartitionReplay, ReplayTarget, Replayer};
use indicatif::HumanCount;

use crate::args::{Output, ReplayArgs};
use crate::{Failure, print, trusted};

pub async fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let target = target("--to", &args.to)?;
    let trusted = trusted::open(&args.log, &args.common).await?;
    let log = trusted.need_log("replay")?;
    trusted.refuse_other_place(&args.partitions).await?;
    let replayer =
        Replayer { store: trusted.store, log, topic: trusted.config.log.events_topic.clone(), group: trusted.group };
    let partitions = (!args.partitions.is_empty()).then_some(&args.partitions[..]);
    let plans = replayer.plan(target, partitions).await?;
    if !args.dry_run {
        replayer.apply(&plans).await?;
    }
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "dry_run": args.dry_run, "partitions": plans }))?,
        Output::Text => print::text(&text(&plans, args.dry_run))?,
    }
    Ok(())
}

/// The place that a flag names.
pub fn target(flag: &str, text: &str) -> Result<ReplayTarget, Failure> {
    parse(text).map_err(|message| Failure::usage(anyhow!("{flag}: {message}")))
}

/// `earliest`, `end`, an offset, `batch:<offset>`, or a time.
fn parse(text: &str) -> Result<ReplayTarget, String> {
    let number = |digits: &str| digits.parse::<i64>().ok().filter(|offset| *offset >= 0);
    if text == "earliest" {
        return Ok(ReplayTarget::Earliest);
    }
    if text == "end" {
        return Ok(ReplayTarget::End);
    }
    if let Some(offset) = number(text) {
        return Ok(ReplayTarget::Offset(offset));
    }
    if let Some(begins_at) = text.strip_prefix("batch:") {
        let offset = number(begins_at).ok_or_else(|| format!("'{begins_at}' is not an offset"))?;
        return Ok(ReplayTarget::Batch(offset));
    }
    let utc = TimeRule::named("UTC")?;
    match utc.parse(text) {
        Ok(time_us) => Ok(ReplayTarget::Time(time_us.div_euclid(1_000))),
        Err(_) => Err(format!(
            "'{text}' is none of: earliest, end, an offset such as 1200, a batch such as batch:1000, a time such as 2026-11-24T08:00:00Z"
        )),
    }
}

/// A number and what it counts, in the singular or the plural.
pub fn counted(number: u64, name: &str) -> String {
    format!("{} {name}{}", HumanCount(number), if number == 1 { "" } else { "s" })
}

fn text(plans: &[PartitionReplay], dry_run: bool) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    if plans.is_empty() {
        line(format_args!(
            "nothing to set: no batch of this topic was written there or later; 'verify' says what the tables have"
        ));
        return text;
    }
    line(format_args!(
        "{:>9}  {:>14}  {:>14}  {:>8}  {:>13}",
        "partition", "offset now", "set back to", "batches", "missing files"
    ));
    for plan in plans {
        let committed = plan.committed.map_or_else(|| "none".to_owned(), |offset| offset.to_string());
        let row = (HumanCount(plan.batches).to_string(), HumanCount(plan.missing).to_string());
        line(format_args!("{:>9}  {committed:>14}  {:>14}  {:>8}  {:>13}", plan.partition, plan.to, row.0, row.1));
    }
    let missing: u64 = plans.iter().map(|plan| plan.missing).sum();
    let restorable: u64 = plans.iter().map(|plan| plan.restorable).sum();
    let of_rewrites: u64 = plans.iter().map(|plan| plan.of_rewrites).sum();
    if of_rewrites > 0 {
        let gone = HumanCount(of_rewrites);
        line(format_args!("{gone} of the missing files were made by a rewrite, and only 'rewrite' makes them again"));
    }
    if missing > restorable + of_rewrites {
        let gone = HumanCount(missing - restorable - of_rewrites);
        line(format_args!("{gone} of the missing files cannot be restored: the log no longer holds their records"));
    }
    let whole = if missing == 0 { "no file is missing" } else { "none of them can be restored" };
    match (restorable, dry_run) {
        (0, true) => line(format_args!("nothing was set; {whole}")),
        (0, false) => line(format_args!("set; {whole}, so the next `distribute` (or `run`) only checks them")),
        (_, true) => line(format_args!("nothing was set; {} would be restored", counted(restorable, "file"))),
        (_, false) => line(format_args!(
            "set; the next `distribute` (or `run`) makes {} again, unless replay.missing is 'report'",
            counted(restorable, "file")
        )),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_recognized_by_its_form() {
        assert_eq!(parse("earliest"), Ok(ReplayTarget::Earliest));
        assert_eq!(parse("end"), Ok(ReplayTarget::End));
        assert_eq!(parse("1200"), Ok(ReplayTarget::Offset(1_200)));
        assert_eq!(parse("batch:7"), Ok(ReplayTarget::Batch(7)));
        assert_eq!(parse("2021-01-14T10:15:30Z"), Ok(ReplayTarget::Time(1_610_619_330_000)));
        assert_eq!(parse("2021-01-14T11:15:30+01:00"), Ok(ReplayTarget::Time(1_610_619_330_000)));
        for bad in ["", "latest", "-5", "batch:", "batch:-1", "yesterday"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_preview_counts_files_that_cannot_be_restored() {
        let plan = PartitionReplay {
            partition: 1,
            committed: Some(900),
            to: 300,
            batches: 4,
            missing: 6,
            restorable: 3,
            of_rewrites: 1,
        };
        let output = text(&[plan], true);
        assert!(output.contains("2 of the missing files cannot be restored"), "{output}");
        assert!(output.contains("1 of the missing files were made by a rewrite"), "{output}");
        assert!(output.contains("nothing was set; 3 files would be restored"), "{output}");
    }

    #[test]
    fn nothing_is_restored_if_nothing_is_missing() {
        let plan = PartitionReplay {
            partition: 0,
            committed: None,
            to: 0,
            batches: 1,
            missing: 0,
            restorable: 0,
            of_rewrites: 0,
        };
        let output = [true, false].map(|dry_run| text(std::slice::from_ref(&plan), dry_run));
        assert!(output[0].ends_with("nothing was set; no file is missing\n"), "{}", output[0]);
        assert!(output[1].contains("set; no file is missing, so the next"), "{}", output[1]);
        let one = PartitionReplay { missing: 1, restorable: 1, ..plan };
        assert!(text(&[one], true).contains("1 file would be restored"));
    }
}
