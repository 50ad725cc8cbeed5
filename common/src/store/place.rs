//! Decides which location is inside which, whatever their names.
//!
//! Two paths may name one folder: through `..`, symbolic links, bind mounts, or a case-insensitive file system. A
//! folder is therefore identified by the identities of the existing folders on its path, and by the names of the
//! missing ones.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::Location;

/// The kernel's limit.
const MAX_LINKS: usize = 40;

/// A folder or file of this machine: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(pub u64, pub u64);

/// A location that can be compared with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Folder {
        /// From the root to the last existing folder.
        existing: Vec<FileId>,
        /// The names below it that do not exist yet.
        missing: Vec<OsString>,
    },
    Bucket {
        name: String,
        prefix: Vec<String>,
    },
}

impl Place {
    /// Resolves a location. A relative path begins at the working directory; a folder that may not be entered counts as
    /// missing.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn of(location: &Location) -> io::Result<Self> {
        match location {
            Location::Local(path) => Ok(of_folder(&std::path::absolute(path)?)),
            Location::S3 { bucket, prefix } => Ok(Self::Bucket {
                name: bucket.clone(),
                prefix: prefix.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect(),
            }),
        }
    }

    /// Whether this is `other` or is inside it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder { existing, missing }, Self::Folder { existing: others, missing: names }) => {
                let Some(last) = others.last() else { return false };
                if names.is_empty() {
                    existing.contains(last)
                } else {
                    existing.last() == Some(last) && missing.starts_with(names)
                }
            }
            (Self::Bucket { name, prefix }, Self::Bucket { name: other, prefix: outer }) => {
                name == other && prefix.starts_with(outer)
            }
            _ => false,
        }
    }
}

fn of_folder(path: &Path) -> Place {
    let (mut existing, mut missing) = (Vec::new(), Vec::new());
    // The resolved part of the path, for system calls.
    let mut here = PathBuf::new();
    let mut links = 0;
    let mut ahead: Vec<OsString> = names_backwards(path);
    while let Some(name) = ahead.pop() {
        if name == ".." {
            if missing.pop().is_none() && existing.len() > 1 {
                existing.pop();
                here.pop();
            }
            continue;
        }
        if !missing.is_empty() {
            missing.push(name);
            continue;
        }
        here.push(&name);
        match fs::symlink_metadata(&here) {
            Ok(stat) if stat.is_symlink() && links < MAX_LINKS => {
                links += 1;
                let target = fs::read_link(&here).unwrap_or_default();
                here.pop();
                if target.is_absolute() {
                    here = PathBuf::new();
                    existing.clear();
                }
                ahead.extend(names_backwards(&target));
            }
            Ok(stat) => existing.push(id(&stat)),
            Err(_) => {
                here.pop();
                missing.push(name);
            }
        }
    }
    Place::Folder { existing, missing }
}

/// The names of a path in reverse, so that the next one is at the end. The root is a name.
fn names_backwards(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|component| *component != Component::CurDir);
    names.rev().map(|component| component.as_os_str().to_owned()).collect()
}

fn id(stat: &Metadata) -> FileId {
    FileId(stat.dev(), stat.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn place(path: impl Into<PathBuf>) -> Place {
        Place::of(&Location::Local(path.into())).unwrap()
    }

    fn bucket(text: &str) -> Place {
        Place::of(&Location::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_folder_is_recognized_under_every_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("land/pending/deep")).unwrap();
        symlink(root.join("land"), root.join("link")).unwrap();
        symlink("land/pending", root.join("relative")).unwrap();
        symlink("link/../land/pending/new", root.join("dangling")).unwrap();
        let pending = place(root.join("land/pending"));
        for inside in [
            "land/pending",
            "land/pending/",
            "land/./pending//x",
            "land/pending/x/y",
            "land/processed/../pending/x",
            "land/none/../pending",
            "land/pending/a/../../pending/b",
            "link/pending/x",
            "relative/x",
            "relative/../pending",
            "dangling",
            "dangling/x",
        ] {
            assert!(place(root.join(inside)).is_within(&pending), "{inside}");
        }
        for outside in
            ["land", "land/pendin", "land/pending2", "land/pending/..", "relative/..", "pending", "dangling/../.."]
        {
            assert!(!place(root.join(outside)).is_within(&pending), "{outside}");
        }
        let missing = place(root.join("land/none/pending"));
        assert!(place(root.join("link/none/pending/x")).is_within(&missing));
        assert!(!place(root.join("link/none/x")).is_within(&missing) && !missing.is_within(&pending));
    }

    #[test]
    fn links_in_a_circle_are_no_reason_to_hang() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        assert!(place(root.path().join("a/x")).is_within(&place(root.path())));
    }

    #[test]
    fn a_relative_path_begins_at_the_working_directory() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(place("no-such-folder/x"), place(here.join("no-such-folder/x")));
        assert!(place(".").is_within(&place(here.parent().unwrap())));
        assert!(place("/").is_within(&place("/")) && place("/..").is_within(&place("/")));
    }

    #[test]
    fn prefixes_are_compared_by_whole_names() {
        let zone = bucket("s3://lake/zone");
        for (text, is_within) in [
            ("s3://lake/zone", true),
            ("s3://lake/zone/a/b", true),
            ("s3://lake/zone2", false),
            ("s3://lake", false),
            ("s3://other/zone", false),
        ] {
            assert_eq!(bucket(text).is_within(&zone), is_within, "{text}");
        }
        assert!(zone.is_within(&bucket("s3://lake")) && !place("/").is_within(&zone) && !zone.is_within(&place("/")));
    }

    proptest! {
        /// Whichever part of the two paths exists.
        #[test]
        fn paths_without_links_are_inside_each_other_as_their_names_say(
            one in proptest::collection::vec("[ab]", 0..5),
            other in proptest::collection::vec("[ab]", 0..5),
            made in proptest::collection::vec("[ab]", 0..5),
        ) {
            let root = tempfile::tempdir().unwrap();
            let at = |names: &[String]| names.iter().fold(root.path().to_owned(), |path, name| path.join(name));
            fs::create_dir_all(at(&made)).unwrap();
            prop_assert_eq!(place(at(&one)).is_within(&place(at(&other))), one.starts_with(&other));
        }
    }
}
