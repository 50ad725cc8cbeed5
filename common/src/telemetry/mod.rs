//! Observability of a role: health, metrics and status over HTTP.

mod health;
mod heartbeat;
mod http;
mod server;
pub mod status;

pub use health::Health;
pub use heartbeat::Heartbeat;
pub use http::Pages;
pub use prometheus::Registry;
pub use server::{Http, HttpError};
pub use status::Status;
