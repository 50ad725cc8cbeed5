#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod landing;
mod survey;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::store::{conformance, probe, read_all};

fn store_in(folder: &TempDir) -> (LocalStore, std::path::PathBuf) {
    let root = folder.path().join("root");
    (LocalStore::new(root.clone()), root)
}

async fn put(store: &LocalStore, key: &str, body: &'static str) -> Version {
    let body = Bytes::from_static(body.as_bytes());
    match store.put(key, body, PutCondition::None, &Metadata::new()).await.unwrap() {
        PutOutcome::Written(version) => version,
        other => panic!("{other:?}"),
    }
}

async fn keys(store: &LocalStore) -> Vec<String> {
    store.list(&ListOptions::default()).await.unwrap().objects.into_iter().map(|object| object.key).collect()
}

/// Every path in the directory; directories end in `/`.
fn tree(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            found.push(entry.strip_prefix(path).unwrap().to_string_lossy().into_owned());
            if entry.is_dir() {
                open.push(entry);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_every_guarantee_of_a_store() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    conformance::run_all(Arc::new(store), "suite").await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was written outside of the root");
    let hidden: Vec<String> = tree(&root).into_iter().filter(|path| path.contains("/.")).collect();
    assert_eq!(hidden, [""; 0], "temporary files were left behind");
}

#[tokio::test]
async fn symbolic_links_are_neither_listed_nor_followed() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "inside/real", "x").await;
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, root.join("folder")).unwrap();
    symlink(outside.join("secret"), root.join("file")).unwrap();
    symlink(root.join("inside"), root.join("within")).unwrap();

    assert_eq!(keys(&store).await, ["inside/real"]);
    for key in ["folder/secret", "file", "within/real"] {
        assert!(store.head(key).await.unwrap().is_none(), "{key}");
        assert!(store.open(key, GetOptions::default()).await.unwrap().is_none(), "{key}");
        store.delete(key, None).await.unwrap();
    }
    let written = store.put("folder/new", Bytes::new(), PutCondition::IfAbsent, &Metadata::new()).await;
    assert_eq!(written.unwrap_err().kind, StoreErrorKind::InvalidKey);
    assert_eq!(tree(&outside), ["secret"]);
    assert!(root.join("file").is_symlink(), "a delete removed a symbolic link");
}

#[tokio::test]
async fn hidden_files_and_special_files_are_not_listed() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "a/real", "x").await;
    fs::write(root.join("a/.hidden"), "x").unwrap();
    fs::create_dir(root.join(".git")).unwrap();
    fs::write(root.join(".git/config"), "x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("a/socket")).unwrap();
    let mut upload = store.multipart("a/unfinished", &Metadata::new()).await.unwrap();
    upload.part(Bytes::from_static(b"x")).await.unwrap();

    assert_eq!(keys(&store).await, ["a/real"]);
    assert!(store.open("a/socket", GetOptions::default()).await.unwrap().is_none());
    let error = store.put(".git/x", Bytes::new(), PutCondition::None, &Metadata::new()).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::InvalidKey);
    drop(upload);
    assert_eq!(tree(&root), [".git", ".git/config", "a", "a/.hidden", "a/real", "a/socket"]);
}

#[tokio::test]
async fn names_that_are_not_utf8_are_skipped() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "a", "x").await;
    fs::write(root.join(OsStr::from_bytes(b"b\xff")), "x").unwrap();
    fs::create_dir(root.join(OsStr::from_bytes(b"c\xff"))).unwrap();
    put(&store, "d", "x").await;
    assert_eq!(keys(&store).await, ["a", "d"]);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_an_error() {
    const SIZE: usize = 3 * 1024 * 1024;
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    let body = Bytes::from(vec![b'x'; SIZE]);
    type Change = fn(&fs::File);
    let truncate: Change = |file| file.set_len(1000).unwrap();
    let grow: Change = |file| file.set_len(SIZE as u64 + 1).unwrap();
    let touch: Change = |file| file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    for change in [truncate, grow, touch] {
        store.put("key", body.clone(), PutCondition::None, &Metadata::new()).await.unwrap();
        let (_, mut reader) = store.open("key", GetOptions::default()).await.unwrap().unwrap();
        assert!(reader.next().await.unwrap().is_some());
        change(&fs::File::options().write(true).open(root.join("key")).unwrap());
        let error = loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the end of a changed file was reported as the end of the object"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, StoreErrorKind::VersionMismatch, "{error}");
    }
}

