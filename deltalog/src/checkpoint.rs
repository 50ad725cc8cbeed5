//! Checkpoints (V1, of one file): every action that counts after a commit, one a row, as Parquet.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames, StringBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet_guard::{Decoder, Footer, plain_metadata_of};

use crate::action::{Action, Add, Format, MetaData, Protocol, Remove, Txn};

/// Rows that are encoded at once, and the most that are decoded.
const ROWS: usize = 4_096;

type Texts = MapBuilder<StringBuilder, StringBuilder>;

fn texts() -> Texts {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

fn append_texts<'a>(
    builder: &mut Texts,
    texts: Option<impl IntoIterator<Item = (&'a String, Option<&'a str>)>>,
) -> Result<(), String> {
    let is_there = texts.is_some();
    for (key, value) in texts.into_iter().flatten() {
        builder.keys().append_value(key);
        builder.values().append_option(value);
    }
    builder.append(is_there).map_err(|error| error.to_string())
}

/// A column of structs that is being filled.
#[derive(Default)]
struct Structs {
    is_there: Vec<bool>,
}

impl Structs {
    fn finish(&mut self, columns: Vec<(&str, ArrayRef)>) -> Result<ArrayRef, String> {
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) =
            columns.into_iter().map(|(name, array)| (Field::new(name, array.data_type().clone(), true), array)).unzip();
        let nulls = std::mem::take(&mut self.is_there).into();
        let column = StructArray::try_new(Fields::from(fields), arrays, Some(nulls));
        Ok(Arc::new(column.map_err(|error| error.to_string())?))
    }
}

struct Columns {
    rows: usize,
    txn: (Structs, StringBuilder, Int64Builder, Int64Builder),
    add: (Structs, StringBuilder, Texts, Int64Builder, Int64Builder, BooleanBuilder, StringBuilder),
    remove: (Structs, StringBuilder, Int64Builder, BooleanBuilder),
    meta: MetaColumns,
    protocol: (Structs, Int32Builder, Int32Builder),
}

struct MetaColumns {
    structs: Structs,
    format: Structs,
    id: StringBuilder,
    name: StringBuilder,
    description: StringBuilder,
    provider: StringBuilder,
    options: Texts,
    schema: StringBuilder,
    partition_columns: ListBuilder<StringBuilder>,
    configuration: Texts,
    created: Int64Builder,
}

impl Columns {
    fn new() -> Self {
        let element = Field::new("element", DataType::Utf8, true);
        Self {
            rows: 0,
            txn: (Structs::default(), StringBuilder::new(), Int64Builder::new(), Int64Builder::new()),
            add: (
                Structs::default(),
                StringBuilder::new(),
                texts(),
                Int64Builder::new(),
                Int64Builder::new(),
                BooleanBuilder::new(),
                StringBuilder::new(),
            ),
            remove: (Structs::default(), StringBuilder::new(), Int64Builder::new(), BooleanBuilder::new()),
            meta: MetaColumns {
                structs: Structs::default(),
                format: Structs::default(),
                id: StringBuilder::new(),
                name: StringBuilder::new(),
                description: StringBuilder::new(),
                provider: StringBuilder::new(),
                options: texts(),
                schema: StringBuilder::new(),
                partition_columns: ListBuilder::new(StringBuilder::new()).with_field(element),
                configuration: texts(),
                created: Int64Builder::new(),
            },
            protocol: (Structs::default(), Int32Builder::new(), Int32Builder::new()),
        }
    }

    fn push(&mut self, action: &Action) -> Result<(), String> {
        self.rows += 1;
        self.push_txn(if let Action::Txn(txn) = action { Some(txn) } else { None });
        self.push_add(if let Action::Add(add) = action { Some(add) } else { None })?;
        self.push_remove(if let Action::Remove(remove) = action { Some(remove) } else { None });
        self.meta.push(if let Action::MetaData(meta) = action { Some(meta) } else { None })?;
        self.push_protocol(if let Action::Protocol(protocol) = action { Some(protocol) } else { None });
        Ok(())
    }

    fn push_txn(&mut self, txn: Option<&Txn>) {
        let (structs, app, version, updated) = &mut self.txn;
        structs.is_there.push(txn.is_some());
        app.append_option(txn.map(|txn| &txn.app_id));
        version.append_option(txn.map(|txn| txn.version));
        updated.append_option(txn.and_then(|txn| txn.last_updated));
    }

