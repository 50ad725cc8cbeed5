//! Work that is broken off, with all it had under way.

use std::panic::resume_unwind;
use std::thread;

use tokio::runtime::Builder;

/// Runs the work on a runtime of its own and ends that too. Of the calls which the work had begun and then let go of,
/// as one does with the others when one has failed, some are at work on other threads: a directory as a store cannot
/// take them back. They have taken effect when this returns, or never will, so that the folder lies still.
pub(crate) fn to_its_last_effect<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(work());
            // Waits for what has begun on its threads.
            drop(runtime);
            outcome
        });
        run.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[tokio::test]
async fn what_was_let_go_of_has_taken_effect() {
    use std::fs;
    use std::time::Duration;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late");
    let (started, has_started) = tokio::sync::oneshot::channel();
    to_its_last_effect(async || {
        let file = file.clone();
        let late = tokio::task::spawn_blocking(move || {
            started.send(()).unwrap();
            // Nobody waits for this time: it makes sure that the file would be missed without the wait for this thread.
            thread::sleep(Duration::from_millis(50));
            fs::write(file, "").unwrap();
        });
        has_started.await.unwrap();
        drop(late);
    });
    assert!(file.exists());
}
