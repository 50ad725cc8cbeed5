//! Futures that are polled by hand: who goes on next is the test's to say.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Ready at the second poll.
#[derive(Default)]
pub(crate) struct Pause {
    is_over: bool,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut self.is_over, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The value of a future that never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match polled(&mut std::pin::pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

pub(crate) fn polled<T, F: Future<Output = T> + ?Sized>(future: &mut Pin<&mut F>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}
