//! Makes live files again that are missing, from the log, under their own names.

use std::collections::{BTreeMap, BTreeSet};

use commitlog::FileId;
use commitlog_storage::owning::{PutFile, Restored};
use commitlog_storage::{Proof, Recent};
use common::store::Store;
use tokio::time::Instant;

use super::files::{self, deadline};
use super::phases::Phases;
use super::{Partition, Phase};
use crate::again::{Again, Made, MadeBatch};
use crate::batch::{Place, Series};
use crate::context::Context;
use crate::error::PartitionError;
use crate::known::Known;
use crate::metrics::{self, BatchDone};

/// Bytes of a batch in memory while it is restored. More goes to disk.
const BATCH_MEMORY: u64 = 32 * 1024 * 1024;

impl Partition {
    /// Makes files again and puts each if its name is free.
    pub(super) async fn restore(
        &mut self,
        ids: &[FileId],
        recent: &Recent,
        proof: Proof,
    ) -> Result<Vec<(FileId, Restored)>, PartitionError> {
        self.phase = Phase::Other;
        self.state.publish(&self.observed(), false);
        self.state.begins();
        let deadline = deadline(self.host.boot_clock.since_boot_ms(), proof);
        let (mut outcomes, mut batches) = (Vec::with_capacity(ids.len()), BTreeMap::<i64, Vec<u32>>::new());
        for id in ids {
            match id {
                FileId::Batch { from, k } => batches.entry(*from).or_default().push(*k),
                // It is restored by a replace, as it was made.
                FileId::Replace { .. } => outcomes.push((*id, Restored::CannotMake)),
            }
        }
        let context = self.shared.context.clone();
        let store = files::resting_on(&context.store, proof);
        let mut again = Again {
            commits: &self.commits,
            recent,
            log: &*self.shared.log,
            topic: &context.topic,
            partition: self.id,
            log_from: self.log.earliest,
            budget: &context.budget,
            scratch: &context.scratch,
            memory: BATCH_MEMORY,
            known: Known::new(context.layout.window_ms, &context.budget),
            records: None,
        };
        for (from, ks) in batches {
            let phases = Phases::begin();
            match again.make(from).await? {
                Made::Batch(made) => {
                    let restored = Self::put_restored(&context, &*store, self.id, &made, &ks, deadline).await?;
                    let is_late = restored.iter().any(|(_, restored)| *restored == Restored::TooOld);
                    outcomes.extend(restored);
                    if is_late {
                        break;
                    }
                    self.tell_restored(&made, &phases);
                    again.keep(*made)?;
                }
                Made::Cannot(reason) => {
                    tracing::warn!(
                        topic = context.topic,
                        partition = self.id,
                        from,
                        files = ks.len(),
                        reason,
                        "files of this batch cannot be restored"
                    );
                    outcomes.extend(ks.iter().map(|k| (FileId::Batch { from, k: *k }, Restored::CannotMake)));
                }
            }
        }
        again.close().await;
        Ok(outcomes)
    }

    async fn put_restored(
        context: &Context,
        store: &dyn Store,
        id: i32,
        made: &MadeBatch,
        ks: &[u32],
        deadline: Instant,
    ) -> Result<Vec<(FileId, Restored)>, PartitionError> {
        let MadeBatch { intent, layout, encoded } = made;
        let place = Place {
            topic: &context.topic,
            partition: id,
            from: intent.from,
            to: intent.to,
            series: Series::Batch,
            layout,
        };
        let wanted = encoded.files.iter().filter(|file| ks.contains(&file.sequence)).collect();
        let put = files::put_all(store, place, wanted, (&context.uploads, &context.scratch), deadline).await?;
        let there: BTreeSet<u32> = put.iter().map(|(k, _)| *k).collect();
        let of = |k: u32| FileId::Batch { from: intent.from, k };
        let unmade = ks.iter().filter(|k| !there.contains(k)).map(|k| (of(*k), Restored::CannotMake));
        let put = put.iter().map(|(k, put)| match put {
            PutFile::Stands(_) => (of(*k), Restored::Present),
            PutFile::TooOld => (of(*k), Restored::TooOld),
        });
        Ok(put.chain(unmade).collect())
    }

    fn tell_restored(&self, made: &MadeBatch, phases: &Phases) {
        let MadeBatch { intent, encoded, .. } = made;
        self.shared.context.metrics.batch_done(&BatchDone {
            topic: &self.shared.context.topic,
            partition: self.id,
            from: intent.from,
            to: intent.to,
            counts: &encoded.counts,
            files: encoded.files.len() as u64,
            bytes: encoded.files.iter().map(|file| file.body.len() as u64).sum(),
            last_append_ms: encoded.ends.last.append_ms,
            unfit: &encoded.unfit,
            made: metrics::Made::Restored,
            total: phases.total(),
            phases: phases.all(),
        });
    }
}
