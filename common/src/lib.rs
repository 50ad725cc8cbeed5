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
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod glob;
pub mod guard;
pub mod json;
pub mod log;
pub mod printable;
pub mod redact;
pub mod shutdown;
pub mod store;
pub mod telemetry;

/// How to get what a build without the features `kafka` or `s3` lacks. It ends the sentence that says what that is.
#[cfg(any(test, not(feature = "kafka"), not(feature = "s3")))]
pub(crate) const FULL_BUILD: &str = "build without --no-default-features to get one";
