//! What reads a record's value as an event: the rules of a layout, or, for layouts of version 0.1.0, the reader of then.

mod version_0_1_0;

use common::event::{Event, EventFormat, EventProblem, TimeRule, parse_event};

pub(crate) struct EventReader(Kind);

enum Kind {
    Rules(Box<EventFormat>),
    Version010(TimeRule),
}

impl EventReader {
    pub(crate) fn by_rules(format: EventFormat) -> Self {
        Self(Kind::Rules(Box::new(format)))
    }

    /// Layouts of version 0.1.0 had no rules but the names of the first preset.
    pub(crate) fn of_0_1_0(time: TimeRule) -> Self {
        Self(Kind::Version010(time))
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read<'a>(&self, value: &'a [u8]) -> Result<Event<'a>, EventProblem> {
        match &self.0 {
            Kind::Rules(format) => parse_event(value, format),
            Kind::Version010(time) => version_0_1_0::parse_event(value, time),
        }
    }
}
