//! Uploads that were begun and neither completed nor aborted. A crash leaves them behind, invisible and billed.

/// An unfinished upload: on S3 a multipart upload; in a directory the temporary file of any put or upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The object that it would have become. For a directory, the temporary file beside it.
    pub key: String,
    /// Distinguishes uploads of one key. Opaque.
    pub id: String,
    /// When it was begun, milliseconds since the Unix epoch; in a directory when it was last written to.
    pub begun_ms: i64,
}

/// The end of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadMarker {
    pub(super) key: String,
    pub(super) id: String,
}

#[derive(Debug, Clone, Default)]
pub struct ListUploads {
    /// Only keys that start with this string.
    pub prefix: String,
    /// Continue where a page ended.
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
