//! Reading one object, pinned to the descriptor that was opened.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::failure::{Failure, Outcome, while_trying};
use super::tree::{Place, Root, is_regular, meta_of, version_of};
use super::{join_error, run_blocking};
use crate::store::{GetOptions, ObjectMeta, ObjectReader, Result, StoreErrorKind, Version};

/// Large enough that a piece takes longer than the switch to a blocking thread, small enough for many readers.
const PIECE_BYTES: u64 = 512 * 1024;
/// Objects up to this size are read when they are opened: switching to the blocking threads would take longer than
/// reading.
const SMALL_BYTES: u64 = 256 * 1024;

pub(super) fn open(root: &Root, place: &Place, options: &GetOptions) -> Outcome<Option<(ObjectMeta, FileReader)>> {
    let Some((file, meta)) = open_object(root, place)? else { return Ok(None) };
    if let Some(expected) = &options.if_version {
        require_version(expected, &meta.version)?;
    }
    let range = options.range.clone().unwrap_or(0..meta.size_bytes);
    let end = range.end.min(meta.size_bytes);
    let remaining = range.start.min(end)..end;
    if remaining.end - remaining.start <= SMALL_BYTES {
        let bytes = read_small(&file, &meta.version, remaining)?;
        return Ok(Some((meta, FileReader::Whole(bytes))));
    }
    let open = OpenFile { file: Arc::new(file), key: meta.key.clone(), version: meta.version.clone(), remaining };
    Ok(Some((meta, FileReader::Open(open))))
}

/// `None` if the range is empty.
fn read_small(file: &File, version: &Version, mut remaining: Range<u64>) -> Outcome<Option<Bytes>> {
    let first = next_piece(file, version, remaining.clone())?;
    let Some(first) = first else { return Ok(None) };
    remaining.start += first.len() as u64;
    if remaining.is_empty() {
        require_unchanged(file, version)?;
        return Ok(Some(first));
    }
    // Local file systems return everything at once, some network file systems do not.
    let mut whole = BytesMut::from(first);
    while let Some(piece) = next_piece(file, version, remaining.clone())? {
        remaining.start += piece.len() as u64;
        whole.extend_from_slice(&piece);
    }
    Ok(Some(whole.freeze()))
}

/// Opens a regular file without following a symbolic link; `None` if the object certainly does not exist.
pub(super) fn open_object(root: &Root, place: &Place) -> Outcome<Option<(File, ObjectMeta)>> {
    let Some(folder) = root.find_folder(place)? else { return Ok(None) };
    // NONBLOCK: opening a FIFO would otherwise wait for a writer for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&folder, place.name.as_str(), flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(Failure::io("cannot open the file", error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(while_trying("look the open file up"))?;
    if !is_regular(&stat) {
        return Ok(None);
    }
    let meta = meta_of(&place.key, &stat);
    Ok(Some((file, meta)))
}

pub(super) fn require_version(expected: &Version, found: &Version) -> Outcome<()> {
    if expected == found {
        return Ok(());
    }
    let message = format!("the file changed: version {} was asked for, {} is there", expected.0, found.0);
    Err(Failure::new(StoreErrorKind::VersionMismatch, message))
}

/// Checks the current version of an open file: a writer may have changed it while it was read.
pub(super) fn require_unchanged(file: &File, version: &Version) -> Outcome<()> {
    let stat = rustix::fs::fstat(file).map_err(while_trying("look the open file up"))?;
    require_version(version, &version_of(&stat))
}

pub(super) enum FileReader {
    /// Already read and checked.
    Whole(Option<Bytes>),
    Open(OpenFile),
}

pub(super) struct OpenFile {
    file: Arc<File>,
    key: String,
    version: Version,
    remaining: Range<u64>,
}

#[async_trait]
impl ObjectReader for FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Whole(bytes) => Ok(bytes.take()),
            Self::Open(file) => file.next().await,
        }
    }
}

impl OpenFile {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let (file, version, remaining) = (Arc::clone(&self.file), self.version.clone(), self.remaining.clone());
        let piece = run_blocking(move || next_piece(&file, &version, remaining))
            .await
            .map_err(|error| join_error(&error, "get", &self.key))?
            .map_err(|failure| failure.into_error("get", &self.key))?;
        // Counted only now: a caller that dropped this future half-way gets the same piece again.
        if let Some(piece) = &piece {
            self.remaining.start += piece.len() as u64;
        }
        Ok(piece)
    }
}

fn next_piece(file: &File, version: &Version, remaining: Range<u64>) -> Outcome<Option<Bytes>> {
    let wanted = (remaining.end - remaining.start).min(PIECE_BYTES);
    if wanted == 0 {
        require_unchanged(file, version)?;
        return Ok(None);
    }
    let mut piece = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
    loop {
        match rustix::io::pread(file, spare_capacity(&mut piece), remaining.start) {
            Ok(0) => break,
            Ok(_) => {
                // A vector may have more capacity than requested.
                piece.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
                return Ok(Some(Bytes::from(piece)));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::io("cannot read the file", error)),
        }
    }
    // The file ended early. Truncation changes the version; anything else is a broken file system.
    require_unchanged(file, version)?;
    let missing = remaining.end - remaining.start;
    Err(Failure::new(StoreErrorKind::Other, format!("the file ended {missing} bytes early")))
}
