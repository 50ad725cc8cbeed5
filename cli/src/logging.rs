//! Log lines on stderr. Foreign text in them (file names, messages of stores) is escaped, in text and in JSON, and each
//! event is one line.

mod fields;

use std::io::{self, IsTerminal, Write};

use common::guard::panic_is_caught;
use common::printable::json_text;
use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{CommonArgs, LogFormat, Output};
use fields::PrintableFields;

/// On a terminal the progress bar shows the state, and only warnings interrupt it.
pub fn start(common: &CommonArgs) {
    let on_terminal = io::stderr().is_terminal() && common.output == Output::Text;
    let level = common.log.unwrap_or(if on_terminal { LevelFilter::WARN } else { LevelFilter::INFO });
    // Libraries log only warnings, unless everything is requested.
    let others = if level >= LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    let filter = ["common", "ingestor", "distributor", "event_distributor", "librdkafka"]
        .into_iter()
        .fold(Targets::new().with_default(others), |filter, target| filter.with_target(target, level));
    let lines = lines(common.log_format, io::stderr().is_terminal(), io::stderr);
    // Fails only if a subscriber is already set; this process sets one once.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    std::panic::set_hook(Box::new(report_panic));
}

fn lines<S, W>(format: LogFormat, ansi: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer();
    match format {
        LogFormat::Text => layer.with_ansi(ansi).fmt_fields(PrintableFields).with_writer(writer).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_writer(JsonLines(writer)).boxed(),
    }
}

/// Logs a panic, which is a bug, as one line. Its task ends with an error that the role handles.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if panic_is_caught() {
        return;
    }
    let message = panic.payload_as_str().unwrap_or("without a message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    error!(at = %place, thread = thread.name().unwrap_or_default(), "a bug of the program: panic: {message}");
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        backtrace.to_string().lines().for_each(|line| error!("{line}"));
    }
}

/// JSON with hidden characters escaped.
#[derive(Clone)]
struct JsonLines<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for JsonLines<W> {
    type Writer = JsonLines<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        JsonLines(self.0.make_writer())
    }
}

impl<W: Write> Write for JsonLines<W> {
    /// Receives whole events: the subscriber writes each in one piece.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(json_text(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use common::printable::escape;

    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\nERROR: b\u{9b}\u{202e}c\u{feff}";

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log line of an event with hostile text everywhere.
    fn logged(format: LogFormat, ansi: bool) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = lines(format, ansi, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("file", source = %HOSTILE, text = HOSTILE);
            let _entered = span.enter();
            tracing::info!(name = %HOSTILE, debug = ?HOSTILE, text = HOSTILE, count = 3, "cannot read {HOSTILE}");
        });
        let logged = captured.0.lock().unwrap().clone();
        String::from_utf8(logged).unwrap()
    }

    #[test]
    fn a_text_line_escapes_hidden_characters_and_stays_one_line() {
        let line = logged(LogFormat::Text, false);
        assert_eq!(
            escape(line.trim_end_matches('\n')),
            line.trim_end_matches('\n').replace("\\u{", "\\u{5c}u{"),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let shown = escape(HOSTILE);
        assert!(line.contains(&format!("cannot read {shown} name={shown} debug=")), "{line}");
        assert!(line.contains("count=3") && line.contains(&format!("source={shown}")), "{line}");
    }

    #[test]
    fn colours_are_the_programs_own() {
        let line = logged(LogFormat::Text, true);
        assert!(line.contains("\u{1b}[3mname\u{1b}[0m\u{1b}[2m=\u{1b}[0ma\\u{1b}[2J"), "{line:?}");
        assert!(!line.contains("\u{1b}[2J") && !line.contains('\u{9b}') && !line.contains('\u{202e}'), "{line:?}");
    }

    #[test]
    fn a_json_line_escapes_hidden_characters_and_keeps_its_value() {
        let line = logged(LogFormat::Json, true);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.trim_end_matches('\n').chars().all(|char| char == ' ' || char.is_ascii_graphic()), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((read["name"].as_str(), read["text"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
        assert_eq!(read["span"]["source"], HOSTILE);
    }
}
