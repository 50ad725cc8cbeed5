//! Connects the components of each command.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use common::clock::{Clock, SystemClock};
use common::config::{Compact, Config, Landing};
use common::control::Control;
use common::descriptors::raise_limit;
use common::log::{EmbeddedLog, KafkaSettings, Log, Retention, TopicSpec, connect_kafka};
use common::shutdown::Shutdown;
use common::store::{Location, RetryPolicy, RetryingStore, Store, SurveyOptions, check_writable};
use common::telemetry::{Health, Http, Pages, Registry, Status};
use distributor::{
    Background, Companion, Distributor, Encoding, EndOfInput, LAYOUT_VERSION, Layout, Pace, Policy, Scratch,
    TablePublisher, Tables, standing,
};
use ingestor::content::{ExpansionLimits, RATIO_JUDGED_FROM_BYTES};
use ingestor::{DiscoverySettings, HintSource, IgnoredNames, Ingestor, Limits};
use tokio::sync::OnceCell;

use crate::args::{CommonArgs, DistributeArgs, IngestArgs, RunArgs};
use crate::progress::Progress;
use crate::report::{Report, Zones};
use crate::stores::refuse_no_folder;
use crate::{Failure, configure, logging, stores};

/// The group of the embedded log's only consumer.
pub const EMBEDDED_GROUP: &str = "event-distributor";
/// One process gains nothing from several partitions, and each writes files of its own.
pub const EMBEDDED_PARTITIONS: u32 = 1;
pub const KAFKA_PARTITIONS: u32 = 4;
/// A call of the store for the tables that fails for this long is left to the next round.
const TABLE_PATIENCE: Duration = Duration::from_secs(30);
/// Partitions of the ledger: the most ingestors that can share a landing zone.
pub const EMBEDDED_LEDGER_PARTITIONS: u32 = 1;
pub const KAFKA_LEDGER_PARTITIONS: u32 = 8;

