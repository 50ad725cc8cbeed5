//! Runs many store calls, a few at a time.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, Buffered, Iter};
use futures_util::{Stream, StreamExt};

/// Concurrent calls.
const AT_ONCE: usize = 8;

type Futures<'a, T> = Box<dyn Iterator<Item = BoxFuture<'a, T>> + Send + 'a>;

/// The outcomes of the futures, in order. Each future is created only when it is about to start: ten thousand of them
/// would take tens of megabytes before the first has done anything.
pub(crate) fn in_turn<'a, T: Send + 'a>(
    futures: impl Iterator<Item = BoxFuture<'a, T>> + Send + 'a,
) -> impl Stream<Item = T> + Send + Unpin + 'a {
    // Boxed: otherwise the compiler cannot prove that a future that awaits this may move between threads.
    let futures: Futures<'a, T> = Box::new(futures);
    let in_turn: Buffered<Iter<Futures<'a, T>>> = stream::iter(futures).buffered(AT_ONCE);
    in_turn
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn outcomes_come_in_order_and_only_a_few_futures_exist_at_a_time() {
        let (made, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let most = AtomicUsize::new(0);
        let futures = (0..100).map(|number| {
            let alive = made.fetch_add(1, Ordering::Relaxed) + 1 - done.load(Ordering::Relaxed);
            most.fetch_max(alive, Ordering::Relaxed);
            let done = &done;
            async move {
                tokio::task::yield_now().await;
                done.fetch_add(1, Ordering::Relaxed);
                number
            }
            .boxed()
        });
        let outcomes: Vec<i32> = in_turn(futures).collect().await;
        assert_eq!(outcomes, (0..100).collect::<Vec<_>>());
        assert!(most.into_inner() <= 2 * AT_ONCE, "made before their turn");
    }
}
