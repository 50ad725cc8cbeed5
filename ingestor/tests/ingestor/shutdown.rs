//! A request to end acts at once, whatever an ingestor waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::Shutdown;
use common::telemetry::Registry;
use ingestor::{IngestReport, Ingestor, Metrics};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::faults::Faulty;
use crate::harness::{Zone, event, metric, tree, wait_until};

/// Long enough for a busy machine, and far below every wait here.
const SOON: Duration = Duration::from_secs(15);

struct Running {
    metrics: Arc<Metrics>,
    registry: Registry,
    shutdown: Shutdown,
    task: JoinHandle<Result<IngestReport, ingestor::IngestError>>,
}

impl Running {
    fn start(mut ingestor: Ingestor) -> Self {
        let (registry, shutdown) = (Registry::new(), Shutdown::new());
        ingestor.settings.once = false;
        ingestor.metrics = Arc::new(Metrics::new(&registry).unwrap());
        let (metrics, stop) = (ingestor.metrics.clone(), shutdown.clone());
        let task = tokio::spawn(async move { ingestor.run(&stop).await });
        Self { metrics, registry, shutdown, task }
    }

    async fn ends_at_once(self) {
        let begun = Instant::now();
        self.shutdown.trigger();
        tokio::time::timeout(SOON, self.task).await.expect("it ends").unwrap().unwrap();
        // In practice some milliseconds, or half a second where an archive step hangs.
        assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    }
}

/// A file of several transactions, of which the rate permits only the first one.
#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_that_waits_for_its_rate_ends_at_once_and_loses_and_repeats_nothing() {
    let zone = Zone::new().await;
    let filler = "x".repeat(50_000);
    let count = 700;
    let text: String = (0..count)
        .map(|number| event(&number.to_string()).replace(r#"{"n":1}"#, &format!("{{\"n\":\"{filler}\"}}")) + "\n")
        .collect();
    zone.land("large.json", text);
    for round in 0..2 {
        let before = zone.events().await.len();
        let mut ingestor = zone.ingestor();
        ingestor.settings.max_bytes_per_second = Some(1_000);
        let running = Running::start(ingestor);
        wait_until("the first one is published", || running.metrics.report().events.published > 0).await;
        wait_until("the next ones are read", || running.metrics.read_bytes() > 24_000_000).await;
        running.ends_at_once().await;
        let events = zone.events().await.len();
        assert!(before < events && events < count, "round {round}: {before} < {events} < {count}");
    }
    assert_eq!(zone.ingest().await.files.ingested, 1);
    let events = zone.events().await;
    assert_eq!((events.len(), events.values().max()), (count, Some(&1)), "each event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_whose_archive_step_hangs_ends_at_once_and_the_next_one_performs_it() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let store = Faulty::new(zone.local_store(), 0);
    *store.move_gate.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let running = Running::start(zone.ingestor_over(Arc::new(store)));
    wait_until("it is published", || running.metrics.report().files.ingested == 1).await;
    running.ends_at_once().await;
    assert_eq!(tree(&zone.landing().join("pending")), ["x.json"]);
    let report = zone.ingest().await;
    assert_eq!((report.files.ingested, report.files.skipped), (0, 1));
    assert!(tree(&zone.landing().join("pending")).is_empty());
    assert_eq!(zone.values().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_whose_landing_zone_does_not_answer_ends_at_once() {
    let zone = Zone::new().await;
    std::fs::write(zone.landing().join("landing.toml"), "archive = \"move\"").unwrap();
    let store = Arc::new(Faulty::new(zone.local_store(), 0));
    let (never, (sender, opened)) = (Arc::new(Semaphore::new(0)), tokio::sync::oneshot::channel());
    store.gates.lock().unwrap().insert("landing.toml".to_owned(), never);
    let sender = std::sync::Mutex::new(Some(sender));
    *store.opened.lock().unwrap() = Some(Box::new(move |_| {
        sender.lock().unwrap().take().map(|sender| sender.send(()));
    }));
    let running = Running::start(zone.ingestor_over(store));
    opened.await.unwrap();
    running.ends_at_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestor_that_waits_for_young_files_or_for_another_try_ends_at_once() {
    let zone = Zone::new().await;
    zone.land("x.json", event("x"));
    let mut young = zone.ingestor();
    young.settings.discovery.min_age = Duration::from_secs(3_600);
    let running = Running::start(young);
    wait_until("it has found it", || metric(&running.registry, "ed_ingest_sweeps_total") > 0.0).await;
    running.ends_at_once().await;

    std::fs::rename(zone.landing(), zone.root.path().join("away")).unwrap();
    let failing = zone.ingestor();
    let health = failing.health.clone();
    let running = Running::start(failing);
    let has_failed = || health.problems().values().any(|reason| reason.contains("landing"));
    wait_until("it has failed", has_failed).await;
    running.ends_at_once().await;
}
