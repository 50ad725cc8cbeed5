//! Sample events: the same bytes for the same options, with a known number of unique ones.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use common::backoff::splitmix64;
use common::event::civil_from_micros;
use serde::Serialize;

use crate::args::{Format, GenerateArgs, Output};
use crate::{Failure, print};

/// 2021-01-14T00:00:00Z.
const FIRST_SECOND: u64 = 1_610_582_400;
/// Duplicates repeat one of the last `REPEAT_WITHIN` events.
const REPEAT_WITHIN: usize = 5_000;

const DOMAINS: [&str; 4] = ["account", "card", "transfer", "customer"];
const ACTIONS: [&str; 3] = ["status-change", "creation", "closure"];
const STATUSES: [&str; 4] = ["ACTIVE", "SUSPENDED", "PENDING", "CLOSED"];
const REASONS: [&str; 4] = [
    "Requested by the customer in writing, identity checked at the branch",
    "Automatic review of items that have been dormant for a year",
    "Corrected after a complaint, see the note of the back office",
    "Natus cupiditate fugiat repellendus commodi perspiciatis earum",
];

#[derive(Debug, Default, Serialize)]
struct Made {
    events: u64,
    unique: u64,
    files: u64,
    bytes: u64,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        splitmix64(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let index = self.below(choices.len() as u64);
        choices[usize::try_from(index).unwrap_or(0)]
    }
}

struct Generator<'a> {
    args: &'a GenerateArgs,
    random: Random,
    /// Probability of a duplicate, scaled to 2⁵³.
    repeat_below: u64,
    recent: Vec<String>,
}

impl Generator<'_> {
    /// Writes the next event into `text`; true if it is a new one.
    fn next(&mut self, text: &mut String) -> bool {
        text.clear();
        if !self.recent.is_empty() && self.random.next() >> 11 < self.repeat_below {
            let index = self.random.below(self.recent.len() as u64);
            text.push_str(&self.recent[usize::try_from(index).unwrap_or(0)]);
            return false;
        }
        self.event(text);
        if self.repeat_below > 0 {
            if self.recent.len() < REPEAT_WITHIN {
                self.recent.push(text.clone());
            } else {
                let index = usize::try_from(self.random.below(REPEAT_WITHIN as u64)).unwrap_or(0);
                self.recent[index].clone_from(text);
            }
        }
        true
    }

    fn event(&mut self, text: &mut String) {
        let random = &mut self.random;
        let (high, low) = (random.next(), random.next());
        let second = FIRST_SECOND + random.below(self.args.days * 86_400);
        let date = civil_from_micros(i64::try_from(second * 1_000_000).unwrap_or(i64::MAX));
        let of_day = second % 86_400;
        let kind = random.below(self.args.types);
        let domain = DOMAINS[usize::try_from(kind % 4).unwrap_or(0)];
        let action = ACTIONS[usize::try_from(kind / 4 % 3).unwrap_or(0)];
        let variant = kind / 12;
        let (old, new, reason) = (random.pick(&STATUSES), random.pick(&STATUSES), random.pick(&REASONS));
        let id = random.below(1_000_000);
        // Version 4, variant 1 (RFC 9562). Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"event_id": "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}", "timestamp": "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", "domain": "{domain}", "event_type": "{action}"#,
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            (low >> 48) & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff,
            date.year,
            date.month,
            date.day,
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
        );
        if variant > 0 {
            let _ = write!(text, "-{variant}");
        }
        let _ = write!(
            text,
            r#"", "data": {{"id": {id}, "old_status": "{old}", "new_status": "{new}", "reason": "{reason}"}}}}"#
        );
    }
}

/// Spreads an object over lines as pretty printers do. The samples have no escapes inside strings.
fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0;
    let mut characters = text.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth * 2));
    };
    let mut in_string = false;
    while let Some(character) = characters.next() {
        in_string ^= character == '"';
        match character {
            other if in_string => out.push(other),
            '{' => {
                depth += 1;
                out.push('{');
                newline(&mut out, depth);
            }
            '}' => {
                depth -= 1;
                newline(&mut out, depth);
                out.push('}');
            }
            ',' => {
                out.push(',');
                characters.next_if_eq(&' ');
                newline(&mut out, depth);
            }
            other => out.push(other),
        }
    }
    out
}