#[tokio::test]
async fn a_file_replaced_while_it_is_read_is_read_to_its_own_end() {
    let folder = TempDir::new().unwrap();
    let (store, _) = store_in(&folder);
    put(&store, "key", "old").await;
    let (_, mut reader) = store.open("key", GetOptions::default()).await.unwrap().unwrap();
    put(&store, "key", "new").await;
    assert_eq!(reader.next().await.unwrap().as_deref(), Some(b"old".as_slice()));
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_missing_root_is_an_error_or_an_empty_store_as_was_chosen() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("not/there/yet");
    let store = LocalStore::open(path.clone());
    let list = store.list(&ListOptions::default()).await.unwrap_err();
    assert_eq!(list.kind, StoreErrorKind::NoSuchStore, "{list}");
    assert_eq!(store.head("x").await.unwrap_err().kind, StoreErrorKind::NoSuchStore);
    let put_error = store.put("x", Bytes::new(), PutCondition::IfAbsent, &Metadata::new()).await.unwrap_err();
    assert_eq!(put_error.kind, StoreErrorKind::NoSuchStore);
    assert!(!path.exists());

    let store = LocalStore::new(path.clone());
    assert_eq!(keys(&store).await, [""; 0]);
    assert!(store.head("x").await.unwrap().is_none());
    store.delete("x", None).await.unwrap();
    assert!(!path.exists(), "reading made the root");
    put(&store, "x/y", "z").await;
    assert_eq!(keys(&store).await, ["x/y"]);
}

#[tokio::test]
async fn a_file_where_a_directory_is_needed_is_refused_and_so_is_the_opposite() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "x", "1").await;
    put(&store, "folder/y", "1").await;
    for (key, condition) in
        [("x/y", PutCondition::None), ("folder", PutCondition::None), ("folder", PutCondition::IfAbsent)]
    {
        let error = store.put(key, Bytes::new(), condition, &Metadata::new()).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::InvalidKey, "{key}: {error}");
    }
    assert!(store.head("x/y").await.unwrap().is_none());
    store.delete("folder", None).await.unwrap();
    assert_eq!(tree(&root), ["folder", "folder/y", "x"]);
}

#[tokio::test]
async fn a_rename_that_was_interrupted_is_finished_by_the_next() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    let version = put(&store, "from", "x").await;
    fs::hard_link(root.join("from"), root.join("to")).unwrap();
    assert_eq!(store.rename("from", &version, "to").await.unwrap(), RenameOutcome::Moved);
    assert_eq!(tree(&root), ["to"]);
    assert_eq!(store.head("to").await.unwrap().unwrap().version, version, "a rename must keep the version");
}

#[tokio::test]
async fn a_batch_of_renames_that_was_interrupted_is_finished_by_the_next() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    let mut moves = Vec::new();
    for name in ["a", "b", "c"] {
        let (from, to) = (format!("pending/{name}"), format!("done/{name}"));
        moves.push(Move { version: put(&store, &from, "x").await, from, to });
    }
    // A process killed with two targets created and no source removed.
    fs::create_dir(root.join("done")).unwrap();
    fs::hard_link(root.join("pending/a"), root.join("done/a")).unwrap();
    fs::hard_link(root.join("pending/b"), root.join("done/b")).unwrap();
    for outcome in store.rename_many(&moves).await {
        assert_eq!(outcome.unwrap(), RenameOutcome::Moved);
    }
    assert_eq!(tree(&root), ["done", "done/a", "done/b", "done/c", "pending"]);
    // A process killed after all moves, before the answer.
    for outcome in store.rename_many(&moves).await {
        assert_eq!(outcome.unwrap(), RenameOutcome::SourceChanged);
    }
    assert_eq!(tree(&root), ["done", "done/a", "done/b", "done/c", "pending"]);
}

