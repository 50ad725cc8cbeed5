//! Uploads that were begun and neither completed nor given up: what a crash leaves behind, invisible and paid for.

/// One of them. On S3 an upload in parts; in a directory the temporary file of any put or upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The object that it would have become. A directory only knows the temporary file, which stands beside it.
    pub key: String,
    /// Tells uploads of one key apart. Opaque.
    pub id: String,
    /// When it was begun, milliseconds since the Unix epoch; in a directory when it was last written to.
    pub begun_ms: i64,
}

/// Where a page of them ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadMarker {
    pub(super) key: String,
    pub(super) id: String,
}

#[derive(Debug, Clone, Default)]
pub struct ListUploads {
    /// Only keys that start with this string.
    pub prefix: String,
    /// Go on where a page ended.
    pub after: Option<UploadMarker>,
    /// At most this many; `None` = the store's page size.
    pub limit: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct UploadPage {
    pub uploads: Vec<UnfinishedUpload>,
    /// `None` at the end.
    pub next: Option<UploadMarker>,
}
