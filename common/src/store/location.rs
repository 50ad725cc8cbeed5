//! Where a zone lives: `s3://bucket/prefix` or a directory.

use std::fmt;
use std::path::PathBuf;

use super::{StoreError, StoreErrorKind};

/// A parsed landing or trusted location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Local(PathBuf),
    /// `prefix` has no leading and no trailing `/`; empty = the whole bucket.
    S3 {
        bucket: String,
        prefix: String,
    },
}

impl Location {
    /// Parses `s3://bucket[/prefix]`, `file:///dir` or a plain path.
    ///
    /// # Errors
    /// Empty input, another scheme, an empty bucket name, or an S3 prefix with `.`/`..`/empty segments.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let invalid = |message: &str| Err(StoreError::new(StoreErrorKind::InvalidKey, "parse location", text, message));
        if text.is_empty() {
            return invalid("is empty; give a directory or s3://bucket/prefix");
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return invalid("has no bucket name; expected s3://bucket/prefix");
            }
            let prefix = prefix.trim_end_matches('/');
            if !prefix.is_empty() && prefix.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
                return invalid("has an empty, '.' or '..' segment in its prefix");
            }
            return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Self::Local(PathBuf::from(path)));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return invalid(&format!("has the scheme '{scheme}'; only s3:// and local directories are supported"));
        }
        Ok(Self::Local(PathBuf::from(text)))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(formatter, "{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(formatter, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(formatter, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_parsed_and_printed() -> Result<(), StoreError> {
        assert_eq!(Location::parse("s3://b/p/q/")?, Location::S3 { bucket: "b".into(), prefix: "p/q".into() });
        assert_eq!(Location::parse("s3://b")?.to_string(), "s3://b");
        assert_eq!(Location::parse("file:///x")?, Location::Local("/x".into()));
        assert_eq!(Location::parse("./x")?, Location::Local("./x".into()));
        for wrong in ["", "s3://", "s3:///p", "gs://b", "s3://b/../c", "s3://b/a//c"] {
            assert!(Location::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
        Ok(())
    }
}
