mod limit;
mod room;
mod surrogates;

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatchReader};
use arrow_schema::DataType;
use common::event::ColumnRule;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression as Codec, Encoding as ParquetEncoding, Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use proptest::prelude::*;

use super::testing::{ENCODING, chunk, event, layout, records};
use super::*;
use crate::scratch::Scratch;
use crate::window::{Budget, encode_key_run};

fn encode(values: &[Option<String>], layout: &Layout, encoding: Encoding) -> Encoded {
    let window = Window::new(layout.window_ms, &Budget::new(1_000_000_000, Scratch::new(".")));
    let mut batch =
        Batch::new("events", 3, 40, i64::MIN, layout, encoding, &Scratch::new(std::env::temp_dir())).unwrap();
    assert_eq!(batch.push_all(&window, &chunk(values), 0..values.len(), &mut |_| true).unwrap(), values.len());
    batch.finish().unwrap().unwrap()
}

fn reader(file: &FinishedFile) -> SerializedFileReader<bytes::Bytes> {
    SerializedFileReader::new(file.body.bytes().unwrap()).unwrap()
}

fn sample(count: usize) -> Vec<Option<String>> {
    let event = |number: usize| {
        let day = 1 + number % 2;
        event(
            &format!("id-{number}"),
            &format!("2021-01-{day:02}T10:15:30.{number:06}"),
            "account",
            "opened",
            r#"{"n": 1.50, "s":"ü"}"#,
        )
    };
    (0..count).map(|number| Some(event(number))).collect()
}

#[test]
fn rows_go_to_files_by_type_and_day_and_every_record_is_accounted_for() {
    let at = "2021-01-14T10:15:30";
    let values = vec![
        Some(event("a", at, "account", "opened", "1")),
        Some(event("b", "2021-01-15T00:00:00+02:00", "account", "opened", "1")),
        Some(event("a", at, "other", "thing", "2")),
        Some(event("c", at, "card", "lost", "null")),
        Some(event("d", "1950-01-01T00:00:00", "card", "lost", "null")),
        Some("{\"event_id\":7}".to_owned()),
        None,
    ];
    let encoded = encode(&values, &layout(), ENCODING);
    assert_eq!(encoded.counts, Counts { read: 7, written: 3, duplicates: 1, rejected: 3, ..Counts::default() });
    let files: Vec<_> = encoded.files.iter().map(|file| (file.folder.as_str(), file.sequence, file.rows)).collect();
    assert_eq!(
        files,
        [
            ("events/domain_event_type=account-opened/year=2021/month=01/day=14", 0, 2),
            ("events/domain_event_type=card-lost/year=2021/month=01/day=14", 1, 1),
            ("rejected/year=2023/month=11/day=14", 2, 3),
        ]
    );
    assert_eq!((encoded.ends.to, encoded.ends.clock_ms), (47, 1_700_000_000_000));
}

