//! Orders for lanes. The worker waits for none: reading of a partition is paused while its lane has enough work.

use common::log::LogError;

use super::Worker;
use crate::error::PartitionError;
use crate::lane::{LaneHandle, Order, Report};

impl Worker<'_> {
    /// Drops orders for revoked partitions.
    pub(super) fn order(&mut self, id: i32, order: Order) -> Result<(), PartitionError> {
        let ordered = self.lanes.get_mut(&id).map_or(Ok(()), |lane| lane.order(order));
        self.see_to(id, ordered)
    }

    /// Some lane may have room again.
    pub(super) fn go_on(&mut self) -> Result<(), PartitionError> {
        let paused: Vec<i32> = self.lanes.iter().filter(|(_, lane)| lane.is_paused).map(|(id, _)| *id).collect();
        for id in paused {
            let handed_over = self.lanes.get_mut(&id).map_or(Ok(()), LaneHandle::hand_over);
            self.see_to(id, handed_over)?;
        }
        self.observe();
        Ok(())
    }

    /// Reading of a partition is paused while its lane has enough work.
    fn see_to(&mut self, id: i32, handed_over: Result<(), LogError>) -> Result<(), PartitionError> {
        if let Err(ended) = handed_over {
            let failure = self.failure_of(id).unwrap_or(ended.into());
            return self.lane_failed(id, failure);
        }
        let lanes = self.lanes.len();
        if let Some(lane) = self.lanes.get_mut(&id)
            && lane.is_paused == lane.has_room(lanes)
        {
            lane.is_paused = !lane.is_paused;
            if lane.is_paused { self.reader.pause(id) } else { self.reader.resume(id) }
        }
        Ok(())
    }

    /// The last report of a lane that has ended. Earlier reports of other lanes are handled next.
    fn failure_of(&mut self, id: i32) -> Option<PartitionError> {
        let generation = self.lanes.get(&id)?.generation;
        while let Ok((reporter, of, report)) = self.reports.try_recv() {
            match report {
                Report::Failed(error) if (reporter, of) == (id, generation) => return Some(error),
                report => self.earlier_reports.push_back((reporter, of, report)),
            }
        }
        None
    }
}
