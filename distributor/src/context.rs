//! What all partitions of a worker share.

use std::sync::Arc;
use std::time::Duration;

use common::config::{MissingFiles, TypeAges};
use common::store::Store;

use crate::batch::Encoding;
use crate::companion::Companion;
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::scratch::Scratch;
use crate::uploads::UploadRoom;
use crate::window::Budget;

pub(crate) struct Context {
    pub store: Arc<dyn Store>,
    pub topic: String,
    pub group: String,
    pub log_id: String,
    /// For new batches, as is the encoding; a batch with an intent has that of its intent.
    pub layout: Layout,
    pub encoding: Encoding,
    pub max_age: Duration,
    pub ages: TypeAges,
    pub max_rows: u64,
    pub max_bytes: u64,
    /// The most files of a batch.
    pub max_files: usize,
    /// For the windows of all partitions.
    pub budget: Arc<Budget>,
    pub scratch: Scratch,
    /// For files of all partitions on their way to the store.
    pub uploads: UploadRoom,
    /// What to do about missing files of committed batches.
    pub missing: MissingFiles,
    pub metrics: Arc<Metrics>,
    pub companions: Vec<Arc<dyn Companion>>,
}