    fn push_add(&mut self, add: Option<&Add>) -> Result<(), String> {
        let (structs, path, values, size, time, change, stats) = &mut self.add;
        structs.is_there.push(add.is_some());
        path.append_option(add.map(|add| &add.path));
        append_texts(values, add.map(|add| add.partition_values.iter().map(|(name, value)| (name, value.as_deref()))))?;
        size.append_option(add.map(|add| add.size));
        time.append_option(add.map(|add| add.modification_time));
        // What is in a checkpoint is no change.
        change.append_option(add.map(|_| false));
        stats.append_option(add.and_then(|add| add.stats.as_ref()));
        Ok(())
    }

    fn push_remove(&mut self, remove: Option<&Remove>) {
        let (structs, path, time, change) = &mut self.remove;
        structs.is_there.push(remove.is_some());
        path.append_option(remove.map(|remove| &remove.path));
        time.append_option(remove.and_then(|remove| remove.deletion_timestamp));
        change.append_option(remove.map(|_| false));
    }

    fn push_protocol(&mut self, protocol: Option<&Protocol>) {
        let (structs, reader, writer) = &mut self.protocol;
        structs.is_there.push(protocol.is_some());
        reader.append_option(protocol.map(|protocol| protocol.min_reader_version));
        writer.append_option(protocol.map(|protocol| protocol.min_writer_version));
    }

    fn finish(&mut self) -> Result<RecordBatch, String> {
        self.rows = 0;
        let (structs, app, version, updated) = &mut self.txn;
        let txn = structs.finish(vec![
            ("appId", Arc::new(app.finish())),
            ("version", Arc::new(version.finish())),
            ("lastUpdated", Arc::new(updated.finish())),
        ])?;
        let (structs, path, values, size, time, change, stats) = &mut self.add;
        let add = structs.finish(vec![
            ("path", Arc::new(path.finish())),
            ("partitionValues", Arc::new(values.finish())),
            ("size", Arc::new(size.finish())),
            ("modificationTime", Arc::new(time.finish())),
            ("dataChange", Arc::new(change.finish())),
            ("stats", Arc::new(stats.finish())),
        ])?;
        let (structs, path, time, change) = &mut self.remove;
        let remove = structs.finish(vec![
            ("path", Arc::new(path.finish())),
            ("deletionTimestamp", Arc::new(time.finish())),
            ("dataChange", Arc::new(change.finish())),
        ])?;
        let meta = self.meta.finish()?;
        let (structs, reader, writer) = &mut self.protocol;
        let protocol = structs.finish(vec![
            ("minReaderVersion", Arc::new(reader.finish())),
            ("minWriterVersion", Arc::new(writer.finish())),
        ])?;
        let columns = [("txn", txn), ("add", add), ("remove", remove), ("metaData", meta), ("protocol", protocol)];
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(|error| error.to_string())
    }
}

impl MetaColumns {
    fn push(&mut self, meta: Option<&MetaData>) -> Result<(), String> {
        self.structs.is_there.push(meta.is_some());
        self.format.is_there.push(meta.is_some());
        self.id.append_option(meta.map(|meta| &meta.id));
        self.name.append_option(meta.and_then(|meta| meta.name.as_ref()));
        self.description.append_option(meta.and_then(|meta| meta.description.as_ref()));
        self.provider.append_option(meta.map(|meta| &meta.format.provider));
        append_texts(
            &mut self.options,
            meta.map(|meta| meta.format.options.iter().map(|(key, value)| (key, Some(value.as_str())))),
        )?;
        self.schema.append_option(meta.map(|meta| &meta.schema_string));
        for column in meta.into_iter().flat_map(|meta| &meta.partition_columns) {
            self.partition_columns.values().append_value(column);
        }
        self.partition_columns.append(meta.is_some());
        append_texts(
            &mut self.configuration,
            meta.map(|meta| meta.configuration.iter().map(|(key, value)| (key, Some(value.as_str())))),
        )?;
        self.created.append_option(meta.and_then(|meta| meta.created_time));
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        let format = self.format.finish(vec![
            ("provider", Arc::new(self.provider.finish())),
            ("options", Arc::new(self.options.finish())),
        ])?;
        self.structs.finish(vec![
            ("id", Arc::new(self.id.finish())),
            ("name", Arc::new(self.name.finish())),
            ("description", Arc::new(self.description.finish())),
            ("format", format),
            ("schemaString", Arc::new(self.schema.finish())),
            ("partitionColumns", Arc::new(self.partition_columns.finish())),
            ("configuration", Arc::new(self.configuration.finish())),
            ("createdTime", Arc::new(self.created.finish())),
        ])
    }
}

