//! A run: two roles at work while everything goes wrong, then one alone in peace, then the reckoning.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::config::Compression;
use common::shutdown::Shutdown;
use common::store::{RetryPolicy, RetryingStore, Store};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::chance::{Chance, Life};
use super::log::{LogOf, MemoryLog};
use super::model::Event;
use super::store::{MemoryStore, StoreOf};
use super::{Outcome, Sabotage, commits, reckoning, roles};
use crate::batch::Encoding;
use crate::batch::testing::layout;
use crate::layout::Layout;
use crate::role::DistributeError;
use crate::watermark;
use crate::{
    Background, BatchAbandoner, CompactError, Compactor, Companion, DistributeReport, Distributor, EndOfInput, Fence,
    Pace, Policy, ReplayError, ReplayTarget, Rewriter, Settings,
};

const MEMBERS: usize = 2;
/// Longer than any call is under way.
const QUIET: Duration = Duration::from_secs(60);
/// Of virtual time; there is nothing that takes as long.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// What goes wrong beyond calls. Files that are lost can only be made again as long as the log keeps their records, so
/// no run has both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    FilesAreLost,
    LogLetsGo,
    /// Bytes rot, or objects are exchanged. Somebody is told, and brings back what was there.
    ObjectsAreAltered,
}

/// A proof of the tail, and whatever is sent in its last moment.
const FENCE: Duration = Duration::from_secs(6 * 60);

fn draw_layout(chance: &Chance) -> Layout {
    chance.draw(|random| Layout {
        window_ms: random.pick(&[1, 500, 5_000, 60_000, 86_400_000]),
        max_types: random.pick(&[1, 2, 1_000]),
        max_rows_per_file: random.pick(&[1, 3, 1_000_000]),
        ..layout()
    })
}

/// Nothing that a store or a log that fails explains.
fn is_bad(refusal: &str) -> bool {
    ["internal error", "damaged", "backup"].iter().any(|bad| refusal.contains(bad))
}

/// How a command of a person ended that replaces files.
enum Ended {
    Done,
    /// A person has to act.
    Refused(String),
    Failed(String),
}

struct Role {
    life: Arc<Life>,
    shutdown: Shutdown,
    task: JoinHandle<Result<DistributeReport, DistributeError>>,
}

/// Someone who replaces files.
struct Replacing {
    life: Arc<Life>,
    task: JoinHandle<Ended>,
}

