//! Rounds of salvage, by which an open batch is closed whose head the log has let go of.
//!
//! `salvages/<n>/<r>.json` below the partition's prefix, n as for cuts, r = 1, 2, … with six digits. Rounds follow one
//! another without a gap, each with a later `log_from`. The protocol stands in [`crate::partition`]'s `salvage`.

use super::storage::inverted;
use super::{ChainError, ChainStore, Cut, PutDocument, Salvage};

impl ChainStore {
    fn salvage_key(&self, from: i64, round: u32) -> String {
        format!("{}salvages/{}/{round:06}.json", self.prefix, inverted(from))
    }

    /// A round of the batch that begins at `from`.
    ///
    /// # Errors
    /// The store's, or it is not what its name says.
    pub(crate) async fn salvage(&self, from: i64, round: u32) -> Result<Option<Salvage>, ChainError> {
        let key = self.salvage_key(from, round);
        let found: Option<Salvage> = self.read(&key).await?;
        match found {
            Some(salvage) if (salvage.from, salvage.round) != (from, round) => {
                Err(ChainError::Damaged { key, message: "it is the round of another place".to_owned() })
            }
            found => Ok(found),
        }
    }

    /// Whether a round was begun for the batch.
    ///
    /// # Errors
    /// As of [`Self::salvage`].
    pub(crate) async fn is_salvaged(&self, cut: &Cut) -> Result<bool, ChainError> {
        Ok(self.salvage(cut.from, 1).await?.is_some())
    }

    /// # Errors
    /// The store's.
    pub(crate) async fn put_salvage(&self, salvage: &Salvage) -> Result<PutDocument<Salvage>, ChainError> {
        self.put(&self.salvage_key(salvage.from, salvage.round), salvage).await
    }
}
