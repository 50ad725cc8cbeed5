//! `repair`: removes what does harm and nobody needs.

use common::printable::push_line;
use distributor::{Audit, FindingKind, Repair};

use crate::args::{Output, RepairArgs};
use crate::replay::counted;
use crate::{Failure, print, trusted, verify};

pub async fn repair(args: &RepairArgs) -> Result<(), Failure> {
    let trusted = trusted::open(&args.log, &args.common).await?;
    trusted.refuse_other_place(&[]).await?;
    let repair = if args.dry_run { Repair::No } else { Repair::Orphans };
    let audit = verify::audit(&trusted, false, args.uploads_older_than, repair, args.common.output).await?;
    match args.common.output {
        Output::Json => print::json(&serde_json::json!({
            "dry_run": args.dry_run,
            "removed": audit.removed,
            "aborted": audit.aborted,
            "findings": audit.findings,
            "notes": audit.notes,
        }))?,
        Output::Text => print::text(&text(&audit, args.dry_run))?,
    }
    let left = audit.findings.iter().filter(|finding| !(args.dry_run && is_repaired(finding.kind))).count();
    verify::refuse_findings(left, &trusted.location)
}

/// Whether this command removes what was found.
fn is_repaired(kind: FindingKind) -> bool {
    matches!(kind, FindingKind::FileOrphaned | FindingKind::UploadAbandoned)
}

fn text(audit: &Audit, dry_run: bool) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
    for removed in &audit.removed {
        line(format_args!("removed {removed}"));
    }
    for aborted in &audit.aborted {
        line(format_args!("aborted the upload of {aborted}"));
    }
    for note in &audit.notes {
        line(format_args!("note: {note}"));
    }
    let (ours, others): (Vec<_>, Vec<_>) = audit.findings.iter().partition(|finding| is_repaired(finding.kind));
    for finding in &ours {
        let verb = if dry_run { "would remove" } else { "not removed" };
        line(format_args!("{verb} {}: {}", finding.place, finding.message));
    }
    if ours.is_empty() && audit.removed.is_empty() && audit.aborted.is_empty() {
        line(format_args!("nothing to remove"));
    }
    if !others.is_empty() {
        let others = counted(others.len() as u64, "other finding");
        line(format_args!("{others}, which this command does not correct: see 'verify'"));
    }
    text
}

#[cfg(test)]
mod tests {
    use distributor::Finding;

    use super::*;

    #[test]
    fn what_is_removed_and_what_is_left_is_said() {
        let finding = |kind, place: &str| Finding { kind, place: place.into(), message: "why".into() };
        let audit = Audit { removed: vec!["a".into()], aborted: vec!["b".into()], ..Audit::default() };
        assert_eq!(text(&audit, false), "removed a\naborted the upload of b\n");
        let findings = vec![finding(FindingKind::FileOrphaned, "c"), finding(FindingKind::FileMissing, "d")];
        let audit = Audit { findings, ..Audit::default() };
        let output = text(&audit, true);
        assert!(output.contains("would remove c: why") && output.contains("1 other finding, which"), "{output}");
        assert_eq!(text(&Audit::default(), true), "nothing to remove\n");
    }
}
