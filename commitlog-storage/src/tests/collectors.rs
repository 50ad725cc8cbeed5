//! Collectors beside one who appends, in interleavings of their requests that a seed picks, with crashes at any of them.

use std::pin::Pin;
use std::task::Poll;

use super::pauses::{now, polled};
use super::watched::Watched;
use super::*;

type Run = Pin<Box<dyn Future<Output = ()>>>;

/// Which actor goes on, and whether it crashes before that.
type Step = (u8, u8);
const CRASH: u8 = 12;

struct Scene {
    memory: MemoryStore,
    entries: Vec<Vec<commitlog::Op>>,
}

impl Scene {
    fn log(&self) -> CommitLog {
        CommitLog::new(Arc::new(Watched::interleaved(self.memory.clone())), "t", 3)
    }

    fn begin(&self, place: usize) -> Run {
        let log = self.log();
        if place > 0 {
            return Box::pin(async move {
                log.collect(NOTHING, "collector").await.expect("nothing is damaged");
            });
        }
        let (entries, appended) = (self.entries.clone(), self.appended());
        Box::pin(async move {
            let mut tail = log.load().await.expect("nothing is damaged").tail;
            for (n, ops) in entries.iter().enumerate().skip(appended) {
                let Append::Appended { tail: after } = log.append(tail, &format!("{n}"), ops).await.expect("appended")
                else {
                    panic!("nobody else appends");
                };
                tail = after;
            }
        })
    }

    fn appended(&self) -> usize {
        let tail = now(CommitLog::new(Arc::new(self.memory.clone()), "t", 3).load()).expect("nothing is damaged").tail;
        usize::try_from(tail.next).expect("few")
    }

    /// Everything that the newest checkpoint names is there, and the entries after it.
    fn check(&self) {
        let log = CommitLog::new(Arc::new(self.memory.clone()), "t", 3);
        let recent = now(log.load()).expect("it can be loaded").recent;
        for named in recent.checkpoint().iter().flat_map(|checkpoint| &checkpoint.segments) {
            now(log.segment(named)).expect("the segment is there");
        }
    }
}

fn run(entries: &[Vec<commitlog::Op>], steps: &[Step], actors: usize) -> Scene {
    let scene = Scene { memory: MemoryStore::default(), entries: entries.to_vec() };
    let mut running: Vec<Run> = (0..actors).map(|place| scene.begin(place)).collect();
    let (mut objects, mut is_appended) = (Vec::new(), false);
    let rest = (0..u8::MAX).cycle().map(|place| (place, u8::MAX)).take(100_000);
    for (place, chance) in steps.iter().copied().chain(rest) {
        let place = usize::from(place) % actors;
        // An appender that comes again would not know whether its last request lands.
        if chance < CRASH && place > 0 {
            running[place] = scene.begin(place);
        }
        if place == 0 && is_appended {
            continue;
        }
        if let Poll::Ready(()) = polled(&mut running[place].as_mut()) {
            is_appended |= place == 0;
            if is_appended && chance == u8::MAX && scene.appended() == entries.len() {
                return scene;
            }
            running[place] = scene.begin(place);
        }
        let now = scene.memory.keys("_commits/t/3/");
        if now != objects {
            objects = now;
            scene.check();
        }
    }
    panic!("it never ends");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_checkpoint_is_whole_at_every_moment(
        choices in prop::collection::vec(any::<u8>(), 1..60),
        steps in prop::collection::vec(any::<Step>(), 0..3_000),
        actors in 2usize..5,
    ) {
        let history = History::of(&choices);
        commitlog::testing::with_full_spans(3, || {
            let scene = run(&history.entries, &steps, actors);
            let log = CommitLog::new(Arc::new(scene.memory.clone()), "t", 3);
            prop_assert_eq!(now(log.load_state()).unwrap().0, history.state);
            // What crashed collectors left is garbage, and goes.
            now(log.collect(NOTHING, "collector")).unwrap();
            let root = now(log.root()).unwrap();
            prop_assert_eq!(scene.memory.keys("_commits/t/3/checkpoints/").len(), root.checkpoints.len());
            Ok(())
        })?;
    }
}