/// Runs a command on an async runtime.
pub fn block_on(common: &CommonArgs, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    logging::start(common);
    if let Err(error) = raise_limit() {
        tracing::debug!(%error, "the limit of open files cannot be raised");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let outcome = runtime.block_on(command);
    // Blocking library calls may hang if a broker is unreachable; their results no longer matter.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// The state shared by all roles of a process.
struct Process {
    config: Config,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    health: Health,
    registry: Registry,
    status: Status,
    begun: Instant,
    /// Partitions of the events topic if it has to be created.
    partitions: u32,
    /// Serves signals and probes while the process runs.
    _control: Control,
}

impl Process {
    async fn start(config: Config, default_partitions: u32) -> Result<Self, Failure> {
        let (shutdown, health, registry) = (Shutdown::new(), Health::default(), Registry::new());
        let status = Status::new(env!("CARGO_PKG_VERSION"), health.clone());
        let http = config.http_listen.as_deref().map(Http::bind).transpose()?;
        if let Some(http) = &http {
            tracing::info!(address = %http.address()?, "serving /, /status, /livez, /readyz and /metrics");
        }
        let pages = Pages::new(health.clone(), registry.clone(), status.clone());
        let control = Control::start(&shutdown, &health, http.map(|http| (http, pages)));
        Ok(Self {
            _control: control.context("cannot watch for signals")?,
            partitions: config.log.partitions.unwrap_or(default_partitions),
            config,
            clock: Arc::new(SystemClock),
            shutdown,
            health,
            registry,
            status,
            begun: Instant::now(),
        })
    }

    /// Prints the report, even after a failure, and then fails with all errors. `tables` is the store of a distributor.
    async fn conclude(
        &self,
        common: &CommonArgs,
        once: bool,
        report: &Report,
        tables: Option<&dyn Store>,
    ) -> Result<(), Failure> {
        // A role concerns only its own zone, whatever else is configured.
        let zones = Zones {
            landing: self.config.landing.location.as_ref().filter(|_| report.ingest.is_some()),
            trusted: self.config.trusted.location.as_ref().filter(|_| report.written.is_some()),
            has_tables: match tables {
                Some(store) if report.errors.is_empty() => report.has_written_rows() || has_tables(store).await,
                _ => false,
            },
        };
        report.print(common.output, self.begun.elapsed(), zones)?;
        report.failure().map_or(Ok(()), |failure| Err(Failure::Runtime(failure)))?;
        self.refuse_interrupted(once)
    }

    /// A `--once` run that was interrupted is not complete.
    fn refuse_interrupted(&self, once: bool) -> Result<(), Failure> {
        if once && self.shutdown.is_triggered() {
            return Err(anyhow!("interrupted before everything was done; run it again to continue").into());
        }
        Ok(())
    }

    async fn landing(&self) -> Result<Arc<dyn Store>, Failure> {
        stores::landing(required(self.config.landing.location.as_ref(), "landing.url", "--landing")?).await
    }

    /// The trusted store, after a check of the guarantees that exactly-once needs.
    async fn trusted(&self, once: bool) -> Result<Arc<dyn Store>, Failure> {
        let location = required(self.config.trusted.location.as_ref(), "trusted.url", "--trusted")?;
        // What cannot work is reported before anything is created.
        scratch(&self.config)?;
        let store = stores::to_be_made(location).await?;
        if store.capabilities().folder.is_none() {
            stores::probe_trusted(&*self.patient(store.clone(), once)).await.context("trusted zone")?;
        }
        Ok(store)
    }

    /// The trusted store before the roles begin: it is tried as long as they would.
    fn patient(&self, store: Arc<dyn Store>, once: bool) -> Arc<dyn Store> {
        let policy = RetryPolicy {
            patience: once.then_some(self.config.patience),
            wait_for_operator: !once,
            shutdown: self.shutdown.clone(),
            on_retry: Arc::new(|error| tracing::warn!(%error, "the trusted zone cannot be reached; trying again")),
        };
        Arc::new(RetryingStore::new(store, policy))
    }

    /// Tables over the files, over a store that retries for a while.
    fn tables(&self, store: &Arc<dyn Store>) -> Option<Arc<Tables>> {
        let policy = RetryPolicy {
            patience: Some(TABLE_PATIENCE),
            wait_for_operator: false,
            shutdown: self.shutdown.clone(),
            on_retry: Arc::new(|_| {}),
        };
        let store: Arc<dyn Store> = Arc::new(RetryingStore::new(store.clone(), policy));
        tables(&self.config, &store)
    }

    /// Publishes what a run that ends by itself has written to the tables.
    async fn publish(&self, once: bool, store: &Arc<dyn Store>, report: &mut Report) {
        if !once || self.shutdown.is_triggered() {
            return;
        }
        let Some(tables) = self.tables(store) else { return };
        match tables.publish().await {
            Ok(published) => report.tables = Some(published),
            Err(error) => report.errors.push(format!("tables: {error}")),
        }
    }

    /// Refuses to take events in for a distributor that could write none of them: the files would be gone from `pending/`
    /// for nothing.
    async fn refuse_stuck(&self, trusted: &Arc<dyn Store>, log: &dyn Log, once: bool) -> Result<(), Failure> {
        let retention = Retention::Delete;
        let spec = TopicSpec { name: self.config.log.events_topic.clone(), partitions: self.partitions, retention };
        let standing = standing(&self.patient(trusted.clone(), once), log, &spec, EMBEDDED_GROUP).await?;
        if standing.is_workable {
            return Ok(());
        }
        Err(anyhow!("nothing was taken in: {}", standing.refused.join("; ")).into())
    }

    /// `ledger_partitions` and `instance_id` are those of the log in use.
    fn ingestor(
        &self,
        store: Arc<dyn Store>,
        log: Arc<dyn Log>,
        tries: Tries,
        ledger_partitions: u32,
        instance_id: Option<String>,
    ) -> Result<Ingestor, Failure> {
        let Config { landing, format, log: topics, ledger, .. } = &self.config;
        let Tries { once, retry_quarantined } = tries;
        // Otherwise objects appear whole.
        let is_written_in_place = store.capabilities().is_written_in_place;
        let metrics = Arc::new(ingestor::Metrics::new(&self.registry)?);
        let source = metrics.clone();
        self.status.register("ingestor", move || source.status());
        Ok(Ingestor {
            store,
            log,
            clock: self.clock.clone(),
            metrics,
            health: self.health.clone(),
            hints: hint_sources(landing),
            settings: ingestor::Settings {
                events_topic: topics.events_topic.clone(),
                dlq_topic: topics.dlq_topic.clone(),
                ledger_topic: topics.ledger_topic.clone(),
                partitions: self.partitions,
                ledger_partitions: ledger.partitions.unwrap_or(ledger_partitions),
                instance_id,
                archive: landing.archive,
                retain: ledger.retain,
                discovery: DiscoverySettings {
                    poll_interval: landing.poll_interval,
                    full_sweep_interval: landing.full_sweep_interval,
                    min_age: if is_written_in_place { landing.min_age } else { Duration::ZERO },
                    ignored: IgnoredNames {
                        prefixes: landing.ignore_prefixes.clone(),
                        suffixes: landing.ignore_suffixes.clone(),
                    },
                },
                quarantine: self.config.quarantine,
                expansion: ExpansionLimits {
                    max_ratio: landing.max_expansion_ratio,
                    ratio_from_bytes: RATIO_JUDGED_FROM_BYTES,
                    max_bytes: landing.max_expanded_bytes,
                },
                max_published_bytes: landing.max_published_bytes,
                retry_quarantined,
                parallel_files: landing.parallel_files,
                max_memory_bytes: landing.max_memory_bytes,
                max_bytes_per_second: landing.max_bytes_per_second,
                format: format.events.clone(),
                limits: Limits { max_event_bytes: format.max_event_bytes, bad_head_bytes: self.config.dlq_max_bytes },
                once,
                patience: self.config.patience,
            },
        })
    }

    fn distributor(
        &self,
        store: Arc<dyn Store>,
        log: Arc<dyn Log>,
        once: bool,
        group: &str,
        instance_id: Option<String>,
    ) -> Result<Distributor, Failure> {
        let Config { flush, log: topics, .. } = &self.config;
        let scratch = scratch(&self.config)?;
        let metrics = Arc::new(distributor::Metrics::new(&self.registry)?);
        let source = metrics.clone();
        self.status.register("distributor", move || source.status());
        let tables = self.tables(&store);
        let mut companions: Vec<Arc<dyn Companion>> = Vec::new();
        if let (Some(tables), Some(table)) = (&tables, &self.config.table) {
            companions.push(Arc::new(TablePublisher {
                tables: tables.clone(),
                metrics: metrics.clone(),
                every: table.every,
                failure: Mutex::new(None),
            }));
        }
        let compact = &self.config.compact;
        if let Some(every) = compact.every {
            companions.push(Arc::new(Background {
                store: store.clone(),
                host: distributor::Host::system(),
                clock: self.clock.clone(),
                metrics: metrics.clone(),
                topic: topics.events_topic.clone(),
                group: group.to_owned(),
                encoding: encoding(&self.config),
                policy: compaction_policy(&self.config),
                every,
                pace: Pace::new(Some(compact.max_bytes_per_second)),
                scratch: scratch.clone(),
                tables,
                fence: OnceCell::new(),
            }));
        }
        Ok(Distributor {
            companions,
            store,
            log,
            clock: self.clock.clone(),
            host: distributor::Host::system(),
            metrics,
            health: self.health.clone(),
            settings: distributor::Settings {
                topic: topics.events_topic.clone(),
                partitions: self.partitions,
                group: group.to_owned(),
                instance_id,
                layout: layout(&self.config),
                encoding: encoding(&self.config),
                max_age: flush.max_age,
                ages: flush.ages.clone(),
                max_bytes: flush.max_bytes,
                max_files: usize::try_from(flush.max_files).unwrap_or(usize::MAX),
                max_rows: flush.max_rows,
                max_memory: flush.max_memory,
                window_memory: self.config.dedup.max_memory,
                scratch,
                missing: self.config.replay_missing,
                retention: topics.retention,
                once,
                patience: self.config.patience,
            },
        })
    }
}

/// Tables over the files of a trusted zone, if there are to be any.
pub fn tables(config: &Config, store: &Arc<dyn Store>) -> Option<Arc<Tables>> {
    let table = config.table?;
    let (clock, topic) = (Arc::new(SystemClock), config.log.events_topic.clone());
    let host = distributor::Host::system();
    Some(Arc::new(Tables::new(store.clone(), clock, host, topic, layout(config), table.retain)))
}

/// The layout of new batches.
pub fn layout(config: &Config) -> Layout {
    let Config { trusted, format, .. } = config;
    Layout {
        version: LAYOUT_VERSION,
        preset: format.preset.to_owned(),
        rules: format.events.rules().clone(),
        timezone: format.events.time().name().to_owned(),
        window_ms: i64::try_from(config.dedup.window.as_millis()).unwrap_or(i64::MAX),
        max_types: trusted.max_types,
        min_year: trusted.min_year,
        max_year: trusted.max_year,
        max_rows_per_file: trusted.max_rows_per_file,
        columns: config.columns.clone(),
    }
}

/// Which small files are merged.
pub fn compaction_policy(config: &Config) -> Policy {
    let Compact { target_bytes, rest, .. } = config.compact;
    Policy { target_bytes, rest_ms: i64::try_from(rest.as_millis()).unwrap_or(i64::MAX) }
}

pub fn encoding(config: &Config) -> Encoding {
    Encoding { compression: config.trusted.compression, bloom_filter: config.trusted.bloom_filter }
}

/// The arguments of a command that concern its files.
#[derive(Debug, Clone, Copy)]
struct Tries {
    once: bool,
    retry_quarantined: bool,
}

/// Whether the trusted zone has a file of `events`. What cannot be listed counts as none: the report only advises.
async fn has_tables(store: &dyn Store) -> bool {
    let options =
        SurveyOptions { prefix: "events/domain_event_type=".to_owned(), limit: Some(1), ..SurveyOptions::default() };
    store.survey(&options).await.is_ok_and(|page| !page.objects.is_empty())
}

fn hint_sources(landing: &Landing) -> Vec<HintSource> {
    match (&landing.location, &landing.sqs_queue_url) {
        (Some(Location::Local(root)), _) if landing.watch => vec![HintSource::Folder(root.clone())],
        (Some(Location::S3 { bucket, prefix }), Some(url)) => {
            vec![HintSource::Queue { url: url.clone(), bucket: bucket.clone(), prefix: prefix.clone() }]
        }
        _ => Vec::new(),
    }
}

pub fn required<'a, T>(value: Option<&'a T>, key: &str, flag: &str) -> Result<&'a T, Failure> {
    value.ok_or_else(|| Failure::usage(anyhow!("{key} is not set: give {flag}, or set it in the configuration")))
}

