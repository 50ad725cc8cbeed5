//! Texts that cannot be meant as a location, and the likely intention.

use std::path::PathBuf;

use super::LocationError;

/// Schemes of other stores and transports. As the name of a folder, `gs:x` is as unlikely as `gs://x`.
const FOREIGN_SCHEMES: [&str; 17] = [
    "abfs", "abfss", "adl", "az", "azure", "ftp", "gcs", "gs", "hdfs", "http", "https", "minio", "nfs", "oss", "sftp",
    "wasb", "wasbs",
];
/// Schemes of S3 in other tools.
const S3_SCHEMES: [&str; 3] = ["s3", "s3a", "s3n"];
const QUOTES: [char; 4] = ['"', '\'', '`', '“'];
/// S3's limits.
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=255;

fn wrong<T>(message: impl Into<String>) -> Result<T, LocationError> {
    Err(LocationError(message.into()))
}

/// Refuses texts that are neither kind of location. `wanted` describes a correct text.
pub(super) fn refuse_common(text: &str, wanted: &str) -> Result<(), LocationError> {
    if text.trim().is_empty() {
        return wrong(format!("is empty; give {wanted}"));
    }
    if let Some(control) = text.chars().find(|char| char.is_control()) {
        return wrong(format!("holds the control character {}", control.escape_default()));
    }
    if text.trim() != text {
        return wrong(format!("'{text}' begins or ends with a blank; did you mean '{}'?", text.trim()));
    }
    if text.chars().count() > 1 && text.starts_with(QUOTES) && text.ends_with(['"', '\'', '`', '”']) {
        let inner = text.trim_matches(|char: char| QUOTES.contains(&char) || char == '”');
        return wrong(format!("{text} has quotes within the value; did you mean {inner} without them?"));
    }
    if text.starts_with('~') {
        let rest = text.split_once('/').map_or("", |(_, rest)| rest);
        return wrong(format!(
            "'{text}' begins with '~', which only a shell replaces; give the whole path, such as /home/you/{rest}"
        ));
    }
    if text.split('/').any(is_variable) {
        return wrong(format!("'{text}' holds a variable that nothing replaces; give its value"));
    }
    Ok(())
}

/// `$HOME`, `${HOME}`, `$(pwd)`, `%USERPROFILE%`.
fn is_variable(segment: &str) -> bool {
    let after_dollar = segment.split('$').skip(1);
    let has_dollar = after_dollar
        .map(|rest| rest.chars().next())
        .any(|first| first.is_some_and(|char| char.is_ascii_alphabetic() || matches!(char, '_' | '{' | '(')));
    has_dollar || (segment.len() > 2 && segment.starts_with('%') && segment.ends_with('%'))
}

/// Refuses foreign schemes, misspelt known ones, and paths of another operating system.
pub(super) fn refuse_schemes(text: &str) -> Result<(), LocationError> {
    if let Some(inner) = text.strip_prefix("arn:") {
        let of_s3 = inner.split_once(":s3:::").map_or("bucket", |(_, bucket)| bucket);
        return wrong(format!(
            "'{text}' is an ARN; did you mean 's3://{of_s3}'? (An access point is named by its alias.)"
        ));
    }
    if let Some((scheme, rest)) = text.split_once(':') {
        let (scheme, rest) = (scheme.to_ascii_lowercase(), rest.trim_start_matches('/'));
        let is_url = text.contains("://") && !scheme.contains('/');
        if S3_SCHEMES.contains(&scheme.as_str()) {
            let rest = if rest.is_empty() { "bucket/prefix" } else { rest };
            return wrong(format!("'{text}' is not written as a location in S3; did you mean 's3://{rest}'?"));
        }
        if scheme == "file" {
            return wrong(format!("'{text}' is no file:///path; did you mean {}?", folders(rest)));
        }
        if matches!(scheme.as_str(), "http" | "https") {
            return wrong(address_of_a_store(text, rest));
        }
        if is_url || FOREIGN_SCHEMES.contains(&scheme.as_str()) {
            return wrong(format!(
                "'{text}' has the scheme '{scheme}'; only s3://bucket/prefix and local folders are supported"
            ));
        }
        if scheme.len() == 1 && (text.len() == 2 || text[2..].starts_with(['\\', '/'])) {
            return wrong(format!("'{text}' is a path of Windows; give it as this system names it, such as /mnt/c/…"));
        }
    }
    if text.contains('\\') {
        return wrong(format!("'{text}' has a backslash; did you mean '{}'?", text.replace('\\', "/")));
    }
    if let Some(meant) = text.split_once('/').and_then(|(host, path)| of_amazon(host, path)) {
        return wrong(format!("'{text}' is the address of a bucket; did you mean '{meant}'?"));
    }
    Ok(())
}

