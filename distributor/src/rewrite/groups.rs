//! Divides the committed batches into runs that can be replaced without one another: no file holds rows of two of them.

use std::collections::BTreeMap;

use commitlog::{Batch, Fate, FileId, LiveFile, State};

/// Whole batches, and every live file with rows of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub from: i64,
    pub to: i64,
    /// With begin and end.
    pub batches: Vec<(i64, i64, &'a Batch)>,
    pub files: Vec<(FileId, &'a LiveFile)>,
}

/// The smallest such runs, in order.
pub(super) fn groups(state: &State) -> Vec<Group<'_>> {
    let mut by_begin: BTreeMap<i64, Vec<(FileId, &LiveFile)>> = BTreeMap::new();
    for (id, file) in &state.live {
        by_begin.entry(file.from).or_default().push((*id, file));
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (from, span) in &state.spans {
        let Fate::Batch(batch) = &span.fate else { continue };
        let files = || by_begin.range(*from..span.to).flat_map(|(_, files)| files.iter().copied());
        let to = files().map(|(_, file)| file.to).fold(span.to, i64::max);
        match groups.last_mut() {
            Some(group) if *from < group.to => {
                group.to = group.to.max(to);
                group.batches.push((*from, span.to, batch));
                group.files.extend(files());
            }
            _ => {
                let batches = vec![(*from, span.to, &**batch)];
                groups.push(Group { from: *from, to, batches, files: files().collect() });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use commitlog::{Hash, PassReason, Recipe, Span, Stored};

    use super::*;

    const STORED: fn() -> Stored = || Stored { rows: 1, bytes: 1, sha256: Hash::of(b""), bounds: None };

    fn state(batches: &[(i64, i64)], files: &[(FileId, i64, i64)]) -> State {
        let mut state = State::default();
        for (from, to) in batches {
            let recipe = Recipe { layout: 1.into(), encoding: 1.into() };
            let batch = Batch { recipe, window_from: 0, clock_ms: 0, keys: STORED(), counts: 1.into() };
            state.spans.insert(*from, Span { to: *to, fate: Fate::Batch(Box::new(batch)) });
        }
        for (id, from, to) in files {
            let file = LiveFile { folder: "f".to_owned(), from: *from, to: *to, stored: STORED() };
            state.live.insert(*id, file);
        }
        state
    }

    #[test]
    fn batches_whose_rows_are_in_one_file_stay_together() {
        let (of, output) = (|from, k| FileId::Batch { from, k }, |k| FileId::Replace { replace: 0, k });
        // The output begins within the second batch and ends within the third. The fifth has no rows.
        let mut state = state(
            &[(0, 10), (10, 20), (20, 30), (40, 50), (50, 60)],
            &[(of(0, 0), 0, 10), (of(10, 0), 10, 20), (output(0), 15, 25), (of(40, 0), 40, 50)],
        );
        state.spans.insert(30, Span { to: 40, fate: Fate::Passed(PassReason::Skipped) });
        let found: Vec<(i64, i64, usize, usize)> =
            groups(&state).iter().map(|group| (group.from, group.to, group.batches.len(), group.files.len())).collect();
        assert_eq!(found, [(0, 10, 1, 1), (10, 30, 2, 2), (40, 50, 1, 1), (50, 60, 1, 0)]);
    }
}
