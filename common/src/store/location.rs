//! The location of a zone: `s3://bucket/prefix` or a directory.
//!
//! A text that cannot be meant as a folder (`~/x`, `s3:/bucket`, `gs://bucket`, `C:\x`) is refused with the likely
//! intention. Otherwise a folder of that name would be created, and the events would go there. A folder that is really
//! called so is given as `./name`.

mod meant;

use std::fmt;
use std::path::PathBuf;

/// A longer prefix leaves no room for the names below it: a key in S3 has at most 1,024 bytes.
const MAX_PREFIX_BYTES: usize = 512;

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

/// The reason why a text is not a location, and what a correct one is. Quotes the text, so credentials in it have to be
/// masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LocationError(String);

impl Location {
    /// Parses `s3://bucket[/prefix]`, `file:///dir` or a plain path.
    ///
    /// # Errors
    /// The text has another form, or looks like something else.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        meant::refuse_common(text, "a folder or s3://bucket/prefix")?;
        if meant::is_plain_path(text) {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return parse_s3(text, rest);
        }
        if let Some(rest) = text.strip_prefix("file://") {
            return meant::folder_of_url(text, rest).map(Self::Local);
        }
        meant::refuse_schemes(text)?;
        Ok(Self::Local(PathBuf::from(text)))
    }

    /// Parses a folder on local disk: `file:///dir` or a plain path.
    ///
    /// # Errors
    /// As [`Location::parse`], and an S3 location.
    pub fn parse_folder(text: &str) -> Result<PathBuf, LocationError> {
        match Self::parse(text)? {
            Self::Local(path) => Ok(path),
            Self::S3 { .. } => Err(LocationError(format!("'{text}' is in S3; this must be a folder on local disk"))),
        }
    }

    /// The location of `name` inside this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::S3 { bucket, prefix } if prefix.is_empty() => {
                Self::S3 { bucket: bucket.clone(), prefix: name.to_owned() }
            }
            Self::S3 { bucket, prefix } => Self::S3 { bucket: bucket.clone(), prefix: format!("{prefix}/{name}") },
        }
    }
}

fn parse_s3(text: &str, rest: &str) -> Result<Location, LocationError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    meant::check_bucket(text, bucket, prefix)?;
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && prefix.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        let plain: Vec<&str> = prefix.split('/').filter(|segment| !matches!(*segment, "" | "." | "..")).collect();
        let meant = Location::S3 { bucket: bucket.to_owned(), prefix: plain.join("/") };
        let message = format!("'{text}' has an empty, '.' or '..' segment in its prefix; did you mean '{meant}'?");
        return Err(LocationError(message));
    }
    if prefix.len() > MAX_PREFIX_BYTES {
        return Err(LocationError(format!(
            "the prefix has {} bytes; at most {MAX_PREFIX_BYTES} leave room for the names below it",
            prefix.len()
        )));
    }
    Ok(Location::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
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
mod tests;
