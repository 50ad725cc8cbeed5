//! `dlq list`: a summary by reason first, then the letters themselves.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Stdout, Write};

use common::log::{Chunk, Log, LogError, LogErrorKind, read_to_end};
use common::printable::{Printable, escape, json_text};
use indicatif::HumanCount;
use ingestor::{DeadLetter, ReplayProgress};
use serde::Serialize;

use super::{PATIENCE, open};
use crate::Failure;
use crate::args::{DlqListArgs, Output};

/// The part of a letter that is shown as text.
const SHOWN_CHARS: usize = 100;

/// One dead letter as JSON. `raw` is lossy where the bytes are not UTF-8; the topic has them exactly.
#[derive(Debug, Serialize)]
struct Line<'a> {
    source: &'a str,
    identity: &'a str,
    byte_offset: u64,
    length: u64,
    kept_bytes: usize,
    /// Its end was not kept, so it cannot be replayed.
    cut: bool,
    reason: &'a str,
    detail: &'a str,
    /// In the dead-letter topic.
    offset: i64,
    /// No replay has processed it.
    open: bool,
    replays: u32,
    raw: &'a str,
}

/// The letters to list.
struct Wanted<'a> {
    args: &'a DlqListArgs,
    progress: ReplayProgress,
}

impl Wanted<'_> {
    fn is_open(&self, partition: i32, offset: i64, letter: &DeadLetter<'_>) -> bool {
        self.progress.is_open(partition, offset, &letter.reason)
    }

    fn has(&self, letter: &DeadLetter<'_>, is_open: bool) -> bool {
        (is_open || self.args.all) && self.has_reason(letter)
    }

    fn has_reason(&self, letter: &DeadLetter<'_>) -> bool {
        self.args.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
    }
}

/// The summary of the letters with one reason.
#[derive(Default)]
struct Reason {
    letters: u64,
    example: String,
    /// The first few.
    shown: Vec<String>,
}

/// The summary of all letters.
#[derive(Default)]
struct Summary {
    reasons: BTreeMap<String, Reason>,
    /// Letters that were skipped because they were replayed.
    replayed: u64,
    /// Open letters with other reasons than the requested one, by reason.
    others: BTreeMap<String, u64>,
}

impl Summary {
    fn letters(&self) -> u64 {
        self.reasons.values().map(|reason| reason.letters).sum()
    }

    fn add(&mut self, letter: &DeadLetter<'_>, shown_at_most: usize) {
        let reason = match self.reasons.get_mut(letter.reason.as_ref()) {
            Some(reason) => reason,
            None => self.reasons.entry(letter.reason.clone().into_owned()).or_default(),
        };
        if reason.letters == 0 {
            reason.example = place(letter);
        }
        if reason.shown.len() < shown_at_most {
            reason.shown.push(text_line(letter));
        }
        reason.letters += 1;
    }

    /// The last line of the JSON output.
    fn json(&self) -> serde_json::Value {
        let reasons: BTreeMap<&String, u64> =
            self.reasons.iter().map(|(code, reason)| (code, reason.letters)).collect();
        serde_json::json!({ "dead_letters": self.letters(), "reasons": reasons })
    }

    fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.reasons.keys().map(String::len).max().unwrap_or_default().max("reason".len());
        if !self.reasons.is_empty() {
            writeln!(out, "{:width$}  {:>10}  for example", "reason", "letters")?;
        }
        for (code, reason) in &self.reasons {
            writeln!(
                out,
                "{:width$}  {:>10}  {}",
                Printable(code),
                HumanCount(reason.letters).to_string(),
                reason.example
            )?;
        }
        Ok(())
    }

    fn write_shown(&self, out: &mut impl Write) -> io::Result<()> {
        for reason in self.reasons.values() {
            writeln!(out)?;
            for line in &reason.shown {
                writeln!(out, "{line}")?;
            }
            let more = reason.letters - reason.shown.len() as u64;
            if more > 0 {
                writeln!(out, "… and {} more (--limit 0 shows all)", HumanCount(more))?;
            }
        }
        Ok(())
    }

    fn write_total(&self, out: &mut impl Write) -> io::Result<()> {
        match self.letters() {
            0 => write!(out, "no dead letters")?,
            1 => write!(out, "\n1 dead letter")?,
            letters => write!(out, "\n{} dead letters", HumanCount(letters))?,
        }
        if !self.others.is_empty() {
            let others =
                self.others.iter().map(|(code, letters)| format!("{} {}", HumanCount(*letters), Printable(code)));
            write!(out, " of this reason; of others: {}", others.collect::<Vec<_>>().join(", "))?;
        }
        match self.replayed {
            0 => {}
            1 => write!(out, "; 1 more was replayed (--all shows it)")?,
            replayed => write!(
                out,
                "; {} more were tried again (--all shows them; one that failed again has a newer letter)",
                HumanCount(replayed)
            )?,
        }
        writeln!(out)
    }
}

pub async fn list(args: &DlqListArgs) -> Result<(), Failure> {
    let (config, log) = open(&args.log, &args.common).await?;
    let progress = ReplayProgress::read(&*log, &config.log.ledger_topic).await?;
    let (topic, wanted) = (&config.log.dlq_topic, Wanted { args, progress });
    let mut out = BufWriter::new(io::stdout());
    match args.common.output {
        Output::Json => list_json(&*log, topic, &wanted, &mut out).await?,
        Output::Text => list_text(&*log, topic, &wanted, &mut out).await?,
    }
    Ok(out.flush()?)
}

async fn list_json(
    log: &dyn Log,
    topic: &str,
    wanted: &Wanted<'_>,
    out: &mut BufWriter<Stdout>,
) -> Result<(), Failure> {
    let mut summary = Summary::default();
    for_each_letter(log, topic, |partition, offset, letter| {
        let is_open = wanted.is_open(partition, offset, letter);
        if !wanted.has(letter, is_open) {
            return Ok(());
        }
        summary.add(letter, 0);
        writeln!(out, "{}", json_text(&json_line(letter, offset, is_open).to_string()))
    })
    .await?;
    Ok(writeln!(out, "{}", json_text(&summary.json().to_string()))?)
}

/// Reads the topic once for the table and the first letters of each reason. Reads it a second time if all are shown, so
/// that memory does not grow with the topic.
async fn list_text(
    log: &dyn Log,
    topic: &str,
    wanted: &Wanted<'_>,
    out: &mut BufWriter<Stdout>,
) -> Result<(), Failure> {
    let mut summary = Summary::default();
    for_each_letter(log, topic, |partition, offset, letter| {
        let is_open = wanted.is_open(partition, offset, letter);
        if wanted.has(letter, is_open) {
            summary.add(letter, wanted.args.limit);
        } else if !wanted.has_reason(letter) {
            if is_open {
                *summary.others.entry(letter.reason.clone().into_owned()).or_default() += 1;
            }
        } else {
            summary.replayed += 1;
        }
        Ok(())
    })
    .await?;
    summary.write_table(out)?;
    if wanted.args.limit > 0 {
        summary.write_shown(out)?;
    } else {
        if summary.letters() > 0 {
            writeln!(out)?;
        }
        for_each_letter(log, topic, |partition, offset, letter| {
            let is_wanted = wanted.has(letter, wanted.is_open(partition, offset, letter));
            if is_wanted { writeln!(out, "{}", text_line(letter)) } else { Ok(()) }
        })
        .await?;
    }
    Ok(summary.write_total(out)?)
}

