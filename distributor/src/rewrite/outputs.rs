//! Makes the outputs of a replace from the log, by its recipe, and stages them.

use commitlog::{Batch, Fate, Reason, ReplaceIntent, Source};
use commitlog_storage::CommitLog;

use super::choice::{is_planned, tiled};
use super::run::Work;
use crate::again::{Again, Made, MadeBatch, Under};
use crate::batch::{Place, Series};
use crate::error::PartitionError;

/// Why outputs cannot be made.
pub(super) struct Unmakeable(pub String);

/// The batches of a scope, with begin and end.
type Batches = Vec<(i64, i64, Batch)>;

impl Work<'_, '_> {
    /// Makes and stages every output of a replace, and remembers what stands. Another run may have staged some of them:
    /// they are the same, and stay.
    pub(super) async fn stage_all(&mut self, intent: &ReplaceIntent) -> Result<Result<(), Unmakeable>, PartitionError> {
        let cannot = |message: &str| Ok(Err(Unmakeable(message.to_owned())));
        if intent.source != Source::Log {
            return cannot("it is to be made from its inputs, which this command does not do");
        }
        if intent.reason == Reason::Restore {
            return self.mend(intent).await;
        }
        let layout = serde_json::from_value(intent.recipe.layout.clone());
        let encoding = serde_json::from_value(intent.recipe.encoding.clone());
        let (Ok(layout), Ok(encoding)) = (layout, encoding) else {
            return cannot("this build does not know the layout that it was begun with");
        };
        let commits = CommitLog::new(self.rewriter.store.clone(), &self.rewriter.topic, self.partition);
        let (state, _, loaded) = commits.load_state().await?;
        let mut batches = Batches::new();
        for scope in &intent.scopes {
            for (from, span) in state.spans.range(scope.from..scope.to) {
                if let Fate::Batch(batch) = &span.fate {
                    batches.push((*from, span.to, (**batch).clone()));
                }
            }
        }
        drop(state);
        let (budget, log_from) = (self.budget(), self.log_from().await?);
        let mut again = self.again(&commits, &loaded.recent, &budget, log_from);
        let under = Under { layout, encoding, replace: None };
        let staged = self.stage_batches(intent, batches, &under, &mut again).await;
        again.close().await;
        staged
    }

    async fn stage_batches(
        &mut self,
        intent: &ReplaceIntent,
        batches: Batches,
        under: &Under,
        again: &mut Again<'_>,
    ) -> Result<Result<(), Unmakeable>, PartitionError> {
        let mut k = 0;
        for (from, to, batch) in batches {
            let replace = Some((intent.replace, k));
            let under = Under { layout: under.layout.clone(), encoding: under.encoding, replace };
            let made = match again.make_under((from, to), &batch, under).await? {
                Made::Batch(made) => made,
                Made::Cannot(reason) => {
                    return Ok(Err(Unmakeable(format!("the batch {from}..{to} cannot be made: {reason}"))));
                }
            };
            let of_batch = intent.outputs().skip(k as usize).map(|(_, output)| output);
            let outputs = tiled(from, to, &made.encoded.files);
            let is_as_planned = outputs.len() <= intent.outputs().count().saturating_sub(k as usize)
                && outputs.iter().zip(of_batch).all(|(made, planned)| is_planned(made, planned, from, to));
            if !is_as_planned {
                return Ok(Err(Unmakeable(format!("the batch {from}..{to} makes other files than were planned"))));
            }
            self.stage_files(intent.replace, &made).await?;
            k = k.saturating_add(u32::try_from(made.encoded.files.len()).unwrap_or(u32::MAX));
            again.keep(*made)?;
            self.batch_made();
        }
        if k as usize != intent.outputs().count() {
            return Ok(Err(Unmakeable("fewer files are made than were planned".to_owned())));
        }
        Ok(Ok(()))
    }

    async fn stage_files(&mut self, replace: u64, made: &MadeBatch) -> Result<(), PartitionError> {
        let MadeBatch { intent, layout, encoded } = made;
        let (topic, partition, series) = (&*self.rewriter.topic, self.partition, Series::Replace(replace));
        let place = Place { topic, partition, from: intent.from, to: intent.to, series, layout };
        self.carrier.stage(replace, place, &encoded.files).await
    }
}
