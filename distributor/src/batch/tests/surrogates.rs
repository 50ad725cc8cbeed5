//! Lone surrogates in `data`.

use common::event::LoneSurrogates;

use super::*;

const AT: &str = "2021-01-14T10:15:30";
const LONE: &str = r#"{"note":"cut \ud83d","\uDE00":"\ud83d\ude00"}"#;
const REPLACED: &str = r#"{"note":"cut \ufffd","\ufffd":"\ud83d\ude00"}"#;
const SOUND: &str = r#"{"note":"\ud83d\ude00 \\ud83d"}"#;

fn layout_with(choice: LoneSurrogates) -> Layout {
    let mut layout = layout();
    layout.rules.lone_surrogates = choice;
    layout.columns = vec![column("note", "/note", "string", "*")];
    layout
}

fn encode_under(choice: LoneSurrogates) -> Encoded {
    let values = [event("a", AT, "d", "t", LONE), event("b", AT, "d", "t", SOUND), event("a", AT, "d", "t", LONE)];
    encode(&values.map(Some), &layout_with(choice), ENCODING)
}

/// The cells of a column of text.
fn cells(file: &FinishedFile, name: &str) -> Vec<Option<String>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.body.bytes().unwrap()).unwrap().build().unwrap();
    let batch = reader.into_iter().next().unwrap().unwrap();
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    column.iter().map(|cell| cell.map(str::to_owned)).collect()
}

fn some(cells: &[&str]) -> Vec<Option<String>> {
    cells.iter().map(|cell| Some((*cell).to_owned())).collect()
}

#[test]
fn a_lone_surrogate_is_replaced_in_data_and_its_columns_and_counted() {
    let encoded = encode_under(LoneSurrogates::Replace);
    assert_eq!(
        encoded.counts,
        Counts { read: 3, written: 2, duplicates: 1, replaced: 1, ..Counts::default() },
        "the duplicate is no row"
    );
    assert_eq!(cells(&encoded.files[0], "data"), some(&[REPLACED, SOUND]));
    assert_eq!(cells(&encoded.files[0], "note"), some(&["cut \u{fffd}", "😀 \\ud83d"]));
}

#[test]
fn a_lone_surrogate_is_kept_where_the_layout_says_so_and_no_column_can_have_it() {
    let encoded = encode_under(LoneSurrogates::Keep);
    assert_eq!(encoded.counts, Counts { read: 3, written: 2, duplicates: 1, unfit: 1, ..Counts::default() });
    assert_eq!(cells(&encoded.files[0], "data"), some(&[LONE, SOUND]));
    assert_eq!(cells(&encoded.files[0], "note"), [None, Some("😀 \\ud83d".to_owned())]);
}

#[test]
fn a_record_of_another_producer_with_a_lone_surrogate_is_rejected_where_the_layout_says_so() {
    let encoded = encode_under(LoneSurrogates::Reject);
    assert_eq!(encoded.counts, Counts { read: 3, written: 1, rejected: 2, ..Counts::default() });
    let rejected = encoded.files.iter().find(|file| file.folder.starts_with("rejected/")).unwrap();
    assert_eq!(cells(rejected, "reason"), some(&["lone_surrogate", "lone_surrogate"]));
    let reader = ParquetRecordBatchReaderBuilder::try_new(rejected.body.bytes().unwrap()).unwrap().build().unwrap();
    let batch = reader.into_iter().next().unwrap().unwrap();
    let raw = batch.column_by_name("raw").unwrap().as_binary::<i32>();
    assert_eq!(raw.value(0), event("a", AT, "d", "t", LONE).as_bytes(), "the very bytes");
}
