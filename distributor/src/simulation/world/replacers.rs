//! Commands and background work that replace files.

use super::*;

impl World {
    pub(super) fn start_rewriter_if_gone(&mut self) {
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

    pub(super) fn start_compactor_if_gone(&mut self) {
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
    pub(super) fn store_of(&self, life: &Arc<Life>) -> Arc<dyn Store> {
        let store = StoreOf { memory: self.store.clone(), life: life.clone(), script: None, is_resting: false };
        let policy = RetryPolicy {
            patience: Some(QUIET),
            wait_for_operator: false,
            shutdown: Shutdown::new(),
            on_retry: Arc::new(|_| {}),
        };
        Arc::new(RetryingStore::new(Arc::new(store), policy))
    }

    pub(super) fn make_compactor(&self, life: &Arc<Life>) -> Compactor {
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
            tables: self.tables(self.store_of(life)).filter(|_| self.tells_tables),
            accepts_lost: self.trouble == Trouble::FilesAreLost && self.chance.draw(|random| random.one_in(2)),
            since_ms: self
                .chance
                .draw(|random| random.one_in(3))
                .then(|| common::clock::Clock::now_ms(&*self.chance) - 20_000),
            pace: Pace::new(None),
            on_file: Box::new(|_| {}),
        }
    }

    pub(super) fn make_rewriter(&self, life: &Arc<Life>) -> Rewriter {
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
            tables: self.tables(self.store_of(life)).filter(|_| self.tells_tables),
            accepts_lost: false,
            fence: Fence::Wait(self.fence),
            on_batch: Box::new(|_| {}),
        }
    }

    pub(super) async fn look_after_replacers(&mut self) -> Result<(), String> {
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
    pub(super) async fn compact_to_the_end(&mut self) -> Result<BTreeSet<String>, String> {
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
    pub(super) async fn rewrite_to_the_end(&mut self) -> Result<(), String> {
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

    /// Merges small files beside the batches of a role.
    pub(super) fn make_background(&self, role: &Distributor, tables: Option<Arc<Tables>>) -> Arc<dyn Companion> {
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
            tables,
            fence: OnceCell::new_with(Some(Some(Fence::Wait(self.fence)))),
        })
    }
}
