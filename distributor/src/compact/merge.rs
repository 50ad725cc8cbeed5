//! Makes an output of a compaction from its inputs.

use commitlog::{FileId, Planned, ReplaceIntent, State, Stored};

use super::run::Work;
use common::store::StoreErrorKind;

use crate::batch::{Encoding, FinishedFile, MergedFile, Place, Series, path};
use crate::decode::Decoder;
use crate::error::PartitionError;
use crate::fetch::fetch;
use crate::footer::{Footer, FooterError};
use crate::layout::Layout;

/// Why an output cannot be made.
pub(super) enum Unmakeable {
    /// An input is missing, or is not what its entry says, or may not be read.
    Input(FileId),
    /// The inputs cannot be in one file: their rows have other columns, or hold offsets in turn.
    Unlike(String),
    /// This build does not know how it was begun.
    Recipe(String),
}

/// Of an input whose entry is forgotten.
const MOST_BYTES: u64 = 16 << 30;

/// An input: its offsets, and what its entry says.
struct Input {
    from: i64,
    to: i64,
    stored: Option<Stored>,
}

impl Work<'_> {
    /// Makes output `k` and stages it.
    ///
    /// # Errors
    /// The store's and the disk's.
    pub(super) async fn stage_one(
        &mut self,
        intent: &ReplaceIntent,
        k: u32,
    ) -> Result<Result<(), Unmakeable>, PartitionError> {
        let layout = serde_json::from_value::<Layout>(intent.recipe.layout.clone());
        let encoding = serde_json::from_value::<Encoding>(intent.recipe.encoding.clone());
        let (Ok(layout), Ok(encoding)) = (layout, encoding) else {
            return Ok(Err(Unmakeable::Recipe(
                "this build does not know the layout that it was begun with".to_owned(),
            )));
        };
        self.know_inputs(intent).await?;
        let Some((planned, inputs)) = inputs_of(intent, k) else {
            return Ok(Err(Unmakeable::Recipe(format!("it has no output {k}"))));
        };
        let series = Series::Replace(intent.replace);
        let topic = self.carrier.topic.clone();
        let partition = self.carrier.partition;
        let place = Place { topic: &topic, partition, from: planned.from, to: planned.to, series, layout: &layout };
        let file = match self.merged(planned, inputs, place, encoding, k).await? {
            Ok(file) => file,
            Err(unmakeable) => return Ok(Err(unmakeable)),
        };
        self.carrier.stage(intent.replace, place, &[file]).await?;
        Ok(Ok(()))
    }

    async fn merged(
        &mut self,
        planned: &Planned,
        inputs: Vec<FileId>,
        place: Place<'_>,
        encoding: Encoding,
        k: u32,
    ) -> Result<Result<FinishedFile, Unmakeable>, PartitionError> {
        let mut ordered: Vec<(i64, i64, FileId, Option<Stored>)> = Vec::with_capacity(inputs.len());
        for id in inputs {
            match self.input(&planned.folder, id).await? {
                Some(Input { from, to, stored }) => ordered.push((from, to, id, stored)),
                None => return Ok(Err(Unmakeable::Input(id))),
            }
        }
        ordered.sort_unstable_by_key(|(from, to, id, _)| (*from, *to, *id));
        let is_rejected = planned.folder.starts_with("rejected/");
        let scratch = self.carrier.scratch.clone();
        let mut merged = MergedFile::new(is_rejected, place.layout, encoding, &scratch)?;
        for (_, _, id, stored) in ordered {
            let path = path(&self.carrier.topic, self.carrier.partition, &planned.folder, id);
            match self.push(&mut merged, &path, stored).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(path, "it is missing or altered, and is not merged; 'verify' says more");
                    return Ok(Err(Unmakeable::Input(id)));
                }
                Err(PartitionError::Store(error)) if error.kind == StoreErrorKind::Denied => {
                    tracing::warn!(path, %error, "it may not be read, and is not merged");
                    return Ok(Err(Unmakeable::Input(id)));
                }
                // Its bytes are what its entry says.
                Err(PartitionError::Encode(error)) => {
                    return Ok(Err(Unmakeable::Unlike(format!("{path}: {error}"))));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(merged.finish(place, &planned.folder, k)?))
    }

    /// Reads what the commit log says of the inputs of a replace, once.
    async fn know_inputs(&mut self, intent: &ReplaceIntent) -> Result<&State, PartitionError> {
        let from = intent.scopes.iter().map(|scope| scope.from).min().unwrap_or(0);
        let to = intent.scopes.iter().map(|scope| scope.to).max().unwrap_or(0);
        let known = self.inputs.take().filter(|(of, _)| *of == intent.replace);
        let known = match known {
            Some(known) => known,
            None => (intent.replace, self.carrier.commits.load_state_within(from, to).await?),
        };
        Ok(&self.inputs.insert(known).1)
    }

    /// Bytes of the inputs of output `k`, as far as the commit log has them.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn input_bytes(&mut self, intent: &ReplaceIntent, k: u32) -> Result<u64, PartitionError> {
        let state = self.know_inputs(intent).await?;
        let inputs = inputs_of(intent, k).map(|(_, inputs)| inputs).unwrap_or_default();
        Ok(inputs.iter().filter_map(|id| state.live.get(id)).map(|file| file.stored.bytes).sum())
    }

    /// What is known of an input. Once the replace is decided, the commit log has forgotten its bytes and, of an output, its
    /// offsets; the hash of what is made tells then.
    async fn input(&self, folder: &str, id: FileId) -> Result<Option<Input>, PartitionError> {
        let Some((_, state)) = &self.inputs else { return Ok(None) };
        if let Some(file) = state.live.get(&id) {
            return Ok(Some(Input { from: file.from, to: file.to, stored: Some(file.stored) }));
        }
        if let FileId::Batch { from, .. } = id {
            return Ok(state.spans.get(&from).map(|span| Input { from, to: span.to, stored: None }));
        }
        let path = path(&self.carrier.topic, self.carrier.partition, folder, id);
        let Some(meta) = self.carrier.store.head(&path).await? else { return Ok(None) };
        let footer = match Footer::read(&*self.carrier.store, &path, meta.size_bytes).await {
            Ok(footer) => footer,
            Err(FooterError::Store(error)) => return Err(error.into()),
            Err(FooterError::Gone | FooterError::Unreadable(_)) => return Ok(None),
        };
        let fact = |name: &str| footer.fact(name).and_then(|text| text.parse::<i64>().ok());
        let range = fact("event_distributor.from").zip(fact("event_distributor.to"));
        Ok(range.map(|(from, to)| Input { from, to, stored: None }))
    }

    /// Whether all rows of a file were added: it is there, and what its entry says.
    async fn push(&self, merged: &mut MergedFile, path: &str, stored: Option<Stored>) -> Result<bool, PartitionError> {
        let most_bytes = stored.map_or(MOST_BYTES, |stored| stored.bytes);
        let Some(body) = fetch(&*self.carrier.store, path, most_bytes, &self.carrier.scratch).await? else {
            return Ok(false);
        };
        let found = (body.len() as u64, body.hash()?);
        if stored.is_some_and(|stored| found != (stored.bytes, stored.sha256)) {
            return Ok(false);
        }
        let decoder = Decoder::of_file(body)?;
        let at_once = decoder.rows_at_once();
        for rows in decoder.rows(at_once)? {
            merged.push(&rows?)?;
            // Others have work to do.
            tokio::task::yield_now().await;
        }
        Ok(true)
    }
}

/// An output, and its inputs.
pub(super) fn inputs_of(intent: &ReplaceIntent, k: u32) -> Option<(&Planned, Vec<FileId>)> {
    let mut first = 0;
    for scope in &intent.scopes {
        let outputs = scope.outputs.len();
        if let Some(planned) = (k as usize).checked_sub(first).and_then(|within| scope.outputs.get(within)) {
            let inputs = scope.inputs().filter(|(folder, _)| *folder == planned.folder).map(|(_, id)| id).collect();
            return Some((planned, inputs));
        }
        first += outputs;
    }
    None
}
