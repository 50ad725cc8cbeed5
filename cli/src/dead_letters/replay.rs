//! `dlq replay`: runs the library's replay with the configured format.

use common::printable::Printable;
use indicatif::HumanCount;
use ingestor::{Limits, ReplayReport, ReplaySettings};

use super::open;
use crate::args::{DlqReplayArgs, Output};
use crate::{Failure, print};

pub async fn replay(args: &DlqReplayArgs) -> Result<(), Failure> {
    let (config, log) = open(&args.log, &args.common).await?;
    let settings = ReplaySettings {
        events_topic: config.log.events_topic,
        dlq_topic: config.log.dlq_topic,
        ledger_topic: config.log.ledger_topic,
        format: config.format.events,
        limits: Limits { max_event_bytes: config.format.max_event_bytes, bad_head_bytes: config.dlq_max_bytes },
        reason: args.reason.clone(),
        dry_run: args.dry_run,
    };
    let report = ingestor::replay(&*log, &settings).await?;
    match args.common.output {
        Output::Json => print::json(&json(&report, args.dry_run)?)?,
        Output::Text => print::text(&text(&report, args.dry_run))?,
    }
    Ok(())
}

fn json(report: &ReplayReport, dry_run: bool) -> Result<serde_json::Value, serde_json::Error> {
    let mut json = serde_json::to_value(report)?;
    json["dry_run"] = dry_run.into();
    Ok(json)
}

fn text(report: &ReplayReport, dry_run: bool) -> String {
    let row = |name: &str, count: u64| format!("  {:<36} {}\n", Printable(name), HumanCount(count));
    let mut text = String::new();
    if report.letters + report.cut == 0 {
        return "no dead letters are open: nothing to replay\n".to_owned();
    }
    if dry_run {
        text.push_str("nothing was written; a replay would come to this:\n");
    }
    text.push_str(&row("dead letters read again", report.letters));
    text.push_str(&row("events published", report.events));
    for (reason, count) in &report.still_bad {
        text.push_str(&row(&format!("still bad: {reason}"), *count));
    }
    text.push_str(&row("cut, drop their files again", report.cut));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_counts_letters_that_are_still_bad_by_reason() -> Result<(), serde_json::Error> {
        let still_bad = [("not_json".to_owned(), 2)].into();
        let report = ReplayReport { letters: 1_005, events: 1_002, still_bad, cut: 1 };
        let output = text(&report, true);
        assert!(
            output.starts_with("nothing was written")
                && output.contains("1,002")
                && output.contains("still bad: not_json")
        );
        let expected = serde_json::json!(
            {"letters": 1_005, "events": 1_002, "still_bad": {"not_json": 2}, "cut": 1, "dry_run": false}
        );
        assert_eq!(json(&report, false)?, expected);
        Ok(())
    }
}