pub(super) struct World {
    chance: Arc<Chance>,
    store: Arc<MemoryStore>,
    log: Arc<MemoryLog>,
    trouble: Trouble,
    /// Files are rewritten and compacted, and layouts differ only in rows a file.
    rewrites: Option<Layout>,
    rewriter: Option<Replacing>,
    compactor: Option<Replacing>,
    fence: Duration,
    roles: [Option<Role>; MEMBERS],
    lives: u64,
    events: u64,
    /// Where operators set offsets to, by partition: anything before may be skipped.
    skipped_to: Vec<(i32, i64)>,
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let chance = Arc::new(Chance::new(seed));
        let (partitions, all_own, trouble) = chance.draw(|random| {
            let partitions = random.pick(&[1, 1, 2]);
            (
                partitions,
                random.one_in(2),
                random.pick(&[Trouble::FilesAreLost, Trouble::LogLetsGo, Trouble::ObjectsAreAltered]),
            )
        });
        let rewrites = chance.draw(|random| random.one_in(3)).then(|| draw_layout(&chance));
        Self {
            rewrites,
            rewriter: None,
            compactor: None,
            fence: if sabotage == Some(Sabotage::NoFence) { Duration::ZERO } else { FENCE },
            store: Arc::new(MemoryStore::new(chance.clone(), sabotage)),
            log: Arc::new(MemoryLog::new(chance.clone(), partitions, all_own, sabotage)),
            chance,
            trouble,
            roles: [None, None],
            lives: 0,
            events: 0,
            skipped_to: Vec::new(),
        }
    }

    pub async fn run(mut self) -> Outcome {
        let verdict = self.live().await;
        self.end_all();
        let abandoned = reckoning::abandoned(&self.store, &self.log);
        let rewritten = reckoning::rewritten(&self.store, &self.log);
        Outcome { trace: self.chance.trace(), abandoned, rewritten, verdict }
    }

    async fn live(&mut self) -> Result<(), String> {
        let steps = self.chance.draw(|random| random.between(15, 45));
        self.append();
        for _ in 0..steps {
            self.disturb();
            tokio::time::sleep(self.chance.draw(|random| {
                let scale = random.pick(&[1, 30, 300, 3_000, 10_000]);
                // For fences to pass.
                let scale = if self.rewrites.is_some() && random.one_in(4) { 300_000 } else { scale };
                Duration::from_millis(random.below(scale))
            }))
            .await;
            self.look_after_roles().await?;
            self.look_after_replacers().await?;
            self.abandon().await;
        }
        self.finish().await?;
        reckoning::compare(&self.store, &self.log, &self.skipped_to)?;
        reckoning::audit(&self.store, &self.log).await
    }

    fn disturb(&mut self) {
        let partition = self.chance.draw(|random| random.pick(&self.log.partitions()));
        if self.rewrites.is_some() {
            match self.chance.draw(|random| random.below(8)) {
                0 | 1 => self.start_rewriter_if_gone(),
                2 | 3 => self.start_compactor_if_gone(),
                _ => {}
            }
        }
        match self.chance.draw(|random| random.below(22)) {
            0..=5 => self.append(),
            6..=11 => (0..MEMBERS).for_each(|member| self.start_if_gone(member)),
            12 => {
                let member = self.draw_member();
                self.end(member);
            }
            13 => {
                let member = self.draw_member();
                if let Some(role) = &self.roles[member] {
                    self.chance.tell(format_args!("{} is shut down", role.life.name));
                    role.shutdown.trigger();
                }
            }
            14..=15 => {
                let member = self.draw_member();
                self.chance.tell(format_args!("partition {partition} goes to member {member}"));
                self.log.rebalance(partition, member);
            }
            16 => self.set_back(partition),
            17 => self.skip(partition),
            18 => {
                let ahead_ms = self.chance.draw(|random| random.pick(&[-86_400_000, -5_000, 0, 5_000, 86_400_000]));
                self.chance.tell(format_args!("the clocks of all processes are {ahead_ms} ms ahead"));
                self.chance.jump(ahead_ms);
            }
            19 => {
                let for_ms = self.chance.draw(|random| random.pick(&[1_000, 20_000, 300_000]));
                self.chance.tell(format_args!("the store is full for {for_ms} ms"));
                self.chance.fill_up(for_ms);
            }
            _ => match self.trouble {
                Trouble::FilesAreLost => self.lose_files(),
                Trouble::LogLetsGo => self.let_go(partition),
                Trouble::ObjectsAreAltered => self.alter(),
            },
        }
    }

    fn draw_member(&self) -> usize {
        usize::try_from(self.chance.draw(|random| random.below(MEMBERS as u64))).unwrap()
    }

    fn append(&mut self) {
        let count = self.chance.draw(|random| random.between(1, 12));
        for _ in 0..count {
            self.events += 1;
            let now_ms = common::clock::Clock::now_ms(&*self.chance);
            let partition = self.chance.draw(|random| random.pick(&self.log.partitions()));
            let (hole, append_ms, value) = self.chance.draw(|random| {
                let event = Event {
                    event_id: format!("e{}", random.below(20)),
                    timestamp: random
                        .pick(&["2021-01-14T10:15:30", "2021-01-15T00:00:00", "1914-07-28T11:00:00"])
                        .into(),
                    domain: "d".into(),
                    event_type: random.pick(&["s", "t", "u"]).into(),
                    data: self.events,
                };
                let is_event = !random.one_in(12);
                let value = if is_event { serde_json::to_string(&event).unwrap() } else { "nonsense".to_owned() };
                let hole = if random.one_in(8) { random.between(1, 3) } else { 0 };
                // Clocks of brokers differ, so that append times may go back.
                let append_ms = now_ms + random.between(-400, 400);
                // In steps, so that times differ by the very window at times.
                (hole, append_ms - append_ms % 250, value)
            });
            self.log.append(partition, hole, append_ms, &value);
        }
        if self.chance.draw(|random| random.one_in(4)) {
            self.log.append_hole(self.log.partitions()[0], 1);
        }
        self.chance.tell(format_args!("{count} records are appended"));
    }

    fn draw_layout(&self) -> Layout {
        let drawn = draw_layout(&self.chance);
        let max_rows_per_file = drawn.max_rows_per_file;
        self.rewrites.as_ref().map_or(drawn, |layout| Layout { max_rows_per_file, ..layout.clone() })
    }

    fn start_rewriter_if_gone(&mut self) {
        if self.rewriter.is_some() {
            return;
        }
        self.lives += 1;
        let life = Arc::new(Life::new(format!("r{}", self.lives)));
        let rewriter = self.make_rewriter(&life);
        let rows = rewriter.layout.max_rows_per_file;
        self.chance.tell(format_args!("{} begins to rewrite, rows a file: {rows}", life.name));
        let task = tokio::task::spawn_local(async move {
            let ended = async {
                let plans = rewriter.plan(ReplayTarget::Earliest, None).await?;
                rewriter.apply(&plans).await
            };
            match ended.await {
                Ok(_) => Ended::Done,
                Err(ReplayError::Refused(refusal)) => Ended::Refused(refusal),
                Err(error) => Ended::Failed(error.to_string()),
            }
        });
        self.rewriter = Some(Replacing { life, task });
    }

    fn start_compactor_if_gone(&mut self) {
        if self.compactor.is_some() {
            return;
        }
        self.lives += 1;
        let life = Arc::new(Life::new(format!("c{}", self.lives)));
        let compactor = self.make_compactor(&life);
        let Policy { target_bytes, rest_ms } = compactor.policy;
        self.chance.tell(format_args!("{} begins to compact, to {target_bytes} bytes after {rest_ms} ms", life.name));
        let task = tokio::task::spawn_local(async move {
            let ended = async {
                let plans = compactor.plan(None).await?;
                compactor.apply(&plans).await
            };
            match ended.await {
                Ok(_) => Ended::Done,
                Err(CompactError::Refused(refusal)) => Ended::Refused(refusal),
                Err(error) => Ended::Failed(error.to_string()),
            }
        });
        self.compactor = Some(Replacing { life, task });
    }

    /// The store as a command sees it, which tries for a while.
    fn store_of(&self, life: &Arc<Life>) -> Arc<dyn Store> {
        let store = StoreOf { memory: self.store.clone(), life: life.clone(), script: None, is_resting: false };
        let policy = RetryPolicy {
            patience: Some(QUIET),
            wait_for_operator: false,
            shutdown: Shutdown::new(),
            on_retry: Arc::new(|_| {}),
        };
        Arc::new(RetryingStore::new(Arc::new(store), policy))
    }

    fn make_compactor(&self, life: &Arc<Life>) -> Compactor {
        let (target_bytes, rest_ms) =
            self.chance.draw(|random| (random.pick(&[6_000, 20_000, 1 << 30]), random.pick(&[0, 10_000])));
        let compression = self.chance.draw(|random| random.pick(&[Compression::Snappy, Compression::Zstd]));
        Compactor {
            store: self.store_of(life),
            log: None,
            host: self.chance.host(),
            topic: roles::TOPIC.into(),
            group: roles::GROUP.into(),
            encoding: Encoding { compression, ..roles::ENCODING },
            policy: Policy { target_bytes, rest_ms },
            now_ms: common::clock::Clock::now_ms(&*self.chance),
            scratch: roles::scratch(),
            fence: Fence::Wait(self.fence),
            tables: None,
            accepts_lost: self.trouble == Trouble::FilesAreLost && self.chance.draw(|random| random.one_in(2)),
            since_ms: self
                .chance
                .draw(|random| random.one_in(3))
                .then(|| common::clock::Clock::now_ms(&*self.chance) - 20_000),
            pace: Pace::new(None),
            on_file: Box::new(|_| {}),
        }
    }

    fn make_rewriter(&self, life: &Arc<Life>) -> Rewriter {
        let compression = self.chance.draw(|random| random.pick(&[Compression::Snappy, Compression::Zstd]));
        Rewriter {
            store: self.store_of(life),
            log: Arc::new(LogOf { memory: self.log.clone(), life: life.clone(), member: 0 }),
            host: self.chance.host(),
            topic: roles::TOPIC.into(),
            group: roles::GROUP.into(),
            layout: self.draw_layout(),
            encoding: Encoding { compression, ..roles::ENCODING },
            window_memory: roles::WINDOW_MEMORY,
            batch_memory: 5_000,
            scratch: roles::scratch(),
            all: false,
            restores: true,
            require_all: false,
            tables: None,
            accepts_lost: false,
            fence: Fence::Wait(self.fence),
            on_batch: Box::new(|_| {}),
        }
    }

    async fn look_after_replacers(&mut self) -> Result<(), String> {
        for replacing in [self.rewriter.take(), self.compactor.take()].into_iter().flatten() {
            let name = replacing.life.name.clone();
            if replacing.life.is_over() {
                replacing.task.abort();
            } else if !replacing.task.is_finished() {
                let place = if name.starts_with('r') { &mut self.rewriter } else { &mut self.compactor };
                *place = Some(replacing);
            } else {
                replacing.life.end();
                match replacing.task.await {
                    Ok(Ended::Done) => self.chance.tell(format_args!("{name} is done")),
                    Ok(Ended::Refused(refusal)) if is_bad(&refusal) && !self.is_expected(&refusal) => {
                        return Err(format!("{name} failed: {refusal}"));
                    }
                    Ok(Ended::Refused(error) | Ended::Failed(error)) => {
                        self.chance.tell(format_args!("{name} gave up: {error}"));
                    }
                    Err(error) => return Err(format!("{name} panicked: {error}")),
                }
            }
        }
        Ok(())
    }

    /// Everything that has rested is merged. Returns what was missing or altered.
    async fn compact_to_the_end(&mut self) -> Result<BTreeSet<String>, String> {
        let life = Arc::new(Life::new("c".to_owned()));
        let accepts_lost = self.trouble == Trouble::FilesAreLost;
        let compactor = Compactor { since_ms: None, accepts_lost, ..self.make_compactor(&life) };
        let compacting = async {
            let plans = compactor.plan(None).await?;
            compactor.apply(&plans).await
        };
        let ended = tokio::time::timeout(PATIENCE, compacting).await;
        let ended = ended.map_err(|_| "the compactor does not come to an end".to_owned())?;
        let ended = ended.map_err(|error| format!("c gave up: {error}"))?;
        Ok(ended.into_iter().flat_map(|partition| partition.skipped).collect())
    }

    /// Ends what is under way, and makes missing files of replaces again.
    async fn rewrite_to_the_end(&mut self) -> Result<(), String> {
        let life = Arc::new(Life::new("r".to_owned()));
        let rewriter = self.make_rewriter(&life);
        let rewriting = async {
            loop {
                let plans = rewriter.plan(ReplayTarget::Earliest, None).await?;
                match rewriter.apply(&plans).await {
                    // It is aborted; the log no longer has what it was begun with.
                    Err(error) if error.to_string().contains("a rewrite was given up") => {}
                    ended => return ended,
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, rewriting).await;
        let ended = ended.map_err(|_| "the rewriter does not come to an end".to_owned())?;
        ended.map(drop).map_err(|error: ReplayError| format!("r gave up: {error}"))
    }

    fn distributor(&mut self, member: usize, layout: Layout, once: bool) -> (Arc<Life>, Distributor) {
        self.lives += 1;
        let life = Arc::new(Life::new(format!("{}{}", ["a", "b"][member], self.lives)));
        let (max_age, max_rows, max_memory) = self.chance.draw(|random| {
            let max_age = Duration::from_millis(random.pick(&[50, 1_000, 5_000]));
            (max_age, random.pick(&[3, 8, 20]), random.pick(&[1, u64::MAX, u64::MAX, u64::MAX]))
        });
        // Whoever makes a file again may be configured with another one than who wrote it.
        let compression = if self.lives.is_multiple_of(2) { Compression::Snappy } else { Compression::Zstd };
        let encoding = Encoding { compression, ..roles::ENCODING };
        let settings = Settings { layout, encoding, max_age, max_rows, max_memory, ..roles::settings(once) };
        let store = StoreOf { memory: self.store.clone(), life: life.clone(), script: None, is_resting: false };
        let log = LogOf { memory: self.log.clone(), life: life.clone(), member };
        let mut distributor = roles::distributor(store, log, settings);
        if self.rewrites.is_some() && self.chance.draw(|random| random.one_in(2)) {
            distributor.companions.push(self.make_background(&distributor));
        }
        (life, distributor)
    }

    /// Merges small files beside the batches of a role.
    fn make_background(&self, role: &Distributor) -> Arc<dyn Companion> {
        let (target_bytes, every_ms) =
            self.chance.draw(|random| (random.pick(&[6_000, 20_000, 1 << 30]), random.pick(&[1_000, 20_000])));
        Arc::new(Background {
            store: role.store.clone(),
            host: role.host.clone(),
            clock: role.clock.clone(),
            metrics: role.metrics.clone(),
            topic: roles::TOPIC.into(),
            group: roles::GROUP.into(),
            encoding: role.settings.encoding,
            policy: Policy { target_bytes, rest_ms: 10_000 },
            every: Duration::from_millis(every_ms),
            pace: Pace::new(None),
            scratch: roles::scratch(),
            tables: None,
            fence: OnceCell::new_with(Some(Some(Fence::Wait(self.fence)))),
        })
    }

    fn start_if_gone(&mut self, member: usize) {
        if self.roles[member].is_some() {
            return;
        }
        let layout = self.draw_layout();
        let settings = format!("{} {} {}", layout.window_ms, layout.max_types, layout.max_rows_per_file);
        let (life, distributor) = self.distributor(member, layout, false);
        self.chance.tell(format_args!("{} starts, window, types and rows a file: {settings}", life.name));
        let shutdown = Shutdown::new();
        let told = shutdown.clone();
        let task = tokio::task::spawn_local(async move { distributor.run(&EndOfInput::later(), &told).await });
        self.roles[member] = Some(Role { life, shutdown, task });
    }

    fn end(&mut self, member: usize) {
        if let Some(role) = self.roles[member].take() {
            if !role.life.is_over() {
                self.chance.tell(format_args!("{} is killed", role.life.name));
            }
            role.life.end();
            role.task.abort();
        }
    }

    fn end_all(&mut self) {
        (0..MEMBERS).for_each(|member| self.end(member));
        for replacing in [self.rewriter.take(), self.compactor.take()].into_iter().flatten() {
            replacing.life.end();
            replacing.task.abort();
        }
    }

    async fn look_after_roles(&mut self) -> Result<(), String> {
        for member in 0..MEMBERS {
            let Some(role) = &mut self.roles[member] else { continue };
            if role.life.is_over() {
                self.end(member);
            } else if role.task.is_finished() {
                let ended = (&mut role.task).await;
                let (name, asked) = (role.life.name.clone(), role.shutdown.is_triggered());
                role.life.end();
                self.end(member);
                match ended {
                    Ok(Ok(_)) if asked => {}
                    Ok(Ok(_)) => return Err(format!("{name} ended unasked")),
                    // A person is asked, and comes soon.
                    Ok(Err(error)) if self.is_of_altered(&error.to_string()) => {
                        self.chance.tell(format_args!("{name} gave up: {error}"));
                    }
                    Ok(Err(error)) if error.to_string().contains("'abandon'") => {}
                    Ok(Err(error)) => return Err(format!("{name} gave up: {error}")),
                    Err(error) => return Err(format!("{name} panicked: {error}")),
                }
            }
        }
        Ok(())
    }

    fn set_back(&mut self, partition: i32) {
        if let Some(committed) = self.log.committed(partition) {
            let to = self.chance.draw(|random| random.between(0, committed));
            self.chance.tell(format_args!("offset of {partition} is set back from {committed} to {to}"));
            self.log.commit(partition, to);
            // Of offsets that were set forward before, what lies behind is still ahead of the commit log.
            self.skipped_to.push((partition, to));
        }
    }

    fn skip(&mut self, partition: i32) {
        if let Some(committed) = self.log.committed(partition) {
            let latest = self.log.bounds(partition).latest;
            let to = self.chance.draw(|random| random.between(committed, latest));
            self.chance.tell(format_args!("offset of {partition} is set forward from {committed} to {to}"));
            self.log.commit(partition, to);
            self.skipped_to.push((partition, to));
        }
    }

    fn let_go(&self, partition: i32) {
        let bounds = self.log.bounds(partition);
        let to = self.chance.draw(|random| random.between(bounds.earliest, bounds.latest));
        // Rarely more than a step: most of the time a log keeps what is needed.
        let to = if self.chance.draw(|random| random.one_in(2)) { to } else { to.min(bounds.earliest + 4) };
        self.chance.tell(format_args!("the log of {partition} begins at {to} now"));
        self.log.trim_to(partition, to);
    }

    /// Operators who lose files set the offsets back, and mostly stop everything before.
    fn lose_files(&mut self) {
        if !self.chance.draw(|random| random.one_in(3)) {
            self.end_all();
        }
        let mut files = reckoning::files(&self.store);
        files.retain(|_| self.chance.draw(|random| random.one_in(3)));
        files.iter().for_each(|key| self.store.remove(key));
        self.chance.tell(format_args!("lost: {files:?}"));
        self.set_all_back();
    }

    /// An object is altered, or all are brought back.
    fn alter(&self) {
        let keys = self.store.keys("");
        if keys.is_empty() || self.chance.draw(|random| random.one_in(3)) {
            self.chance.tell(format_args!("{} objects are brought back", self.store.bring_back()));
            return;
        }
        let key = self.chance.draw(|random| random.pick(&keys));
        let body = self.store.get(&key).unwrap_or_default();
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let others: Vec<&String> = keys.iter().filter(|other| other.starts_with(folder) && **other != key).collect();
        let at = self.chance.draw(|random| random.below(body.len().max(1) as u64));
        let at = usize::try_from(at).unwrap();
        // Of a file that no entry vouches for yet, one of the same rows is as good: another build may have made it.
        let is_vouched_for = !key.contains(".parquet") || reckoning::is_live(&self.store, &self.log, &key);
        let into = match self.chance.draw(|random| random.below(3)) {
            _ if !is_vouched_for => body.slice(..at),
            0 => body.slice(..at),
            1 if !others.is_empty() => {
                self.store.get(self.chance.draw(|random| random.pick(&others))).unwrap_or_default()
            }
            _ => {
                let mut bytes = body.to_vec();
                let by = self.chance.draw(|random| random.between(1, 255));
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= u8::try_from(by).unwrap());
                bytes.into()
            }
        };
        if into != body {
            self.chance.tell(format_args!("{key} is altered at {at}, and has {} bytes now", into.len()));
            self.store.alter(&key, into);
        }
    }

    /// A refusal that a person expects who knows of altered objects, or of lost files.
    fn is_expected(&self, error: &str) -> bool {
        self.is_of_altered(error) || self.trouble == Trouble::FilesAreLost && error.contains("--accept-lost")
    }

    /// A refusal that a person expects who knows of altered objects.
    fn is_of_altered(&self, error: &str) -> bool {
        self.trouble == Trouble::ObjectsAreAltered && !error.contains("internal error")
    }

    /// Also where no offset was ever committed: the commit log may be further, and a group without offsets asks for nothing.
    fn set_all_back(&self) {
        for partition in self.log.partitions() {
            if self.log.committed(partition).is_some() || commits::has_entries(&self.store, partition) {
                self.log.commit(partition, 0);
            }
        }
    }

    /// What a person does who is told that a batch has lost its head.
    async fn abandon(&mut self) {
        for partition in self.log.partitions() {
            let has_lost_head = commits::has_lost_head(&self.store, &self.log, partition);
            if !has_lost_head.is_ok_and(|has_lost_head| has_lost_head) {
                continue;
            }
            self.lives += 1;
            let life = Arc::new(Life::new(format!("o{}", self.lives)));
            self.chance.tell(format_args!("{} abandons what is under way of {partition}", life.name));
            let abandoner = BatchAbandoner {
                store: Arc::new(StoreOf {
                    memory: self.store.clone(),
                    life: life.clone(),
                    script: None,
                    is_resting: false,
                }),
                log: Arc::new(LogOf { memory: self.log.clone(), life: life.clone(), member: 0 }),
                host: self.chance.host(),
                topic: roles::TOPIC.into(),
                group: roles::GROUP.into(),
                scratch: roles::scratch(),
            };
            // Killed, or failed: tried again at the next look.
            let ended = tokio::time::timeout(QUIET, abandoner.abandon(partition)).await;
            life.end();
            if let Ok(Err(error)) = ended {
                self.chance.tell(format_args!("{} gave up: {error}", life.name));
            }
        }
    }

    /// One role alone, to the end of the log.
    async fn finish(&mut self) -> Result<(), String> {
        self.end_all();
        self.chance.calm();
        self.chance.tell("all is calm");
        tokio::time::sleep(QUIET).await;
        if self.chance.is_anything_under_way() {
            return Err("a call was under way for longer than they ever are".to_owned());
        }
        reckoning::altered_are_found(&self.store, &self.log).await?;
        self.store.bring_back();
        // What a clock that was ahead has claimed, a person removes who is told of it.
        self.store.remove(&watermark::key(roles::TOPIC));
        self.abandon().await;
        if self.rewrites.is_some() {
            // Inputs of a compaction are left alone by owners and rewrites, missing ones, too. It ends first.
            self.compact_to_the_end().await?;
        }
        self.set_all_back();
        for partition in self.log.partitions() {
            self.log.rebalance(partition, 0);
        }
        let layout = self.draw_layout();
        let (life, distributor) = self.distributor(0, layout, true);
        let (end, shutdown) = (EndOfInput::now(), Shutdown::new());
        let ended = tokio::time::timeout(PATIENCE, distributor.run(&end, &shutdown)).await;
        if let Err(error) = ended.map_err(|_| format!("{} does not come to an end", life.name))? {
            return Err(format!("{} gave up: {error}", life.name));
        }
        if self.rewrites.is_some() {
            // Outputs that are missing are made again before the rest is merged.
            self.rewrite_to_the_end().await?;
            let skipped = self.compact_to_the_end().await?;
            if !skipped.is_empty() {
                return Err(format!("c has not merged {skipped:?}"));
            }
        }
        Ok(())
    }
}
