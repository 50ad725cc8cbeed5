//! A run: two roles at work while everything goes wrong, then one alone in peace, then the reckoning.

mod replacers;
mod tables;
mod troubles;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
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
    Pace, Policy, ReplayError, ReplayTarget, Rewriter, Settings, TablePublisher, Tables,
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
    /// Tables are kept over the files.
    has_tables: bool,
    /// Whoever replaces files tells their readers.
    tells_tables: bool,
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
        let replaces = matches!(sabotage, Some(Sabotage::NoFence | Sabotage::TablesNotTold));
        let rewrites = (chance.draw(|random| random.one_in(3)) || replaces).then(|| draw_layout(&chance));
        Self {
            rewrites,
            rewriter: None,
            compactor: None,
            tells_tables: sabotage != Some(Sabotage::TablesNotTold),
            // Publishing takes time, and hides what is done too early.
            has_tables: chance.draw(|random| random.one_in(2)) && sabotage != Some(Sabotage::NoFence),
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
            self.look_at_tables()?;
        }
        self.finish().await?;
        if self.has_tables {
            self.publish_to_the_end().await?;
        }
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
        let tables = self.tables(distributor.store.clone());
        if let Some(tables) = &tables {
            let every = Duration::from_millis(self.chance.draw(|random| random.pick(&[200, 5_000, 60_000])));
            let (tables, metrics) = (tables.clone(), distributor.metrics.clone());
            distributor.companions.push(Arc::new(TablePublisher { tables, metrics, every, failure: Mutex::new(None) }));
        }
        if self.rewrites.is_some() && self.chance.draw(|random| random.one_in(2)) {
            let tables = tables.filter(|_| self.tells_tables);
            distributor.companions.push(self.make_background(&distributor, tables));
        }
        (life, distributor)
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