/// The age of a batch depends on types whose first rows were written, not on records without a row.
#[test]
fn a_type_is_reported_once_when_its_file_of_a_day_is_begun() {
    let (day, next_day) = ("2021-01-14T10:15:30", "2021-01-15T10:15:30");
    let scratch = Scratch::new(std::env::temp_dir());
    let window = Window::new(layout().window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let mut batch = Batch::new("events", 3, 40, i64::MIN, &layout(), ENCODING, &scratch).unwrap();
    let values = [
        Some(event("a", day, "alerts", "a/b", "1")),
        Some(event("b", day, "alerts", "a/b", "1")),
        Some(event("c", next_day, "alerts", "a/b", "1")),
        Some(event("c", next_day, "alerts", "a/b", "1")),
        Some(event("d", "1950-01-01T00:00:00", "alerts", "old", "1")),
        None,
    ];
    let mut begun_types = Vec::new();
    for (offset, record) in (40..).zip(records(&values).iter()) {
        batch.push(&window, &record, offset, 1_700_000_000_000).unwrap();
        begun_types.push(batch.take_begun().map(str::to_owned));
    }
    let begun = Some("alerts-a%2Fb".to_owned());
    assert_eq!(begun_types, [begun.clone(), None, begun, None, None, None]);
}

/// Other producers fill headers freely.
#[test]
fn memory_of_a_huge_source_is_counted_at_once() {
    let scratch = Scratch::new(std::env::temp_dir());
    let window = Window::new(layout().window_ms, &Budget::new(1_000_000_000, scratch.clone()));
    let mut batch = Batch::new("events", 3, 0, i64::MIN, &layout(), ENCODING, &scratch).unwrap();
    let source = vec![b'x'; 1_000_000];
    for number in 0..3 {
        let mut records = common::log::RecordBatch::new();
        let value = event(&format!("e{number}"), "2021-01-14T10:15:30", "d", "t", "1");
        records.push(b"key", Some(value.as_bytes()), |headers| headers.put("source", &source)).unwrap();
        batch.push(&window, &records.get(0), number, 1_700_000_000_000).unwrap();
    }
    assert!(batch.memory_bytes() > 2_000_000, "{}", batch.memory_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Batches may end anywhere in a group, for their rows and for their files.
    #[test]
    fn groups_of_records_give_the_same_batches_as_single_records(
        ids in prop::collection::vec(0_u8..60, 1..100),
        sizes in prop::collection::vec(1_usize..40, 1..6),
        begins_at in 0_usize..20,
    ) {
        let value = |id: u8| match id {
            0 => None,
            1 => Some("{\"event_id\":7}".to_owned()),
            2..5 => Some(event("old", "1950-01-01T00:00:00", "d", "t", "1")),
            _ => Some(event(&format!("e{id}"), "2021-01-14T10:15:30", "d", &format!("t{}", id % 3), "1")),
        };
        let values: Vec<Option<String>> = ids.iter().map(|id| value(*id)).collect();
        let chunk = chunk(&values);
        let scratch = Scratch::new(std::env::temp_dir());
        let made = |reads_ahead: bool| {
            let mut window = Window::new(layout().window_ms, &Budget::new(1_000_000_000, scratch.clone()));
            let mut sizes = sizes.iter().cycle();
            let mut next = begins_at.min(values.len());
            let mut made = Vec::new();
            while next < values.len() {
                let size = u64::try_from(*sizes.next().unwrap()).unwrap();
                let mut batch = Batch::new("events", 3, chunk.offsets[next], i64::MIN, &layout(), ENCODING, &scratch).unwrap();
                let goes_on = |batch: &Batch| batch.rows() < size && batch.counts.rejected < 3;
                if reads_ahead {
                    next = batch.push_all(&window, &chunk, next..values.len(), &mut |batch| goes_on(batch)).unwrap();
                } else {
                    while next < values.len() && goes_on(&batch) {
                        batch.push(&window, &chunk.records.get(next), chunk.offsets[next], chunk.times_ms[next]).unwrap();
                        next += 1;
                    }
                }
                let Encoded { files, overlay, counts, ends, .. } = batch.finish().unwrap().unwrap();
                let files: Vec<_> = files.iter().map(|file| (file.folder.clone(), file.body.bytes().unwrap())).collect();
                made.push((files, encode_key_run(&overlay), counts, ends));
                window.merge(overlay, ends.clock_ms).unwrap();
            }
            made
        };
        prop_assert_eq!(made(true), made(false));
    }
}

#[test]
fn types_beyond_the_limit_are_rejected_in_offset_order() {
    let at = "2021-01-14T10:15:30";
    let values: Vec<_> = [("a", "t1"), ("b", "t2"), ("c", "t3"), ("d", "t1")]
        .map(|(id, kind)| Some(event(id, at, "d", kind, "1")))
        .into();
    let encoded = encode(&values, &Layout { max_types: 2, ..layout() }, ENCODING);
    assert_eq!(encoded.counts, Counts { read: 4, written: 3, rejected: 1, ..Counts::default() });
}

#[test]
fn a_file_is_what_engines_expect() {
    let encoded = encode(&sample(40_000), &layout(), Encoding { bloom_filter: true, ..ENCODING });
    assert_eq!(encoded.files.len(), 2);
    let reader = reader(&encoded.files[0]);
    let metadata = reader.metadata();
    assert_eq!(metadata.num_row_groups(), 1);
    assert_eq!(metadata.row_group(0).num_rows(), 20_000);
    let columns: BTreeMap<_, _> =
        metadata.row_group(0).columns().iter().map(|column| (column.column_path().string(), column)).collect();
    let names: Vec<_> =
        metadata.file_metadata().schema_descr().columns().iter().map(|column| column.name().to_owned()).collect();
    assert_eq!(
        names,
        ["event_id", "timestamp", "domain", "event_type", "data", "_ingested_at", "_partition", "_offset", "_source"]
    );
    assert!(columns.values().all(|column| matches!(column.compression(), Codec::ZSTD(_))));
    let timestamp = metadata.file_metadata().schema_descr().column(1);
    assert_eq!(timestamp.physical_type(), Type::INT64);
    assert_eq!(
        format!("{:?}", timestamp.logical_type_ref()),
        "Some(Timestamp { is_adjusted_to_u_t_c: true, unit: MICROS })"
    );
    for (name, dictionary) in
        [("event_id", false), ("data", false), ("domain", true), ("event_type", true), ("_source", true)]
    {
        assert_eq!(columns[name].dictionary_page_offset().is_some(), dictionary, "{name}");
    }
    assert!(columns["_offset"].encodings().any(|encoding| encoding == ParquetEncoding::DELTA_BINARY_PACKED));
    assert!(columns["data"].statistics().is_none() && columns["event_id"].statistics().is_some());
    assert!(columns["event_id"].bloom_filter_offset().is_some() && columns["domain"].bloom_filter_offset().is_none());
    let facts: BTreeMap<_, _> = metadata
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone().unwrap()))
        .collect();
    let layout_fact = serde_json::to_string(&layout()).unwrap();
    for (key, value) in [
        ("topic", "events"),
        ("partition", "3"),
        ("from", "40"),
        ("to", "40040"),
        ("sequence", "0"),
        ("layout", &layout_fact),
    ] {
        assert_eq!(facts[&format!("event_distributor.{key}")], value);
    }
    assert!(!facts.contains_key("ARROW:schema"));
    assert!(encode(&sample(10), &layout(), ENCODING).files.iter().all(|file| {
        self::reader(file).metadata().row_group(0).columns().iter().all(|column| column.bloom_filter_offset().is_none())
    }));
}