/// The scratch folder on local disk. An error is reported now rather than when the folder is first needed.
pub fn scratch(config: &Config) -> Result<Scratch, Failure> {
    let folder = config.scratch_dir.clone().unwrap_or_else(std::env::temp_dir);
    let wrong =
        |why: String| Failure::usage(anyhow!("scratch.dir: {why}; files are put there that do not fit in memory"));
    if !folder.is_dir() {
        return Err(wrong(format!("{} is not a folder", folder.display())));
    }
    check_writable(&folder).map_err(|error| wrong(format!("no files can be made in {}: {error}", folder.display())))?;
    Ok(Scratch::new(folder))
}

pub fn kafka_log(config: &Config) -> Result<Arc<dyn Log>, Failure> {
    let kafka = required(config.kafka.as_ref(), "kafka.brokers", "--brokers")?;
    let settings = KafkaSettings { brokers: kafka.brokers.clone(), client: kafka.client.clone() };
    connect_kafka(settings).map_err(Failure::usage)
}

pub async fn run(args: &RunArgs) -> Result<(), Failure> {
    let flags = [
        ("--landing", "landing.url", args.landing.as_ref()),
        ("--trusted", "trusted.url", args.trusted.as_ref()),
        ("--data-dir", "log.data_dir", args.data_dir.as_ref()),
    ];
    let config = configure::config(&args.common, &flags)?;
    if config.kafka.is_some() {
        return Err(Failure::usage(anyhow!(
            "kafka.brokers is set, but 'run' works over an embedded log of its own: start 'ingest' and 'distribute' to work \
             over brokers, or leave kafka.brokers out"
        )));
    }
    let process = Process::start(config, EMBEDDED_PARTITIONS).await?;
    let landing = process.landing().await?;
    // Before the log, whose folder is inside it by default.
    let trusted = process.trusted(args.once).await?;
    let data_dir = process.config.data_dir();
    let data_dir = required(data_dir.as_ref(), "trusted.url", "--trusted")?;
    refuse_no_folder("log.data_dir", data_dir)?;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(data_dir, process.clock.clone()).await?);
    let tries = Tries { once: args.once, retry_quarantined: args.retry_quarantined };
    let ingestor = process.ingestor(landing, log.clone(), tries, EMBEDDED_LEDGER_PARTITIONS, None)?;
    let distributor = process.distributor(trusted.clone(), log.clone(), args.once, EMBEDDED_GROUP, None)?;
    let (end, shutdown) = (EndOfInput::later(), &process.shutdown);
    process.refuse_stuck(&trusted, &*log, args.once).await?;
    let progress = Progress::start(&args.common, Some(ingestor.metrics.clone()), Some(distributor.metrics.clone()));
    let ingesting = async {
        let outcome = ingestor.run(shutdown).await;
        // No further events come, perhaps because of a failure: events already in the log still become rows.
        if args.once || outcome.is_err() {
            end.announce();
        }
        if let Err(error) = &outcome
            && !args.once
        {
            tracing::error!(%error, "the ingestor failed; the process ends once the events in the log are written");
        }
        outcome
    };
    let distributing = async {
        let outcome = distributor.run(&end, shutdown).await;
        // With `once` the ingestor ends by itself, and the next run writes what it publishes meanwhile.
        if let Err(error) = &outcome
            && !args.once
        {
            tracing::error!(%error, "the distributor failed; the process ends");
            shutdown.trigger();
        }
        outcome
    };
    let (ingested, distributed) = tokio::join!(ingesting, distributing);
    drop(progress);
    let mut report = Report {
        ingest: Some(ingestor.metrics.report()),
        quarantine: ingestor.metrics.quarantine(),
        written: Some(distributor.metrics.report()),
        ..Report::default()
    };
    report.ingest_ended(ingested);
    report.distribute_ended(distributed);
    process.publish(args.once, &trusted, &mut report).await;
    process.conclude(&args.common, args.once, &report, Some(&*trusted)).await
}

