//! Makes files of replaces again that were lost, each from the log alone, and no other file of its batches.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use commitlog::{Batch, Fate, FileId, InFolder, LiveFile, Planned, ReplaceIntent, Scope};
use commitlog_storage::CommitLog;

use super::outputs::Unmakeable;
use super::run::Work;
use crate::again::{Again, Made, Under};
use crate::batch::{Encoding, FinishedFile, MergedFile, Place, Series};
use crate::decode::Decoder;
use crate::error::PartitionError;
use crate::layout::Layout;

/// A replace makes at most so many, for all of them may be open at a time.
pub(super) const MOST: usize = 64;

/// The scope of one file, which becomes another one with the same rows.
pub(super) fn scope(id: FileId, file: &LiveFile) -> Scope {
    let LiveFile { folder, from, to, .. } = file;
    Scope {
        from: *from,
        to: *to,
        inputs: vec![InFolder { folder: folder.clone(), files: vec![id] }],
        outputs: vec![Planned { folder: folder.clone(), from: *from, to: *to }],
    }
}

/// An output that is being made.
struct Open {
    planned: Planned,
    /// Rows of the file that was lost, while the commit log still has it.
    expected: Option<u64>,
    merged: MergedFile,
}

impl Work<'_, '_> {
    /// Makes and stages every output, and remembers what stands.
    pub(super) async fn mend(&mut self, intent: &ReplaceIntent) -> Result<Result<(), Unmakeable>, PartitionError> {
        let layout = serde_json::from_value::<Layout>(intent.recipe.layout.clone());
        let encoding = serde_json::from_value::<Encoding>(intent.recipe.encoding.clone());
        let (Ok(layout), Ok(encoding)) = (layout, encoding) else {
            return Ok(Err(Unmakeable("this build does not know the layout that it was begun with".to_owned())));
        };
        let commits = CommitLog::new(self.rewriter.store.clone(), &self.rewriter.topic, self.partition);
        let (state, _, loaded) = commits.load_state().await?;
        let mut open = BTreeMap::new();
        let scopes = intent.scopes.iter().zip(intent.outputs().map(|(_, planned)| planned));
        for (k, (scope, planned)) in (0u32..).zip(scopes) {
            let lost: Option<u64> =
                scope.inputs().map(|(_, id)| state.live.get(&id).map(|file| file.stored.rows)).sum();
            let is_rejected = planned.folder.starts_with("rejected/");
            let merged = MergedFile::new(is_rejected, &layout, encoding, &self.rewriter.scratch)?;
            open.insert(k, Open { planned: planned.clone(), expected: lost, merged });
        }
        let is_wanted = |from: i64, to: i64| intent.scopes.iter().any(|scope| scope.from < to && from < scope.to);
        let batches: Vec<(i64, i64, Batch)> = state
            .spans
            .iter()
            .filter(|(from, span)| is_wanted(**from, span.to))
            .filter_map(|(from, span)| match &span.fate {
                Fate::Batch(batch) => Some((*from, span.to, (**batch).clone())),
                Fate::Passed(_) | Fate::Abandoned(_) => None,
            })
            .collect();
        drop(state);
        let (budget, log_from) = (self.budget(), self.log_from().await?);
        let mut again = self.again(&commits, &loaded.recent, &budget, log_from);
        let mended = self.mend_from(intent, batches, (&layout, encoding), &mut again, open).await;
        again.close().await;
        mended
    }

    async fn mend_from(
        &mut self,
        intent: &ReplaceIntent,
        batches: Vec<(i64, i64, Batch)>,
        (layout, encoding): (&Layout, Encoding),
        again: &mut Again<'_>,
        mut open: BTreeMap<u32, Open>,
    ) -> Result<Result<(), Unmakeable>, PartitionError> {
        for (from, to, batch) in batches {
            let under = Under { layout: layout.clone(), encoding, replace: None };
            let made = match again.make_under((from, to), &batch, under).await? {
                Made::Batch(made) => made,
                Made::Cannot(reason) => {
                    return Ok(Err(Unmakeable(format!("the batch {from}..{to} cannot be made: {reason}"))));
                }
            };
            for output in open.values_mut() {
                output.take(&made.encoded.files)?;
            }
            again.keep(*made)?;
            self.batch_made();
            let ended: Vec<u32> = open.iter().filter(|(_, output)| output.planned.to <= to).map(|(k, _)| *k).collect();
            for (k, output) in ended.into_iter().filter_map(|k| open.remove(&k).map(|output| (k, output))) {
                if let Err(unmakeable) = self.stage_mended(intent.replace, k, output, layout).await? {
                    return Ok(Err(unmakeable));
                }
            }
        }
        // Behind the last batch offsets may have been passed over.
        for (k, output) in open {
            if let Err(unmakeable) = self.stage_mended(intent.replace, k, output, layout).await? {
                return Ok(Err(unmakeable));
            }
        }
        Ok(Ok(()))
    }

    async fn stage_mended(
        &mut self,
        replace: u64,
        k: u32,
        output: Open,
        layout: &Layout,
    ) -> Result<Result<(), Unmakeable>, PartitionError> {
        let Open { planned: Planned { folder, from, to }, expected, merged } = output;
        let rows = merged.rows();
        if rows == 0 || expected.is_some_and(|expected| expected != rows) {
            let expected = expected.unwrap_or_default();
            let message =
                format!("the log makes {rows} rows of {folder}, {from}..{to}, and the lost file had {expected}");
            return Ok(Err(Unmakeable(message)));
        }
        let topic = self.rewriter.topic.clone();
        let place =
            Place { topic: &topic, partition: self.partition, from, to, series: Series::Replace(replace), layout };
        let file = merged.finish(place, &folder, k)?;
        self.carrier.stage(replace, place, &[file]).await?;
        Ok(Ok(()))
    }
}

impl Open {
    /// Takes the rows that belong into it.
    ///
    /// # Errors
    /// The disk's, and files of one folder that hold offsets in turn.
    fn take(&mut self, files: &[FinishedFile]) -> Result<(), PartitionError> {
        let Planned { folder, from, to } = &self.planned;
        let meets =
            |file: &&FinishedFile| file.folder == *folder && file.offsets.start < *to && *from < file.offsets.end;
        for file in files.iter().filter(meets) {
            let decoder = Decoder::of_file(file.body.clone())?;
            let at_once = decoder.rows_at_once();
            for rows in decoder.rows(at_once)? {
                let rows = within(&rows?, *from, *to);
                if rows.num_rows() > 0 {
                    self.merged.push(&rows)?;
                }
            }
        }
        Ok(())
    }
}

/// The rows with offsets in `[from, to)`. Offsets rise.
fn within(rows: &RecordBatch, from: i64, to: i64) -> RecordBatch {
    let offsets = rows.column_by_name("_offset").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let Some(offsets) = offsets else { return rows.clone() };
    let values = offsets.values();
    let begin = values.partition_point(|offset| *offset < from);
    let end = values.partition_point(|offset| *offset < to);
    rows.slice(begin, end.saturating_sub(begin))
}
