//! Closes a batch: encodes the remaining rows, then puts cut, files, key run and completion.

use super::phases::Phases;
use super::{Context, DOCUMENT_VERSION, Next, Partition, Phase, Result, Start, changed, files, refused};
use crate::batch::{Encoded, Place, Stated};
use crate::chain::{Completion, Cut, CutKind, FileEntry, PutDocument};
use crate::metrics::BatchDone;
use crate::window::encode_key_run;

impl Partition {
    /// Closes the open batch, if it has records: cut, files, key run, completion.
    pub(crate) async fn flush(&mut self, context: &Context) -> Result<Next> {
        let Phase::Fill(batch) = &mut self.phase else { return Ok(Next::Continue) };
        if batch.is_empty() {
            return Ok(Next::Continue);
        }
        let (from, layout) = (batch.from(), batch.layout().clone());
        let mut phases = Phases::begin();
        // A placeholder until the next batch begins, which needs the window after this one.
        let placeholder = Phase::Fill(self.new_batch(context, from)?);
        let full = std::mem::replace(&mut self.phase, placeholder);
        let Phase::Fill(full) = full else { return Ok(Next::Continue) };
        self.is_tight &= full.has_spilled();
        let Some(encoded) = full.finish()? else { return Ok(Next::Continue) };
        let cut = Cut {
            version: DOCUMENT_VERSION,
            kind: CutKind::Batch,
            topic: context.topic.clone(),
            partition: self.id,
            from,
            to: encoded.ends.to,
            layout,
            window_from: self.window_from,
            clock_ms: encoded.ends.clock_ms,
            first: Some(encoded.ends.first),
            last: Some(encoded.ends.last),
            folders: Some(encoded.files.iter().map(|file| file.folder.clone()).collect()),
            encoding: Some(context.encoding),
            revision: 0,
        };
        phases.end("encode");
        self.chain.check(
            &self.chain.completion_key(from),
            &completion(&cut, &encoded, files::entries(Place::of(&cut), &encoded.files)),
        )?;
        if let PutDocument::Theirs(theirs) = self.chain.put_cut(&cut).await? {
            tracing::info!(
                topic = context.topic,
                partition = self.id,
                from,
                to = cut.to,
                theirs = theirs.to,
                "another owner cut this batch; adopting its cut"
            );
            return Ok(Next::Resolve);
        }
        phases.end("cut");
        if !self.complete(context, &cut, encoded, true, phases).await? {
            return Ok(Next::Resolve);
        }
        self.phase = Phase::Fill(self.new_batch(context, cut.to)?);
        self.reached = Some((cut.to, self.clock_ms));
        (self.filling_since, self.due) = (None, None);
        Ok(Next::Continue)
    }

    pub(super) async fn finish_redo(&mut self, context: &Context) -> Result<Start> {
        let mut phases = Phases::begin();
        let placeholder = Phase::Fill(self.new_batch(context, 0)?);
        let Phase::Redo { cut, batch, already_complete, .. } = std::mem::replace(&mut self.phase, placeholder) else {
            return Err(refused(context, self.id, "no batch is being made".to_owned()));
        };
        let ends = batch.ends().copied();
        let same = ends.is_some_and(|ends| {
            (Some(ends.first), Some(ends.last), ends.to, ends.clock_ms) == (cut.first, cut.last, cut.to, cut.clock_ms)
        });
        let Some(encoded) = batch.finish()?.filter(|encoded| same && has_folders(&cut, encoded)) else {
            return Err(changed(context, &cut));
        };
        phases.end("encode");
        if !self.complete(context, &cut, encoded, !already_complete, phases).await? {
            return Ok(Start::ReadAgain);
        }
        if already_complete && self.is_outdated(context, &cut).await? {
            return Ok(Start::ReadAgain);
        }
        match self.chain.next_cut(&cut).await? {
            Some(next) => self.walk(context, next).await,
            None => self.read_on(context, &cut).await,
        }
    }

    /// Puts the files, then the key run, then the completion: each is durable before the next. Can be repeated. False
    /// if another worker is closing the batch without them, because it lost its head (see [`super::salvage`]).
    async fn complete(
        &mut self,
        context: &Context,
        cut: &Cut,
        mut encoded: Encoded,
        fresh: bool,
        mut phases: Phases,
    ) -> Result<bool> {
        let files = std::mem::take(&mut encoded.files);
        self.ratio = Some(encoded.ratio);
        let stated = Stated::new(&encoded.ends, encoded.counts, files.len());
        let entries =
            files::put_all(&*context.store, "", Place::of(cut), files, Some(&stated), &context.uploads).await?;
        let Some(entries) = entries else { return Ok(false) };
        phases.end("files");
        let completion = completion(cut, &encoded, entries);
        let Encoded { overlay, ends, unfit, .. } = encoded;
        let theirs = if cut.revision > 0 {
            self.chain.revision(cut.from, Some(cut.revision)).await?.map(|revision| revision.completion)
        } else {
            self.chain.put_key_run(&self.chain.key_run_key(cut.from), encode_key_run(&overlay)).await?;
            phases.end("keys");
            match self.chain.put_completion(&completion).await? {
                PutDocument::Ours => None,
                PutDocument::Theirs(theirs) => Some(theirs),
            }
        };
        if theirs.is_some_and(|theirs| !same_files(&theirs.files, &completion.files)) {
            return Err(refused(
                context,
                self.id,
                format!(
                    "the batch {}..{} was completed with other files than this build makes; the trusted zone or the log was altered",
                    cut.from, cut.to
                ),
            ));
        }
        phases.end("completion");
        self.window.merge(overlay, ends.clock_ms)?;
        self.clock_ms = ends.clock_ms;
        self.commit = Some(cut.to);
        context.metrics.batch_done(&BatchDone {
            topic: &context.topic,
            partition: self.id,
            from: completion.from,
            to: completion.to,
            counts: &completion.counts,
            files: completion.files.len() as u64,
            bytes: completion.files.iter().map(|file| file.bytes).sum(),
            last_append_ms: completion.last_append_ms,
            unfit: &unfit,
            fresh,
            total: phases.total(),
            phases: phases.all(),
        });
        Ok(true)
    }
}

/// The completion of the batch with these files.
fn completion(cut: &Cut, encoded: &Encoded, files: Vec<FileEntry>) -> Completion {
    Completion {
        version: DOCUMENT_VERSION,
        from: cut.from,
        to: cut.to,
        files,
        counts: encoded.counts,
        first_append_ms: encoded.ends.first.append_ms,
        last_append_ms: encoded.ends.last.append_ms,
        damage: None,
    }
}

/// Whether the files are in the folders that the cut lists, if it lists any.
fn has_folders(cut: &Cut, encoded: &Encoded) -> bool {
    let made = encoded.files.iter().map(|file| &file.folder);
    cut.folders.as_ref().is_none_or(|folders| made.eq(folders))
}

pub(super) fn same_files(theirs: &[FileEntry], ours: &[FileEntry]) -> bool {
    // Bytes may differ between builds; rows may not.
    theirs.len() == ours.len()
        && theirs.iter().zip(ours).all(|(theirs, ours)| (&theirs.path, theirs.rows) == (&ours.path, ours.rows))
}
