//! Batches that were made again by a rewrite: which documents are put for them.
//!
//! Nobody reads what was before a revision but to replace it, and files of it are gone. So where that is lost, what is
//! known of the revision stands in for it: a cut that is put has its layout and encoding; a completion has its counts
//! and lists no files, so that nobody takes files for its own that are not.

use super::Stop;
use super::batches::{completion, stated};
use super::known::Known;
use super::partition::Pass;
use crate::chain::{Completion, Cut, DOCUMENT_VERSION, Revision};
use crate::window::encode_key_run;

/// What a rewrite is called of which nothing is left: they are named after the time.
pub(super) const UNKNOWN_REWRITE: i64 = 0;

impl Pass<'_> {
    /// Goes past a batch that stands as `cut`, with the layout and number of its revision, and `done` say; what is
    /// missing of its documents is to be put.
    pub(super) fn stands(&mut self, known: Known, cut: Cut, done: Completion, key_run: String) {
        let is_revised = known.number > 0;
        if known.has_lost_its_revision() {
            let former = known.former.into_iter().flat_map(|former| former.files);
            self.new_revisions.push(Revision {
                version: DOCUMENT_VERSION,
                revision: known.number,
                rewrite: UNKNOWN_REWRITE,
                layout: cut.layout.clone(),
                encoding: cut.encoding.unwrap_or(self.rebuilder.encoding),
                window_from: cut.window_from,
                key_run,
                completion: done.clone(),
                removals: former.map(|file| file.path).collect(),
            });
        }
        let files = if is_revised { Vec::new() } else { done.files };
        let completion = known.completion.is_none().then_some(Completion { files, ..done });
        let cut_is_new = known.cut.is_none();
        let cut = known.cut.unwrap_or(Cut { revision: 0, ..cut });
        self.passed(&cut, cut_is_new, completion);
    }

    /// None of its files is there, its documents know of no revision that would have none, and an earlier batch had a
    /// revision whose document is lost: the same rewrite may have made this one again, without a row.
    pub(super) fn may_have_been_emptied(&self, known: &Known, is_newest: bool) -> bool {
        let may_have_had_files = known.listed().map_or(!is_newest, |listed| !listed.files.is_empty());
        self.lost_layout.is_some() && known.files.is_empty() && may_have_had_files
    }

    /// Goes past a batch if, under the layout of that revision, the log's records make no file of it: it has a revision
    /// without files then. Otherwise what its documents say is as good as anything.
    pub(super) async fn emptied(&mut self, cut: &Cut, known: &Known) -> Result<bool, Stop> {
        let Some(layout) = self.lost_layout.clone().filter(|_| self.log.earliest <= cut.from) else { return Ok(false) };
        let number = known.number + 1;
        let Some(encoded) = self.make(cut.from, cut.to, &layout, number, None).await? else { return Ok(false) };
        let stated = stated(&encoded);
        let is_same = (cut.first, cut.last, cut.clock_ms) == (Some(stated.first), Some(stated.last), stated.clock_ms);
        if !encoded.files.is_empty() || encoded.ends.to != cut.to || !is_same {
            return Ok(false);
        }
        self.report.recounted_batches += 1;
        let known = Known {
            cut: Some(cut.clone()),
            completion: known.completion.clone(),
            number,
            former: known.listed().cloned(),
            ..Known::default()
        };
        let run = encode_key_run(&encoded.overlay);
        let (key, there) = self.find_run(cut.from, &known, &layout, |there| there == run).await?;
        if there.is_none() {
            self.put_run(&key, &run).await?;
        }
        self.take(&key, &run, cut.clock_ms)?;
        let done = completion(cut.from, cut.to, Vec::new(), &stated, encoded.counts);
        let standing = Cut { revision: number, encoding: None, ..self.cut_of(cut.from, cut.to, &layout, &stated) };
        self.stands(known, standing, done, key);
        Ok(true)
    }
}
