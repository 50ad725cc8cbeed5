//! The limit on the files of a batch.

use super::*;

/// Divides the records into batches of at most `max_files` files each.
fn batches(chunk: &common::log::Chunk, layout: &Layout, max_files: usize) -> Vec<(Range<usize>, Encoded)> {
    let scratch = Scratch::new(std::env::temp_dir());
    let mut window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let (mut next, mut made) = (0, Vec::new());
    while next < chunk.offsets.len() {
        let batch = Batch::new("events", 3, chunk.offsets[next], i64::MIN, layout, ENCODING, &scratch).unwrap();
        let mut batch = batch.of_files(max_files);
        let end = batch.push_all(&window, chunk, next..chunk.offsets.len(), &mut |_| true).unwrap();
        assert!(end > next, "it takes one record at least");
        let encoded = batch.finish().unwrap().unwrap();
        window.merge(encoded.overlay.clone(), encoded.ends.clock_ms).unwrap();
        made.push((next..end, encoded));
        next = end;
    }
    made
}

fn bytes(encoded: &Encoded) -> Vec<(String, u32, bytes::Bytes)> {
    encoded.files.iter().map(|file| (file.folder.clone(), file.sequence, file.body.bytes().unwrap())).collect()
}

#[test]
fn a_batch_ends_only_before_a_record_that_would_begin_a_file_too_many() {
    let at = |id: &str, day: &str| Some(event(id, &format!("2021-01-{day}T00:00:00"), "d", "t", "1"));
    // The repetition of `a`, and a further event of an existing day, need no file; a rejected one needs its own.
    let values = [at("a", "01"), at("b", "02"), at("a", "01"), at("c", "01"), None, None, at("d", "02"), at("e", "03")];
    let made = batches(&chunk(&values), &layout(), 2);
    let ranges: Vec<_> = made.iter().map(|(range, encoded)| (range.clone(), encoded.files.len())).collect();
    assert_eq!(ranges, [(0..4, 2), (4..7, 2), (7..8, 1)]);
    let all = batches(&chunk(&values), &layout(), 4);
    assert_eq!((all.len(), all[0].1.files.len()), (1, 4));
}

#[test]
fn a_full_file_that_is_continued_is_one_more() {
    let layout = Layout { max_rows_per_file: 3, ..layout() };
    let values: Vec<_> = (0..8).map(|id| Some(event(&format!("{id}"), "2021-01-01T00:00:00", "d", "t", "1"))).collect();
    let ranges: Vec<_> = batches(&chunk(&values), &layout, 2).into_iter().map(|(range, _)| range).collect();
    assert_eq!(ranges, [0..6, 6..8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A worker that adopts a cut, or rewrites a batch, has its end and no limit.
    #[test]
    fn a_batch_that_ended_for_its_files_is_the_same_for_its_range_without_a_limit(
        kinds in prop::collection::vec((0_u8..5, 1_u8..5, 0_u8..40), 1..120),
        max_files in 1_usize..7,
    ) {
        let values: Vec<_> = kinds.iter().map(|(kind, day, id)| match kind {
            0 => None,
            1 => Some(event("old", "1950-01-01T00:00:00", "d", "t", "1")),
            kind => Some(event(&format!("e{id}"), &format!("2021-01-0{day}T00:00:00"), "d", &format!("t{kind}"), "1")),
        }).collect();
        let (chunk, layout) = (chunk(&values), Layout { max_types: 2, ..layout() });
        let scratch = Scratch::new(std::env::temp_dir());
        let mut window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, scratch.clone()));
        let made = batches(&chunk, &layout, max_files);
        for (index, (range, encoded)) in made.iter().enumerate() {
            prop_assert!(encoded.files.len() <= max_files);
            let again = |end: usize| {
                let from = chunk.offsets[range.start];
                let mut batch = Batch::new("events", 3, from, i64::MIN, &layout, ENCODING, &scratch).unwrap();
                batch.push_all(&window, &chunk, range.start..end, &mut |_| true).unwrap();
                batch.finish().unwrap().unwrap()
            };
            let same = again(range.end);
            prop_assert_eq!(bytes(encoded), bytes(&same));
            prop_assert_eq!(encoded.counts, same.counts);
            if index + 1 < made.len() {
                let longer = again(range.end + 1);
                let is_duplicate = longer.counts.duplicates > encoded.counts.duplicates;
                prop_assert!(longer.files.len() > max_files || is_duplicate, "it ended too early");
            }
            window.merge(same.overlay, same.ends.clock_ms).unwrap();
        }
        prop_assert_eq!(made.last().map(|(range, _)| range.end), Some(values.len()));
    }
}