/// A checkpoint that is being written.
pub(crate) struct Writer {
    columns: Columns,
    parquet: ArrowWriter<Vec<u8>>,
    actions: u64,
    files: u64,
}

/// A checkpoint.
pub(crate) struct Written {
    pub body: Vec<u8>,
    pub actions: u64,
    /// Live files.
    pub files: u64,
}

impl Writer {
    pub(crate) fn new() -> Result<Self, String> {
        let mut columns = Columns::new();
        let schema = columns.finish()?.schema();
        let zstd = ZstdLevel::try_new(1).map_err(|error| error.to_string())?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(zstd)).build();
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let parquet = ArrowWriter::try_new_with_options(Vec::new(), schema, options);
        Ok(Self { columns, parquet: parquet.map_err(|error| error.to_string())?, actions: 0, files: 0 })
    }

    pub(crate) fn push(&mut self, action: &Action) -> Result<(), String> {
        self.actions += 1;
        self.files += u64::from(matches!(action, Action::Add(_)));
        self.columns.push(action)?;
        if self.columns.rows >= ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), String> {
        let rows = self.columns.finish()?;
        self.parquet.write(&rows).map_err(|error| error.to_string())
    }

    pub(crate) fn finish(mut self) -> Result<Written, String> {
        self.flush()?;
        let body = self.parquet.into_inner().map_err(|error| error.to_string())?;
        Ok(Written { body, actions: self.actions, files: self.files })
    }
}

/// Which actions of a checkpoint are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Protocol, schema, and how far applications have got.
    Head,
    Files,
}

impl Part {
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Head => &["txn", "metaData", "protocol"],
            Self::Files => &["add", "remove"],
        }
    }
}

/// Reads a part of a checkpoint of any writer.
pub(crate) fn read(body: Bytes, part: Part, take: &mut dyn FnMut(Action) -> Result<(), String>) -> Result<(), String> {
    let parquet = |error: ParquetError| error.to_string();
    let footer = Footer::of_file(&body).map_err(parquet)?;
    let metadata = plain_metadata_of(&footer).map_err(parquet)?;
    let roots: Vec<usize> = metadata
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| part.columns().contains(&field.name().as_str()))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
    let groups = (0..metadata.metadata().num_row_groups()).collect();
    let decoder = Decoder::new(body, metadata, groups, mask).map_err(parquet)?;
    let at_once = decoder.rows_at_once().min(ROWS);
    for rows in decoder.rows(at_once).map_err(parquet)? {
        let rows = rows.map_err(parquet)?;
        for name in part.columns() {
            let Some(column) = rows.column_by_name(name) else { continue };
            let column = column.as_struct_opt().ok_or_else(|| format!("column {name} is no group"))?;
            for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
                take(Row { column, row }.action(name)?)?;
            }
        }
    }
    Ok(())
}

/// A value of a column of structs.
#[derive(Clone, Copy)]
struct Row<'a> {
    column: &'a StructArray,
    row: usize,
}

impl<'a> Row<'a> {
    fn action(self, name: &str) -> Result<Action, String> {
        Ok(match name {
            "txn" => Action::Txn(Txn {
                app_id: self.text("appId")?,
                version: self.long("version")?,
                last_updated: self.maybe_long("lastUpdated"),
            }),
            "add" => Action::Add(Add {
                path: self.text("path")?,
                partition_values: self.texts("partitionValues"),
                size: self.long("size")?,
                modification_time: self.long("modificationTime")?,
                data_change: false,
                stats: self.maybe_text("stats"),
            }),
            "remove" => Action::Remove(Remove {
                path: self.text("path")?,
                deletion_timestamp: self.maybe_long("deletionTimestamp"),
                data_change: false,
            }),
            "metaData" => Action::MetaData(self.meta_data()?),
            _ => Action::Protocol(Protocol {
                min_reader_version: self.int("minReaderVersion")?,
                min_writer_version: self.int("minWriterVersion")?,
            }),
        })
    }

