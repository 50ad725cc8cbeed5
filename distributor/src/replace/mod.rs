//! What a replacer does with files, whatever its outputs are made from: it stages them, waits for the fence, deletes inputs and
//! publishes outputs. What is done when, the core decides ([`commitlog::Replacer`]).

mod carrier;
mod fence;

use commitlog::Reason;

pub(crate) use carrier::{Carrier, Ground};
pub use fence::Fence;

/// The command that goes on with a replace.
pub(crate) fn command(reason: Reason) -> &'static str {
    match reason {
        Reason::Compaction | Reason::Forget => "compact",
        Reason::Restore | Reason::Rewrite => "rewrite",
    }
}

/// A replace takes no further scope once it has so many inputs. A single scope may have more.
pub(crate) const MAX_INPUTS: usize = 20_000;
/// … or so many outputs.
pub(crate) const MAX_OUTPUTS: usize = 500;
