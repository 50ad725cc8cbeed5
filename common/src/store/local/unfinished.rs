//! Unpublished temporary files: of a put or an upload in progress, or of one that a crash interrupted.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};

use super::failure::{Failure, Outcome, while_trying};
use super::tree::{Root, lock_replacing, meta_of, stat_object};
use super::write::{is_temporary_name, unlink};
use crate::store::key::MAX_KEY_BYTES;
use crate::store::{
    ListUploads, ObjectMeta, Result, StoreError, StoreErrorKind, UnfinishedUpload, UploadMarker, UploadPage,
};

const DEFAULT_PAGE: usize = 1000;

/// Reads the whole tree below the prefix for each page, and keeps only as many names as fit into the page.
pub(super) fn list(root: &Root, options: &ListUploads) -> Outcome<UploadPage> {
    let limit = options.limit.unwrap_or(DEFAULT_PAGE).max(1);
    let mut walk = Walk { options, wanted: limit + 1, smallest: BTreeMap::new(), folders: vec![String::new()] };
    while let Some(path) = walk.folders.pop() {
        // Only one directory is open at a time: a tree may have more levels than the process has descriptors.
        if let Some(folder) = root.open_path(path.split_terminator('/'))? {
            walk.visit(&folder, &path)?;
        }
    }
    let mut uploads: Vec<_> = walk.smallest.into_values().collect();
    let next = (uploads.len() > limit).then(|| uploads.truncate(limit)).and_then(|()| uploads.last());
    let next = next.map(|last| UploadMarker { key: last.key.clone(), id: last.id.clone() });
    Ok(UploadPage { uploads, next })
}

struct Walk<'a> {
    options: &'a ListUploads,
    wanted: usize,
    smallest: BTreeMap<String, UnfinishedUpload>,
    /// Folders to visit.
    folders: Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, folder: &OwnedFd, path: &str) -> Outcome<()> {
        for entry in Dir::read_from(folder).map_err(while_trying("read the directory"))? {
            let entry = entry.map_err(while_trying("read the directory"))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let key = format!("{path}{name}");
            if is_temporary_name(name) {
                self.take(folder, name, key)?;
            } else if !name.starts_with('.') && matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                let inner_path = format!("{key}/");
                let prefix = &self.options.prefix;
                let is_wanted = inner_path.starts_with(prefix) || prefix.starts_with(&inner_path);
                // No key is longer, so the program's own uploads are never deeper.
                if is_wanted && inner_path.len() < MAX_KEY_BYTES {
                    self.folders.push(inner_path);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, folder: &OwnedFd, name: &str, key: String) -> Outcome<()> {
        let is_before = self.options.after.as_ref().is_some_and(|after| key <= after.key);
        let is_too_late =
            self.smallest.len() >= self.wanted && self.smallest.last_key_value().is_some_and(|(last, _)| key > *last);
        if is_before || is_too_late || !key.starts_with(&self.options.prefix) {
            return Ok(());
        }
        // Published or aborted meanwhile.
        let Some(stat) = stat_object(folder, name)? else { return Ok(()) };
        let ObjectMeta { version, modified_ms, .. } = meta_of(&key, &stat);
        self.smallest.insert(key.clone(), UnfinishedUpload { key, id: version.0, begun_ms: modified_ms });
        if self.smallest.len() > self.wanted {
            self.smallest.pop_last();
        }
        Ok(())
    }
}

/// The folders on the path to a temporary file, and its name.
///
/// # Errors
/// The key is not of a temporary file: no other file is ever removed this way.
pub(super) fn parse(upload: &UnfinishedUpload) -> Result<(Vec<String>, String)> {
    let mut folders: Vec<String> = upload.key.split('/').map(str::to_owned).collect();
    let name = folders.pop().unwrap_or_default();
    let is_plain = |segment: &String| !segment.is_empty() && !segment.starts_with('.') && !segment.contains('\0');
    if is_temporary_name(&name) && folders.iter().all(is_plain) {
        return Ok((folders, name));
    }
    let message = "this is not the name of an unfinished upload";
    Err(StoreError::new(StoreErrorKind::InvalidKey, "abort upload", &upload.key, message))
}

/// Removes the file unless it was written to since it was listed.
pub(super) fn abort(root: &Root, folders: &[String], name: &str, upload: &UnfinishedUpload) -> Outcome<()> {
    let Some(folder) = root.open_path(folders.iter().map(String::as_str))? else { return Ok(()) };
    let _no_replacing = lock_replacing();
    let Some(stat) = stat_object(&folder, name)? else { return Ok(()) };
    if meta_of(&upload.key, &stat).version.0 != upload.id {
        let message = "it was written to since it was listed: its writer is alive";
        return Err(Failure::new(StoreErrorKind::VersionMismatch, message));
    }
    unlink(&folder, name).map(|_| ())
}
