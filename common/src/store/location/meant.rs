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
/// Ends of host names of stores that are not AWS.
const STORE_HOSTS: [&str; 6] = [
    ".backblazeb2.com",
    ".cloudflarestorage.com",
    ".core.windows.net",
    ".digitaloceanspaces.com",
    "storage.googleapis.com",
    ".wasabisys.com",
];
const QUOTES: [char; 4] = ['"', '\'', '`', '“'];
/// S3's limits.
const BUCKET_BYTES: std::ops::RangeInclusive<usize> = 3..=255;

fn wrong<T>(message: impl Into<String>) -> Result<T, LocationError> {
    Err(LocationError(message.into()))
}

/// Whether the text is a path whatever its names look like: the way to name a folder that is really called `s3:x`.
pub(super) fn is_plain_path(text: &str) -> bool {
    text.starts_with("./")
}

/// Refuses texts that are neither kind of location. `wanted` describes a correct text.
pub(super) fn refuse_common(text: &str, wanted: &str) -> Result<(), LocationError> {
    if text.trim().is_empty() {
        return wrong(format!("is empty; give {wanted}"));
    }
    if let Some(control) = text.chars().find(|char| char.is_control()) {
        // By its number: what prints the message escapes the character itself.
        return wrong(format!("holds the control character U+{:04X}; remove it", u32::from(control)));
    }
    if text.trim() != text {
        return wrong(format!("'{text}' begins or ends with a blank; did you mean '{}'?", text.trim()));
    }
    if text.chars().count() > 1 && text.starts_with(QUOTES) && text.ends_with(['"', '\'', '`', '”']) {
        let inner = text.trim_matches(|char: char| QUOTES.contains(&char) || char == '”');
        return wrong(format!("{text} has quotes within the value; did you mean {inner} without them?"));
    }
    if is_plain_path(text) {
        return Ok(());
    }
    if text.starts_with('~') {
        let rest = text.split_once('/').map_or("", |(_, rest)| rest);
        return wrong(format!(
            "'{text}' begins with '~', which only a shell replaces; give the whole path, such as /home/you/{rest}"
        ));
    }
    if text.split('/').any(is_variable) {
        return wrong(format!("'{text}' holds a variable that nothing replaces; give its value{}", or_a_folder(text)));
    }
    Ok(())
}

/// How to name a folder that is really called so.
fn or_a_folder(text: &str) -> String {
    let is_relative = !text.starts_with('/') && !text.contains("://");
    if is_relative { format!(" (or './{text}' for a folder of that name)") } else { String::new() }
}

/// `$HOME`, `${HOME}`, `$(pwd)`, `%USERPROFILE%`, `{env}`, `<bucket>`.
fn is_variable(segment: &str) -> bool {
    let after_dollar = segment.split('$').skip(1);
    let has_dollar = after_dollar
        .map(|rest| rest.chars().next())
        .any(|first| first.is_some_and(|char| char.is_ascii_alphabetic() || matches!(char, '_' | '{' | '(')));
    let has_braces = segment.split_once('{').is_some_and(|(_, rest)| rest.contains('}'));
    let is_between = |mark: char, end: char| segment.len() > 2 && segment.starts_with(mark) && segment.ends_with(end);
    has_dollar || has_braces || is_between('%', '%') || is_between('<', '>')
}