    fn meta_data(self) -> Result<MetaData, String> {
        let format = self.valid("format").and_then(|array| array.as_struct_opt()).ok_or("metaData has no format")?;
        let format = Row { column: format, row: self.row };
        let plain = |texts: crate::action::PartitionValues| {
            texts.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
        };
        let columns = self.valid("partitionColumns").and_then(|array| array.as_list_opt::<i32>());
        let columns = columns.map(|lists| lists.value(self.row)).ok_or("metaData has no partitionColumns")?;
        let columns = columns.as_string_opt::<i32>().ok_or("partitionColumns are no texts")?;
        Ok(MetaData {
            id: self.text("id")?,
            name: self.maybe_text("name"),
            description: self.maybe_text("description"),
            format: Format { provider: format.text("provider")?, options: plain(format.texts("options")) },
            schema_string: self.text("schemaString")?,
            partition_columns: columns.iter().flatten().map(str::to_owned).collect(),
            configuration: plain(self.texts("configuration")),
            created_time: self.maybe_long("createdTime"),
        })
    }

    fn valid(self, name: &str) -> Option<&'a ArrayRef> {
        self.column.column_by_name(name).filter(|array| array.is_valid(self.row))
    }

    fn maybe_text(self, name: &str) -> Option<String> {
        Some(self.valid(name)?.as_string_opt::<i32>()?.value(self.row).to_owned())
    }

    fn maybe_long(self, name: &str) -> Option<i64> {
        Some(self.valid(name)?.as_primitive_opt::<Int64Type>()?.value(self.row))
    }

    fn text(self, name: &str) -> Result<String, String> {
        self.maybe_text(name).ok_or_else(|| format!("an action has no {name}"))
    }

    fn long(self, name: &str) -> Result<i64, String> {
        self.maybe_long(name).ok_or_else(|| format!("an action has no {name}"))
    }

    fn int(self, name: &str) -> Result<i32, String> {
        let ints = self.valid(name).and_then(|array| array.as_primitive_opt::<Int32Type>());
        ints.map(|ints| ints.value(self.row)).ok_or_else(|| format!("an action has no {name}"))
    }

    fn texts(self, name: &str) -> crate::action::PartitionValues {
        let Some(maps) = self.valid(name).and_then(|array| array.as_map_opt()) else { return Default::default() };
        let entries = maps.value(self.row);
        let (Some(keys), Some(values)) =
            (entries.column(0).as_string_opt::<i32>(), entries.column(1).as_string_opt::<i32>())
        else {
            return Default::default();
        };
        keys.iter()
            .zip(values.iter())
            .filter_map(|(key, value)| Some((key?.to_owned(), value.map(str::to_owned))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(files: usize) -> Vec<Action> {
        let meta = MetaData {
            id: "i".into(),
            name: None,
            description: Some("d".into()),
            format: Format { provider: "parquet".into(), options: [].into() },
            schema_string: "{}".into(),
            partition_columns: vec!["a".into(), "b".into()],
            configuration: [("delta.appendOnly".into(), "true".into())].into(),
            created_time: Some(7),
        };
        let mut actions = vec![
            Action::Txn(Txn { app_id: "x/0".into(), version: 9, last_updated: None }),
            Action::MetaData(meta),
            Action::Protocol(Protocol { min_reader_version: 1, min_writer_version: 2 }),
        ];
        for number in 0..files {
            let values = [("a".to_owned(), Some(format!("v{number}"))), ("b".to_owned(), None)].into();
            actions.push(Action::Add(Add {
                path: format!("a=v{number}/f.parquet"),
                partition_values: values,
                size: 10,
                modification_time: 20,
                data_change: false,
                stats: (number % 2 == 0).then(|| "{\"numRecords\":1}".into()),
            }));
        }
        actions.push(Action::Remove(Remove { path: "z".into(), deletion_timestamp: Some(3), data_change: false }));
        actions
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written() {
        for files in [0, 1, 2 * ROWS + 5] {
            let expected = actions(files);
            let mut writer = Writer::new().unwrap();
            expected.iter().for_each(|action| writer.push(action).unwrap());
            let written = writer.finish().unwrap();
            assert_eq!((written.actions, written.files), (expected.len() as u64, files as u64));
            let body = Bytes::from(written.body);
            let mut found = Vec::new();
            for part in [Part::Head, Part::Files] {
                read(body.clone(), part, &mut |action| {
                    found.push(action);
                    Ok(())
                })
                .unwrap();
            }
            found.sort_by_key(|action| format!("{action:?}"));
            let mut expected = expected;
            expected.sort_by_key(|action| format!("{action:?}"));
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let mut ignore = |_| Ok(());
        assert!(read(Bytes::from_static(b"PAR1 no PAR1"), Part::Head, &mut ignore).is_err());
    }
}
