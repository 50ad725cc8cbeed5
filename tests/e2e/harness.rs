//! Starts processes and services, waits for conditions, and reads the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use commitlog_storage::CommitLog;
use common::log::{KafkaLog, KafkaSettings};
use common::store::{LocalStore, Store};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

const PATIENCE: Duration = Duration::from_secs(300);

/// The addresses of the services; they live in a run directory that the scripts in `tests/services` understand.
#[derive(Debug, Clone)]
pub struct Services {
    pub kafka: String,
    pub s3: String,
    pub sqs: String,
    pub access_key: String,
    pub secret_key: String,
    pub python: PathBuf,
    /// Python with the AWS clients.
    pub aws_python: PathBuf,
    /// With deltalake, polars, and a DuckDB that reads Delta tables.
    pub delta_python: PathBuf,
    pub run_dir: PathBuf,
}

impl Services {
    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Option<Self> {
        Some(Self {
            kafka: lookup("ED_TEST_KAFKA")?,
            s3: lookup("ED_TEST_S3")?,
            sqs: lookup("ED_TEST_SQS")?,
            access_key: lookup("ED_TEST_S3_ACCESS_KEY")?,
            secret_key: lookup("ED_TEST_S3_SECRET_KEY")?,
            python: lookup("ED_TEST_PYTHON")?.into(),
            aws_python: lookup("ED_TEST_AWS_PYTHON")?.into(),
            delta_python: lookup("ED_TEST_DELTA_PYTHON")?.into(),
            run_dir: lookup("ED_TEST_RUN_DIR")?.into(),
        })
    }

    /// Services for one test, which it may stop; stopped when dropped.
    pub fn own(run_dir: &Path) -> OwnServices {
        Self::own_with(run_dir, &[])
    }

    /// As [`Services::own`], with `properties` of the Kafka broker.
    pub fn own_with(run_dir: &Path, properties: &[&str]) -> OwnServices {
        let output = Command::new(script("up")).arg(run_dir).args(properties).output().unwrap();
        assert!(output.status.success(), "tests/services/up: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let variables: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('=')).collect();
        let services = Self::from_lookup(|name| variables.get(name).map(|value| (*value).to_owned())).unwrap();
        OwnServices { services }
    }

    /// Creates a bucket; the server stores buckets as folders.
    pub fn bucket(&self, name: &str) -> PathBuf {
        let path = self.run_dir.join("s3").join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The environment of a process that uses the S3 server.
    pub fn s3_environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.s3.clone()),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// Puts every file below `folder` into a bucket, under `prefix`, through the S3 protocol.
    pub fn upload(&self, folder: &Path, bucket: &str, prefix: &str) {
        run_in_its_own_process("harness::upload_in_its_own_process", |command| {
            let command = command.envs(self.s3_environment());
            command.env("ED_TEST_UPLOAD", folder).env("ED_TEST_BUCKET", bucket).env("ED_TEST_PREFIX", prefix);
        });
    }

    /// The output of one of Kafka's own tools, by its class.
    pub fn kafka_tool(&self, class: &str, args: &[&str]) -> String {
        let libs = format!("{}/*", std::env::var("ED_TEST_KAFKA_LIBS").unwrap());
        let output = Command::new("java")
            .args(["-cp", &libs, class, "--bootstrap-server", &self.kafka])
            .args(args)
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{class}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    }

    pub fn kill(&self, service: &str) {
        let pid = std::fs::read_to_string(self.run_dir.join(format!("{service}.pid"))).unwrap();
        let status = Command::new("kill").arg("-9").arg(pid.trim()).status().unwrap();
        assert!(status.success(), "{service} was not running");
    }

    pub fn start(&self, service: &str) {
        let output = Command::new(script(&format!("{service}-start"))).arg(&self.run_dir).output().unwrap();
        assert!(output.status.success(), "{service}-start: {}", String::from_utf8_lossy(&output.stderr));
    }
}

pub struct OwnServices {
    pub services: Services,
}

impl Drop for OwnServices {
    fn drop(&mut self) {
        let _ = Command::new(script("down")).arg(&self.services.run_dir).status();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("services").join(name)
}

/// The services shared by all tests.
pub fn services() -> Services {
    Services::from_lookup(|name| std::env::var(name).ok())
        .expect("the services are not running: use ./test, or eval \"$(tests/services/up <folder>)\" first")
}

/// A client that sends records before the commit, so that a test can wait for them. (The program's own client sends
/// partial batches only on a flush.)
pub fn prompt_kafka(brokers: &str, client: &[(&str, &str)]) -> KafkaLog {
    let client: BTreeMap<String, String> = std::iter::once(&("linger.ms", "5"))
        .chain(client)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    KafkaLog::new(KafkaSettings { brokers: brokers.to_owned(), client }).unwrap()
}

/// Runs an ignored test in a process of its own. `configure` sets its environment, which the tests of a process share.
pub fn run_in_its_own_process(test: &str, configure: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    configure(command.args(["--exact", test, "--ignored", "--nocapture"]));
    let output = command.output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("1 passed"), "there is no test {test}: {stdout}");
}

/// A name that no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn binary() -> PathBuf {
    // The test runs from target/<profile>/deps.
    let path = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("event-distributor");
    assert!(path.exists(), "build the binary first: cargo build -p event-distributor");
    path
}

