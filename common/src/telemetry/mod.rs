//! What a role tells the outside: health and metrics over HTTP.

mod health;
mod http;

pub use health::Health;
pub use http::{Http, HttpError};
pub use prometheus::Registry;
