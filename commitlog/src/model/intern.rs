//! Numbers for values: worlds are many, and consist of few different parts.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

pub(super) struct Interned<T> {
    numbers: HashMap<T, u32, FixedState>,
    values: Vec<T>,
}

impl<T: Clone + Eq + Hash> Interned<T> {
    pub(super) fn new() -> Self {
        Self { numbers: HashMap::with_hasher(FixedState::default()), values: Vec::new() }
    }

    pub(super) fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = u32::try_from(self.values.len()).expect("fewer than 4 billion different values");
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}
