//! Links at the two well-known names of a landing zone.

use super::*;

/// A landing zone whose two folders are links, as to other disks.
fn linked() -> (TempDir, LocalStore) {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(&root).unwrap();
    for name in ["pending", "processed"] {
        fs::create_dir_all(folder.path().join("disk").join(name)).unwrap();
        symlink(Path::new("../disk").join(name), root.join(name)).unwrap();
    }
    let store = LocalStore::landing(root);
    (folder, store)
}

fn pending() -> SurveyOptions {
    SurveyOptions { prefix: "pending/".to_owned(), ..SurveyOptions::default() }
}

#[tokio::test]
async fn links_are_followed_at_the_two_folders_of_a_landing_zone_and_nowhere_deeper() {
    let (folder, store) = linked();
    let disk = folder.path().join("disk");
    fs::create_dir(disk.join("pending/inner")).unwrap();
    fs::write(disk.join("pending/inner/a"), "x").unwrap();
    fs::create_dir(disk.join("elsewhere")).unwrap();
    fs::write(disk.join("elsewhere/secret"), "x").unwrap();
    for name in ["pending/pending", "pending/processed", "pending/linked"] {
        symlink(disk.join("elsewhere"), disk.join(name)).unwrap();
    }
    let page = store.survey(&pending()).await.unwrap();
    let keys: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["pending/inner/a"]);
    assert_eq!(page.passed_over.len(), 3, "{:?}", page.passed_over);
    assert_eq!(keys_of(&store, "").await, ["pending/inner/a"], "also from the root");
    assert!(store.head("pending/linked/secret").await.unwrap().is_none());
    assert!(store.head("pending/pending/secret").await.unwrap().is_none());
    let version = page.objects[0].version.clone();
    let moved = store.rename("pending/inner/a", &version, "processed/date=2021-01-14/inner/a").await.unwrap();
    assert_eq!(moved, RenameOutcome::Moved);
    assert_eq!(tree(&disk.join("processed")), ["date=2021-01-14", "date=2021-01-14/inner", "date=2021-01-14/inner/a"]);
}

#[tokio::test]
async fn other_stores_follow_no_link_below_their_root() {
    let (folder, _) = linked();
    fs::write(folder.path().join("disk/pending/a"), "x").unwrap();
    for store in [LocalStore::open(folder.path().join("root")), LocalStore::new(folder.path().join("root"))] {
        assert_eq!(keys_of(&store, "").await, [""; 0]);
        assert!(store.head("pending/a").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_link_to_a_missing_disk_is_not_an_empty_folder() {
    let (folder, store) = linked();
    fs::write(folder.path().join("root/file"), "x").unwrap();
    fs::remove_dir_all(folder.path().join("disk")).unwrap();
    let errors = [
        store.survey(&pending()).await.unwrap_err(),
        store.list(&pending().strict()).await.unwrap_err(),
        store.head("pending/a").await.unwrap_err(),
        store.rename("file", &store.head("file").await.unwrap().unwrap().version, "processed/file").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, StoreErrorKind::NoSuchStore, "{error}");
        assert!(error.message.contains("symbolic link"), "{error}");
    }
}

#[tokio::test]
async fn a_file_instead_of_a_folder_of_the_landing_zone_is_an_error() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let store = LocalStore::landing(root.clone());
    assert!(store.survey(&pending()).await.unwrap().objects.is_empty(), "one that is not there yet is");
    for name in ["pending", "processed"] {
        fs::write(root.join(name), "x").unwrap();
        let head = store.head(&format!("{name}/a")).await.unwrap_err();
        assert!(head.kind == StoreErrorKind::NoSuchStore && head.message.contains(name), "{head}");
    }
    assert_eq!(store.survey(&pending()).await.unwrap_err().kind, StoreErrorKind::NoSuchStore);
    let put = store.put("processed/a", Bytes::new(), PutCondition::IfAbsent, &Metadata::new()).await.unwrap_err();
    assert!(put.message.contains("neither a folder nor a symbolic link to one"), "{put}");
}

async fn keys_of(store: &LocalStore, prefix: &str) -> Vec<String> {
    let options = ListOptions { prefix: prefix.to_owned(), ..ListOptions::default() };
    store.list(&options).await.unwrap().objects.into_iter().map(|object| object.key).collect()
}
