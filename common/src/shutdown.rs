//! One signal that every task watches: SIGTERM or SIGINT requests an orderly shutdown; a later one ends the process at
//! once.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// Exit code of a process that a second signal forced to end (128 + SIGINT, as shells report it).
pub const EXIT_FORCED: i32 = 130;

/// Signals this close to the first one count as the same request: Ctrl-C reaches every process of a terminal's group,
/// and a supervisor among them passes it on as SIGTERM.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Triggered once, visible to every clone.
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

    /// Completes once triggered; at once if that has already happened.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = receiver.wait_for(|triggered| *triggered).await;
    }

    /// Triggers at the first signal, and completes at the one that forces the end.
    pub(crate) async fn obey(&self, signals: impl Stream<Item = ()>) {
        let mut signals = std::pin::pin!(signals);
        let mut first = None;
        while signals.next().await.is_some() {
            match wish(first, Instant::now()) {
                Wish::End => {
                    first = Some(Instant::now());
                    tracing::info!("shutting down; another signal, a second from now or later, ends at once");
                    self.trigger();
                }
                Wish::Same => {}
                Wish::Force => return,
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// An orderly shutdown.
    End,
    /// A repetition of the same request.
    Same,
    /// An immediate end.
    Force,
}

/// The request that a signal makes, given the time of the first one.
fn wish(first: Option<Instant>, now: Instant) -> Wish {
    match first {
        None => Wish::End,
        Some(first) if now.saturating_duration_since(first) <= SAME_REQUEST => Wish::Same,
        Some(_) => Wish::Force,
    }
}

/// SIGTERM and SIGINT, which no longer end the process by default. Must be called within a tokio runtime.
///
/// # Errors
/// The operating system refused to install the handlers.
pub(crate) fn signals() -> std::io::Result<impl Stream<Item = ()>> {
    let handlers = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(stream::unfold(handlers, |(mut terminate, mut interrupt)| async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Some(((), (terminate, interrupt)))
    }))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    /// Whether any of the signals at these times after the first one forces the end.
    async fn forced_after(later: &[Duration]) -> bool {
        let shutdown = Shutdown::new();
        let (signal, signals) = mpsc::unbounded_channel();
        let signals = stream::unfold(signals, |mut signals| async move { Some((signals.recv().await?, signals)) });
        let obeying = shutdown.clone();
        let obeying = tokio::spawn(async move {
            obeying.obey(signals).await;
        });
        assert!(!shutdown.is_triggered());
        signal.send(()).unwrap();
        shutdown.wait().await;
        let first = Instant::now();
        for after in later {
            tokio::time::sleep_until(first + *after).await;
            signal.send(()).unwrap();
        }
        sleep(Duration::from_millis(1)).await;
        obeying.is_finished()
    }

    #[tokio::test(start_paused = true)]
    async fn signals_within_a_second_are_one_and_a_later_one_forces() {
        let ms = Duration::from_millis;
        assert!(!forced_after(&[]).await);
        assert!(!forced_after(&[ms(0), ms(3), ms(999), ms(1_000)]).await, "a process group's and a supervisor's");
        assert!(forced_after(&[ms(1_002)]).await);
        assert!(forced_after(&[ms(900), ms(1_800)]).await, "it is the first one that counts");
    }
}
