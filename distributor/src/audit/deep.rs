//! The rows of a file.

use std::fmt;

use crate::batch::Body;
use crate::decode::Decoder;
use crate::written::Written;

/// Offsets of all rows of a file, and keys of those that have one.
///
/// # Errors
/// It is not a file of ours, or is damaged.
pub(super) fn written(body: &Body) -> Result<Written, String> {
    let mut written = Written::default();
    let unreadable = |error: &dyn fmt::Display| format!("its rows cannot be read: {error}");
    let decoder = Decoder::of_file(body.clone()).map_err(|error| unreadable(&error))?;
    let at_once = decoder.rows_at_once();
    for batch in decoder.rows(at_once).map_err(|error| unreadable(&error))? {
        written.add(&batch.map_err(|error| unreadable(&error))?)?;
    }
    Ok(written)
}