#[tokio::test]
async fn a_file_with_a_second_name_elsewhere_is_not_lost_by_a_move_onto_itself() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    let version = put(&store, "key", "x").await;
    assert_eq!(store.rename("key", &version, "key").await.unwrap(), RenameOutcome::TargetExists);
    fs::hard_link(root.join("key"), folder.path().join("elsewhere")).unwrap();
    assert_eq!(store.rename("key", &version, "key").await.unwrap(), RenameOutcome::TargetExists);
    assert_eq!(keys(&store).await, ["key"]);
}

#[tokio::test]
async fn a_batch_may_touch_more_directories_than_may_be_open_at_once() {
    let folder = TempDir::new().unwrap();
    let (store, _) = store_in(&folder);
    let mut moves = Vec::new();
    for number in 0..200 {
        let (from, to) = (format!("pending/{number}/x"), format!("done/{number}/x"));
        moves.push(Move { version: put(&store, &from, "x").await, from, to });
    }
    for outcome in store.rename_many(&moves).await {
        assert_eq!(outcome.unwrap(), RenameOutcome::Moved);
    }
    let moved: Vec<_> = moves.iter().map(|entry| (entry.to.clone(), entry.version.clone())).collect();
    for outcome in store.delete_many(&moved).await {
        assert_eq!(outcome.unwrap(), DeleteOutcome::Deleted);
    }
    assert_eq!(keys(&store).await, [""; 0]);
}

#[tokio::test]
async fn a_small_file_is_read_and_checked_in_one_go_and_stays_pinned() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "key", "0123456789").await;
    let (_, mut reader) = store.open("key", GetOptions::default()).await.unwrap().unwrap();
    fs::write(root.join("key"), "changed in place").unwrap();
    assert_eq!(reader.next().await.unwrap().as_deref(), Some(b"0123456789".as_slice()));
    assert_eq!(reader.next().await.unwrap(), None);
    assert_eq!(reader.next().await.unwrap(), None, "the end stays the end");
}

#[tokio::test]
async fn an_unreadable_directory_is_an_error_and_not_a_short_listing() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "a/x", "1").await;
    put(&store, "b/x", "1").await;
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let is_superuser = fs::read_dir(root.join("a")).is_ok();
    let listed = store.list(&ListOptions::default()).await;
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    // A superuser can read everything; then the listing has to be complete.
    match listed {
        Ok(page) => assert!(is_superuser && page.objects.len() == 2, "a short listing"),
        Err(error) => assert_eq!(error.kind, StoreErrorKind::Denied, "{error}"),
    }
}

#[tokio::test]
async fn empty_directories_do_not_cut_a_page_short() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    put(&store, "z", "x").await;
    for number in 0..20 {
        fs::create_dir_all(root.join(format!("empty-{number:02}/inner"))).unwrap();
    }
    for delimiter in [false, true] {
        let options = ListOptions { limit: Some(1), delimiter, ..ListOptions::default() };
        let page = store.list(&options).await.unwrap();
        assert_eq!((page.objects.len(), page.prefixes.len(), page.more), (1, 0, false), "delimiter: {delimiter}");
    }
}

#[tokio::test]
async fn a_probe_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let (store, root) = store_in(&folder);
    probe(&store, "zone").await.unwrap();
    assert_eq!(tree(&root), ["zone"]);
    assert!(read_all(&store, "zone/nothing", 1).await.unwrap().is_none());
}

#[test]
fn a_root_takes_room_of_keys() {
    let of = |root: &str| LocalStore::open(root.into()).capabilities().max_key_bytes;
    assert_eq!(of("/landing"), 1_024);
    assert_eq!(of(&format!("/{}", "r".repeat(3_500))), 4_095 - 3_502);
}
