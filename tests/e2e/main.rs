//! The pipeline as its users run it: real processes, real Apache Kafka, a real S3 server, real kills.
//!
//! `./test` starts the services and sets the variables that [`harness::services`] reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests: a broken behaviour is a panic with its message"
)]

mod command_line;
mod compact;
mod ddl;
mod dead_letters;
mod delta;
mod distributors;
mod documents;
mod embedded;
mod foreign;
mod formats;
mod front;
mod harness;
mod hints;
mod hostile;
mod ingestors;
mod kafka_s3;
mod kills;
mod landing;
mod lost_commit_log;
mod odd_landing;
mod odd_tables;
mod once;
mod outage;
mod places;
mod rewrite;
mod rights;
mod seams;
mod situations;
mod status;
mod stuck;
mod topic;
mod transactions;
mod unreadable;
