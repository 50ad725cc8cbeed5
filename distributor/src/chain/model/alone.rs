//! One worker alone, from a world at rest to the end, with an operator who does what refusals say.

use super::Model;
use super::check::{Property, Violation};
use super::refusal::Refusal;
use super::worker::{Act, Phase};
use super::world::World;

/// More than any run takes.
const MAX_STEPS: usize = 300;

impl Model {
    /// # Errors
    /// It does not come to the end, or what stands there is not what should.
    pub(super) fn finish_alone(&self, world: &World) -> Result<(), Violation> {
        let mut world = *world;
        if world.deleted.is_some() && world.origin.is_some() {
            // Files were lost, and are wanted back.
            world.set_offset(Some(0));
        }
        for _ in 0..MAX_STEPS {
            let worker = world.workers[0];
            if worker.commit.is_none()
                && let Phase::Fill { from, .. } = worker.phase
                && self.scenario.records(from, world.latest) == 0
            {
                return self.check_end(&world, from);
            }
            let act = self.only_way(&world);
            let refusal = self.act(&mut world, 0, act)?;
            match refusal {
                None => {}
                Some(Refusal::OffsetWithoutChain) => world.set_offset(None),
                Some(Refusal::OffsetBeyondTheLog) => world.set_offset(Some(world.complete_end())),
                Some(Refusal::LostHead) => {
                    if let Some(cut) = world.stuck() {
                        world.remove_batch(cut.from);
                    }
                }
                Some(refusal) => return Err(Violation::new(Property::NeverWritten, format!("refused: {refusal:?}"))),
            }
        }
        Err(Violation::new(Property::NeverWritten, format!("no end after {MAX_STEPS} steps, at {world:?}")))
    }

    /// What a worker does that nothing disturbs. It ends a batch where the log ends.
    fn only_way(&self, world: &World) -> Act {
        let worker = world.workers[0];
        match worker.phase {
            _ if worker.commit.is_some() => Act::Commit,
            Phase::Fill { .. } => {
                let last = (0..world.latest).rev().find(|offset| self.scenario.is_record(*offset));
                Act::ReadTo(last.map_or(world.latest, |last| last + 1))
            }
            Phase::PutFiles(_) => {
                let mut acts = Vec::new();
                self.acts(world, 0, &mut acts);
                acts.into_iter().find(|act| matches!(act, Act::PutFile(_))).unwrap_or(Act::GoOn)
            }
            _ => Act::GoOn,
        }
    }

    fn check_end(&self, world: &World, end: u8) -> Result<(), Violation> {
        self.check(world)?;
        let failed = |what: String| Err(Violation::new(Property::NeverWritten, what));
        if world.complete_end() != end && world.origin.is_some() {
            return failed(format!("all is complete up to {} only", world.complete_end()));
        }
        if world.origin.is_none() && self.scenario.records(world.earliest, world.latest) != 0 {
            return failed("nothing was begun".to_owned());
        }
        // That the files of complete batches hold the right rows, and are there but for one that was deleted, is checked
        // above. That one has to be there again if its records are.
        if let Some((from, number)) = world.deleted
            && let Some(completion) = world.completions[usize::from(from)]
            && completion.rows[0][usize::from(number)] != 0
            && world.file(from, number).is_none()
            && world.earliest <= from
        {
            return failed(format!("file {number} of {from} is not made again"));
        }
        Ok(())
    }
}
