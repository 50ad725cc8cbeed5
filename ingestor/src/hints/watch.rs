//! Hints from the file system: files below `pending/` that were closed after writing or moved in.
//!
//! `pending` itself may be a symbolic link; no other link is followed, and hidden names are ignored, as in the listing.
//! Some files are left to the sweep: those written before the watch on a new folder is set up, those of a folder that
//! is moved in as a whole, those that get a second name there, those of a burst that exceeds the queue, and deep
//! folders beside one that cannot be watched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::backoff::Backoff;
use common::shutdown::Shutdown;
use notify::event::{AccessKind, AccessMode, Event, EventKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::Hint;
use crate::identity::PENDING;

/// Between the watching thread and the hints: a burst that exceeds it is dropped.
const QUEUE: usize = 4_096;
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LAST_LOOK: Duration = Duration::from_secs(60);
/// How far below `pending/` folders are still watched individually if one beside them cannot be.
const MAX_DEPTH: usize = 8;
const MAX_FOLDERS: usize = 10_000;

/// Gives hints until shutdown, or until the receiver is dropped. Waits for `<root>/pending` while it does not exist. If
/// it cannot be watched (the system limits the number of watches), logs that once and ends.
pub async fn watch(root: PathBuf, hints: mpsc::Sender<Hint>, shutdown: Shutdown) {
    let mut backoff = Backoff::new(FIRST_LOOK, LAST_LOOK, 0);
    loop {
        if is_folder(&root.join(PENDING)).await {
            match forward(&root, &hints, &shutdown).await {
                Ok(Ended::FolderGone) => backoff = Backoff::new(FIRST_LOOK, LAST_LOOK, 0),
                Ok(Ended::NotWanted) => return,
                Err(error) => {
                    tracing::warn!(folder = %root.display(), %error, "cannot watch for new files; sweeps find them");
                    return;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            () = shutdown.wait() => return,
            () = hints.closed() => return,
        }
    }
}

/// The store follows a symbolic link there, too.
async fn is_folder(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|metadata| metadata.is_dir())
}

enum Ended {
    NotWanted,
    FolderGone,
}

enum Seen {
    Key(String),
    FolderGone,
    Trouble(notify::Error),
}

async fn forward(root: &Path, hints: &mpsc::Sender<Hint>, shutdown: &Shutdown) -> notify::Result<Ended> {
    let (sender, mut seen) = mpsc::channel(QUEUE);
    // Dropping it ends its thread.
    let _watcher = begin(root.to_owned(), sender).await?;
    let mut has_warned = false;
    loop {
        let next = tokio::select! {
            next = seen.recv() => next,
            () = shutdown.wait() => return Ok(Ended::NotWanted),
            () = hints.closed() => return Ok(Ended::NotWanted),
        };
        match next {
            Some(Seen::Key(key)) => {
                let sent = tokio::select! {
                    sent = hints.send(Hint { key, answer: None }) => sent.is_ok(),
                    () = shutdown.wait() => false,
                };
                if !sent {
                    return Ok(Ended::NotWanted);
                }
            }
            Some(Seen::FolderGone) | None => return Ok(Ended::FolderGone),
            Some(Seen::Trouble(error)) if !has_warned => {
                has_warned = true;
                tracing::warn!(folder = %root.display(), %error, "some new files are not noticed; sweeps find them");
            }
            Some(Seen::Trouble(_)) => {}
        }
    }
}

/// Reads the whole tree, so it runs off the async threads.
async fn begin(root: PathBuf, seen: mpsc::Sender<Seen>) -> notify::Result<RecommendedWatcher> {
    let set_up = move || {
        // Events contain absolute paths, and those of the target of a link.
        let pending = std::fs::canonicalize(root.join(PENDING)).map_err(notify::Error::io)?;
        let folder = pending.clone();
        let handler = move |event: notify::Result<Event>| report(event, &pending, &seen);
        let mut watcher = RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false))?;
        watch_all(&mut watcher, folder)?;
        Ok(watcher)
    };
    tokio::task::spawn_blocking(set_up).await.unwrap_or_else(|error| Err(notify::Error::generic(&error.to_string())))
}

