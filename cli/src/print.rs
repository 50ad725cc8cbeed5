//! Prints results on stdout, and the final message on stderr. Foreign text is escaped, and a closed pipe is an error,
//! not a panic.

use std::io::{self, Write};

use anyhow::Context;
use common::printable;
use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::args::LogFormat;

/// Prints lines whose foreign text is already escaped.
pub fn text(lines: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).context("cannot print the result")
}

/// Prints a value on one line.
pub fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    text(&format!("{}\n", printable::json(value)?))
}

/// Prints one line on stderr, because stdout has other content.
pub fn note(line: &str) -> anyhow::Result<()> {
    io::stderr().lock().write_all(format!("{line}\n").as_bytes()).context("cannot print the result")
}

/// Prints an error on stderr, in the form of log lines. A failure cannot be reported.
pub fn error(format: LogFormat, message: &str) {
    let line = match format {
        LogFormat::Text => format!("error: {}\n", printable::message(message)),
        LogFormat::Json => json_error(message),
    };
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

fn json_error(message: &str) -> String {
    let mut timestamp = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = serde_json::json!({
        "timestamp": timestamp, "level": "ERROR", "message": message, "target": env!("CARGO_CRATE_NAME"),
    });
    format!("{}\n", printable::json_text(&line.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_message_is_one_json_object_without_hidden_characters() {
        let line = json_error("2 problems:\n  - a\u{202e}b\u{9b}\u{1b}");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains(['\u{202e}', '\u{9b}', '\u{1b}']), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "2 problems:\n  - a\u{202e}b\u{9b}\u{1b}");
        assert_eq!((read["level"].as_str(), read["target"].as_str()), (Some("ERROR"), Some("event_distributor")));
        assert!(read["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