/// Writes the events of one file, framed.
fn write_file(generator: &mut Generator<'_>, count: u64, out: &mut impl Write, made: &mut Made) -> std::io::Result<()> {
    let format = generator.args.format;
    let mut text = String::new();
    let mut bytes = 0;
    let mut put = |part: &str| {
        bytes += part.len() as u64;
        out.write_all(part.as_bytes())
    };
    if format == Format::Array {
        put("[")?;
    }
    for index in 0..count {
        made.unique += u64::from(generator.next(&mut text));
        if format == Format::Array && index > 0 {
            put(",\n")?;
        }
        match format {
            Format::Pretty => {
                put(&pretty(&text))?;
                put("\n")?;
            }
            Format::Ndjson => {
                put(&text)?;
                put("\n")?;
            }
            Format::Concatenated | Format::Array => put(&text)?,
        }
    }
    if format == Format::Array {
        put("]\n")?;
    }
    made.events += count;
    made.files += 1;
    made.bytes += bytes;
    out.flush()
}

/// Writes under a name that no listing shows, then renames: a running ingestor sees only complete files.
fn write_named(
    generator: &mut Generator<'_>,
    count: u64,
    directory: &Path,
    index: u64,
    made: &mut Made,
) -> anyhow::Result<()> {
    let extension = if generator.args.format == Format::Ndjson { "ndjson" } else { "json" };
    let name = format!("events-{:03}-{index:05}.{extension}", generator.args.seed);
    let (hidden, path) = (directory.join(format!(".{name}")), directory.join(&name));
    let file = File::create(&hidden).with_context(|| format!("cannot create {}", hidden.display()))?;
    write_file(generator, count, &mut BufWriter::new(file), made)
        .with_context(|| format!("cannot write {}", hidden.display()))?;
    std::fs::rename(&hidden, &path).with_context(|| format!("cannot rename to {}", path.display()))
}

pub fn run(args: &GenerateArgs) -> Result<(), Failure> {
    if !(0.0..=0.99).contains(&args.duplicates) {
        return Err(Failure::usage(anyhow!("--duplicates {}: must be from 0 to 0.99", args.duplicates)));
    }
    // Within 0..=0.99 of 2^53, so the conversion is exact enough.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
    let repeat_below = (args.duplicates * 9_007_199_254_740_992.0) as u64;
    let mut generator = Generator { args, random: Random(args.seed), repeat_below, recent: Vec::new() };
    let mut made = Made::default();
    match &args.out {
        None => write_file(&mut generator, args.events, &mut BufWriter::new(std::io::stdout().lock()), &mut made)
            .context("cannot write to stdout")?,
        Some(directory) => {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
            let mut left = args.events;
            while left > 0 {
                let count = left.min(args.events_per_file);
                let index = made.files;
                write_named(&mut generator, count, directory, index, &mut made)?;
                left -= count;
            }
        }
    }
    let output = match args.output {
        Output::Json => serde_json::to_string(&made)?,
        Output::Text => {
            let files = if made.files == 1 { "1 file".to_owned() } else { format!("{} files", made.files) };
            format!("{} events, {} unique, in {files}, {} bytes", made.events, made.unique, made.bytes)
        }
    };
    if args.out.is_some() {
        print::text(&format!("{output}\n"))?;
    } else {
        print::note(&output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(format: Format, seed: u64) -> GenerateArgs {
        GenerateArgs {
            events: 2_000,
            format,
            duplicates: 0.1,
            types: 30,
            days: 3,
            seed,
            out: None,
            events_per_file: 100,
            output: Output::Text,
        }
    }

    fn make(args: &GenerateArgs) -> anyhow::Result<(Vec<u8>, Made)> {
        let repeat_below = (1 << 53) / 10;
        let mut generator = Generator { args, random: Random(args.seed), repeat_below, recent: Vec::new() };
        let (mut bytes, mut made) = (Vec::new(), Made::default());
        write_file(&mut generator, args.events, &mut bytes, &mut made)?;
        Ok((bytes, made))
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_unique_is_true_in_every_format() -> anyhow::Result<()> {
        for format in [Format::Ndjson, Format::Concatenated, Format::Array, Format::Pretty] {
            let (bytes, made) = make(&args(format, 7))?;
            assert_eq!(bytes, make(&args(format, 7))?.0);
            assert_ne!(bytes, make(&args(format, 8))?.0);
            assert_eq!(made.bytes, bytes.len() as u64);
            let objects: Vec<serde_json::Value> = match format {
                Format::Array => serde_json::from_slice(&bytes)?,
                _ => serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>()?,
            };
            assert_eq!(objects.len(), 2_000);
            let ids: std::collections::BTreeSet<_> =
                objects.iter().map(|event| (event["event_id"].to_string(), event["timestamp"].to_string())).collect();
            assert_eq!(ids.len() as u64, made.unique);
            assert!(made.unique < 1_900 && made.unique > 1_700, "{made:?}");
            let types: std::collections::BTreeSet<_> =
                objects.iter().map(|event| format!("{}{}", event["domain"], event["event_type"])).collect();
            assert_eq!(types.len(), 30);
        }
        Ok(())
    }
}
