//! The HTTP port: one request a connection, a bounded number of connections, a bounded time for each.
//!
//! Anybody on the network may connect, send half a request, send it byte by byte, or never read the answer. The server
//! guarantees:
//!
//! - at most [`Limits::connections`] are open, and at most an eighth of the descriptors that the process may have;
//! - a connection ends [`Limits::head`] after it began if no whole request has come, and after [`Limits::whole`] in any
//!   case, read or not;
//! - a new connection is always accepted. If the limit is reached, the oldest connection of the peer with the most
//!   connections is closed. A probe from another address therefore gets through beside a peer that holds every
//!   connection, and one from the same address too, because it needs only milliseconds;
//! - without free descriptors the port is still served: one is held in reserve, and a new connection takes that one, or
//!   the one of the connection that is closed for it;
//! - a failed `accept` is retried; the roles do not notice it.
//!
//! Connections are not kept alive: probes and scrapes are seconds apart, and without idle connections each has one
//! deadline. HTTP/1 only; bodies are not read.

mod reserve;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};

use super::Pages;
use crate::backoff::Backoff;
use crate::descriptors;
use reserve::{Reserve, is_out_of_descriptors};

/// Requests need a few hundred bytes; hyper's minimum is 8 KiB.
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;
/// How long the client's further bytes are read after its answer: closing a socket with unread bytes resets the
/// connection, and the client may lose the answer.
const LINGER: Duration = Duration::from_millis(500);
/// The most connections, of the descriptors that the process may have.
const SHARE_OF_DESCRIPTORS: u64 = 8;
/// How long answers in progress may take when the process ends.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    connections: usize,
    /// From the first byte of a connection to the end of its request's head.
    head: Duration,
    /// From the first byte to the last one of the answer.
    whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, head: Duration::from_secs(5), whole: Duration::from_secs(10) }
    }
}

impl Limits {
    /// As many connections as are useful, within `descriptors`.
    fn within(descriptors: Option<u64>) -> Self {
        let limits = Self::default();
        let share = descriptors.map_or(u64::MAX, |descriptors| descriptors / SHARE_OF_DESCRIPTORS);
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        Self { connections: limits.connections.min(share.max(1)), ..limits }
    }
}

/// A bound address that is not served yet, so that a port in use is an error at start.
#[derive(Debug)]
pub struct Http {
    listener: std::net::TcpListener,
    limits: Limits,
    open: Arc<AtomicUsize>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HttpError(String);

impl Http {
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: &str) -> Result<Self, HttpError> {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = bound.map_err(|error| HttpError(format!("http.listen: cannot listen on {address}: {error}")))?;
        Ok(Self { listener, limits: Limits::within(descriptors::limit()), open: Arc::default() })
    }

    /// The address, with the port the system chose for port 0.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn address(&self) -> Result<SocketAddr, HttpError> {
        self.listener.local_addr().map_err(|error| HttpError(error.to_string()))
    }

    /// Serves until `stopped`, then lets answers in progress finish for a moment.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub(crate) async fn serve(self, pages: Pages, stopped: impl Future<Output = ()>) -> Result<(), HttpError> {
        let listener = TcpListener::from_std(self.listener).map_err(|error| HttpError(error.to_string()))?;
        let (limits, count, reserve) = (self.limits, self.open, Reserve::new());
        let mut connections = Connections { limits, pages, open: Vec::new(), count, reserve };
        tokio::select! {
            () = stopped => {}
            () = accept_all(&listener, &mut connections) => {}
        }
        drop(listener);
        connections.finish().await;
        Ok(())
    }
}

/// Runs until it is dropped.
async fn accept_all(listener: &TcpListener, connections: &mut Connections) {
    let new_backoff = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1), 0);
    let mut backoff = new_backoff();
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                (backoff, failing) = (new_backoff(), false);
                connections.admit(stream, peer.ip()).await;
            }
            // The peer disconnected before it was accepted.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if is_out_of_descriptors(&error) && connections.free_a_descriptor().await => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the HTTP port accepts no connections; trying again");
                }
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The origin of a connection: an address, or a peer's network of 64 bits in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Peer {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Which connection is closed to make room, of those in the order of acceptance: the first of the peer with the most
/// connections. Among equal peers, the one that connected first loses.
fn victim(peers: &(impl Iterator<Item = Peer> + Clone)) -> Option<usize> {
    let count = |peer: Peer| peers.clone().filter(|other| *other == peer).count();
    let greatest = peers.clone().map(count).max()?;
    peers.clone().position(|peer| count(peer) == greatest)
}

struct Connections {
    limits: Limits,
    pages: Pages,
    /// In the order of acceptance.
    open: Vec<(Peer, JoinHandle<()>)>,
    count: Arc<AtomicUsize>,
    reserve: Reserve,
}

/// Counts a connection while its task holds this.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    async fn admit(&mut self, stream: TcpStream, address: IpAddr) {
        self.open.retain(|(_, task)| !task.is_finished());
        while self.open.len() >= self.limits.connections && self.close_one().await {}
        let (pages, limits, counted) = (self.pages.clone(), self.limits, Counted::new(&self.count));
        let reserve = self.reserve.clone();
        let task = tokio::spawn(async move {
            let _counted = counted;
            converse(stream, pages, limits).await;
            reserve.fill();
        });
        self.open.push((Peer::of(address), task));
    }

    /// Makes room for one connection. False if there is nothing to give up.
    async fn close_one(&mut self) -> bool {
        let Some(index) = victim(&self.open.iter().map(|(peer, _)| *peer)) else { return false };
        close(self.open.remove(index).1).await;
        true
    }

    /// Gives up the reserve, or else a connection. False if there is neither.
    async fn free_a_descriptor(&mut self) -> bool {
        self.open.retain(|(_, task)| !task.is_finished());
        self.reserve.release() || self.close_one().await
    }

    async fn finish(self) {
        let deadline = tokio::time::Instant::now() + GRACE;
        for (_, mut task) in self.open {
            if timeout_at(deadline, &mut task).await.is_err() {
                close(task).await;
            }
        }
    }
}

/// Waits until the descriptor is free.
async fn close(task: JoinHandle<()>) {
    task.abort();
    // The result says that the task was cancelled, or had ended just before.
    let _ = task.await;
}

async fn converse(stream: TcpStream, pages: Pages, limits: Limits) {
    let service = service_fn(move |request| pages.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .without_shutdown();
    match timeout(limits.whole, connection).await {
        Ok(Ok(parts)) => linger(parts.io.into_inner()).await,
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP connection took too long"),
    }
}

/// Shuts the connection down for writing, and waits a moment for the client to close.
async fn linger(mut stream: TcpStream) {
    let mut rest = [0; 1024];
    let drain = async {
        stream.shutdown().await?;
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // The answer is sent: whether the client received it is not known.
    let _ = timeout(LINGER, drain).await;
}

#[cfg(test)]
mod tests;
