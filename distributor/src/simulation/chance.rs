//! What happens to each call of a run, and the record of it.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::clock::{BootClock, Clock};
use tokio::time::Instant;

use super::random::Random;
use crate::host::Host;

/// The first of a month, midnight.
pub(super) const MONTH_MS: i64 = 1_622_505_600_000;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Fine,
    Fails,
    /// It takes effect, and the caller hears of a failure.
    AnswerLost,
    /// The caller hears of a failure; after this time it takes effect all the same.
    Late(Duration),
    /// The process dies with the call on its way, which never takes effect.
    KilledBefore,
    /// The process dies while the answer is on its way.
    KilledAfter,
    /// The process dies, and later the call takes effect.
    KilledLate(Duration),
}

/// One process, from its start to its death. The dead make no more calls.
pub(super) struct Life {
    pub name: String,
    is_over: AtomicBool,
}

impl Life {
    pub fn new(name: String) -> Self {
        Self { name, is_over: AtomicBool::new(false) }
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Does not return to the dead.
    pub async fn goes_on(&self) {
        if self.is_over() {
            pending::<()>().await;
        }
    }
}

/// Shared by all parts of a run: the one source of chance, virtual wall-clock time, and the trace.
pub(super) struct Chance {
    random: Mutex<Random>,
    trace: Mutex<Vec<String>>,
    is_calm: AtomicBool,
    /// One call in so many is disturbed.
    calls_per_fault: u64,
    begun: Instant,
    begun_ms: i64,
    /// Calls that will take effect later.
    under_way: AtomicUsize,
    /// How far the wall clocks of processes are ahead, milliseconds. The clock of the store is right.
    walls_ahead_ms: AtomicI64,
    /// The store has no room before this moment, as milliseconds since boot.
    full_until_ms: AtomicI64,
}

/// The wall clock of a process.
pub(super) struct WallClock(pub Arc<Chance>);

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        self.0.now_ms() + self.0.walls_ahead_ms.load(Ordering::SeqCst)
    }
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            calls_per_fault: random.pick(&[6, 12, 25, 60]),
            begun: Instant::now(),
            // Append times go back a little, and the model knows no earlier month.
            begun_ms: MONTH_MS + random.between(1_000, 86_399_999),
            random: Mutex::new(random),
            trace: Mutex::default(),
            is_calm: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            walls_ahead_ms: AtomicI64::new(0),
            full_until_ms: AtomicI64::new(0),
        }
    }

    pub fn draw<T>(&self, with: impl FnOnce(&mut Random) -> T) -> T {
        with(&mut self.random.lock().unwrap())
    }

    pub fn host(self: &Arc<Self>) -> Host {
        let chance = self.clone();
        Host { boot_clock: self.clone(), random: Arc::new(move || chance.draw(Random::next)) }
    }

    pub fn tell(&self, what: impl std::fmt::Display) {
        let at = self.begun.elapsed().as_secs_f64();
        self.trace.lock().unwrap().push(format!("{at:>10.3} s  {what}"));
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().clone()
    }

    /// The wall clocks of processes jump.
    pub fn jump(&self, ahead_ms: i64) {
        self.walls_ahead_ms.store(ahead_ms, Ordering::SeqCst);
    }

    /// The store has no room for some time.
    pub fn fill_up(&self, for_ms: i64) {
        self.full_until_ms.store(self.since_boot_ms() + for_ms, Ordering::SeqCst);
    }

    pub fn is_full(&self) -> bool {
        self.since_boot_ms() < self.full_until_ms.load(Ordering::SeqCst)
    }

    /// No more faults.
    pub fn calm(&self) {
        self.jump(0);
        self.fill_up(0);
        self.is_calm.store(true, Ordering::SeqCst);
    }

    /// What becomes of a call that changes something, or only looks.
    pub fn fate(&self, changes: bool) -> Fate {
        if self.is_calm.load(Ordering::SeqCst) {
            return Fate::Fine;
        }
        self.draw(|random| {
            if !random.one_in(self.calls_per_fault) {
                return Fate::Fine;
            }
            let late = Duration::from_millis(random.below(30_000));
            match random.below(12) {
                0..=2 if changes => Fate::AnswerLost,
                3..=4 if changes => Fate::Late(late),
                5 if changes => Fate::KilledLate(late),
                6 if changes => Fate::KilledAfter,
                7 => Fate::KilledBefore,
                _ => Fate::Fails,
            }
        })
    }

    /// Whether the records that come next cannot be read, this time.
    pub fn is_unreadable(&self) -> bool {
        !self.is_calm.load(Ordering::SeqCst) && self.draw(|random| random.one_in(self.calls_per_fault * 4))
    }

    /// How long a call is under way.
    pub fn latency(&self) -> Duration {
        let is_calm = self.is_calm.load(Ordering::SeqCst);
        self.draw(|random| {
            let is_slow = !is_calm && random.one_in(40);
            Duration::from_millis(1 + random.below(if is_slow { 20_000 } else { 20 }))
        })
    }

    pub fn sent(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
    }

    pub fn landed(&self) {
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn is_anything_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }
}

impl BootClock for Chance {
    fn since_boot_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }
}

impl Clock for Chance {
    fn now_ms(&self) -> i64 {
        self.begun_ms + i64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }
}
