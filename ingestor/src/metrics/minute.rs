//! Rates over the last minute: a slot for each second, reused after sixty. A second is counted from the start of the
//! process; the caller passes the current one.

const SECONDS: usize = 60;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u64,
    events: u64,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Minute {
    slots: [Slot; SECONDS],
}

/// Means over the last minute, or since the start if that is more recent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub events_per_second: f64,
    pub bytes_per_second: f64,
}

impl Minute {
    pub(super) fn new() -> Self {
        Self { slots: [Slot::default(); SECONDS] }
    }

    pub(super) fn add(&mut self, second: u64, events: u64, bytes: u64) {
        let index = usize::try_from(second % SECONDS as u64).unwrap_or_default();
        let slot = &mut self.slots[index];
        if slot.second != second {
            *slot = Slot { second, ..Slot::default() };
        }
        slot.events += events;
        slot.bytes += bytes;
    }

    pub(super) fn rates(&self, now: u64) -> Rates {
        let recent = self.slots.iter().filter(|slot| slot.second <= now && now - slot.second < SECONDS as u64);
        let (events, bytes) = recent.fold((0, 0), |(events, bytes), slot| (events + slot.events, bytes + slot.bytes));
        let seconds = now.saturating_add(1).min(SECONDS as u64);
        Rates { events_per_second: mean(events, seconds), bytes_per_second: mean(bytes, seconds) }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
pub(super) fn mean(total: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { total as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_young_process_is_measured_over_its_life() {
        let mut minute = Minute::new();
        minute.add(0, 10, 100);
        minute.add(1, 20, 0);
        assert_eq!(minute.rates(1), Rates { events_per_second: 15.0, bytes_per_second: 50.0 });
    }

    proptest! {
        #[test]
        fn only_the_last_sixty_seconds_count(steps in prop::collection::vec((0_u64..90, 0_u64..1_000), 0..40), idle in 0_u64..90) {
            let (mut minute, mut second, mut all) = (Minute::new(), 0, Vec::new());
            for (later, events) in steps {
                second += later;
                minute.add(second, events, 2 * events);
                all.push((second, events));
            }
            let now = second + idle;
            let expected: u64 = all.iter().filter(|(at, _)| at + 60 > now).map(|(_, events)| events).sum();
            let rates = minute.rates(now);
            prop_assert_eq!(rates.events_per_second, mean(expected, (now + 1).min(60)));
            prop_assert_eq!(rates.bytes_per_second, 2.0 * rates.events_per_second);
        }
    }
}
