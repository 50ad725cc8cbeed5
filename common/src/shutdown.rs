//! One signal that every task watches: SIGTERM or SIGINT asks for an orderly end, a second one ends the process at once.

use tokio::sync::watch;

/// Exit code of a process that a second signal ended by force (128 + SIGINT, as shells report it).
pub const EXIT_FORCED: i32 = 130;

/// Told by [`Shutdown::trigger`], seen by every clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(false) }
    }

    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Completes once triggered; at once if that has been.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = receiver.wait_for(|triggered| *triggered).await;
    }

    /// Watches for signals until the process ends. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system refused to install the handlers.
    pub fn on_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            let mut received = 0;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                received += 1;
                if received > 1 {
                    tracing::warn!("second signal: ending at once; nothing is lost, the next start goes on from here");
                    std::process::exit(EXIT_FORCED);
                }
                tracing::info!("shutting down; a second signal ends at once");
                shutdown.trigger();
            }
        });
        Ok(())
    }
}
