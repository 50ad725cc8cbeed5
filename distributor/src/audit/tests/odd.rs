//! Entries of the tables' folders that are not files of a distributor, and branches that cannot be read.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

async fn findings(auditor: &Auditor) -> Vec<Finding> {
    auditor.verify(Repair::No).await.unwrap().findings
}

#[tokio::test]
async fn links_sockets_and_odd_names_are_found_where_engines_read() {
    let zone = Zone::new().await;
    let file = zone.files("events", ".parquet")[0].clone();
    let folder = file.parent().unwrap();
    symlink(&file, folder.join("part-0.parquet")).unwrap();
    symlink(folder, zone.trusted("events/domain_event_type=again")).unwrap();
    symlink("nowhere", zone.trusted("events/dangling")).unwrap();
    symlink(zone.trusted("events"), zone.trusted("rejected")).unwrap();
    let _socket = UnixListener::bind(zone.trusted("events/socket")).unwrap();
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff.parquet")), b"").unwrap();
    // Engines pass over these, and a repair removes none of the others.
    symlink(&file, folder.join("_link.parquet")).unwrap();
    symlink(&file, folder.join(".link.parquet")).unwrap();
    for deep in [false, true] {
        let audit = zone.auditor(deep).verify(Repair::Orphans).await.unwrap();
        let found: Vec<(&str, &str)> =
            audit.findings.iter().map(|finding| (finding.place.as_str(), finding.message.as_str())).collect();
        let folder = folder.strip_prefix(zone.trusted("")).unwrap().to_str().unwrap();
        for (place, what) in [
            (format!("{folder}/part-0.parquet"), "a symbolic link: engines follow it and may read rows twice"),
            ("events/domain_event_type=again".to_owned(), "a symbolic link"),
            ("events/dangling".to_owned(), "a symbolic link"),
            ("events/socket".to_owned(), "a device, FIFO or socket"),
            (format!("{folder}/\\xff.parquet"), "the name is not UTF-8"),
            ("rejected".to_owned(), "a symbolic link"),
        ] {
            assert!(found.iter().any(|(at, said)| *at == place && said.contains(what)), "{place}: {found:?}");
        }
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(audit.findings.iter().all(|finding| finding.kind == FindingKind::FileUnknown), "{audit:?}");
        assert!(audit.removed.is_empty(), "{audit:?}");
    }
}

/// More levels than a key has bytes.
#[tokio::test]
async fn a_tree_that_is_too_deep_to_list_is_a_finding_and_the_rest_is_audited() {
    let zone = Zone::new().await;
    let folder = zone.files("events", ".parquet")[0].parent().unwrap().to_owned();
    fs::create_dir_all(folder.join("a/".repeat(600))).unwrap();
    fs::remove_file(&zone.files("events", ".parquet")[1]).unwrap();
    let found = findings(&zone.auditor(true)).await;
    let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [FindingKind::FileMissing, FindingKind::Unreadable], "{found:?}");
    assert!(found[1].message.contains("longer than 1024 bytes"), "{found:?}");
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_a_finding_and_the_rest_is_audited() {
    let zone = Zone::new().await;
    let denied = zone.files("events", ".parquet")[1].strip_prefix(zone.trusted("")).unwrap().to_owned();
    fs::remove_file(&zone.files("events", ".parquet")[2]).unwrap();
    let key = denied.to_str().unwrap().to_owned();
    let failing = |kind| {
        let key = key.clone();
        interposed(
            zone.store(),
            move |call, at| {
                if call == "open" && at == key { Fate::Fail(kind) } else { Fate::Pass }
            },
        )
    };
    for deep in [false, true] {
        let mut auditor = zone.auditor(deep);
        auditor.store = failing(StoreErrorKind::Denied);
        let found = findings(&auditor).await;
        let kinds: Vec<_> = found.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [FindingKind::FileMissing, FindingKind::Unreadable], "{found:?}");
        assert!(found[1].message.contains("it was not checked"), "{found:?}");
    }
    let mut auditor = zone.auditor(false);
    auditor.store = failing(StoreErrorKind::Transient);
    assert!(auditor.verify(Repair::No).await.is_err(), "a store that does not answer says nothing");
}
