//! Finds files. A whole listing of `pending/` is authoritative; everything else is faster and may miss files:
//!
//! - between two whole listings of a large landing zone only the tail is listed, from a thousand names before the last
//!   one, which finds new names that increase (dates, sequence numbers);
//! - hints (a watched folder, event notifications) name single files, which are looked up one by one.
//!
//! A failed listing or look-up is an error, never "no files". An entry that cannot be listed although others can is a
//! problem of its own: nothing is concluded about files there, and the others are read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::clock::Clock;
use common::store::{ObjectMeta, PassedOver, Store, StoreError, StoreErrorKind, SurveyOptions, SurveyPage};
use common::telemetry::Health;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::hints::{Hint, HintAnswer};
use crate::identity::{Identities, IdentityHash, PENDING, ledger_partition};
use crate::metrics::Metrics;
use crate::passed_over::{PassedOverCounts, Reason};
use crate::problems::{Kind, ProblemBook};
use crate::role::LISTING_COMPONENT;
use crate::routes::{Candidate, Found, Listed, Offered, Routes, Sweep};
use crate::settings::DiscoverySettings;
use crate::uncovered::{self, Uncovered};
use crate::young::Young;

/// A local page reads its directories again, so it is large; S3 returns at most 1,000.
const LIST_PAGE: usize = 10_000;
/// The number of names before the last one from which a listing of the tail begins.
const LOOK_BACK: usize = 1_000;
/// Files found and waiting, of the whole process, at some 300 bytes each.
const MOST_WAITING: usize = 50_000;
/// How often the backlog is told while a listing waits for lanes.
const TELL_EVERY: Duration = Duration::from_millis(500);
const SOONEST: Duration = Duration::from_millis(1);

pub(crate) struct Discovery {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    pub settings: DiscoverySettings,
    pub routes: Arc<Routes>,
    pub problems: Arc<ProblemBook>,
    pub ledger_partitions: u32,
    identities: Identities,
    places: Arc<Semaphore>,
    /// By path. Every listed file is here, so each takes 48 bytes and no text.
    ripening: HashMap<IdentityHash, Ripening>,
    young: Young,
    tail: VecDeque<String>,
    /// The time of the last whole listing, and whether it had more than one page.
    last_whole: Option<(Instant, bool)>,
    /// The number of the last whole listing.
    sweep: Sweep,
    /// There is exactly one whole listing.
    is_once: bool,
}

/// The findings of a whole listing besides files.
#[derive(Default)]
struct Findings {
    passed_over: PassedOverCounts,
    /// The first ones.
    unlisted: Vec<StoreError>,
    unlisted_total: u64,
}

/// A local file that may still be written to.
struct Ripening {
    version: IdentityHash,
    since_ms: i64,
    seen_in: Sweep,
}

