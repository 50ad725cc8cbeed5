//! Log times in two parts. An entry's time is a 32-bit number of milliseconds within an absolute epoch of 49.7 days:
//! usually there is one epoch, sometimes two.

pub(super) const EPOCH_MS: i64 = 1 << 32;

/// Epoch, and milliseconds within it.
pub(super) fn split(time_ms: i64) -> (i64, u32) {
    // The remainder is below the width, which fits.
    (time_ms.div_euclid(EPOCH_MS), u32::try_from(time_ms.rem_euclid(EPOCH_MS)).unwrap_or(u32::MAX))
}

pub(super) fn join(epoch: i64, within: u32) -> i64 {
    epoch * EPOCH_MS + i64::from(within)
}

/// A value for each epoch, in order.
#[derive(Debug, Clone)]
pub(super) struct Epochs<T>(Vec<(i64, T)>);

impl<T> Default for Epochs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> Epochs<T> {
    /// The value of an epoch, begun if necessary.
    pub(super) fn of(&mut self, epoch: i64) -> &mut T {
        // The newest one is requested nearly always.
        let at = match self.0.last() {
            Some((newest, _)) if *newest == epoch => self.0.len() - 1,
            _ => self.0.partition_point(|(other, _)| *other < epoch),
        };
        if self.0.get(at).is_none_or(|(other, _)| *other != epoch) {
            self.0.insert(at, (epoch, T::default()));
        }
        &mut self.0[at].1
    }
}

impl<T> Epochs<T> {
    /// Those that may contain a time of at least `from_ms`, newest first.
    pub(super) fn since(&self, from_ms: i64) -> impl Iterator<Item = (i64, &T)> {
        let oldest = from_ms.div_euclid(EPOCH_MS);
        self.iter().rev().take_while(move |(epoch, _)| *epoch >= oldest)
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, &T)> + ExactSizeIterator {
        self.0.iter().map(|(epoch, of_it)| (*epoch, of_it))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (i64, &mut T)> {
        self.0.iter_mut().map(|(epoch, of_it)| (*epoch, of_it))
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (i64, T)> {
        self.0.into_iter()
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(i64, &T) -> bool) {
        self.0.retain(|(epoch, of_it)| stays(*epoch, of_it));
    }
}
