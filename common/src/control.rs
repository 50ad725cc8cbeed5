//! A dedicated thread that serves signals and the HTTP port, however busy the process is.
//!
//! The roles' worker threads may all be busy for seconds. Signals, probes and the status page never wait for them. The
//! thread runs until its handle is dropped, so a shutdown can be observed too.

use std::io;
use std::thread;

use futures_util::Stream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::shutdown::{EXIT_FORCED, Shutdown, signals};
use crate::telemetry::{Health, Heartbeat, Http, Pages};

/// Threads for pages that wait for a role.
const RENDERING_THREADS: usize = 4;

/// Dropping it ends the thread and waits for that, at most a second.
#[derive(Debug)]
pub struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    _heartbeat: Heartbeat,
}

impl Control {
    /// Installs the signal handlers and serves `http`. Must be called within the roles' tokio runtime, whose liveness
    /// it reports to `health`.
    ///
    /// # Errors
    /// The operating system refused a thread, a runtime or the handlers.
    pub fn start(shutdown: &Shutdown, health: &Health, http: Option<(Http, Pages)>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(RENDERING_THREADS).build()?;
        let signals = {
            let _entered = runtime.enter();
            signals()?
        };
        let heartbeat = Heartbeat::start();
        let watching = heartbeat.watch(health.clone());
        let (stop, stopped) = oneshot::channel();
        let (shutdown, health) = (shutdown.clone(), health.clone());
        let work = async move {
            tokio::spawn(watching);
            tokio::spawn(obey(shutdown.clone(), signals));
            tokio::spawn(async move {
                shutdown.wait().await;
                health.not_ready("process", "shutting down");
            });
            serve(http, stopped).await;
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(move || run(runtime, work))?;
        Ok(Self { stop: Some(stop), thread: Some(thread), _heartbeat: heartbeat })
    }
}

fn run(runtime: Runtime, work: impl Future<Output = ()>) {
    runtime.block_on(work);
    // A page may still wait for a role, but no client waits for that page.
    runtime.shutdown_background();
}

/// Exits the process when the shutdown is forced.
async fn obey(shutdown: Shutdown, signals: impl Stream<Item = ()>) {
    shutdown.obey(signals).await;
    tracing::warn!("another signal: ending at once; nothing is lost, the next start continues from here");
    std::process::exit(EXIT_FORCED);
}

async fn serve(http: Option<(Http, Pages)>, mut stopped: oneshot::Receiver<()>) {
    if let Some((http, pages)) = http {
        // A dropped sender also ends the server.
        let served = http.serve(pages, async { drop((&mut stopped).await) }).await;
        let Err(error) = served else { return };
        tracing::error!(%error, "the HTTP port is not served");
    }
    drop(stopped.await);
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The panic hook has already reported a panic of that thread.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

#[cfg(test)]
mod tests;
