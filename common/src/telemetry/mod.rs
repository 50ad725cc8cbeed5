//! What a role tells the outside: health, metrics and status over HTTP.

mod health;
mod http;
pub mod status;

pub use health::Health;
pub use http::{Http, HttpError};
pub use prometheus::Registry;
pub use status::Status;
