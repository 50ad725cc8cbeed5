//! Layouts and records for tests.

use common::config::Compression;
use common::event::PRESETS;
use common::log::{Chunk, RecordBatch, RecordRef};

use super::{Batch, BatchError, Encoding};
use crate::layout::{LAYOUT_VERSION, Layout};
use crate::window::Window;

pub(crate) const ENCODING: Encoding = Encoding { compression: Compression::Zstd, bloom_filter: false };

pub(crate) fn layout() -> Layout {
    Layout {
        version: LAYOUT_VERSION,
        preset: "seed".into(),
        rules: PRESETS[0].rules(),
        timezone: "UTC".into(),
        window_ms: 86_400_000,
        max_types: 1_000,
        min_year: 1970,
        max_year: 2100,
        max_rows_per_file: 1_000_000,
        columns: Vec::new(),
    }
}

pub(crate) fn event(id: &str, timestamp: &str, domain: &str, event_type: &str, data: &str) -> String {
    format!(
        r#"{{"event_id":"{id}","timestamp":"{timestamp}","domain":"{domain}","event_type":"{event_type}","data":{data}}}"#
    )
}

pub(crate) fn records(values: &[Option<String>]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for value in values {
        batch.push(b"key", value.as_deref().map(str::as_bytes), |headers| headers.put("source", b"a/x.json")).unwrap();
    }
    batch
}

/// Of partition 3, from offset 40 on, all with the same time.
pub(crate) fn chunk(values: &[Option<String>]) -> Chunk {
    let (offsets, times_ms) = (40..).zip(values).map(|(offset, _)| (offset, 1_700_000_000_000)).unzip();
    Chunk { partition: 3, records: records(values), offsets, times_ms }
}

impl Batch {
    /// Takes one record, without a group.
    pub(crate) fn push(
        &mut self,
        window: &Window,
        record: &RecordRef<'_>,
        offset: i64,
        append_ms: i64,
    ) -> Result<(), BatchError> {
        let read = self.read(record);
        self.take(window, record, read, offset, append_ms)
    }
}
