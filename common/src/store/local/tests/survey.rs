//! Listings that continue past entries that cannot be listed.

use rustix::fs::{Mode, OFlags};

use super::*;
use crate::store::{PassedOver, PassedOverKind};

/// Creates a tree of `levels` levels, each with a directory `a` and a file `b`, and removes it again without recursion,
/// which would run out of descriptors.
struct Deep {
    root: std::path::PathBuf,
    _folder: TempDir,
}

impl Deep {
    fn new(levels: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut level = open(rustix::fs::CWD, &root);
        for _ in 0..levels {
            drop(fs::File::from(rustix::fs::openat(&level, "b", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap()));
            rustix::fs::mkdirat(&level, "a", Mode::RWXU).unwrap();
            level = open(&level, Path::new("a"));
        }
        Self { root, _folder: folder }
    }
}

fn open(parent: impl std::os::fd::AsFd, name: &Path) -> std::os::fd::OwnedFd {
    rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

impl Drop for Deep {
    fn drop(&mut self) {
        let (level, next) = (self.root.join("a"), self.root.join("next"));
        while level.exists() {
            let _ = fs::remove_file(level.join("b"));
            let _ = fs::rename(level.join("a"), &next);
            if fs::remove_dir(&level).is_err() {
                return;
            }
            let _ = fs::rename(&next, &level);
        }
    }
}

/// All pages.
async fn survey(store: &LocalStore, limit: usize) -> SurveyPage {
    let mut options = SurveyOptions { limit: Some(limit), ..SurveyOptions::default() };
    let mut all = SurveyPage::default();
    loop {
        let page = store.survey(&options).await.unwrap();
        let entries = page.objects.len() + page.unlisted.len() + page.passed_over.len();
        assert!(entries <= limit, "{entries} entries on a page of {limit}");
        all.objects.extend(page.objects);
        all.unlisted.extend(page.unlisted);
        all.passed_over.extend(page.passed_over);
        match page.next {
            Some(next) => options.start_after = Some(next),
            None => return all,
        }
    }
}

#[tokio::test]
async fn only_the_part_of_a_tree_that_is_too_deep_is_not_listed() {
    // At some 2,000 levels a recursive walk would overflow the stack.
    let deep = Deep::new(9_000);
    fs::write(deep.root.join("z"), "x").unwrap();
    let store = LocalStore::open(deep.root.clone());
    let mut expected: Vec<String> = (0..512).map(|level| format!("{}b", "a/".repeat(level))).collect();
    expected.retain(|key| key.len() <= 1024);
    expected.push("z".to_owned());
    expected.sort();
    for limit in [7, 10_000] {
        let found = survey(&store, limit).await;
        let keys: Vec<String> = found.objects.into_iter().map(|object| object.key).collect();
        assert_eq!(keys, expected, "pages of {limit}");
        let [error] = &found.unlisted[..] else { panic!("{:?}", found.unlisted) };
        assert_eq!((error.kind, &error.key), (StoreErrorKind::InvalidKey, &"a/".repeat(512)));
        assert!(error.message.contains("longer than 1024 bytes"), "{error}");
    }
    let error = store.list(&ListOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::InvalidKey, "a list is complete or an error: {error}");
    assert!(store.unfinished_uploads(&ListUploads::default()).await.unwrap().uploads.is_empty());
}

#[tokio::test]
async fn a_file_whose_key_would_be_too_long_is_named_and_the_others_are_listed() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    let segment = "x".repeat(254);
    let path = root.join(&segment).join(&segment).join(&segment).join(&segment);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::create_dir(&path).unwrap();
    for name in ["just", "longer"] {
        let file = open(open(rustix::fs::CWD, &path), Path::new("."));
        drop(rustix::fs::openat(file, name, OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap());
    }
    let found = survey(&store, 1).await;
    assert_eq!(found.objects.len(), 1);
    assert_eq!(found.objects[0].key.len(), 1024);
    assert!(store.head(&found.objects[0].key).await.unwrap().is_some(), "a listed object has no head");
    let [error] = &found.unlisted[..] else { panic!("{:?}", found.unlisted) };
    assert!(error.key.ends_with("/longer") && error.kind == StoreErrorKind::InvalidKey, "{error}");
}

#[tokio::test]
async fn other_files_are_reported_once_whatever_the_page() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    for key in ["a/real", "b", "c/real"] {
        put(&store, key, "x").await;
    }
    symlink(root.join("b"), root.join("a/link")).unwrap();
    symlink(root.join("a"), root.join("folder-link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("c/socket")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"b\xff")), "x").unwrap();
    fs::write(root.join(OsStr::from_bytes(br"b\xff")), "x").unwrap();
    fs::create_dir(root.join(OsStr::from_bytes(b"c\xff"))).unwrap();
    fs::write(root.join(".hidden"), "x").unwrap();
    for limit in 1..=12 {
        let found = survey(&store, limit).await;
        let keys: Vec<&str> = found.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["a/real", "b", r"b\xff", "c/real"], "pages of {limit}");
        let mut passed_over: Vec<_> =
            found.passed_over.iter().map(|PassedOver { name, kind }| (name.as_str(), *kind)).collect();
        passed_over.sort_unstable();
        let expected = [
            ("a/link", PassedOverKind::SymbolicLink),
            (r"b\xff", PassedOverKind::NoText),
            ("c/socket", PassedOverKind::SpecialFile),
            (r"c\xff", PassedOverKind::NoText),
            ("dangling", PassedOverKind::SymbolicLink),
            ("fifo", PassedOverKind::SpecialFile),
            ("folder-link", PassedOverKind::SymbolicLink),
        ];
        assert_eq!(passed_over, expected, "pages of {limit}");
        assert!(found.unlisted.is_empty());
    }
    assert_eq!(keys(&store).await, ["a/real", "b", r"b\xff", "c/real"]);
}

/// A superuser may read everything, and then everything is listed. The end-to-end tests run as another user.
#[tokio::test]
async fn a_folder_without_permission_hides_nothing_but_itself() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    for key in ["a/x", "b/inner/x", "c/x", "names-only/x", "names-only/y", "z"] {
        put(&store, key, "1").await;
    }
    let modes = [("a", 0o000), ("b/inner", 0o000), ("names-only", 0o444)];
    let set = |modes: &[(&str, u32)]| {
        for (path, mode) in modes {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    };
    set(&modes);
    let is_superuser = fs::read_dir(root.join("a")).is_ok();
    let mut found = Vec::new();
    for limit in [1, 2, 100] {
        found.push(survey(&store, limit).await);
    }
    set(&modes.map(|(path, _)| (path, 0o755)));
    for SurveyPage { objects, unlisted, .. } in found {
        if is_superuser {
            assert_eq!((objects.len(), unlisted.len()), (6, 0));
            continue;
        }
        let keys: Vec<&str> = objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["c/x", "z"]);
        let unlisted: Vec<_> = unlisted.iter().map(|error| (error.key.as_str(), error.kind)).collect();
        let denied = |key| (key, StoreErrorKind::Denied);
        assert_eq!(unlisted, ["a/", "b/inner/", "names-only/"].map(denied));
    }
}

#[tokio::test]
async fn a_survey_of_a_folder_that_cannot_be_read_itself_is_an_error() {
    let folder = TempDir::new().unwrap();
    let store = LocalStore::open(folder.path().join("not there"));
    assert_eq!(store.survey(&SurveyOptions::default()).await.unwrap_err().kind, StoreErrorKind::NoSuchStore);
}
