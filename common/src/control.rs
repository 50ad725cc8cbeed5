//! A thread of its own for what has to answer whatever the process is busy with: signals, and the HTTP port.
//!
//! The worker threads of the roles may all be at work for seconds. A signal, a probe or somebody who looks at the
//! status page waits for none of them. It lives until it is dropped: what a role does between a signal and its end can
//! be watched too.

use std::io;
use std::thread;

use futures_util::Stream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::shutdown::{EXIT_FORCED, Shutdown, signals};
use crate::telemetry::{Health, Heartbeat, Http, Pages};

/// Threads for pages that have to wait for a role.
const RENDERING_THREADS: usize = 4;

/// Dropping it ends the thread, and waits for that: a second at most.
#[derive(Debug)]
pub struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    _heartbeat: Heartbeat,
}

impl Control {
    /// Installs the signal handlers, and serves `http`. Must be called within the roles' tokio runtime, whose liveness is
    /// reported to `health`.
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
    // A page may still wait for a role; nobody waits for that page.
    runtime.shutdown_background();
}

/// Ends the process when it is to be ended by force.
async fn obey(shutdown: Shutdown, signals: impl Stream<Item = ()>) {
    shutdown.obey(signals).await;
    tracing::warn!("another signal: ending at once; nothing is lost, the next start goes on from here");
    std::process::exit(EXIT_FORCED);
}

async fn serve(http: Option<(Http, Pages)>, mut stopped: oneshot::Receiver<()>) {
    if let Some((http, pages)) = http {
        // A sender that was dropped says the same as one that was used.
        let served = http.serve(pages, async { drop((&mut stopped).await) }).await;
        let Err(error) = served else { return };
        tracing::error!(%error, "the HTTP port is not served");
    }
    drop(stopped.await);
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic of that thread was reported when it happened.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

#[cfg(test)]
mod tests;
