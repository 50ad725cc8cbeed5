//! `dlq list`: what stands in the dead-letter topic.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use common::clock::SystemClock;
use common::event::{HEADER_BYTE_OFFSET, HEADER_DETAIL, HEADER_LENGTH, HEADER_REASON, HEADER_SOURCE};
use common::log::{Chunk, EmbeddedLog, Log, LogError, LogErrorKind, RecordRef, read_to_end};
use serde::Serialize;

use crate::args::{DlqListArgs, Output};
use crate::wiring::{default_data_dir, kafka_log, required};
use crate::{Failure, configure};

/// How long the log may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a letter is shown as text.
const SHOWN_BYTES: usize = 100;

/// One dead letter as JSON. `raw` is lossy where the bytes are not UTF-8; the topic has them exactly.
#[derive(Debug, Serialize)]
struct Letter {
    source: String,
    byte_offset: u64,
    length: u64,
    reason: String,
    detail: String,
    raw: String,
}

impl Letter {
    fn of(record: &RecordRef<'_>) -> Self {
        let text = |name| record.headers.text(name).unwrap_or_default().to_owned();
        let number = |name| record.headers.text(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        Self {
            source: text(HEADER_SOURCE),
            byte_offset: number(HEADER_BYTE_OFFSET),
            length: number(HEADER_LENGTH),
            reason: text(HEADER_REASON),
            detail: text(HEADER_DETAIL),
            raw: String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned(),
        }
    }

    fn line(&self) -> String {
        let mut shown: String = self.raw.chars().take(SHOWN_BYTES).flat_map(char::escape_debug).collect();
        if self.raw.chars().nth(SHOWN_BYTES).is_some() {
            shown.push('…');
        }
        format!("{}:{}: {}, {} bytes: {shown}", self.source, self.byte_offset, self.detail, self.length)
    }
}

pub async fn list(args: &DlqListArgs) -> Result<(), Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--trusted", "trusted.url", args.trusted.as_ref())];
    let config = configure::config(&args.common, &flags)?;
    let log: Arc<dyn Log> = if config.kafka.is_some() {
        kafka_log(&config)?
    } else {
        let data_dir = match &args.data_dir {
            Some(data_dir) => data_dir.clone(),
            None => default_data_dir(required(
                config.trusted.location.as_ref(),
                "kafka.brokers and trusted.url",
                "--brokers, --trusted or --data-dir",
            )?),
        };
        if !EmbeddedLog::exists(&data_dir) {
            return Err(Failure::usage(anyhow!("there is no embedded log in {}", data_dir.display())));
        }
        Arc::new(EmbeddedLog::open(&data_dir, Arc::new(SystemClock)).await?)
    };
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let mut write = |chunk: &Chunk| {
        for record in chunk.records.iter() {
            let letter = Letter::of(&record);
            let line = match args.common.output {
                Output::Text => letter.line(),
                Output::Json => serde_json::to_string(&letter).map_err(|error| failed(&error))?,
            };
            writeln!(out, "{line}").map_err(|error| failed(&error))?;
            *reasons.entry(letter.reason).or_default() += 1;
        }
        Ok(())
    };
    for partition in log.bounds(&config.log.dlq_topic).await?.into_keys() {
        read_to_end(&*log, &config.log.dlq_topic, partition, PATIENCE, &mut write).await?;
    }
    let total: u64 = reasons.values().sum();
    match args.common.output {
        Output::Json => writeln!(out, "{}", serde_json::json!({ "dead_letters": total, "reasons": reasons }))?,
        Output::Text => {
            writeln!(out, "\n{total} dead letters")?;
            for (reason, count) in reasons {
                writeln!(out, "  {count:>8}  {reason}")?;
            }
        }
    }
    Ok(out.flush()?)
}

fn failed(error: &dyn std::fmt::Display) -> LogError {
    LogError::new(LogErrorKind::Other, format!("cannot print the dead letters: {error}"))
}
