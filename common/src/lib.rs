//! What both roles share.
//!
//! Dependencies point one way: `cli -> {ingestor, distributor} -> common`. The seams [`log`] and [`store`] hide which
//! log and which object store are used, so everything above them is the same on a laptop and on a cluster.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod event;
pub mod glob;
pub mod json;
pub mod log;
pub mod printable;
pub mod redact;
pub mod shutdown;
pub mod store;
pub mod telemetry;
