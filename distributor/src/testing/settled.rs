//! Aborts work together with all its calls in progress.

use std::panic::resume_unwind;
use std::thread;

use tokio::runtime::Builder;

/// Runs the work on a runtime of its own and ends that too. Calls that the work began and dropped, as it does with the
/// others after one failure, may be running on other threads: a local store cannot cancel them. When this returns they
/// have taken effect or never will, so the folder no longer changes.
pub(crate) fn to_its_last_effect<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(work());
            // Waits for calls in progress on its threads.
            drop(runtime);
            outcome
        });
        run.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[tokio::test]
async fn dropped_calls_have_taken_effect() {
    use std::fs;
    use std::time::Duration;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late");
    let (started, has_started) = tokio::sync::oneshot::channel();
    to_its_last_effect(async || {
        let file = file.clone();
        let late = tokio::task::spawn_blocking(move || {
            started.send(()).unwrap();
            // Nothing waits for this time: it only ensures that the file would be missing without the wait for this
            // thread.
            thread::sleep(Duration::from_millis(50));
            fs::write(file, "").unwrap();
        });
        has_started.await.unwrap();
        drop(late);
    });
    assert!(file.exists());
}