fn column(name: &str, pointer: &str, column_type: &str, events: &str) -> ColumnRule {
    let [name, pointer, column_type, events] = [name, pointer, column_type, events].map(str::to_owned);
    ColumnRule { name, pointer, column_type, events }
}

#[test]
fn promoted_values_are_real_columns_and_data_stays_whole() {
    let columns = vec![
        column("amount", "/amount", "decimal(9,2)", "d-order"),
        column("n", "/n", "int", "*"),
        column("ok", "/flags/0", "boolean", "*"),
        column("at", "/at", "timestamp", "*"),
        column("share", "/share", "double", "*"),
        column("note", "/note", "string", "*"),
    ];
    let at = "2021-01-14T10:15:30";
    let full = r#"{"amount":"12.5","n":7,"flags":[true],"at":"2021-01-14T10:15:30Z","share":0.25,"note":"ü"}"#;
    let values = [
        event("a", at, "d", "order", full),
        event("b", at, "d", "order", r#"{"amount":1.005,"n":null}"#),
        event("c", at, "d", "other", r#"{"amount":"12.5","n":"x"}"#),
    ];
    let encoded = encode(&values.map(Some), &Layout { columns, ..layout() }, ENCODING);
    assert_eq!(encoded.counts, Counts { read: 3, written: 3, unfit: 2, ..Counts::default() });
    assert_eq!(encoded.unfit, BTreeMap::from([("amount".to_owned(), 1), ("n".to_owned(), 1)]));
    let tables: Vec<Vec<(String, String)>> = encoded
        .files
        .iter()
        .map(|file| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file.body.bytes().unwrap()).unwrap().build().unwrap();
            let batch = reader.into_iter().next().unwrap().unwrap();
            assert!(batch.column_by_name("data").unwrap().null_count() == 0);
            let cells = |name: &str| {
                let column = batch.column_by_name(name).unwrap();
                let cell = |row: usize| match column.data_type() {
                    _ if column.is_null(row) => "null".to_owned(),
                    DataType::Decimal128(9, 2) => column.as_primitive::<Decimal128Type>().value_as_string(row),
                    DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
                    DataType::Boolean => column.as_boolean().value(row).to_string(),
                    DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
                    DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
                    _ => column.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
                };
                (0..batch.num_rows()).map(cell).collect::<Vec<_>>().join(" ")
            };
            ["amount", "n", "ok", "at", "share", "note"].map(|name| (name.to_owned(), cells(name))).into()
        })
        .collect();
    let table = |cells: [&str; 6]| -> Vec<(String, String)> {
        ["amount", "n", "ok", "at", "share", "note"].iter().zip(cells).map(|(a, b)| ((*a).into(), b.into())).collect()
    };
    assert_eq!(tables[0], table(["12.50 null", "7 null", "true null", "1610619330000000 null", "0.25 null", "ü null"]));
    assert_eq!(tables[1], table(["null"; 6]), "the amount is of orders only, and \"x\" is no number");
    let kinds: Vec<_> = reader(&encoded.files[0])
        .metadata()
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .map(|column| {
            (
                column.name().to_owned(),
                column.physical_type(),
                column.logical_type_ref().map(|kind| format!("{kind:?}")),
            )
        })
        .skip(5)
        .take(6)
        .collect();
    let utc = "Timestamp { is_adjusted_to_u_t_c: true, unit: MICROS }";
    let expected = [
        ("amount", Type::INT32, Some("Decimal { scale: 2, precision: 9 }")),
        ("n", Type::INT64, None),
        ("ok", Type::BOOLEAN, None),
        ("at", Type::INT64, Some(utc)),
        ("share", Type::DOUBLE, None),
        ("note", Type::BYTE_ARRAY, Some("String")),
    ];
    assert_eq!(
        kinds,
        expected.map(|(name, physical, logical)| (name.to_owned(), physical, logical.map(str::to_owned)))
    );
}

