//! Files of a commit log as actions of a table.

use std::collections::BTreeMap;

use commitlog::{Bounds, FileId, Stored, Visible};
use commitlog_storage::CommitLog;
use common::event::rfc3339_from_micros;
use deltalog::{Add, decode_path, encode_path};
use serde_json::{Value, json};

use crate::batch::{Name, path};

/// The key of a file where readers of a table find it.
pub(super) fn key(commits: &CommitLog, topic: &str, partition: i32, file: &Visible) -> String {
    match file.id {
        FileId::Replace { replace, k } if file.is_staged => commits.staged_key(&file.folder, replace, k),
        id => path(topic, partition, &file.folder, id),
    }
}

/// `root` is `events/` or `rejected/`, and the key below it.
pub(super) fn path_in(root: &str, key: &str) -> String {
    encode_path(key.strip_prefix(root).unwrap_or(key))
}

/// Whose file the path of an action names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Partition {
        topic: String,
        partition: i32,
    },
    /// No distributor gives such a name.
    Nobody,
}

pub(super) fn owner(path: &str) -> Owner {
    let Some(key) = decode_path(path) else { return Owner::Nobody };
    let (topic, partition) = match key.strip_prefix("_staged/") {
        Some(staged) => {
            let mut parts = staged.split('/');
            let (topic, partition) = (parts.next(), parts.next().and_then(|number| number.parse().ok()));
            match (topic, partition) {
                (Some(topic), Some(partition)) => (topic.to_owned(), partition),
                _ => return Owner::Nobody,
            }
        }
        None => match Name::parse(&key) {
            Some(Name { topic, partition, .. }) => (topic, partition),
            None => return Owner::Nobody,
        },
    };
    Owner::Partition { topic, partition }
}

/// The action that makes a file part of a table.
pub(super) fn add(root: &str, key: &str, folder: &str, stored: &Stored, is_new: bool, now_ms: i64) -> Add {
    Add {
        path: path_in(root, key),
        partition_values: partition_values(folder),
        size: i64::try_from(stored.bytes).unwrap_or(i64::MAX),
        modification_time: now_ms,
        data_change: is_new,
        stats: Some(stats(stored).to_string()),
    }
}

/// Of columns without nulls by which readers pass files over.
fn stats(stored: &Stored) -> Value {
    let Some(Bounds { offsets, times_us }) = stored.bounds else { return json!({ "numRecords": stored.rows }) };
    let values = |offset: i64, time_us: Option<i64>| match time_us {
        Some(time_us) => json!({ "_offset": offset, "timestamp": rfc3339_from_micros(time_us) }),
        None => json!({ "_offset": offset }),
    };
    json!({
        "numRecords": stored.rows,
        "minValues": values(offsets.0, times_us.map(|(least, _)| least)),
        "maxValues": values(offsets.1, times_us.map(|(_, greatest)| greatest)),
        "nullCount": if times_us.is_some() { json!({ "_offset": 0, "timestamp": 0 }) } else { json!({ "_offset": 0 }) },
    })
}

/// The values of the partition columns, from the names of folders: escapes undone, numbers without leading zeros.
pub(super) fn partition_values(folder: &str) -> BTreeMap<String, Option<String>> {
    let pairs = folder.split('/').filter_map(|segment| segment.split_once('='));
    let value = |name: &str, text: &str| match name {
        "year" | "month" | "day" => text.parse::<i64>().map_or_else(|_| text.to_owned(), |number| number.to_string()),
        // Folders are written with the same escapes.
        _ => decode_path(text).unwrap_or_else(|| text.to_owned()),
    };
    pairs.map(|(name, text)| (name.to_owned(), Some(value(name, text)))).collect()
}

#[cfg(test)]
mod tests {
    use commitlog::Hash;

    use super::*;

    #[test]
    fn partition_values_are_what_the_folder_stands_for() {
        let folder = "events/domain_event_type=a%2Fb %25-x/year=2021/month=01/day=14";
        let stored = Stored { rows: 3, bytes: 70, sha256: Hash::of(b""), bounds: None };
        let add = add("events/", &format!("{folder}/t-0-1-2.parquet"), folder, &stored, true, 5);
        assert_eq!(add.path, "domain_event_type=a%252Fb%20%2525-x/year=2021/month=01/day=14/t-0-1-2.parquet");
        let values: Vec<&str> = add.partition_values.values().map(|value| value.as_deref().unwrap()).collect();
        assert_eq!(values, ["14", "a/b %-x", "1", "2021"]);
        assert_eq!((add.size, add.stats.as_deref()), (70, Some("{\"numRecords\":3}")));
        let bounds = Some(Bounds { offsets: (4, 9), times_us: Some((-1, 1_610_619_330_123_456)) });
        let stats = stats(&Stored { bounds, ..stored });
        assert_eq!(stats["minValues"], json!({"_offset": 4, "timestamp": "1969-12-31T23:59:59.999999Z"}));
        assert_eq!(stats["maxValues"], json!({"_offset": 9, "timestamp": "2021-01-14T10:15:30.123456Z"}));
        assert_eq!(owner(&add.path), Owner::Partition { topic: "t".into(), partition: 0 });
    }

    #[test]
    fn files_of_other_programs_have_no_owner() {
        assert_eq!(
            owner("_staged/my-topic/3/7-0.parquet"),
            Owner::Partition { topic: "my-topic".into(), partition: 3 }
        );
        for foreign in ["part-00000-x.c000.snappy.parquet", "_staged/x", "_staged/t/x/1-1.parquet", "a%zz"] {
            assert_eq!(owner(foreign), Owner::Nobody, "{foreign}");
        }
    }
}
