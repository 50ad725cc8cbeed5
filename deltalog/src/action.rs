//! Actions: the lines of a commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Values of the partition columns, as text. `None`: null.
pub type PartitionValues = BTreeMap<String, Option<String>>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    CommitInfo(CommitInfo),
    Protocol(Protocol),
    MetaData(MetaData),
    Txn(Txn),
    Add(Add),
    Remove(Remove),
}

/// Who wrote a commit, and why. Other programs write more, and in any form: that is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    /// Unix milliseconds.
    #[serde(skip_deserializing)]
    pub timestamp: i64,
    #[serde(default, deserialize_with = "text")]
    pub operation: Option<String>,
    #[serde(skip_deserializing)]
    pub operation_parameters: BTreeMap<String, String>,
    #[serde(skip_deserializing)]
    pub is_blind_append: bool,
    #[serde(default, deserialize_with = "text")]
    pub engine_info: Option<String>,
    /// New for each try: by it a writer knows its own commit.
    #[serde(default, deserialize_with = "text")]
    pub txn_id: Option<String>,
}

/// A text; what is none takes no more memory than it has bytes.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// What programs must understand to read or write the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    /// A UUID: another one is another table.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub format: Format,
    /// The schema as JSON text: [`crate::Schema`].
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// How far an application has got. Readers of the table pass it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A file is part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Relative to the table's root, encoded by [`crate::encode_path`].
    pub path: String,
    pub partition_values: PartitionValues,
    /// Bytes.
    pub size: i64,
    /// Unix milliseconds.
    pub modification_time: i64,
    /// False: its rows were in the table already, in other files.
    pub data_change: bool,
    /// JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
}

/// A file is no longer part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    /// Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
}

/// A line of a commit as it is read. Actions that other writers may write and that change no file are left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<CommitInfo>,
    protocol: Option<Protocol>,
    meta_data: Option<MetaData>,
    txn: Option<Txn>,
    add: Option<Add>,
    remove: Option<Remove>,
}

/// Every action of a commit, in order.
///
/// # Errors
/// A line that is not an action, with its number.
pub(crate) fn read_actions(body: &[u8]) -> Result<Vec<Action>, (usize, serde_json::Error)> {
    let mut actions = Vec::new();
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let Line { commit_info, protocol, meta_data, txn, add, remove } =
            serde_json::from_slice(line).map_err(|error| (number, error))?;
        actions.extend(commit_info.map(Action::CommitInfo));
        actions.extend(protocol.map(Action::Protocol));
        actions.extend(meta_data.map(Action::MetaData));
        actions.extend(txn.map(Action::Txn));
        actions.extend(add.map(Action::Add));
        actions.extend(remove.map(Action::Remove));
    }
    Ok(actions)
}

/// The body of a commit.
///
/// # Errors
/// A value has no JSON. None has that was read.
pub(crate) fn write_actions(actions: &[Action]) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut body, action)?;
        body.push(b'\n');
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_as_they_were_written() {
        let values = [("day".to_owned(), Some("1".to_owned())), ("kind".to_owned(), None)].into();
        let add = Add {
            path: "kind=x/a.parquet".into(),
            partition_values: values,
            size: 3,
            modification_time: 4,
            data_change: true,
            stats: Some("{\"numRecords\":1}".into()),
        };
        let remove = Remove { path: "b".into(), deletion_timestamp: Some(5), data_change: false };
        let txn = Txn { app_id: "x".into(), version: 6, last_updated: None };
        let actions = vec![Action::Txn(txn), Action::Add(add), Action::Remove(remove)];
        let body = write_actions(&actions).unwrap();
        assert_eq!(read_actions(&body).unwrap(), actions);
    }

    #[test]
    fn actions_of_other_writers_are_passed_over_and_broken_lines_are_named() {
        let body = b"{\"domainMetadata\":{\"domain\":\"x\"}}\n\n{\"txn\":{\"appId\":\"a\",\"version\":1,\"x\":2}}\n{\"add\":{}}";
        assert_eq!(read_actions(body).unwrap_err().0, 4);
        assert_eq!(read_actions(&body[..body.len() - 10]).unwrap().len(), 1);
    }

    /// Whatever another program writes about itself.
    #[test]
    fn a_commit_says_who_wrote_it_in_any_form() {
        let read = |text: &str| match &read_actions(text.as_bytes()).unwrap()[..] {
            [Action::CommitInfo(info)] => info.clone(),
            other => panic!("{other:?}"),
        };
        let info =
            read("{\"commitInfo\":{\"timestamp\":\"now\",\"operation\":[1,{}],\"engineInfo\":\"x\",\"y\":null}}");
        assert_eq!((info.operation, info.engine_info.as_deref()), (None, Some("x")));
        let ours = CommitInfo { operation: Some("WRITE".into()), txn_id: Some("t".into()), ..CommitInfo::default() };
        let body = write_actions(&[Action::CommitInfo(ours.clone())]).unwrap();
        assert_eq!(read(std::str::from_utf8(&body).unwrap()), ours);
    }
}
