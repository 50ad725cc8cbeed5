//! Work beside the owner of a partition.

use std::sync::Arc;

use tokio::task::JoinHandle;

/// Work on a partition while this process owns it. It does not affect the owner.
pub trait Companion: Send + Sync {
    /// Begins the work of a partition. The task is aborted when the partition is given up, which has to be safe at any point.
    fn accompany(self: Arc<Self>, partition: i32) -> JoinHandle<()>;
}

/// A task that is aborted when this is dropped.
pub(crate) struct Accompanied(JoinHandle<()>);

impl Accompanied {
    pub(crate) fn by(companion: &Arc<dyn Companion>, partition: i32) -> Self {
        Self(companion.clone().accompany(partition))
    }
}

impl Drop for Accompanied {
    fn drop(&mut self) {
        self.0.abort();
    }
}