/// Watches a tree, except for folders in it that cannot be watched. notify stops at the first such folder, but keeps
/// the watches set so far, including those of new folders.
fn watch_all(watcher: &mut RecommendedWatcher, pending: PathBuf) -> notify::Result<()> {
    let mut folders = vec![(pending, 0)];
    let mut tried = 0;
    while let Some((folder, depth)) = folders.pop() {
        let Err(error) = watcher.watch(&folder, RecursiveMode::Recursive) else { continue };
        let is_for_all = matches!(error.kind, notify::ErrorKind::MaxFilesWatch);
        if is_for_all || (depth == 0 && error.paths.contains(&folder)) {
            return Err(error);
        }
        tracing::debug!(folder = %folder.display(), %error, "not all below it can be watched; sweeps find new files there");
        tried += 1;
        if depth < MAX_DEPTH && tried < MAX_FOLDERS {
            let inner = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let inner = inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(inner.map(|entry| (entry.path(), depth + 1)));
        }
    }
    Ok(())
}

/// Runs in the watching thread. Drops events if the queue is full: waiting would only make the system's queue overflow.
fn report(event: notify::Result<Event>, pending: &Path, seen: &mpsc::Sender<Seen>) {
    let event = match event {
        Ok(event) => event,
        Err(error) => return drop(seen.try_send(Seen::Trouble(error))),
    };
    for path in &event.paths {
        if path == pending && is_gone(&event.kind) {
            drop(seen.try_send(Seen::FolderGone));
        } else if is_written(&event.kind)
            && let Some(key) = key_of(pending, path)
            && path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
        {
            drop(seen.try_send(Seen::Key(key)));
        }
    }
}

fn is_gone(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Remove(RemoveKind::Folder | RemoveKind::Other)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From))
    )
}

fn is_written(kind: &EventKind) -> bool {
    if cfg!(target_os = "linux") {
        // A move within the tree arrives as `To` and once more as `Both`.
        matches!(
            kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Modify(ModifyKind::Name(RenameMode::To))
        )
    } else {
        // Other systems do not report closed files; a premature hint does no harm.
        kind.is_create() || kind.is_modify()
    }
}