fn folders(rest: &str) -> String {
    if rest.is_empty() { "/folder".to_owned() } else { format!("'/{rest}' or './{rest}'") }
}

fn address_of_a_store(text: &str, rest: &str) -> String {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let meant = of_amazon(host, path).unwrap_or_else(|| match path.trim_matches('/') {
        "" => "s3://bucket/prefix".to_owned(),
        path => format!("s3://{path}"),
    });
    format!(
        "'{text}' is the address of a server; did you mean '{meant}'? (A store other than AWS is named by AWS_ENDPOINT_URL.)"
    )
}

/// Converts `bucket.s3.region.amazonaws.com/prefix` and `s3.region.amazonaws.com/bucket/prefix` to locations.
fn of_amazon(host: &str, path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    let inner = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    if inner == "s3" || inner.starts_with("s3.") || inner.starts_with("s3-") {
        return Some(format!("s3://{path}"));
    }
    let bucket = inner.split_once(".s3").map(|(bucket, _)| bucket)?;
    Some(if path.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{path}") })
}

/// The folder of `file://<rest>`.
pub(super) fn folder_of_url(text: &str, rest: &str) -> Result<PathBuf, LocationError> {
    if let Some(path) = rest.strip_prefix("localhost/") {
        return wrong(format!("'{text}' names a host; did you mean 'file:///{path}'?"));
    }
    if !rest.starts_with('/') {
        return wrong(format!("'{text}' names no absolute path; did you mean {}?", folders(rest)));
    }
    // Other programs decode such a path: the folder would depend on which program reads the setting.
    if rest.contains(['%', '?', '#', '\\']) {
        return wrong(format!("'{text}' holds characters that mean something else in a URL; give the plain path"));
    }
    Ok(PathBuf::from(rest))
}

/// Refuses bucket names that S3 would refuse, or that would reach another server than intended.
pub(super) fn check_bucket(text: &str, bucket: &str, prefix: &str) -> Result<(), LocationError> {
    if bucket.is_empty() {
        let rest = prefix.trim_start_matches('/');
        let meant = if rest.is_empty() { "bucket/prefix" } else { rest };
        return wrong(format!("'{text}' has no bucket name; did you mean 's3://{meant}'?"));
    }
    if bucket.contains('@') {
        return wrong(format!(
            "'{text}' holds credentials; give s3://bucket/prefix, and the keys as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ));
    }
    if let Some(meant) = of_amazon(bucket, prefix) {
        return wrong(format!("'{text}' has an address for a bucket; did you mean '{meant}'?"));
    }
    let is_address = bucket.contains(':') || bucket.parse::<std::net::Ipv4Addr>().is_ok() || bucket == "localhost";
    if is_address {
        let meant = if prefix.is_empty() { "bucket/prefix" } else { prefix };
        return wrong(format!(
            "'{text}' has the address of a server for a bucket; did you mean 's3://{meant}'? (The address is set as AWS_ENDPOINT_URL.)"
        ));
    }
    let is_plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_');
    let ends_well = bucket.starts_with(|first: char| first.is_ascii_alphanumeric())
        && bucket.ends_with(|last: char| last.is_ascii_alphanumeric());
    // Old buckets, and those of other stores, have capitals and underscores in their names.
    if !BUCKET_BYTES.contains(&bucket.len()) || !bucket.chars().all(is_plain) || !ends_well || bucket.contains("..") {
        return wrong(format!(
            "'{bucket}' is not the name of a bucket: 3 to 63 of a-z, 0-9, '.' and '-', with a letter or digit at both ends"
        ));
    }
    Ok(())
}
