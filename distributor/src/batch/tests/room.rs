//! The memory of a batch, and that spilling changes nothing.

use super::*;

/// An action between two records.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Relief {
    Spill,
    Defer,
}

fn encode_with(
    values: &[Option<String>],
    layout: &Layout,
    relief: impl Fn(usize) -> Option<Relief>,
) -> (Encoded, usize) {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch::new(folder.path());
    let window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let mut batch = Batch::new("events", 3, 40, i64::MIN, layout, ENCODING, &scratch).unwrap();
    let records = records(values);
    let mut peak = 0;
    for (index, record) in records.iter().enumerate() {
        batch.push(&window, &record, 40 + i64::try_from(index).unwrap(), 1_700_000_000_000).unwrap();
        peak = peak.max(batch.memory_bytes() - batch.overlay.memory_bytes());
        match relief(index) {
            Some(Relief::Spill) => {
                batch.spill().unwrap();
                assert_eq!(batch.spillable_bytes(), 0);
            }
            Some(Relief::Defer) => batch.defer(),
            None => {}
        }
    }
    (batch.finish().unwrap().unwrap(), peak)
}

fn bytes(encoded: &Encoded) -> Vec<(String, u32, bytes::Bytes)> {
    encoded.files.iter().map(|file| (file.folder.clone(), file.sequence, file.body.bytes().unwrap())).collect()
}

fn types(count: usize, rows: usize) -> Vec<Option<String>> {
    let row = |number: usize| {
        let data = format!(r#"{{"n":{number},"text":"{number:0200}"}}"#);
        event(&format!("{number}"), "2021-01-14T10:15:30", "d", &format!("t{}", number % count), &data)
    };
    (0..rows).map(|number| Some(row(number))).collect()
}

#[test]
fn ten_thousand_types_take_little_memory_when_rows_go_to_disk_and_the_files_are_the_same() {
    let layout = Layout { max_types: 20_000, ..layout() };
    let values = types(10_000, 30_000);
    let (plain, held) = encode_with(&values, &layout, |_| None);
    assert_eq!(plain.files.len(), 10_000);
    assert!(held < 30_000 * 700, "{held} bytes for rows of 300");
    let (relieved, peak) = encode_with(&values, &layout, |index| (index % 2_500 == 2_499).then_some(Relief::Spill));
    // What remains of a file in memory is its name and the place of its rows.
    assert!(peak < held * 3 / 5, "{peak} of {held}");
    assert!(bytes(&plain) == bytes(&relieved));
}

/// A Parquet file is larger than its few rows.
#[test]
fn encoded_files_take_no_more_memory_than_their_rows_did_whatever_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, scratch) = (Layout { max_types: 20_000, ..layout() }, Scratch::new(folder.path()));
    let window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let filled = |count: usize| {
        let mut batch = Batch::new("events", 3, 0, i64::MIN, &layout, ENCODING, &scratch).unwrap();
        let values = types(count, count);
        for (offset, record) in (0..).zip(records(&values).iter()) {
            batch.push(&window, &record, offset, 1).unwrap();
        }
        batch
    };
    let batch = filled(3_000);
    let open_bytes = batch.memory_bytes;
    let encoded = batch.finish().unwrap().unwrap();
    let held_bytes: usize = encoded.files.iter().map(FinishedFile::memory_bytes).sum();
    let bytes: usize = encoded.files.iter().map(|file| file.body.len()).sum();
    assert!(4 * bytes > 5 * open_bytes, "{bytes} encoded of {open_bytes}: the test shows nothing");
    assert!(held_bytes <= open_bytes, "{held_bytes} of {open_bytes}");
    assert!(scratch.used_bytes() > 0);
    drop(encoded);
    let few = filled(20).finish().unwrap().unwrap();
    assert_eq!((few.files.len(), scratch.used_bytes()), (20, 0), "a few small files need no disk");
}

/// The memory is counted for each file.
#[test]
fn an_open_file_of_few_rows_takes_little_and_has_no_encoder() {
    let layout = Layout { max_types: 20_000, ..layout() };
    let (encoded, held) = encode_with(&types(2_000, 2_000), &layout, |_| None);
    assert_eq!(encoded.files.len(), 2_000);
    assert!((1_000..3_000).contains(&(held / 2_000)), "{} bytes a file", held / 2_000);
}

