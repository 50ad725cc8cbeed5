//! `abandon`: closes batches that can never be completed.

use anyhow::anyhow;
use common::printable::push_line;
use distributor::{AbandonPlan, BatchAbandoner, Host};
use indicatif::HumanCount;

use crate::args::{AbandonArgs, Output};
use crate::trusted::{self, Trusted};
use crate::wiring::scratch;
use crate::{Failure, print};

pub async fn abandon(args: &AbandonArgs) -> Result<(), Failure> {
    let trusted = trusted::open(&args.log, &args.common).await?;
    let log = trusted.need_log("abandon")?;
    let Trusted { config, store, group, .. } = trusted;
    let topic = config.log.events_topic.clone();
    let known: Vec<i32> = log.bounds(&topic).await?.into_keys().collect();
    if let Some(unknown) = args.partitions.iter().find(|id| !known.contains(id)) {
        return Err(Failure::usage(anyhow!("--partitions: topic '{topic}' has no partition {unknown}")));
    }
    let partitions = if args.partitions.is_empty() { known } else { args.partitions.clone() };
    let abandoner = BatchAbandoner { store, log, host: Host::system(), topic, group, scratch: scratch(&config)? };
    let mut plans = Vec::new();
    for partition in partitions {
        let Some(plan) = abandoner.plan(partition).await? else { continue };
        plans.push(if args.dry_run { plan } else { abandoner.abandon(partition).await? });
    }
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({ "dry_run": args.dry_run, "partitions": plans }))?,
        Output::Text => print::text(&text(&plans, args.dry_run))?,
    }
    Ok(())
}

fn text(plans: &[AbandonPlan], dry_run: bool) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    if plans.is_empty() {
        line(format_args!("nothing to abandon: the log has the records of every batch that is being written"));
        return text;
    }
    let verb = if dry_run { "would be abandoned" } else { "is abandoned" };
    for plan in plans {
        let AbandonPlan { partition, from, to, resume_at, visible_files } = plan;
        line(format_args!("partition {partition}: the batch {from}..{to} {verb}; reading resumes at {resume_at}"));
        let lost = HumanCount((resume_at - from).max(0).unsigned_abs());
        line(format_args!("  offsets that are lost: {lost}"));
        for file in visible_files {
            line(format_args!("  disappears from the tables, a copy is kept below _commits: {file}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said() {
        let plan = AbandonPlan {
            partition: 3,
            from: 100,
            to: 1_500,
            resume_at: 1_300,
            visible_files: vec!["events/x.parquet".into()],
        };
        let output = text(std::slice::from_ref(&plan), true);
        assert!(output.contains("the batch 100..1500 would be abandoned; reading resumes at 1300"), "{output}");
        assert!(output.contains("lost: 1,200") && output.contains("events/x.parquet"), "{output}");
        assert!(text(&[plan], false).contains("is abandoned"));
        assert!(text(&[], false).starts_with("nothing to abandon"));
    }
}
