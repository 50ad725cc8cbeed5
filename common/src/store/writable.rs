//! Checks whether files can be created in a folder, before a role fails in the middle of its work.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

/// Whether this process may create files in a folder, or may create the folder if it does not exist. Creates nothing.
///
/// # Errors
/// The reason, for the folder or for the nearest existing one above it.
pub fn check_writable(path: &Path) -> io::Result<()> {
    let exists = |path: &&Path| path.as_os_str().is_empty() || path.symlink_metadata().is_ok();
    let nearest = path.ancestors().find(exists).unwrap_or(path);
    let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    if !nearest.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(nearest, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Bytes that this process may still write to the disk of a folder.
///
/// # Errors
/// The folder does not exist, or its file system does not say.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_exists_or_can_be_made_is_writable() {
        let root = tempfile::tempdir().unwrap();
        assert!(check_writable(root.path()).is_ok());
        assert!(check_writable(&root.path().join("a/b/c")).is_ok());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        std::fs::write(root.path().join("file"), b"").unwrap();
        for below in ["file", "file/x"] {
            let error = check_writable(&root.path().join(below)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{below}");
        }
    }
}
