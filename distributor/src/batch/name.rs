//! Names of data files.

use commitlog::FileId;

/// The parts of a data file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub topic: String,
    pub partition: i32,
    pub id: FileId,
}

impl Name {
    /// `None` for a name that no distributor gives.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let stem = key.rsplit('/').next()?.strip_suffix(".parquet")?;
        let mut parts = stem.rsplitn(4, '-');
        let (k, of, partition, topic) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let id = format!("{of}-{k}").parse().ok()?;
        let number: i32 = partition.parse().ok()?;
        // One name, one spelling.
        (number.to_string() == partition && number >= 0).then(|| Self {
            topic: topic.to_owned(),
            partition: number,
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_their_end_for_topics_may_hold_hyphens() {
        let name = |key| Name::parse(key).map(|name| (name.topic, name.partition, name.id));
        let batch = |from, k| FileId::Batch { from, k };
        assert_eq!(name("events/a=b/my-topic-3-120-7.parquet"), Some(("my-topic".to_owned(), 3, batch(120, 7))));
        let output = FileId::Replace { replace: 4, k: 0 };
        assert_eq!(name("events/a=b/t-c3-3-c4-0.parquet"), Some(("t-c3".to_owned(), 3, output)));
        for foreign in
            ["events/part-0.parquet", "events/x.csv", "events/t-1-2-x.parquet", "t-01-2-3.parquet", "t-1-02-3.parquet"]
        {
            assert_eq!(name(foreign), None, "{foreign}");
        }
    }
}
