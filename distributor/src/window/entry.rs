//! A key with its time, in memory.

/// Twenty bytes, for the parts are aligned to four.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Entry {
    parts: [u32; 4],
    pub time: u32,
}

#[allow(clippy::cast_possible_truncation, reason = "parts of a 128-bit number")]
fn split(key: u128) -> [u32; 4] {
    [key as u32, (key >> 32) as u32, (key >> 64) as u32, (key >> 96) as u32]
}

impl Entry {
    pub(super) fn new(key: u128, time: u32) -> Self {
        Self { parts: split(key), time }
    }

    pub(super) fn key(&self) -> u128 {
        self.parts.iter().rev().fold(0, |key, part| (key << 32) | u128::from(*part))
    }

    pub(super) fn is_of(&self, key: u128) -> bool {
        self.parts == split(key)
    }
}