async fn for_each_letter(
    log: &dyn Log,
    topic: &str,
    mut visit: impl FnMut(i32, i64, &DeadLetter<'_>) -> io::Result<()> + Send,
) -> Result<(), LogError> {
    let failed = |error| LogError::new(LogErrorKind::Other, format!("cannot print the dead letters: {error}"));
    let mut visit_chunk = |chunk: &Chunk| {
        let mut letters = chunk.records.iter().zip(&chunk.offsets);
        letters
            .try_for_each(|(record, offset)| visit(chunk.partition, *offset, &DeadLetter::of(&record)).map_err(failed))
    };
    for partition in log.bounds(topic).await?.into_keys() {
        read_to_end(log, topic, partition, PATIENCE, &mut visit_chunk).await?;
    }
    Ok(())
}

fn json_line(letter: &DeadLetter<'_>, offset: i64, open: bool) -> serde_json::Value {
    let raw = String::from_utf8_lossy(letter.kept);
    serde_json::json!(Line {
        source: &letter.source,
        identity: &letter.identity,
        byte_offset: letter.byte_offset,
        length: letter.length,
        kept_bytes: letter.kept.len(),
        cut: letter.is_cut(),
        reason: &letter.reason,
        detail: &letter.detail,
        offset,
        open,
        replays: letter.replays,
        raw: &raw,
    })
}

fn place(letter: &DeadLetter<'_>) -> String {
    format!("{}:{}", Printable(&letter.source), letter.byte_offset)
}

fn text_line(letter: &DeadLetter<'_>) -> String {
    let raw = String::from_utf8_lossy(letter.kept);
    let mut begins = escape(&raw.chars().take(SHOWN_CHARS).collect::<String>()).into_owned();
    if raw.chars().nth(SHOWN_CHARS).is_some() {
        begins.push('…');
    }
    format!(
        "{}  {}: {}, {}: {begins}",
        Printable(&letter.reason),
        place(letter),
        Printable(&letter.detail),
        length(letter.kept.len() as u64, letter)
    )
}

fn length(kept: u64, letter: &DeadLetter<'_>) -> String {
    if letter.is_cut() {
        return format!("first {} of {} bytes", HumanCount(kept), HumanCount(letter.length));
    }
    format!("{} bytes", HumanCount(letter.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter<'a>(reason: &'a str, kept: &'a [u8], length: u64) -> DeadLetter<'a> {
        DeadLetter {
            source: "a\u{1b}[2J.json".into(),
            identity: "a|1".into(),
            byte_offset: 7,
            length,
            reason: reason.into(),
            detail: "is not JSON".into(),
            replays: 0,
            kept,
        }
    }

    fn text(summary: &Summary) -> String {
        let mut out = Vec::new();
        let written = summary
            .write_table(&mut out)
            .and_then(|()| summary.write_shown(&mut out))
            .and_then(|()| summary.write_total(&mut out));
        assert!(written.is_ok());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn letters_are_listed_by_reason_with_an_example_and_the_first_few() {
        let mut summary = Summary { replayed: 1_000, ..Summary::default() };
        for _ in 0..3 {
            summary.add(&letter("not_json", b"rubbish", 7), 2);
        }
        summary.add(&letter("too_large", &[b'x'; 65_536], 1_234_567), 2);
        let text = text(&summary);
        for part in [
            "not_json            3  a\\u{1b}[2J.json:7\n",
            "too_large           1  ",
            "not_json  a\\u{1b}[2J.json:7: is not JSON, 7 bytes: rubbish\n… and 1 more",
            "first 65,536 of 1,234,567 bytes: xxx",
            "\n4 dead letters; 1,000 more were tried again (--all shows them; one that failed again has a newer letter)\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a file's name does not reach the terminal");
    }

    #[test]
    fn a_json_line_says_whether_the_letter_is_whole_and_open() {
        let line = json_line(&letter("too_large", b"xx", 9), 41, true);
        let values = ["kept_bytes", "length", "cut", "offset", "open", "identity"].map(|key| line[key].to_string());
        assert_eq!(values, ["2", "9", "true", "41", "true", "\"a|1\""]);
    }
}