/// Refuses foreign schemes, misspelt known ones, and paths of another operating system.
pub(super) fn refuse_schemes(text: &str) -> Result<(), LocationError> {
    if let Some(inner) = text.strip_prefix("arn:") {
        let of_s3 = inner.split_once(":s3:::").map_or("bucket", |(_, bucket)| bucket);
        return wrong(format!(
            "'{text}' is an ARN; did you mean 's3://{of_s3}'? (An access point is named by its alias.)"
        ));
    }
    refuse_half_schemes(text)?;
    refuse_ports(text)?;
    if let Some((scheme, rest)) = text.split_once(':') {
        let (scheme, path) = (scheme.to_ascii_lowercase(), rest.trim_start_matches('/'));
        let is_url = text.contains("://") && !scheme.contains('/');
        if S3_SCHEMES.contains(&scheme.as_str()) {
            return wrong(not_as_in_s3(text, path));
        }
        if scheme == "file" {
            return wrong(format!("'{text}' is no file:///path; did you mean {}?", folders(path)));
        }
        if matches!(scheme.as_str(), "http" | "https") {
            return wrong(address_of_a_store(text, path));
        }
        if is_url || FOREIGN_SCHEMES.contains(&scheme.as_str()) {
            return wrong(foreign_scheme(text, &scheme));
        }
        let is_drive = scheme.len() == 1 && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
        if is_drive && (text.len() == 2 || text[2..].starts_with(['\\', '/'])) {
            return wrong(format!("'{text}' is a path of Windows; give it as this system names it, such as /mnt/c/…"));
        }
        refuse_hosts(text, &scheme, rest)?;
    }
    if text.contains('\\') {
        return wrong(format!("'{text}' has a backslash; did you mean '{}'?", text.replace('\\', "/")));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    if let Some(meant) = of_amazon(host, path) {
        return wrong(format!("'{text}' is the address of a bucket; did you mean '{meant}'?"));
    }
    if STORE_HOSTS.iter().any(|end| host.ends_with(end)) {
        return wrong(address_of_a_store(text, text));
    }
    Ok(())
}

/// `s3//bucket`, `s3;//bucket`: a scheme whose colon is missing or misspelt.
fn refuse_half_schemes(text: &str) -> Result<(), LocationError> {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric()).unwrap_or(text.len());
    let (scheme, rest) = (text[..end].to_ascii_lowercase(), &text[end..]);
    if !rest.starts_with("//") && !rest.starts_with(';') {
        return Ok(());
    }
    let path = rest.trim_start_matches([';', ':', '/']);
    if S3_SCHEMES.contains(&scheme.as_str()) {
        return wrong(format!("{}{}", not_as_in_s3(text, path), or_a_folder(text)));
    }
    if scheme == "file" {
        return wrong(format!("'{text}' is no file:///path; did you mean {}?", folders(path)));
    }
    if FOREIGN_SCHEMES.contains(&scheme.as_str()) {
        return wrong(format!("{}{}", foreign_scheme(text, &scheme), or_a_folder(text)));
    }
    Ok(())
}

/// `host:9000/bucket`, the address of a server.
fn refuse_ports(text: &str) -> Result<(), LocationError> {
    let Some((host, rest)) = text.split_once(':') else { return Ok(()) };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if host.len() > 1 && !host.contains('/') && digits > 1 && rest[digits..].starts_with('/') {
        return wrong(format!("{}{}", address_of_a_store(text, text), or_a_folder(text)));
    }
    Ok(())
}

/// `host:/path` and `user@host:path`, which other programs read as places on another machine.
fn refuse_hosts(text: &str, host: &str, rest: &str) -> Result<(), LocationError> {
    if host.is_empty() || host.contains('/') {
        return Ok(());
    }
    if rest.starts_with('/') || host.contains('@') {
        return wrong(format!(
            "'{text}' names a folder of another machine; mount it here and give its path{}",
            or_a_folder(text)
        ));
    }
    Ok(())
}

fn not_as_in_s3(text: &str, path: &str) -> String {
    let path = if path.is_empty() { "bucket/prefix" } else { path };
    format!("'{text}' is not written as a location in S3; did you mean 's3://{path}'?")
}

fn foreign_scheme(text: &str, scheme: &str) -> String {
    format!("'{text}' has the scheme '{scheme}'; only s3://bucket/prefix and local folders are supported")
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
    let (host, path) = (host.to_ascii_lowercase(), path.trim_matches('/'));
    let inner = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    if inner == "s3" || inner.starts_with("s3.") || inner.starts_with("s3-") {
        return Some(format!("s3://{}", if path.is_empty() { "bucket/prefix" } else { path }));
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
