//! Offsets of which neither a document nor a file speaks.

use super::batches::{completion, stated};
use super::partition::Pass;
use super::{Stop, refused};
use crate::chain::CutKind;
use crate::layout::Layout;
use crate::window::encode_key_run;

impl Pass<'_> {
    pub(super) async fn is_without_records(&mut self, from: i64, to: i64, layout: &Layout) -> Result<bool, Stop> {
        Ok(self.make(from, to, layout, 0, None).await?.is_none())
    }

    /// Accounts for the offsets up to `to`, of which neither a document nor a file speaks.
    pub(super) async fn gap(&mut self, to: i64, layout: &Layout) -> Result<(), Stop> {
        if to < self.at {
            return refused(format!(
                "the batch that begins at {to} overlaps the one before it, which ends at {}; find out which files are right and \
                 move the others away",
                self.at
            ));
        }
        while self.at < to {
            // A key run without anything else is the trace of a batch without files.
            let end = self.key_runs.range(self.at + 1..to).next().copied().unwrap_or(to);
            self.unspoken(end, layout).await?;
        }
        Ok(())
    }

    async fn unspoken(&mut self, to: i64, layout: &Layout) -> Result<(), Stop> {
        let from = self.at;
        if self.log.earliest > from {
            return self.unaccounted(CutKind::Lost, to, layout, "the log no longer has them");
        }
        let Some(encoded) = self.make(from, to, layout, 0, None).await? else {
            // Nothing was ever to be read there.
            let cut = self.passed_over(CutKind::Skipped, from, to, layout);
            self.passed(&cut, true, None);
            return Ok(());
        };
        if encoded.files.is_empty() {
            let completion = completion(from, encoded.ends.to, Vec::new(), &stated(&encoded), encoded.counts);
            let cut = self.cut_of(from, encoded.ends.to, layout, &stated(&encoded));
            let run = encode_key_run(&encoded.overlay);
            if !self.key_runs.contains(&from) {
                self.put_run(&self.chain.key_run_key(from), &run).await?;
            }
            self.take(&self.chain.key_run_key(from), &run, cut.clock_ms)?;
            self.passed(&cut, true, Some(completion));
            return Ok(());
        }
        let rows = encoded.counts.written + encoded.counts.rejected;
        let why = format!("the log has records there that make {rows} rows, and no file has them");
        self.unaccounted(CutKind::Skipped, to, layout, &why)
    }

    fn unaccounted(&mut self, kind: CutKind, to: i64, layout: &Layout, why: &str) -> Result<(), Stop> {
        let from = self.at;
        if !self.rebuilder.accept_gaps {
            return refused(format!(
                "nothing accounts for the offsets {from} up to before {to}: {why}. They were skipped or lost, or their files are gone. Bring \
                 the files or _batches back from a backup; or, if they come last, set the group's offset back to {from} and they are \
                 written; or pass over them for good with --accept-gaps"
            ));
        }
        self.report.gap_offsets += (to - from).unsigned_abs();
        let cut = self.passed_over(kind, from, to, layout);
        self.passed(&cut, true, None);
        Ok(())
    }
}