/// One call of the binary.
pub struct Ed(Command);

impl Ed {
    pub fn new(args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        // Tests create complete files and do not wait for a minimum age.
        command.args(args).stdin(Stdio::null()).env("ED__LANDING__MIN_AGE", "0s");
        Self(command)
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.0.args(args);
        self
    }

    pub fn set(self, setting: &str) -> Self {
        self.args(&["--set", setting])
    }

    pub fn s3(mut self, services: &Services) -> Self {
        self.0.envs(services.s3_environment());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.0.current_dir(dir);
        self
    }

    /// Runs as a user whose access can be refused: tests run as root, whose access is not.
    pub fn without_rights(self) -> Self {
        use std::os::fd::AsRawFd as _;
        use std::os::unix::process::CommandExt as _;
        // By its descriptor: that user may have no access to the folders above it.
        static BINARY: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();
        let file = BINARY.get_or_init(|| std::fs::File::open(binary()).unwrap());
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        command.args(self.0.get_args()).stdin(Stdio::null()).uid(65_534).gid(65_534);
        command.envs(self.0.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(dir) = self.0.get_current_dir() {
            command.current_dir(dir);
        }
        Self(command)
    }

    pub fn output(mut self) -> Output {
        self.0.output().unwrap()
    }

    /// Runs to success and reads the JSON report on the last line of stdout.
    pub fn report(self) -> serde_json::Value {
        let output = self.args(&["--output", "json"]).output();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "exit {:?}\n{stdout}\n{stderr}", output.status.code());
        serde_json::from_str(stdout.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error} in {stdout:?}"))
    }

    /// Starts it in the background with its log in `log`; killed when dropped.
    pub fn start(mut self, log: &Path) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        self.0.stdout(Stdio::null()).stderr(log);
        Process(self.0.spawn().unwrap())
    }
}

pub struct Process(Child);

