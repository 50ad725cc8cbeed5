//! The findings of `check`, as text or as JSON.

use std::fmt::Display;

use common::printable::push_line;
use indicatif::{DecimalBytes, HumanCount};
use serde::Serialize;

use super::forecast::Forecast;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A setting, a topic or a zone.
    pub about: String,
    pub message: String,
}

impl Finding {
    fn new(about: &str, message: impl Display) -> Self {
        let message = message.to_string();
        // Many errors already name their subject.
        let message = message.strip_prefix(&format!("{about}: ")).unwrap_or(&message);
        Self { about: about.to_owned(), message: message.to_owned() }
    }
}

/// The JSON contract.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Errors that stop a role.
    pub errors: Vec<Finding>,
    /// Problems that will hurt.
    pub warnings: Vec<Finding>,
    /// Checks that passed.
    pub notes: Vec<Finding>,
    /// Absent if the configuration is invalid.
    pub forecast: Option<Forecast>,
    /// A zone or the log was inspected, not only the configuration.
    pub looked: bool,
}

impl Findings {
    pub fn error(&mut self, about: &str, message: impl Display) {
        self.errors.push(Finding::new(about, message));
    }

    pub fn warn(&mut self, about: &str, message: impl Display) {
        self.warnings.push(Finding::new(about, message));
    }

    pub fn note(&mut self, about: &str, message: impl Display) {
        self.notes.push(Finding::new(about, message));
    }

    fn verdict(&self) -> &'static str {
        if self.looked {
            "nothing was found that would hurt"
        } else {
            "the configuration is sound; nothing else was checked"
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: std::fmt::Arguments<'_>| push_line(&mut text, words);
        if let Some(forecast) = &self.forecast {
            line(format_args!(
                "{:>10}  {:>7}  {:>5}  {:>11}  {:>16}  {:>13}  {:>12}  {:>9}  {:>11}  {:>10}",
                "partitions",
                "types",
                "days",
                "a batch in",
                "closed by",
                "batches a day",
                "files a day",
                "merged",
                "rows a file",
                "file size"
            ));
            line(format_args!("{}", row(forecast)));
        }
        for (word, findings) in [("", &self.notes), ("warning: ", &self.warnings), ("error: ", &self.errors)] {
            for finding in findings {
                line(format_args!("{word}{}: {}", finding.about, finding.message));
            }
        }
        if self.errors.is_empty() && self.warnings.is_empty() {
            line(format_args!("{}", self.verdict()));
        }
        text
    }
}

fn row(forecast: &Forecast) -> String {
    let rounded = |number: f64| HumanCount(whole(number)).to_string();
    format!(
        "{:>10}  {:>7}  {:>5}  {:>11}  {:>16}  {:>13}  {:>12}  {:>9}  {:>11}  {:>10}",
        forecast.partitions,
        HumanCount(forecast.types).to_string(),
        forecast.days,
        format!("{:.1} s", forecast.batch_seconds),
        forecast.closed_by.setting().unwrap_or_default(),
        rounded(forecast.batches_a_day),
        rounded(forecast.files_a_day),
        rounded(forecast.files_a_day_merged),
        forecast.rows_a_file.map_or_else(|| "?".to_owned(), |rows| rounded(rows.max(1.0))),
        forecast.file_bytes.map_or_else(|| "?".to_owned(), size),
    )
}

/// Rounds, for people.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
pub fn whole(number: f64) -> u64 {
    number.round().max(0.0) as u64
}

pub fn size(bytes: f64) -> String {
    DecimalBytes(whole(bytes)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_its_subject_once_and_has_no_control_characters() {
        let mut findings = Findings::default();
        findings.error("scratch.dir", "scratch.dir: none is not a folder");
        findings.warn("landing zone", "a\u{1b}[2Jb");
        let text = findings.text();
        assert!(text.contains("error: scratch.dir: none is not a folder\n"), "{text}");
        assert!(text.contains("warning: landing zone: a\\u{1b}[2Jb\n") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(Findings::default().text(), "the configuration is sound; nothing else was checked\n");
    }
}