pub async fn ingest(args: &IngestArgs) -> Result<(), Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--landing", "landing.url", args.landing.as_ref())];
    let process = Process::start(configure::config(&args.common, &flags)?, KAFKA_PARTITIONS).await?;
    let log = kafka_log(&process.config)?;
    let instance_id = process.config.kafka.as_ref().and_then(|kafka| kafka.instance_id.clone());
    let tries = Tries { once: args.once, retry_quarantined: args.retry_quarantined };
    let ingestor = process.ingestor(process.landing().await?, log, tries, KAFKA_LEDGER_PARTITIONS, instance_id)?;
    let progress = Progress::start(&args.common, Some(ingestor.metrics.clone()), None);
    let outcome = ingestor.run(&process.shutdown).await;
    drop(progress);
    let mut report = Report {
        ingest: Some(ingestor.metrics.report()),
        quarantine: ingestor.metrics.quarantine(),
        ..Report::default()
    };
    report.ingest_ended(outcome);
    process.conclude(&args.common, args.once, &report, None).await
}

pub async fn distribute(args: &DistributeArgs) -> Result<(), Failure> {
    let flags =
        [("--brokers", "kafka.brokers", args.brokers.as_ref()), ("--trusted", "trusted.url", args.trusted.as_ref())];
    let process = Process::start(configure::config(&args.common, &flags)?, KAFKA_PARTITIONS).await?;
    let kafka = required(process.config.kafka.as_ref(), "kafka.brokers", "--brokers")?;
    let (group, instance_id) = (kafka.group.clone(), kafka.instance_id.clone());
    let log = kafka_log(&process.config)?;
    let trusted = process.trusted(args.once).await?;
    let distributor = process.distributor(trusted.clone(), log, args.once, &group, instance_id)?;
    let progress = Progress::start(&args.common, None, Some(distributor.metrics.clone()));
    let end = if args.once { EndOfInput::now() } else { EndOfInput::later() };
    let outcome = distributor.run(&end, &process.shutdown).await;
    drop(progress);
    let mut report = Report { written: Some(distributor.metrics.report()), ..Report::default() };
    report.distribute_ended(outcome);
    process.publish(args.once, &trusted, &mut report).await;
    process.conclude(&args.common, args.once, &report, Some(&*trusted)).await
}
