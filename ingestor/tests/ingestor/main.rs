//! The whole ingestor, over the embedded log and a folder, in one process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod archive;
mod discovery;
mod faults;
mod files;
mod group;
mod harness;
mod listing;
mod marker;
mod names;
mod quarantine;
mod replay;
mod shutdown;
mod storm;
mod young;
