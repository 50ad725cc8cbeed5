//! Offsets that will never be written: skipped by an operator, or lost by the log.

use super::{Context, DOCUMENT_VERSION, Partition, Result, Start};
use crate::chain::{Cut, CutKind, PutDocument, Witness, gap_at};

impl Partition {
    /// Puts cuts for offsets that will never be written, one after another.
    pub(super) async fn pass_over(&mut self, context: &Context, at: i64, last: Option<Witness>) -> Result<Start> {
        let (mut at, mut last) = (at, last);
        while let Some((kind, to)) = gap_at(at, self.committed, self.log) {
            let cut = Cut {
                version: DOCUMENT_VERSION,
                kind,
                topic: context.topic.clone(),
                partition: self.id,
                from: at,
                to,
                layout: context.layout.clone(),
                window_from: self.window_from,
                clock_ms: self.clock_ms,
                first: None,
                last: None,
                folders: None,
                encoding: None,
                revision: 0,
            };
            if let PutDocument::Theirs(_) = self.chain.put_cut(&cut).await? {
                return Ok(Start::ReadAgain);
            }
            match kind {
                CutKind::Lost => tracing::error!(
                    topic = context.topic,
                    partition = self.id,
                    from = at,
                    to,
                    "the log dropped these offsets before they were written: their events are lost. Raise the topic's retention"
                ),
                CutKind::Skipped | CutKind::Batch => tracing::warn!(
                    topic = context.topic,
                    partition = self.id,
                    from = at,
                    to,
                    group = context.group,
                    "the group's offset was set forward: these offsets are skipped"
                ),
            }
            context.metrics.passed_over(kind.name(), to - at);
            self.commit = Some(to);
            (at, last) = (to, None);
        }
        Ok(Start::At(self.read_from(context, at, last)?))
    }
}
