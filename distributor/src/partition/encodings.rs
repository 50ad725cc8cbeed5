//! A batch's files are encoded as its cut says, by any worker at any time.

use std::fs;
use std::path::{Path, PathBuf};

use common::clock::{Clock, SystemClock};
use common::config::Compression;
use common::log::Log;
use common::shutdown::Shutdown;
use serde_json::Value;

use crate::batch::Encoding;
use crate::batch::testing::ENCODING;
use crate::testing::Zone;
use crate::{Auditor, ChainRebuilder, EndOfInput, Repair, Scratch};

const SNAPPY: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: true };

type Content = Vec<(PathBuf, Vec<u8>)>;

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

impl Zone {
    fn event_files(&self) -> Content {
        self.files("events", ".parquet").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    async fn distribute_as(&self, encoding: Encoding) {
        let mut distributor = self.distributor();
        distributor.settings.encoding = encoding;
        distributor.run(&EndOfInput::now(), &Shutdown::new()).await.unwrap();
    }

    /// Restores missing files by a worker that is configured with another codec.
    async fn restore_as(&self, encoding: Encoding) {
        self.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
        self.distribute_as(encoding).await;
    }

    pub(super) async fn assert_sound_for(&self, encoding: Encoding) {
        let auditor = Auditor {
            store: self.store(),
            log: Some(self.log.clone()),
            topic: "events".into(),
            group: "g".into(),
            encoding,
            window_memory: 1_000_000_000,
            batch_memory: 1_000_000_000,
            scratch: Scratch::new(self.folder.path()),
            deep: true,
            uploads_older_than: std::time::Duration::from_secs(86_400),
            now_ms: SystemClock.now_ms(),
            on_batch: Box::new(|_| {}),
        };
        let audit = auditor.verify(Repair::No).await.unwrap();
        assert!(audit.is_sound(), "{:?}", audit.findings);
    }

    async fn rebuild_as(&self, encoding: Encoding) {
        let rebuilder = ChainRebuilder {
            store: self.store(),
            log: self.log.clone(),
            topic: "events".into(),
            group: "g".into(),
            encoding,
            window_memory: 1_000_000_000,
            batch_memory: 1_000_000_000,
            scratch: Scratch::new(self.folder.path()),
            accept_gaps: false,
            on_batch: Box::new(|_| {}),
        };
        assert_eq!(rebuilder.rebuild(false).await.unwrap().refusals().next(), None);
    }

    /// The newest batch, of 15 records and two files, as if its owner had died after putting one of them.
    fn break_off(&self) -> PathBuf {
        fs::remove_file(&self.chain("done")[0]).unwrap();
        fs::remove_file(&self.chain("keys")[0]).unwrap();
        let one = self.files("events", "-40-1.parquet").remove(0);
        fs::remove_file(&one).unwrap();
        one
    }

    /// Removes the encodings from the cuts, as earlier builds wrote them.
    fn forget_encodings(&self) {
        for path in self.chain("cuts") {
            let mut cut = read(&path);
            assert!(cut.as_object_mut().unwrap().remove("encoding").is_some());
            fs::write(path, cut.to_string()).unwrap();
        }
    }

    fn encodings(&self) -> Vec<Value> {
        self.chain("cuts").iter().map(|path| read(path)["encoding"].clone()).collect()
    }
}

#[tokio::test]
async fn a_restored_file_has_its_bytes_though_another_codec_is_configured_now() {
    let zone = Zone::new().await;
    let before = zone.event_files();
    for (path, _) in before.iter().step_by(2) {
        fs::remove_file(path).unwrap();
    }
    zone.restore_as(SNAPPY).await;
    assert!(zone.event_files() == before);
    zone.assert_sound_for(SNAPPY).await;
}

#[tokio::test]
async fn an_adopted_batch_is_encoded_as_its_cut_says() {
    let zone = Zone::new().await;
    let before = zone.event_files();
    zone.break_off();
    zone.distribute_as(SNAPPY).await;
    assert!(zone.event_files() == before);
    zone.append(1).await;
    zone.append_one("new").await;
    zone.distribute_as(SNAPPY).await;
    assert!(zone.event_files().len() > before.len());
    let codecs: Vec<Value> = zone.encodings().into_iter().map(|said| said["compression"].clone()).collect();
    assert_eq!(codecs, ["snappy", "snappy", "snappy", "zstd", "zstd", "zstd"], "newest first");
    zone.assert_sound_for(ENCODING).await;
}

#[tokio::test]
async fn a_batch_whose_cut_has_no_encoding_uses_the_configured_one() {
    let zone = Zone::new().await;
    let before = zone.event_files();
    zone.forget_encodings();
    let gone = zone.break_off();
    zone.distribute_as(SNAPPY).await;
    for (path, body) in zone.event_files() {
        let was = &before.iter().find(|(before, _)| *before == path).unwrap().1;
        assert_eq!(body == *was, path != gone, "{}", path.display());
    }
    zone.assert_sound_for(ENCODING).await;
}

#[tokio::test]
async fn a_rebuilt_cut_records_only_what_its_files_show() {
    let zone = Zone::new().await;
    let before = zone.encodings();
    assert_eq!(before[0], serde_json::json!({"compression": "zstd", "bloom_filter": false}));
    for path in zone.chain("cuts") {
        fs::remove_file(path).unwrap();
    }
    zone.rebuild_as(SNAPPY).await;
    assert_eq!(zone.encodings(), before);
    // Files of two codecs, as earlier builds may have left them: the codec of missing files is then unknown.
    zone.forget_encodings();
    zone.break_off();
    zone.distribute_as(SNAPPY).await;
    let newest = zone.chain("cuts").remove(0);
    fs::remove_file(newest).unwrap();
    zone.rebuild_as(SNAPPY).await;
    assert_eq!(zone.encodings()[0], Value::Null);
    zone.assert_sound_for(ENCODING).await;
}
