//! A hundred hostile landing zones, each with one good event beside the hostile input. The good event becomes a row,
//! and so does every valid event beside it. Everything else is accounted for, and nothing panics, hangs or exceeds its
//! memory.

mod cases;
mod land;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use self::cases::cases;
pub use self::land::Land;
use crate::harness::{Ed, binary, rows};

/// The good event beside each input.
const GOOD: &str = "good";
/// Far more than any of them takes, even in an unoptimized build on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(120);
/// Of the whole process, `run` with default settings: docs/architecture.md lists its parts.
const MEMORY_BOUND_BYTES: u64 = 400_000_000;

/// The expected outcome of a run over an input.
pub struct Case {
    name: &'static str,
    land: Box<dyn Fn(&Land) + Send + Sync>,
    settings: Vec<&'static str>,
    /// Event ids of the rows besides the good one.
    ids: Vec<String>,
    /// Events that are records on the log, but rejected rows or duplicates.
    not_rows: u64,
    letters: u64,
    quarantined: u64,
    exit: i32,
    as_nobody: bool,
}

impl Case {
    fn new(name: &'static str, land: impl Fn(&Land) + Send + Sync + 'static) -> Self {
        let (land, settings) = (Box::new(land), Vec::new());
        let (ids, not_rows, letters, quarantined, exit) = (Vec::new(), 0, 0, 0, 0);
        Self { name, land, settings, ids, not_rows, letters, quarantined, exit, as_nobody: false }
    }

    fn set(mut self, setting: &'static str) -> Self {
        self.settings.push(setting);
        self
    }

    fn rows<I: Into<String>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.ids = ids.into_iter().map(Into::into).collect();
        self
    }

    fn not_rows(mut self, count: u64) -> Self {
        self.not_rows = count;
        self
    }

    fn letters(mut self, count: u64) -> Self {
        self.letters = count;
        self
    }

    fn quarantined(mut self, count: u64) -> Self {
        self.quarantined = count;
        self
    }

    fn exit(mut self, code: i32) -> Self {
        self.exit = code;
        self
    }

    /// Without root's rights, because root's access is never refused.
    fn without_rights(mut self) -> Self {
        self.as_nobody = true;
        self
    }
}

struct Ran {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
    peak_bytes: u64,
}

impl Ran {
    fn report(&self) -> serde_json::Value {
        serde_json::from_str(self.stdout.lines().last().unwrap_or_default()).unwrap_or_default()
    }
}

fn run(root: &Path, case: &Case) -> Ran {
    let mut command = if case.as_nobody {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary());
        command
    } else {
        Command::new(binary())
    };
    command.args(["run", "--once", "--landing", "land", "--trusted", "trusted", "--output", "json", "--log", "error"]);
    for setting in case.settings.iter().chain(&["patience=2s", "landing.min_age=1ms"]) {
        command.args(["--set", setting]);
    }
    let (stdout, stderr) = (root.join("stdout"), root.join("stderr"));
    let create = |path: &Path| std::fs::File::create(path).unwrap();
    command.current_dir(root).stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut peak_bytes = 0;
    let exit = loop {
        peak_bytes = peak_bytes.max(peak_of(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begun.elapsed() > TOO_LONG {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    Ran { exit, stdout: text(&stdout), stderr: text(&stderr), took: begun.elapsed(), peak_bytes }
}

/// The peak memory of the process so far; 0 after its end.
fn peak_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}

/// The differences between the outcome and the case.
fn judge(case: &Case, root: &Path, ran: &Ran, nth: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut hold = |what: &str, holds: bool, seen: String| {
        if !holds {
            wrong.push(format!("run {nth}: {what}: {seen}"));
        }
    };
    hold("exit code", ran.exit == Some(case.exit), format!("{:?} instead of {}", ran.exit, case.exit));
    hold("a panic", !ran.stderr.contains("panicked"), ran.stderr.clone());
    hold("time", ran.took < TOO_LONG, format!("{:?}", ran.took));
    hold("memory", ran.peak_bytes < MEMORY_BOUND_BYTES, format!("{} MB", ran.peak_bytes / 1_000_000));
    let written: BTreeSet<String> = rows(&root.join("trusted")).into_iter().map(|row| row.event_id).collect();
    let expected: BTreeSet<String> = case.ids.iter().cloned().chain([GOOD.to_owned()]).collect();
    let (missing, surplus): (Vec<_>, Vec<_>) =
        (expected.difference(&written).take(5).collect(), written.difference(&expected).take(5).collect());
    hold("rows", missing.is_empty() && surplus.is_empty(), format!("missing {missing:?}, unexpected {surplus:?}"));
    let report = ran.report();
    let count = |part: &str, name: &str| report[part][name].as_u64().unwrap_or(u64::MAX);
    let first = nth == 1;
    let published = if first { expected.len() as u64 + case.not_rows } else { 0 };
    hold("events published", count("events", "published") == published, report.to_string());
    hold("dead letters", count("events", "rejected") == if first { case.letters } else { 0 }, report.to_string());
    if first {
        hold("files in quarantine", count("files", "quarantined") == case.quarantined, report.to_string());
        let accounted = ["rows", "duplicates", "rejected"].iter().map(|name| count("written", name)).sum::<u64>();
        hold("every event accounted for", accounted == published, report.to_string());
    }
    wrong
}

fn try_case(case: &Case) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let land = Land::new(root.path());
    land.event("zz-good.json", GOOD);
    (case.land)(&land);
    if case.as_nobody {
        land.belongs_to_nobody();
    }
    let mut wrong = Vec::new();
    for nth in 1..=2 {
        let ran = run(root.path(), case);
        wrong.extend(judge(case, root.path(), &ran, nth));
        if !wrong.is_empty() {
            wrong.push(format!("{}{}", ran.stdout, ran.stderr));
            return wrong;
        }
    }
    let audit = Ed::new(&["verify", "--deep", "--trusted", "trusted", "--log", "error"]).in_dir(root.path()).output();
    if !audit.status.success() {
        wrong.push(format!("verify: {}", String::from_utf8_lossy(&audit.stdout)));
    }
    wrong
}

#[test]
fn a_hundred_hostile_inputs_stop_nothing_and_lose_nothing() {
    let wanted = std::env::var("ED_TEST_HOSTILE").unwrap_or_default();
    let all = cases();
    assert!(all.len() >= 100, "{} inputs", all.len());
    let names: BTreeSet<&str> = all.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), all.len(), "two inputs have one name");
    let queue = Mutex::new(all.iter().filter(|case| case.name.contains(&wanted)));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let wrong = try_case(case);
                    if !wrong.is_empty() {
                        failures.lock().unwrap().push(format!("{}\n  {}", case.name, wrong.join("\n  ")));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} inputs:\n{}", failures.len(), all.len(), failures.join("\n"));
}