impl Process {
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    pub fn wait_for_exit(&mut self) -> Option<i32> {
        wait_until("the process ends", || self.has_ended());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a condition, never for time.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All files below a folder with a name ending in `suffix`, sorted.
pub fn files(root: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        // A folder may not exist yet.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            // Temporary files appear and vanish while a process works.
            match entry.file_type() {
                // Engines that list folders pass them over.
                Ok(_) if ["_delta_log", "_staged"].iter().any(|name| entry.file_name() == *name) => {}
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(_)
                    if path.to_string_lossy().ends_with(suffix)
                        && !entry.file_name().to_string_lossy().starts_with('.') =>
                {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Content of every file below `root`, by relative path.
pub fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    files(root, "").into_iter().map(|path| (relative(&path), std::fs::read(&path).unwrap())).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub event_id: String,
    pub timestamp_us: i64,
    pub data: String,
    pub source: String,
}

/// Every row of the events table, sorted.
pub fn rows(trusted: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for path in files(&trusted.join("events"), ".parquet") {
        let file = std::fs::File::open(&path).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .build()
            .unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let text = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
            let (ids, data, sources) = (text("event_id"), text("data"), text("_source"));
            let times = batch.column_by_name("timestamp").unwrap().as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                rows.push(Row {
                    event_id: ids.value(row).to_owned(),
                    timestamp_us: times.value(row),
                    data: data.value(row).to_owned(),
                    source: sources.value(row).to_owned(),
                });
            }
        }
    }
    rows.sort();
    rows
}

/// The keys of the rows; panics on a repeated key.
pub fn unique_keys(trusted: &Path) -> std::collections::BTreeSet<(String, i64)> {
    let rows = rows(trusted);
    let keys: std::collections::BTreeSet<_> = rows.iter().map(|row| (row.event_id.clone(), row.timestamp_us)).collect();
    assert_eq!(keys.len(), rows.len(), "an event was written twice");
    keys
}

/// Generates sample files in `dir`; returns the number of unique events.
pub fn generate(dir: &Path, events: u64, format: &str, seed: u64) -> u64 {
    let report = Ed::new(&[
        "generate",
        "--events",
        &events.to_string(),
        "--format",
        format,
        "--seed",
        &seed.to_string(),
        "--out",
    ])
    .args(&[dir.to_str().unwrap()])
    .report();
    report["unique"].as_u64().unwrap()
}

/// The number of entries of all commit logs.
pub fn entries(trusted: &Path) -> usize {
    files(&trusted.join("_commits"), ".json").iter().filter(|path| path.parent().unwrap().ends_with("log")).count()
}

/// The entries of partition 0, oldest first.
pub fn entries_of(trusted: &Path, topic: &str) -> Vec<PathBuf> {
    let mut entries = files(&trusted.join(format!("_commits/{topic}/0/log")), ".json");
    entries.reverse();
    entries
}

/// The files in the tables are those that the entries say, folded anew.
pub fn assert_tables_are_as_committed(trusted: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(trusted.to_owned()));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let folders = |path: &Path| std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    let (mut live, mut blanks) = (BTreeSet::new(), BTreeSet::new());
    for topic in folders(&trusted.join("_commits")).filter(|path| path.is_dir()) {
        for partition in folders(&topic).filter(|path| path.is_dir()) {
            let (topic, partition) = (name(&topic), name(&partition));
            let commits = CommitLog::new(store.clone(), &topic, partition.parse().unwrap());
            let (state, _, _) = runtime.block_on(commits.load_state()).unwrap();
            assert_eq!(state.head.intent(), None, "{topic}/{partition}: a batch is not complete");
            let of = |folder: &str, id| format!("{folder}/{topic}-{partition}-{id}.parquet");
            live.extend(state.live.iter().map(|(id, file)| of(&file.folder, *id)));
            blanks.extend(state.blanks().map(|(folder, id, _)| of(folder, id)));
        }
    }
    let present: BTreeSet<String> = ["events", "rejected"]
        .iter()
        .flat_map(|table| files(&trusted.join(table), ".parquet"))
        .map(|path| path.strip_prefix(trusted).unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(present.difference(&blanks).cloned().collect::<BTreeSet<_>>(), live, "files and what is committed");
}

#[test]
#[ignore = "run by Services::upload, in a process with the credentials in its environment"]
fn upload_in_its_own_process() {
    use common::store::{Metadata, PutCondition, S3Settings, S3Store};
    let variable = |name: &str| std::env::var(name).unwrap();
    let folder = PathBuf::from(variable("ED_TEST_UPLOAD"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = S3Settings { bucket: variable("ED_TEST_BUCKET"), prefix: variable("ED_TEST_PREFIX") };
        let store = S3Store::connect(settings).await.unwrap();
        for (key, body) in contents(&folder) {
            store.put(&key, body.into(), PutCondition::None, &Metadata::new()).await.unwrap();
        }
    });
}