#[test]
fn data_survives_as_it_was_written() {
    let encoded = encode(&sample(3), &layout(), ENCODING);
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(encoded.files[0].body.bytes().unwrap()).unwrap().build().unwrap();
    assert_eq!(reader.schema().field(4).name(), "data");
    let batch = reader.into_iter().next().unwrap().unwrap();
    let data = batch.column(4).as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
    assert_eq!(data.value(0), r#"{"n": 1.50, "s":"ü"}"#);
}

#[test]
fn files_roll_by_rows_and_each_stays_readable() {
    let encoded = encode(&sample(50), &Layout { max_rows_per_file: 10, ..layout() }, ENCODING);
    let rows: Vec<_> = encoded.files.iter().map(|file| (file.sequence, file.rows)).collect();
    assert_eq!(rows, [(0, 10), (1, 10), (2, 10), (3, 10), (4, 5), (5, 5)]);
    assert!(
        encoded
            .files
            .iter()
            .all(|file| reader(file).metadata().file_metadata().num_rows() == i64::try_from(file.rows).unwrap())
    );
}

fn hash_rows(batch: &arrow_array::RecordBatch, hash: &mut xxhash_rust::xxh3::Xxh3) {
    use arrow_array::types::Int32Type;
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        hash.update(format!("{field:?}").as_bytes());
        for row in 0..batch.num_rows() {
            let cell = if column.is_null(row) {
                "null".to_owned()
            } else if let Some(column) = column.as_string_opt::<i32>() {
                column.value(row).to_owned()
            } else if let Some(column) = column.as_binary_opt::<i32>() {
                format!("{:?}", column.value(row))
            } else if let Some(column) = column.as_primitive_opt::<Int64Type>() {
                column.value(row).to_string()
            } else if let Some(column) = column.as_primitive_opt::<Float64Type>() {
                column.value(row).to_string()
            } else if let Some(column) = column.as_primitive_opt::<Decimal128Type>() {
                column.value(row).to_string()
            } else if let Some(column) = column.as_primitive_opt::<Int32Type>() {
                column.value(row).to_string()
            } else {
                column.as_primitive::<TimestampMicrosecondType>().value(row).to_string()
            };
            hash.update(cell.as_bytes());
            hash.update(&[0]);
        }
    }
}