/// `None` for names that no listing shows: hidden ones and those that are not UTF-8.
fn key_of(pending: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(pending).ok()?;
    let segments: Vec<&str> = relative.iter().map(|segment| segment.to_str()).collect::<Option<_>>()?;
    let is_listed = !segments.iter().any(|segment| segment.starts_with('.'));
    is_listed.then(|| format!("{PENDING}{}", segments.join("/")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Watched {
        folder: tempfile::TempDir,
        hints: mpsc::Receiver<Hint>,
        shutdown: Shutdown,
        task: tokio::task::JoinHandle<()>,
    }

    fn watched(folder: tempfile::TempDir) -> Watched {
        let (sender, hints) = mpsc::channel(10_000);
        let shutdown = Shutdown::new();
        let task = tokio::spawn(watch(folder.path().to_owned(), sender, shutdown.clone()));
        Watched { folder, hints, shutdown, task }
    }

    impl Watched {
        /// Writes the file repeatedly until the watch reports it, because the start of the watch is not observable.
        async fn until_noticed(&mut self, key: &str) {
            let path = self.folder.path().join(key);
            let noticed = async {
                loop {
                    fs::write(&path, "x").unwrap();
                    let wait = tokio::time::timeout(Duration::from_millis(20), self.next_key());
                    if wait.await.is_ok_and(|found| found == key) {
                        return;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(30), noticed).await.expect("the file was not noticed");
            // The report of a second write may still be on its way.
            while self.hints.try_recv().is_ok() {}
        }

        async fn next_key(&mut self) -> String {
            self.hints.recv().await.expect("the watch ended").key
        }

        /// All keys up to `last`, each once. `last` must belong to the last change.
        async fn keys_until(&mut self, last: &str) -> Vec<String> {
            let mut keys = Vec::new();
            let collecting = async {
                while keys.last().is_none_or(|key| key != last) {
                    let key = self.next_key().await;
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(30), collecting).await.expect("the last file was not noticed");
            keys
        }
    }

    fn landing() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pending")).unwrap();
        folder
    }

    #[tokio::test]
    async fn only_files_closed_after_writing_or_moved_in_are_reported() {
        let folder = landing();
        let root = folder.path().to_owned();
        fs::create_dir_all(root.join("pending/a/b")).unwrap();
        fs::create_dir(root.join("outside")).unwrap();
        symlink(root.join("outside"), root.join("pending/linked")).unwrap();
        let mut watched = watched(folder);
        watched.until_noticed("pending/first").await;

        let half_written = fs::File::create(root.join("pending/half-written")).unwrap();
        fs::write(root.join("pending/a/b/written"), "x").unwrap();
        fs::write(root.join("outside/not-below"), "x").unwrap();
        fs::write(root.join("outside/moved"), "x").unwrap();
        fs::rename(root.join("outside/moved"), root.join("pending/a/moved in")).unwrap();
        fs::write(root.join("pending/.hidden"), "x").unwrap();
        fs::rename(root.join("pending/.hidden"), root.join("pending/unhidden")).unwrap();
        fs::File::open(root.join("pending/first")).unwrap();
        symlink(root.join("outside/not-below"), root.join("pending/link")).unwrap();
        fs::write(root.join("pending/last"), "x").unwrap();
        let keys = watched.keys_until("pending/last").await;
        let noticed = ["pending/a/b/written", "pending/a/moved in", "pending/unhidden", "pending/last"];
        let expected: Vec<&str> = noticed.into_iter().filter(|key| *key != "pending/first").collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).filter(|key| *key != "pending/first").collect();
        assert_eq!(keys, expected);
        drop(half_written);
        assert_eq!(watched.keys_until("pending/half-written").await.last().unwrap(), "pending/half-written");
    }

    #[tokio::test]
    async fn new_folders_are_watched_too_and_a_new_pending_folder_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let mut watched = watched(folder);
        for round in 0..2 {
            fs::create_dir(root.join("pending")).unwrap();
            watched.until_noticed("pending/first").await;
            fs::create_dir_all(root.join("pending/new/inner")).unwrap();
            watched.until_noticed("pending/new/inner/file").await;
            // Removed and created again: the watch resumes.
            fs::rename(root.join("pending"), root.join(format!("old-{round}"))).unwrap();
        }
    }

    #[tokio::test]
    async fn files_behind_a_link_at_pending_are_reported_under_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("disk/inner")).unwrap();
        symlink("disk", folder.path().join("pending")).unwrap();
        let mut watched = watched(folder);
        watched.until_noticed("pending/inner/file").await;
    }

    /// Paths longer than the system's limit cannot be watched, by any user.
    #[tokio::test]
    async fn a_folder_that_cannot_be_watched_loses_only_its_own_hints() {
        let folder = landing();
        let pending = folder.path().join("pending");
        let half: PathBuf = std::iter::repeat_n("x".repeat(250), 10).collect();
        for name in ["deep", "part"] {
            fs::create_dir_all(pending.join(name).join(&half)).unwrap();
        }
        fs::rename(pending.join("part"), pending.join("deep").join(&half).join("part")).unwrap();
        for name in ["a", "z"] {
            fs::create_dir_all(pending.join(name).join("inner")).unwrap();
        }
        let mut watched = watched(folder);
        for key in ["pending/a/inner/file", "pending/z/inner/file", "pending/file"] {
            watched.until_noticed(key).await;
        }
        fs::create_dir(watched.folder.path().join("pending/new")).unwrap();
        watched.until_noticed("pending/new/file").await;
    }

    #[tokio::test]
    async fn it_ends_at_shutdown_and_when_the_receiver_is_dropped() {
        let watched_one = watched(landing());
        watched_one.shutdown.trigger();
        watched_one.task.await.unwrap();
        for folder in [landing(), tempfile::tempdir().unwrap()] {
            let Watched { folder: _folder, hints, task, .. } = watched(folder);
            drop(hints);
            task.await.unwrap();
        }
    }

    #[test]
    fn keys_are_those_of_the_listing() {
        let key = |path: &str| key_of(Path::new("/landing/pending"), Path::new(path));
        assert_eq!(key("/landing/pending/a/b c.json").as_deref(), Some("pending/a/b c.json"));
        for not_listed in ["/landing/pending/.x", "/landing/pending/.git/x", "/elsewhere/pending/x"] {
            assert_eq!(key(not_listed), None, "{not_listed}");
        }
    }
}
