//! A batch's files are encoded as its intent says, by any owner at any time.

use common::config::Compression;

use super::*;
use crate::batch::Encoding;

const SNAPPY: Encoding = Encoding { compression: Compression::Snappy, bloom_filter: true };

/// The newest batch, of 15 records and two files, as if its owner had died after putting one of them.
fn break_off(zone: &Zone) {
    zone.uncommit();
    fs::remove_file(&zone.files("_commits/events/0/keys", ".run")[0]).unwrap();
    fs::remove_file(&zone.files("events", "-40-1.parquet")[0]).unwrap();
}

#[tokio::test]
async fn a_restored_file_has_its_bytes_though_another_codec_is_configured_now() {
    let zone = Zone::new().await;
    let before = zone.event_files();
    for (path, _) in before.iter().step_by(2) {
        fs::remove_file(path).unwrap();
    }
    zone.log.set_committed("g", "events", &[(0, 0)].into()).await.unwrap();
    zone.distribute_with(|settings| settings.encoding = SNAPPY).await;
    assert!(zone.event_files() == before);
    zone.assert_sound().await;
}

#[tokio::test]
async fn an_adopted_batch_is_encoded_as_its_intent_says() {
    let zone = Zone::new().await;
    let before = zone.event_files();
    break_off(&zone);
    zone.distribute_with(|settings| settings.encoding = SNAPPY).await;
    assert!(zone.event_files() == before);
    zone.append(1).await;
    zone.append_one("new").await;
    zone.distribute_with(|settings| settings.encoding = SNAPPY).await;
    assert!(zone.event_files().len() > before.len());
    let state = zone.state().await;
    let codecs = state.spans.values().map(|span| match &span.fate {
        commitlog::Fate::Batch(batch) => batch.recipe.encoding["compression"].as_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(codecs.collect::<Vec<_>>(), ["zstd", "zstd", "zstd", "snappy", "snappy", "snappy"]);
    zone.assert_sound().await;
}