/// Fails if the same records are laid out differently than before: raise [`crate::LAYOUT_VERSION`] then.
#[test]
fn the_golden_layout_has_not_changed() {
    let golden = include_str!("golden.txt").trim_end();
    assert_eq!(lay_out(&layout()), golden);
    let columns =
        [("cents", "/n", "decimal(5,2)"), ("share", "/n", "double"), ("whole", "/n", "int"), ("s", "/s", "string")];
    let columns = columns.map(|(name, pointer, column_type)| column(name, pointer, column_type, "account-*"));
    let golden = include_str!("golden_columns.txt").trim_end();
    assert_eq!(lay_out(&Layout { columns: columns.into(), ..layout() }), golden);
}

fn lay_out(layout: &Layout) -> String {
    let mut values = sample(500);
    values.extend(sample(30));
    values.extend([Some(event("z", "2021-02-28T23:59:59.9999999Z", "a=b", "c/d", "[]")), None, Some("[]".to_owned())]);
    // Forms of times, and replacements in data.
    values.extend(
        [
            ("s1", "2021/01/14 02:15:30 -0800", r#"{"s":"cut \ud83d"}"#),
            ("s2", "20210114T101530,5Z", r#"{"\ude00":1,"s":"\ud83d\ude00"}"#),
            ("s3", "2021-01-14", "1"),
            ("s4", "yesterday", "1"),
        ]
        .map(|(id, at, data)| Some(event(id, at, "account", "opened", data))),
    );
    let encoded = encode(&values, &Layout { max_rows_per_file: 200, ..layout.clone() }, ENCODING);
    let Counts { read, written, duplicates, rejected, unfit, replaced } = encoded.counts;
    let mut lines = vec![format!(
        "read {read}, written {written}, duplicates {duplicates}, rejected {rejected}, unfit {unfit}, replaced {replaced}"
    )];
    for file in &encoded.files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.body.bytes().unwrap()).unwrap().build().unwrap();
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for batch in reader {
            hash_rows(&batch.unwrap(), &mut hash);
        }
        lines.push(format!("{} {} {} {:016x}", file.sequence, file.folder, file.rows, hash.digest()));
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_same_records_give_the_same_bytes_however_often_they_are_made(
        kinds in prop::collection::vec((0_usize..4, 0_usize..3, 0_usize..30), 1..300),
        rows_per_file in 5_u64..100,
    ) {
        let values: Vec<_> = kinds.iter().map(|(kind, day, id)| {
            Some(event(&format!("{id}"), &format!("2021-01-0{}T00:00:00", day + 1), "d", &format!("t{kind}"), "1"))
        }).collect();
        let layout = Layout { max_rows_per_file: rows_per_file, ..layout() };
        let (left, right) = (encode(&values, &layout, ENCODING), encode(&values, &layout, ENCODING));
        prop_assert_eq!(left.files.len(), right.files.len());
        for (left, right) in left.files.iter().zip(&right.files) {
            prop_assert_eq!((&left.folder, left.sequence, left.rows, left.body.bytes().unwrap()), (&right.folder, right.sequence, right.rows, right.body.bytes().unwrap()));
        }
        prop_assert_eq!(left.counts.read, left.counts.written + left.counts.duplicates + left.counts.rejected);
        prop_assert_eq!(left.files.iter().map(|file| file.rows).sum::<u64>(), left.counts.written + left.counts.rejected);
        let unique: std::collections::BTreeSet<_> = kinds.iter().map(|(_, day, id)| (day, id)).collect();
        prop_assert_eq!(left.counts.written, unique.len() as u64);
    }
}