impl Discovery {
    #[allow(clippy::too_many_arguments, reason = "called once, with named arguments")]
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        health: Health,
        metrics: Arc<Metrics>,
        settings: DiscoverySettings,
        routes: Arc<Routes>,
        problems: Arc<ProblemBook>,
        ledger_partitions: u32,
    ) -> Self {
        Self {
            identities: Identities::of(&*store),
            store,
            clock,
            health,
            metrics,
            settings,
            routes,
            problems,
            ledger_partitions,
            places: Arc::new(Semaphore::new(MOST_WAITING)),
            ripening: HashMap::new(),
            young: Young::default(),
            tail: VecDeque::new(),
            last_whole: None,
            sweep: Sweep::default(),
            is_once: false,
        }
    }

    /// Finds files until dropped. `wake` requests a whole listing at once.
    ///
    /// # Errors
    /// A listing failed.
    pub(crate) async fn run(mut self, hints: &mut mpsc::Receiver<Hint>, wake: Arc<Notify>) -> Result<(), StoreError> {
        loop {
            if self.is_whole_due() {
                self.sweep().await?;
            } else {
                self.sweep_tail().await?;
            }
            let next = Instant::now() + self.settings.poll_interval;
            loop {
                let recheck = self.next_recheck();
                tokio::select! {
                    () = tokio::time::sleep_until(next) => break,
                    () = wake.notified() => {
                        self.last_whole = None;
                        break;
                    }
                    Some(hint) = hints.recv() => self.take_hint(hint).await,
                    () = tokio::time::sleep(recheck.unwrap_or_default()), if recheck.is_some() => self.recheck().await,
                }
                self.tell_backlog();
            }
        }
    }

    /// One whole listing, for `--once`, and a second look-up of each file that is too young at first. After at most
    /// `min_age` an unchanged file is read, and a changed one is skipped and reported as a problem. So it is for the
    /// files that were found before a failure of the listing.
    ///
    /// # Errors
    /// The listing failed.
    pub(crate) async fn run_once(mut self) -> Result<(), StoreError> {
        self.is_once = true;
        let outcome = self.sweep().await;
        let (listed, young) = (Instant::now(), self.young.len());
        if young > 0 {
            tracing::info!(files = young, min_age = ?self.settings.min_age, "waiting once until files are old enough");
        }
        while let Some(wait) = self.next_recheck() {
            // Independent of changes of the system clock.
            let longest = self.settings.min_age.saturating_sub(listed.elapsed());
            tokio::time::sleep(wait.min(longest)).await;
            let now_ms = if wait < longest { self.clock.now_ms() } else { i64::MAX };
            self.recheck_due(now_ms).await;
            self.tell_backlog();
        }
        outcome
    }

    fn is_whole_due(&self) -> bool {
        match self.last_whole {
            Some((made, true)) => made.elapsed() >= self.settings.full_sweep_interval,
            Some((_, false)) | None => true,
        }
    }

    /// Reads the whole listing.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        self.sweep = self.routes.begin_sweep();
        self.tail.clear();
        let mut findings = Findings::default();
        let listed = self.list_from(None, Some(&mut findings)).await;
        self.note_unlisted(&findings.unlisted);
        let pages = listed.inspect_err(|_| self.metrics.swept("failed", None))?;
        let sweep = self.sweep;
        self.ripening.retain(|_, ripening| ripening.seen_in == sweep);
        self.last_whole = Some((began, pages > 1));
        let uncovered = self.conclude(&findings);
        self.routes.swept(sweep, uncovered);
        self.metrics.swept("whole", Some(began.elapsed()));
        self.health.ready(LISTING_COMPONENT);
        self.tell_backlog();
        Ok(())
    }

    async fn sweep_tail(&mut self) -> Result<(), StoreError> {
        let from = self.tail.front().cloned();
        self.list_from(from, None).await.inspect_err(|_| self.metrics.swept("failed", None))?;
        self.metrics.swept("tail", None);
        self.tell_backlog();
        Ok(())
    }

    /// Offers every object after `start_after`; returns the number of pages.
    async fn list_from(
        &mut self,
        start_after: Option<String>,
        mut findings: Option<&mut Findings>,
    ) -> Result<usize, StoreError> {
        let mut options = SurveyOptions { prefix: PENDING.to_owned(), limit: Some(LIST_PAGE), start_after };
        let mut pages = 0;
        loop {
            let SurveyPage { objects, unlisted, passed_over, next } = self.store.survey(&options).await?;
            self.metrics.listed();
            pages += 1;
            if let Some(findings) = &mut findings {
                self.note(findings, &objects, unlisted, &passed_over);
            }
            for object in &objects {
                self.remember(&object.key);
                self.offer(object).await;
            }
            self.tell_backlog();
            match next {
                Some(next) => options.start_after = Some(next),
                None => return Ok(pages),
            }
        }
    }

    /// Records the entries of a page that are not files to ingest.
    fn note(
        &self,
        findings: &mut Findings,
        objects: &[ObjectMeta],
        unlisted: Vec<StoreError>,
        passed_over: &[PassedOver],
    ) {
        for object in objects.iter().filter(|object| self.is_ignored(&object.key)) {
            // "Folders" made by consoles are ignored.
            if !object.key.ends_with('/') {
                findings.passed_over.count(Reason::IgnoredName);
            }
        }
        for entry in passed_over {
            let is_ignored = self.is_ignored(&entry.name);
            findings.passed_over.count(if is_ignored { Reason::IgnoredName } else { entry.kind.into() });
            if !is_ignored {
                self.metrics.passed_over(entry);
            }
        }
        for error in unlisted {
            if self.is_ignored(&error.key) {
                findings.passed_over.count(Reason::IgnoredName);
                continue;
            }
            findings.unlisted_total += 1;
            if findings.unlisted.len() < uncovered::MOST {
                findings.unlisted.push(error);
            }
        }
    }

    /// Also of a listing that failed later.
    fn note_unlisted(&self, unlisted: &[StoreError]) {
        for error in unlisted {
            if self.problems.note(&error.key, Kind::Unlisted, error.clone(), self.sweep) {
                tracing::warn!(%error, "this cannot be listed and is skipped; trying again at each listing");
            }
        }
    }

    /// Reports the findings of a whole listing besides files. Returns the places that it could not list.
    fn conclude(&self, findings: &Findings) -> Uncovered {
        let Findings { passed_over, unlisted, unlisted_total } = findings;
        self.metrics.whole_listing(*passed_over, *unlisted_total);
        Uncovered::new(&self.identities, unlisted, *unlisted_total)
    }

    fn remember(&mut self, key: &str) {
        // A listing of the tail repeats names that are in it.
        if self.tail.back().is_some_and(|last| last.as_str() >= key) {
            return;
        }
        if self.tail.len() >= LOOK_BACK {
            self.tail.pop_front();
        }
        self.tail.push_back(key.to_owned());
    }

    /// Sends a file on, if it is to be processed now.
    async fn offer(&mut self, object: &ObjectMeta) -> Offered {
        let Some(path) = self.path_of(&object.key).map(str::to_owned) else { return Offered::Known };
        let identity = self.identities.identity(&path, &object.version);
        let partition = ledger_partition(&path, self.ledger_partitions);
        if !self.routes.owns(partition) {
            return Offered::NotOurs;
        }
        if !self.is_ripe(&path, object) {
            return Offered::Taken;
        }
        let route = match self.routes.wants(partition, &identity, object) {
            Ok(route) => route,
            Err(offered) => return offered,
        };
        // The semaphore is never closed.
        let Some(place) = self.place().await else { return Offered::Known };
        let candidate = Candidate { listed: Listed::of(object), sweep: self.sweep, place };
        // Fails when the lane has ended: the next owner's listing finds the file.
        match route.sender.send(Found::File(candidate)) {
            Ok(()) => Offered::Taken,
            Err(_) => Offered::NotOurs,
        }
    }

    /// Waits until another file may wait.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            tokio::select! {
                biased;
                place = self.places.clone().acquire_owned() => return place.ok(),
                () = tokio::time::sleep(TELL_EVERY) => self.tell_backlog(),
            }
        }
    }

    /// Relative to `pending/`; `None` for an object that is not a file of events.
    fn path_of<'k>(&self, key: &'k str) -> Option<&'k str> {
        // "Folders" made by consoles are objects whose key ends in a slash.
        let path = key.strip_prefix(PENDING).filter(|path| !path.is_empty() && !path.ends_with('/'))?;
        (!self.settings.ignored.holds(path)).then_some(path)
    }

    fn is_ignored(&self, key: &str) -> bool {
        key.strip_prefix(PENDING).is_some_and(|path| self.settings.ignored.holds(path))
    }

    /// A file that may still be written to waits until it has been unchanged for a while by this process's clock.
    fn is_ripe(&mut self, path: &str, object: &ObjectMeta) -> bool {
        let min_age_ms = i64::try_from(self.settings.min_age.as_millis()).unwrap_or(i64::MAX);
        if min_age_ms == 0 {
            return true;
        }
        let (now_ms, sweep) = (self.clock.now_ms(), self.sweep);
        if self.is_once {
            return self.is_ripe_once(path, object, min_age_ms, now_ms);
        }
        let version = IdentityHash::of(&object.version.0);
        let fresh = || Ripening { version, since_ms: now_ms, seen_in: sweep };
        let ripening = self.ripening.entry(IdentityHash::of(path)).or_insert_with(fresh);
        if ripening.version != version {
            *ripening = fresh();
        }
        ripening.seen_in = sweep;
        let ripe_ms = ripening.since_ms.saturating_add(min_age_ms);
        if now_ms < ripe_ms {
            self.young.insert(ripe_ms, path, object.size_bytes, object.modified_ms);
        }
        now_ms >= ripe_ms
    }

    /// With `--once` the age is that of the modification time, so that a run that begins long after the last write does
    /// not wait; times in the future count as now. At the second look-up an unchanged file is read, and a changed one
    /// is skipped.
    fn is_ripe_once(&mut self, path: &str, object: &ObjectMeta, min_age_ms: i64, now_ms: i64) -> bool {
        let (file, version) = (IdentityHash::of(path), IdentityHash::of(&object.version.0));
        if let Some(first) = self.ripening.get(&file) {
            let is_unchanged = first.version == version;
            if !is_unchanged {
                self.pass_over(path, object);
            }
            return is_unchanged;
        }
        let since_ms = object.modified_ms.clamp(now_ms.saturating_sub(min_age_ms), now_ms);
        let ripe_ms = since_ms.saturating_add(min_age_ms);
        if now_ms < ripe_ms {
            self.ripening.insert(file, Ripening { version, since_ms, seen_in: self.sweep });
            self.young.insert(ripe_ms, path, object.size_bytes, object.modified_ms);
        }
        now_ms >= ripe_ms
    }

    fn pass_over(&self, path: &str, object: &ObjectMeta) {
        let min_age = self.settings.min_age;
        let message = format!("it was written to less than landing.min_age ({min_age:?}) ago; the next run reads it");
        let error = StoreError::new(StoreErrorKind::VersionMismatch, "get", &object.key, message);
        if self.problems.note(&object.key, Kind::Changing, error, self.sweep) {
            tracing::warn!(file = path, "skipped: it is still being written");
        }
    }

    /// Time until the next file may be ripe.
    fn next_recheck(&self) -> Option<Duration> {
        let wait_ms = self.young.next_ms()?.saturating_sub(self.clock.now_ms());
        Some(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)).max(SOONEST))
    }

    /// Looks the files up again whose time has come.
    async fn recheck(&mut self) {
        self.recheck_due(self.clock.now_ms()).await;
    }

    async fn recheck_due(&mut self, now_ms: i64) {
        while let Some(path) = self.young.take_due(now_ms) {
            let key = format!("{PENDING}{path}");
            match self.look_up(&key).await {
                Ok(_) => {}
                // There is no later listing that would find it.
                Err(error) if self.is_once => self.cannot_look_up(&path, &key, error),
                Err(error) => log_failed_look_up(&key, &error),
            }
        }
    }

    fn cannot_look_up(&self, path: &str, key: &str, error: StoreError) {
        tracing::warn!(file = path, %error, "skipped: it was too young, and cannot be looked up again");
        self.problems.note(key, Kind::Unreadable, error, self.sweep);
    }

    async fn take_hint(&mut self, hint: Hint) {
        let offered = self.look_up(&hint.key).await.inspect_err(|error| log_failed_look_up(&hint.key, error));
        let offered = offered.unwrap_or(None);
        self.metrics.hinted(match offered {
            _ if self.path_of(&hint.key).is_none() => "ignored",
            Some(Offered::Taken) => "taken",
            Some(Offered::Known) => "known",
            Some(Offered::NotOurs) => "not_ours",
            None => "not_found",
        });
        if let Some(answer) = hint.answer {
            let not_ours = offered == Some(Offered::NotOurs);
            // The receiver is dropped when the source has ended.
            let _ = answer.send(if not_ours { HintAnswer::NotOurs } else { HintAnswer::Taken });
        }
    }

    /// Looks one file up; `None` if it does not exist.
    async fn look_up(&mut self, key: &str) -> Result<Option<Offered>, StoreError> {
        if self.path_of(key).is_none() {
            return Ok(None);
        }
        match self.store.head(key).await? {
            Some(object) => Ok(Some(self.offer(&object).await)),
            None => Ok(None),
        }
    }

    fn tell_backlog(&self) {
        let now_ms = self.clock.now_ms();
        let mut backlog = self.routes.backlog();
        backlog.add_all(self.young.backlog());
        self.metrics.backlog(&backlog, now_ms, self.problems.count());
    }
}

fn log_failed_look_up(key: &str, error: &StoreError) {
    tracing::debug!(key, %error, "a file could not be looked up; the listing will find it");
}
