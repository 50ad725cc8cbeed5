//! Every kind of actor behind one face.

use crate::actor::{Action, Answer};
use crate::head::{Head, ReplaceSlot};
use crate::op::Recipe;
use crate::{Abandoner, Collector, Owner, Replacer};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(clippy::large_enum_variant, reason = "each is kept once, behind a pointer")]
pub(super) enum Actor {
    Owner(Owner),
    Replacer(Replacer),
    Abandoner(Abandoner),
    Collector(Collector),
}

/// What a new actor of a place is like, at the start and after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// With the number of its layout: 1 makes a file for each of two folders, 2 makes one file.
    Owner {
        layout: u8,
    },
    Replacer(ReplaceSlot),
    Abandoner,
    /// Keeps so many entries before the checkpoint.
    Collector {
        keep: u64,
    },
}

pub(super) fn recipe(layout: u8) -> Recipe {
    Recipe { layout: layout.into(), encoding: 0.into() }
}

impl Kind {
    pub(super) fn begin(self) -> Actor {
        match self {
            Self::Owner { layout } => Actor::Owner(Owner::new(recipe(layout), true)),
            Self::Replacer(slot) => Actor::Replacer(Replacer::new(slot)),
            Self::Abandoner => Actor::Abandoner(Abandoner::default()),
            Self::Collector { keep } => Actor::Collector(Collector::new(keep)),
        }
    }
}

impl Actor {
    pub(super) fn next(&self) -> Action {
        match self {
            Self::Owner(actor) => actor.next(),
            Self::Replacer(actor) => actor.next(),
            Self::Abandoner(actor) => actor.next(),
            Self::Collector(actor) => actor.next(),
        }
    }

    pub(super) fn hears(&self, answer: Answer) -> Self {
        let mut after = self.clone();
        let heard = match &mut after {
            Self::Owner(actor) => actor.heard(answer),
            Self::Replacer(actor) => actor.heard(answer),
            Self::Abandoner(actor) => actor.heard(answer),
            Self::Collector(actor) => actor.heard(answer),
        };
        heard.expect("the model answers what was asked");
        after
    }

    /// What it has folded.
    pub(super) fn head(&self) -> Option<&Head> {
        match self {
            Self::Owner(actor) => Some(actor.head()),
            Self::Replacer(actor) => Some(actor.head()),
            Self::Abandoner(actor) => Some(actor.head()),
            Self::Collector(_) => None,
        }
    }
}