#[test]
fn a_batch_that_is_rebuilt_keeps_within_its_memory_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (layout, scratch) = (layout(), Scratch::new(folder.path()));
    let window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let values = types(40, 20_000);
    let records = records(&values);
    let made = |limit_bytes: u64| {
        let mut batch = Batch::new("events", 3, 0, i64::MIN, &layout, ENCODING, &scratch).unwrap();
        let mut peak = 0;
        for (offset, record) in (0..).zip(records.iter()) {
            batch.push(&window, &record, offset, 1).unwrap();
            peak = peak.max(batch.memory_bytes);
            if offset % 100 == 0 {
                batch.keep_within(limit_bytes).unwrap();
            }
        }
        (batch.finish().unwrap().unwrap(), peak)
    };
    let (plain, held) = made(u64::MAX);
    let (tight, peak) = made(500_000);
    assert!(held > 5_000_000 && peak < 800_000, "{peak} of {held}");
    assert!(bytes(&plain) == bytes(&tight));
}

#[test]
fn a_large_file_that_goes_to_disk_by_row_groups_is_the_same() {
    let values = types(1, 150_000);
    let (plain, _) = encode_with(&values, &layout(), |_| None);
    let (spilled, _) = encode_with(&values, &layout(), |index| (index % 10_007 == 0).then_some(Relief::Spill));
    let (deferred, peak) = encode_with(&values, &layout(), |index| match index {
        20_000 => Some(Relief::Defer),
        _ => (index % 5_000 == 0).then_some(Relief::Spill),
    });
    assert!(peak < 12_000_000, "{peak}: the encoder takes no more rows");
    assert_eq!(reader(&plain.files[0]).metadata().num_row_groups(), 2);
    assert!(bytes(&plain) == bytes(&spilled), "spilled");
    assert!(bytes(&plain) == bytes(&deferred), "deferred");
}

#[test]
fn the_size_is_estimated_from_the_measured_ratio() {
    let folder = tempfile::tempdir().unwrap();
    let layout = layout();
    let scratch = Scratch::new(folder.path());
    let window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let filled = |values: &[Option<String>], ratio: Option<f64>| {
        let mut batch = Batch::new("events", 3, 0, i64::MIN, &layout, ENCODING, &scratch).unwrap();
        if let Some(ratio) = ratio {
            batch.expect_ratio(ratio);
        }
        for (offset, record) in (0..).zip(records(values).iter()) {
            batch.push(&window, &record, offset, 1).unwrap();
        }
        batch
    };
    let is_near = |estimate: u64, size: u64| estimate > size * 4 / 5 && estimate < size * 6 / 5;
    let size = |encoded: &Encoded| encoded.files.iter().map(|file| file.body.len() as u64).sum::<u64>();
    let values = types(1, 140_000);
    let one = filled(&values, None);
    let estimate = one.estimated_bytes();
    let one = one.finish().unwrap().unwrap();
    assert!(is_near(estimate, size(&one)), "{estimate} for {}, a row group of which is finished", size(&one));
    let small = filled(&values[..20_000], Some(one.ratio));
    let estimate = small.estimated_bytes();
    let small = small.finish().unwrap().unwrap();
    assert!(is_near(estimate, size(&small)), "{estimate} for {}, by the batch before", size(&small));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn spilling_at_any_time_changes_no_byte(
        kinds in prop::collection::vec((0_usize..4, 0_usize..30), 1..300),
        rows_per_file in 5_u64..100,
        reliefs in prop::collection::vec(prop::option::of(prop::sample::select(vec![Relief::Spill, Relief::Spill, Relief::Defer])), 300),
    ) {
        let at = "2021-01-01T00:00:00";
        let values: Vec<_> = kinds.iter().map(|(kind, id)| match kind {
            3 => Some("no event".to_owned()),
            kind => Some(event(&format!("{id}"), at, "d", &format!("t{kind}"), "{\"a\":1}")),
        }).collect();
        let layout = Layout { max_rows_per_file: rows_per_file, ..layout() };
        let (plain, _) = encode_with(&values, &layout, |_| None);
        let (relieved, _) = encode_with(&values, &layout, |index| reliefs[index]);
        prop_assert_eq!(bytes(&plain), bytes(&relieved));
        prop_assert_eq!(plain.counts, relieved.counts);
    }
}
